"""A trained torch module -> an ONNX file with a symbolic batch axis, node by node.

Written by hand rather than with torch.onnx, whose exporter needs further packages. What is written
is read back by `verify.load` as any other file is, and can be compared with the module.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from verify.errors import ModelError, UnsupportedOperator

OPSET = 17  # ONNX Runtime reads it since 1.12 (2022)
IR_VERSION = 8  # what opset 17 came with

ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "Relu",
    nn.Sigmoid: "Sigmoid",
    nn.Tanh: "Tanh",
    nn.Identity: "Identity",
}
FUNCTIONS: dict[Any, str] = {
    **dict.fromkeys((operator.add, torch.add, "add"), "Add"),
    **dict.fromkeys((operator.sub, torch.sub, "sub"), "Sub"),
    **dict.fromkeys((operator.mul, torch.mul, "mul"), "Mul"),
    **dict.fromkeys((operator.truediv, torch.div, "div"), "Div"),
    **dict.fromkeys((torch.relu, nn.functional.relu, "relu"), "Relu"),
    **dict.fromkeys((torch.sigmoid, "sigmoid"), "Sigmoid"),
    **dict.fromkeys((torch.tanh, "tanh"), "Tanh"),
}


def onnx_bytes(net: nn.Module, input_shape: Sequence[int], classes: int, name: str) -> bytes:
    """The bytes of an ONNX file that computes what `net` does in evaluation mode.

    Args:
        net: float32; layers as `torch.nn` has them, sums of branches, arithmetic with constants.
        input_shape: of one input.
        classes: number of logits.
        name: of the graph.

    Raises:
        UnsupportedOperator: if a layer has no ONNX form here.
        ModelError: if the module cannot be traced.
    """
    import onnx
    from onnx import TensorProto, helper

    was_training = net.training
    net.eval()
    try:
        graph = fx.Tracer().trace(net)
    except Exception as error:  # fx has no common base for what it raises
        raise ModelError(
            f"module {type(net).__name__} cannot be traced for export: {error}. Its forward must "
            "not branch on values."
        ) from error
    finally:
        net.train(was_training)
    writer = Writer(net)
    for node in graph.nodes:
        writer.add(node)
    last = next(node.args[0] for node in graph.nodes if node.op == "output")
    writer.nodes.append(helper.make_node("Identity", [writer.value(last)], ["logits"]))
    built = helper.make_graph(
        writer.nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *input_shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        writer.weights,
    )
    model = helper.make_model(
        built, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    model.producer_name = "tashika"
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


class Writer:
    """The nodes and weights written so far."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.nodes: list[Any] = []
        self.names: dict[fx.Node, str] = {}
        self.weights: list[Any] = []

    def add(self, node: fx.Node) -> None:
        """Write one node of the traced module."""
        if node.op == "placeholder":
            self.names[node] = "input"
        elif node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            tensor = getattr(self.net.get_submodule(owner), name)
            self.names[node] = self.keep(f"{node.name}_constant", tensor)
        elif node.op == "call_module":
            layer = self.net.get_submodule(str(node.target))
            self.layer(layer, self.value(node.args[0]), node)
        elif node.op in {"call_function", "call_method"}:
            if node.target in (torch.flatten, "flatten") and node.args[1:] == (1,):
                self.emit("Flatten", [self.value(node.args[0])], node)
                return
            if node.target not in FUNCTIONS or node.kwargs:
                raise UnsupportedOperator(f"operation {node.target!s} has no ONNX form here")
            self.emit(FUNCTIONS[node.target], [self.value(each) for each in node.args], node)

    def layer(self, layer: nn.Module, x: str, node: fx.Node) -> None:
        """Write one layer of torch.nn."""
        if type(layer) in ACTIVATIONS:
            self.emit(ACTIVATIONS[type(layer)], [x], node)
        elif isinstance(layer, nn.LeakyReLU):
            self.emit("LeakyRelu", [x], node, alpha=float(layer.negative_slope))
        elif isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
            self.emit("Flatten", [x], node)
        elif isinstance(layer, nn.Linear):
            self.emit("Gemm", [x, *self.affine(node, layer)], node, transB=1)
        elif isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
            if isinstance(layer.padding, str):
                raise UnsupportedOperator(f"Conv2d at {node.target} has padding by name")
            window = windowed(layer.kernel_size, layer.stride, layer.padding)
            inputs = [x, *self.affine(node, layer)]
            dilations = list(layer.dilation)
            self.emit("Conv", inputs, node, group=layer.groups, dilations=dilations, **window)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            self.batch_norm(layer, x, node)
        elif isinstance(layer, nn.AvgPool2d | nn.MaxPool2d) and not layer.ceil_mode:
            stride = layer.kernel_size if layer.stride is None else layer.stride
            window = windowed(pair(layer.kernel_size), pair(stride), pair(layer.padding))
            if isinstance(layer, nn.MaxPool2d):
                self.emit("MaxPool", [x], node, dilations=list(pair(layer.dilation)), **window)
            else:
                counted = int(layer.count_include_pad)
                self.emit("AveragePool", [x], node, count_include_pad=counted, **window)
        else:
            raise UnsupportedOperator(
                f"layer {node.target}, a {type(layer).__name__}, has no ONNX form here. Replace "
                "it, or export with torch.onnx."
            )

    def batch_norm(self, layer: nn.BatchNorm1d | nn.BatchNorm2d, x: str, node: fx.Node) -> None:
        """Write a BatchNorm by its running statistics."""
        if layer.running_mean is None or layer.running_var is None:
            raise UnsupportedOperator(f"BatchNorm at {node.target} has no running statistics")
        one = torch.ones_like(layer.running_mean)
        scale = layer.weight if layer.affine else one
        shift = layer.bias if layer.affine else 0 * one
        tensors = {
            "scale": scale,
            "shift": shift,
            "mean": layer.running_mean,
            "var": layer.running_var,
        }
        names = [self.keep(f"{node.name}_{key}", value) for key, value in tensors.items()]
        self.emit("BatchNormalization", [x, *names], node, epsilon=float(layer.eps))

    def affine(self, node: fx.Node, layer: nn.Linear | nn.Conv2d) -> list[str]:
        """The names of a layer's weight and bias, once kept."""
        bias: Tensor | None = layer.bias
        names = [self.keep(f"{node.name}_weight", layer.weight)]
        return names if bias is None else [*names, self.keep(f"{node.name}_bias", bias)]

    def value(self, argument: Any) -> str:
        """The name of what an argument stands for; a number becomes a weight."""
        if isinstance(argument, fx.Node):
            return self.names[argument]
        return self.keep(f"constant_{len(self.weights)}", torch.tensor(float(argument)))

    def keep(self, name: str, tensor: Tensor) -> str:
        """Store a weight; its name."""
        from onnx import numpy_helper

        single = tensor.detach().cpu().to(torch.float32).contiguous()
        self.weights.append(numpy_helper.from_array(single.numpy().copy(), name))
        return name

    def emit(self, kind: str, inputs: list[str], node: fx.Node, **attributes: Any) -> None:
        """Write one ONNX node under the traced node's name."""
        from onnx import helper

        # The ending keeps clear of the graph's own "input" and "logits".
        self.names[node] = f"{node.name}_out"
        self.nodes.append(helper.make_node(kind, inputs, [self.names[node]], **attributes))


def pair(value: Any) -> tuple[int, int]:
    """A length for each of two axes."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def windowed(kernel: Any, stride: Any, padding: Any) -> dict[str, list[int]]:
    """ONNX's attributes of a sliding window."""
    return {
        "kernel_shape": list(kernel),
        "strides": list(stride),
        "pads": [*padding, *padding],
    }
