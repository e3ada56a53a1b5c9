"""The operations of a model file as steps on flat vectors: affine, Relu, or maxima of windows.

Every tensor is flattened, the batch axis (of length 1) included, so there is no batch to get wrong.
An operator or form that is not listed here is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from verify.check.linear import Array, Conv, Dense, Index, Linear, Pick, Scale, window_taps
from verify.check.onnx_bytes import Model, Operation
from verify.check.refusal import Refusal

LARGEST = 2.0**60
"""Weights beyond this are refused, so that products of two of them stay far from overflow."""


@dataclass(frozen=True)
class Affine:
    """Sum of linear maps of earlier values, plus a bias.

    `bias_size` bounds what the bias was computed from, where it is a difference; `exact` is set
    for moves of data, which no execution rounds.
    """

    parts: Sequence[tuple[str, Linear]]
    bias: Array
    bias_size: Array
    exact: bool = False


@dataclass(frozen=True)
class Relu:
    """max(x, 0)."""

    source: str


@dataclass(frozen=True)
class MaxPool:
    """The largest of some entries; `windows[i]` lists them, padded by repeating."""

    source: str
    windows: Index


Step = Affine | Relu | MaxPool


@dataclass
class Network:
    """Steps by the name of what they compute, in order; names are those of the file."""

    input_name: str
    shapes: dict[str, tuple[int, ...]]
    steps: dict[str, Step] = field(default_factory=dict)
    output_name: str = ""

    def size(self, name: str) -> int:
        """How many numbers a value holds."""
        return int(np.prod(self.shapes[name]))


def read_network(model: Model) -> Network:
    """The steps of a model; raises Refusal at the first operation that is not known."""
    network = Network(model.input_name, {model.input_name: model.input_shape})
    reading = Reading(model, network, dict(model.constants))
    for op in model.operations:
        reading.read(op)
    if model.output_name not in network.steps:
        raise Refusal("the model's output does not come from its operations")
    network.output_name = model.output_name
    for step in network.steps.values():
        for _, linear in step.parts if isinstance(step, Affine) else []:
            weights = getattr(linear, "weight", getattr(linear, "kernel", None))
            weights = getattr(linear, "factor", weights)
            if weights is not None and np.abs(weights).max(initial=0.0) > LARGEST:
                raise Refusal(f"a weight is larger than {LARGEST:g}")
    return network


@dataclass
class Reading:
    """What is known while the operations are read one after another."""

    model: Model
    network: Network
    constants: dict[str, Any]

    def read(self, op: Operation) -> None:
        """Turn one operation into a step, or into a constant."""
        if op.kind == "Constant":
            if set(op.attributes) != {"value"}:
                raise Refusal("a Constant is not given as a tensor")
            self.constants[op.outputs[0]] = op.attributes["value"]
            return
        used = [name for name in op.outputs if name]
        if len(used) != 1 or used[0] in self.network.shapes or used[0] in self.constants:
            raise Refusal(f"operation {op.kind!r} gives {len(used)} values, or one given before")
        variable = [name for name in op.inputs if name in self.network.shapes]
        for name in op.inputs:
            if name and name not in self.network.shapes and name not in self.constants:
                raise Refusal(f"{op.kind!r} reads {name!r}, which nothing computes")
        rule = getattr(self, f"read_{op.kind.lower()}", None)
        if rule is None or not variable or op.inputs[0] not in (*variable, *self.constants):
            raise Refusal(f"operator {op.kind!r} is not known to the checker")
        rule(op, op.outputs[0])

    # What the rules below share.

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a variable; refused for a constant in its place."""
        if name not in self.network.shapes:
            raise Refusal(f"{name!r} is a constant where the checker expects a variable")
        return self.network.shapes[name]

    def constant(self, op: Operation, place: int, default: Any = None) -> Any:
        """An input that has to be a constant; the default where it is left out."""
        if place >= len(op.inputs) or not op.inputs[place]:
            if default is None:
                raise Refusal(f"{op.kind!r} lacks input {place}")
            return default
        if op.inputs[place] not in self.constants:
            raise Refusal(f"{op.kind!r} has a variable as input {place}")
        return self.constants[op.inputs[place]]

    def affine(self, out: str, shape: tuple[int, ...], parts: Any, bias: Any = None) -> None:
        """Enter an affine step."""
        size = int(np.prod(shape))
        full = np.zeros(size) if bias is None else np.broadcast_to(bias, shape).reshape(-1).copy()
        self.enter(out, shape, Affine(parts, full, np.abs(full)))

    def enter(self, out: str, shape: tuple[int, ...], step: Step) -> None:
        """Enter a step under its name."""
        self.network.shapes[out] = tuple(int(length) for length in shape)
        self.network.steps[out] = step

    def move(self, op: Operation, out: str, change: Any) -> None:
        """Enter a move of data, as `change` does it to an array."""
        source = op.inputs[0]
        shape = self.shape(source)
        numbers = np.arange(int(np.prod(shape))).reshape(shape)
        moved = np.asarray(change(numbers))
        pick = Pick(moved.reshape(-1), numbers.size)
        zeros = np.zeros(moved.size)
        self.enter(out, moved.shape, Affine([(source, pick)], zeros, zeros, exact=True))

    def read_identity(self, op: Operation, out: str) -> None:
        """y = x."""
        self.move(op, out, lambda x: x)

    read_dropout = read_identity

    def read_flatten(self, op: Operation, out: str) -> None:
        """All axes before and from `axis` joined."""
        axis = int(op.attributes.get("axis", 1))
        self.move(op, out, lambda x: x.reshape(int(np.prod(x.shape[:axis])), -1))

    def read_reshape(self, op: Operation, out: str) -> None:
        """Another shape; 0 keeps a length."""
        wanted = [int(length) for length in np.ravel(self.constant(op, 1))]
        shape = self.shape(op.inputs[0])
        if 0 in wanted and op.attributes.get("allowzero", 0):
            raise Refusal("Reshape with allowzero")
        if any(n == 0 and i >= len(shape) for i, n in enumerate(wanted)):
            raise Refusal("Reshape keeps an axis that is not there")
        kept = [shape[i] if n == 0 else n for i, n in enumerate(wanted)]
        try:
            self.move(op, out, lambda x: x.reshape(kept))
        except ValueError as error:
            raise Refusal(f"Reshape does not fit: {error}") from None

    def read_transpose(self, op: Operation, out: str) -> None:
        """Axes in another order."""
        self.move(op, out, lambda x: x.transpose(op.attributes.get("perm")))

    def read_matmul(self, op: Operation, out: str) -> None:
        """x·W for a constant matrix W; W·x only for a vector x."""
        if op.inputs[0] in self.constants and len(self.shape(op.inputs[1])) == 1:
            turned = np.ascontiguousarray(np.asarray(self.constants[op.inputs[0]]).T)
            self.constants[f"{out} transposed"] = turned
            op = replace(op, inputs=[op.inputs[1], f"{out} transposed"])
        shape, weight = self.shape(op.inputs[0]), self.constant(op, 1)
        if weight.ndim != 2 or shape[-1] != len(weight):
            raise Refusal("MatMul with a constant that is no matrix of the right height")
        parts = [(op.inputs[0], Dense(weight))]
        self.affine(out, (*shape[:-1], weight.shape[1]), parts)

    def read_gemm(self, op: Operation, out: str) -> None:
        """alpha·x·W + beta·b."""
        shape, weight = self.shape(op.inputs[0]), self.constant(op, 1)
        scales = [float(op.attributes.get(k, 1.0)) for k in ("alpha", "beta")]
        if op.attributes.get("transA", 0) or scales != [1.0, 1.0] or weight.ndim != 2:
            raise Refusal("Gemm with transA, alpha or beta")
        weight = weight.T if op.attributes.get("transB", 0) else weight
        if len(shape) != 2 or shape[1] != len(weight):
            raise Refusal("Gemm whose shapes do not fit")
        bias = self.constant(op, 2, np.zeros(weight.shape[1]))
        parts = [(op.inputs[0], Dense(np.ascontiguousarray(weight)))]
        self.affine(out, (shape[0], weight.shape[1]), parts, bias)

    def windows(self, op: Operation, kernel: tuple[int, ...]) -> tuple[Index, tuple[int, ...]]:
        """Taps and shape of a window operator on (1, channels, *space)."""
        shape, rank = self.shape(op.inputs[0]), len(kernel)
        if len(shape) != rank + 2 or shape[0] != 1:
            raise Refusal(f"{op.kind} on shape {shape}")
        if op.attributes.get("auto_pad", "NOTSET") != "NOTSET":
            raise Refusal(f"{op.kind} with auto_pad")

        def setting(name: str, default: int, count: int) -> tuple[int, ...]:
            values = op.attributes.get(name) or [default] * count
            if not isinstance(values, list) or len(values) != count:
                raise Refusal(f"{op.kind}: {name} does not fit")
            return tuple(int(value) for value in values)

        return window_taps(
            shape[2:],
            kernel,
            setting("strides", 1, rank),
            setting("pads", 0, 2 * rank),
            setting("dilations", 1, rank),
            ceil=bool(op.attributes.get("ceil_mode", 0)),
        )

    def read_conv(self, op: Operation, out: str) -> None:
        """A convolution with constant kernel."""
        kernel = self.constant(op, 1)
        taps, space = self.windows(op, kernel.shape[2:])
        shape = self.shape(op.inputs[0])
        groups = int(op.attributes.get("group", 1))
        if shape[1] != kernel.shape[1] * groups or len(kernel) % groups:
            raise Refusal("Conv whose channels do not fit")
        flat = kernel.reshape(*kernel.shape[:2], -1)
        conv = Conv(flat, groups, shape[1], int(np.prod(shape[2:])), taps)
        bias = self.constant(op, 2, np.zeros(len(kernel)))
        wide = bias.reshape(1, -1, *[1] * len(space))
        self.affine(out, (1, len(kernel), *space), [(op.inputs[0], conv)], wide)

    def read_averagepool(self, op: Operation, out: str) -> None:
        """The mean of each window, without padding."""
        kernel = tuple(op.attributes.get("kernel_shape", []))
        taps, space = self.windows(op, kernel)
        shape = self.shape(op.inputs[0])
        places = int(np.prod(shape[2:]))
        if (taps == places).any():
            raise Refusal("AveragePool with padding")
        means = np.full((shape[1], 1, taps.shape[1]), 1.0 / taps.shape[1])
        conv = Conv(means, shape[1], shape[1], places, taps)
        self.affine(out, (1, shape[1], *space), [(op.inputs[0], conv)])

    def read_maxpool(self, op: Operation, out: str) -> None:
        """The largest of each window; padding never wins."""
        kernel = tuple(op.attributes.get("kernel_shape", []))
        taps, space = self.windows(op, kernel)
        shape = self.shape(op.inputs[0])
        places = int(np.prod(shape[2:]))
        best = taps.min(axis=1, keepdims=True)  # a place inside, if there is one
        if (best == places).any():
            raise Refusal("MaxPool with a window in the padding")
        inside = np.where(taps == places, best, taps)
        every = np.arange(shape[1])[:, None, None] * places + inside
        pooled = MaxPool(op.inputs[0], every.reshape(-1, taps.shape[1]))
        self.enter(out, (1, shape[1], *space), pooled)

    def read_batchnormalization(self, op: Operation, out: str) -> None:
        """(x - mean) / sqrt(var + epsilon) · gamma + beta; its rounding is charged as a product."""
        shape = self.shape(op.inputs[0])
        gamma, beta, mean, var = (self.constant(op, place) for place in range(1, 5))
        epsilon = float(op.attributes.get("epsilon", np.float32(1e-5)))
        if op.attributes.get("training_mode", 0) or not (var + epsilon > 0).all():
            raise Refusal("BatchNormalization in training mode, or with a variance <= 0")
        factor = gamma / np.sqrt(var + epsilon)
        wide = (1, -1, *[1] * (len(shape) - 2))
        full = [
            np.broadcast_to(part.reshape(wide), shape).reshape(-1)
            for part in (factor, beta - mean * factor, np.abs(beta) + np.abs(mean * factor))
        ]
        step = Affine([(op.inputs[0], Scale(full[0]))], full[1], full[2])
        self.enter(out, shape, step)

    def read_add(self, op: Operation, out: str, sign: float = 1.0) -> None:
        """Sum or difference of two values, of which one may be constant."""
        first, second = op.inputs
        if first in self.constants:
            if sign < 0:
                raise Refusal("a constant minus a variable")
            first, second = second, first
        shape = self.shape(first)
        ones = np.ones(int(np.prod(shape)))
        if second in self.network.shapes:
            if self.shape(second) != shape:
                raise Refusal(f"{op.kind} of two shapes")
            parts = [(first, Scale(ones)), (second, Scale(sign * ones))]
            self.affine(out, shape, parts)
            return
        bias = np.asarray(self.constants[second])
        if np.broadcast_shapes(bias.shape, shape) != shape:
            raise Refusal(f"{op.kind} with a constant of more axes")
        full = sign * np.broadcast_to(bias, shape).reshape(-1)
        before = self.network.steps.get(first)
        only = sum(name == first for other in self.model.operations for name in other.inputs) == 1
        if isinstance(before, Affine) and only and not before.exact and not before.bias.any():
            del self.network.steps[first]
            self.enter(out, shape, replace(before, bias=full, bias_size=np.abs(full)))
        else:
            self.affine(out, shape, [(first, Scale(ones))], full.reshape(shape))

    def read_sub(self, op: Operation, out: str) -> None:
        """A difference."""
        self.read_add(op, out, -1.0)

    def read_mul(self, op: Operation, out: str) -> None:
        """A product with a constant."""
        first, second = op.inputs if op.inputs[0] in self.network.shapes else op.inputs[::-1]
        shape, factor = self.shape(first), self.constants.get(second)
        if factor is None or np.broadcast_shapes(factor.shape, shape) != shape:
            raise Refusal("Mul of two variables, or with a constant of more axes")
        full = np.broadcast_to(factor, shape).reshape(-1).copy()
        self.affine(out, shape, [(first, Scale(full))])

    def read_div(self, op: Operation, out: str) -> None:
        """A quotient by a constant; the rounding of 1 / c is charged as one of a product."""
        shape, divisor = self.shape(op.inputs[0]), self.constant(op, 1)
        if (divisor == 0).any() or np.broadcast_shapes(divisor.shape, shape) != shape:
            raise Refusal("Div by zero, or by a constant of more axes")
        full = np.broadcast_to(1.0 / divisor, shape).reshape(-1).copy()
        self.affine(out, shape, [(op.inputs[0], Scale(full))])

    def read_neg(self, op: Operation, out: str) -> None:
        """-x."""
        shape = self.shape(op.inputs[0])
        self.affine(out, shape, [(op.inputs[0], Scale(-np.ones(int(np.prod(shape)))))])

    def read_relu(self, op: Operation, out: str) -> None:
        """max(x, 0)."""
        self.enter(out, self.shape(op.inputs[0]), Relu(op.inputs[0]))

    def read_pad(self, op: Operation, out: str) -> None:
        """No padding at all, as some exporters write it."""
        pads = op.attributes.get("pads") or self.constant(op, 1)
        if np.any(pads) or len(op.inputs) > 3:
            raise Refusal("Pad that adds or cuts something")
        self.read_identity(op, out)

    def read_concat(self, op: Operation, out: str) -> None:
        """Variables side by side."""
        shapes = [self.shape(name) for name in op.inputs]
        axis = int(op.attributes["axis"])
        sizes = [int(np.prod(shape)) for shape in shapes]
        ends = np.cumsum([0, *sizes])
        whole = np.concatenate(
            [
                np.arange(a, b).reshape(shape)
                for a, b, shape in zip(ends[:-1], ends[1:], shapes, strict=True)
            ],
            axis=axis,
        )
        flat, parts = whole.reshape(-1), []
        for name, a, b in zip(op.inputs, ends[:-1], ends[1:], strict=True):
            own = (flat >= a) & (flat < b)
            parts.append((name, Pick(np.where(own, flat - a, -1), int(b - a))))
        zeros = np.zeros(flat.size)
        self.enter(out, whole.shape, Affine(parts, zeros, zeros, exact=True))
