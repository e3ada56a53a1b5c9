"""An ONNX file as a plain torch module, for peers that read torch modules only.

One submodule per ONNX node, run in file order; residual connections come out by themselves. Only
the operators of the suites are known. Our own tool reads the ONNX file by its own reader, so the
two sides share nothing but the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import Tensor, nn

# Float32 sums of up to a few thousand terms in another order; relative to max(1, |output|).
AGREEMENT = 1e-5

Attributes = dict[str, int | float | bytes | list[int]]


class UnknownOperatorError(NotImplementedError):
    """The reconstruction has no torch counterpart for a node."""


class MismatchError(AssertionError):
    """The reconstruction does not compute what ONNX Runtime computes."""


class ConstantShift(nn.Module):
    """x - c with c from the file."""

    def __init__(self, constant: Tensor) -> None:
        """Keep `constant`, broadcastable to the input."""
        super().__init__()
        self.register_buffer("constant", constant)
        self.constant: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The shifted input, in its shape."""
        return x - self.constant


class ConstantScale(nn.Module):
    """x / c with c from the file."""

    def __init__(self, constant: Tensor) -> None:
        """Keep `constant`, broadcastable to the input, without zeros."""
        super().__init__()
        self.register_buffer("constant", constant)
        self.constant: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """The scaled input, in its shape."""
        return x / self.constant


class Sum(nn.Module):
    """x + y where two branches rejoin."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The sum of two tensors of one shape."""
        return x + y


def refuse(node: onnx.NodeProto, reason: str) -> UnknownOperatorError:
    """The error for a node outside the suites' operators."""
    return UnknownOperatorError(
        f"cannot rebuild node {node.name or node.output[0]!r} ({node.op_type}) in torch: {reason}. "
        "Add its case in benchmarks/peers/onnx_module.py."
    )


def integers(attributes: Attributes, name: str, default: list[int]) -> list[int]:
    """An attribute that holds a list of integers, or its default."""
    value = attributes.get(name, default)
    assert isinstance(value, list), f"{name} is not a list"
    return value


def height_and_width(attributes: Attributes, name: str) -> tuple[int, int]:
    """An attribute that holds one integer per image axis; 1 and 1 where absent, as in ONNX."""
    height, width = integers(attributes, name, [1, 1])
    return height, width


def build_gemm(node: onnx.NodeProto, attributes: Attributes, constants: list[Tensor]) -> nn.Module:
    """Gemm with constant weight (out, in) after transB, and bias."""
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        raise refuse(node, "alpha and beta other than 1")
    weight, bias = constants
    weight = weight if attributes.get("transB", 0) else weight.T
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear


def build_conv(node: onnx.NodeProto, attributes: Attributes, constants: list[Tensor]) -> nn.Module:
    """2-D convolution with symmetric padding and bias."""
    weight, bias = constants
    pads = integers(attributes, "pads", [0, 0, 0, 0])
    if pads[:2] != pads[2:] or weight.ndim != 4:
        raise refuse(node, f"pads {pads}, weight shape {tuple(weight.shape)}")
    groups = attributes.get("group", 1)
    assert isinstance(groups, int)
    conv = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        (weight.shape[2], weight.shape[3]),
        stride=height_and_width(attributes, "strides"),
        padding=(pads[0], pads[1]),
        dilation=height_and_width(attributes, "dilations"),
        groups=groups,
    )
    conv.load_state_dict({"weight": weight, "bias": bias})
    return conv


def build_batch_norm(
    node: onnx.NodeProto, attributes: Attributes, constants: list[Tensor]
) -> nn.Module:
    """Batch normalisation by constant statistics."""
    scale, bias, mean, variance = constants
    epsilon = attributes.get("epsilon", 1e-5)
    assert isinstance(epsilon, float)
    norm = nn.BatchNorm2d(len(scale), eps=epsilon)
    state = {"weight": scale, "bias": bias, "running_mean": mean, "running_var": variance}
    norm.load_state_dict(state, strict=False)
    return norm


def build_pool(node: onnx.NodeProto, attributes: Attributes, constants: list[Tensor]) -> nn.Module:
    """Unpadded 2-D pooling."""
    pads = integers(attributes, "pads", [0, 0, 0, 0])
    if any(pads):
        raise refuse(node, f"pads {pads}")
    kernel = height_and_width(attributes, "kernel_shape")
    stride = height_and_width(attributes, "strides")
    return (nn.MaxPool2d if node.op_type == "MaxPool" else nn.AvgPool2d)(kernel, stride)


def build_pad(node: onnx.NodeProto, attributes: Attributes, constants: list[Tensor]) -> nn.Module:
    """Padding by nothing, which exporters leave before a pooling."""
    pads = integers(attributes, "pads", [1])
    if any(pads):
        raise refuse(node, f"pads {pads}")
    return nn.Identity()


def build_flatten(
    node: onnx.NodeProto, attributes: Attributes, constants: list[Tensor]
) -> nn.Module:
    """All axes after the batch in one."""
    if attributes.get("axis", 1) != 1:
        raise refuse(node, "an axis other than 1")
    return nn.Flatten()


Builder = Callable[[onnx.NodeProto, Attributes, list[Tensor]], nn.Module]
BUILDERS: dict[str, Builder] = {
    "Gemm": build_gemm,
    "Conv": build_conv,
    "BatchNormalization": build_batch_norm,
    "Relu": lambda node, attributes, constants: nn.ReLU(),
    "Sigmoid": lambda node, attributes, constants: nn.Sigmoid(),
    "Add": lambda node, attributes, constants: Sum(),
    "Flatten": build_flatten,
    "Sub": lambda node, attributes, constants: ConstantShift(constants[0]),
    "Div": lambda node, attributes, constants: ConstantScale(constants[0]),
    "AveragePool": build_pool,
    "MaxPool": build_pool,
    "Pad": build_pad,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One node: which submodule turns which named tensors into which."""

    submodule: str
    inputs: tuple[str, ...]
    output: str


class OnnxModule(nn.Module):
    """The computation of an ONNX graph with one input and one output."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        """Rebuild every node; raises UnknownOperatorError if one is outside `BUILDERS`."""
        super().__init__()
        constants = {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in graph.initializer
        }
        (self.entry,) = (value.name for value in graph.input if value.name not in constants)
        self.exit = graph.output[0].name
        self.steps: list[Step] = []
        for position, node in enumerate(graph.node):
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                value = numpy_helper.to_array(attributes["value"]).copy()
                constants[node.output[0]] = torch.from_numpy(value)
                continue
            if node.op_type not in BUILDERS:
                raise refuse(node, f"known operators are {', '.join(sorted(BUILDERS))}")
            fixed = [constants[name] for name in node.input if name in constants]
            moving = tuple(name for name in node.input if name not in constants)
            submodule = f"node_{position}"
            self.add_module(submodule, BUILDERS[node.op_type](node, attributes, fixed))
            self.steps.append(Step(submodule, moving, node.output[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (batch, outputs), of inputs of shape (batch, *input)."""
        values = {self.entry: x}
        for step in self.steps:
            submodule = self.get_submodule(step.submodule)
            values[step.output] = submodule(*(values[name] for name in step.inputs))
        return values[self.exit]


def disagreement(module: nn.Module, model: Path, lower: Tensor, upper: Tensor) -> float:
    """Largest difference from ONNX Runtime at random points of a box.

    Args:
        module: the reconstruction.
        model: the ONNX file.
        lower: shape (1, *input).
        upper: the same shape.

    Returns:
        max |module(x) - runtime(x)| / max(1, |runtime(x)|) over 16 points.
    """
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rng = torch.Generator().manual_seed(0)
    worst = 0.0
    for _ in range(16):
        x = lower + (upper - lower) * torch.rand(lower.shape, generator=rng)
        expected = np.asarray(session.run(None, {name: x.numpy()})[0])
        with torch.no_grad():
            got = module(x).numpy()
        worst = max(worst, float((np.abs(got - expected) / np.maximum(1, np.abs(expected))).max()))
    return worst


def load_module(model: Path, lower: Tensor, upper: Tensor) -> OnnxModule:
    """The ONNX file as a frozen torch module, checked against ONNX Runtime in a box.

    Raises:
        UnknownOperatorError: if a node has no counterpart here.
        MismatchError: if the two differ by more than `AGREEMENT`.
    """
    module = OnnxModule(onnx.load(model).graph).eval().requires_grad_(False)
    worst = disagreement(module, model, lower, upper)
    if not worst <= AGREEMENT:
        raise MismatchError(
            f"the torch reconstruction of {model.name} differs from ONNX Runtime by {worst:.2e}, "
            f"expected at most {AGREEMENT:.0e}. Compare node by node in onnx_module.py."
        )
    return module
