"""Differentiable interval bounds of a torch module, node by node.

They are computed in the module's own dtype without accounting for rounding: good for a loss, no
certificate. `verify certify` gives that, from the exported file.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from attacks.errors import AttackInputError


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """What is known of one node.

    Attributes:
        clean: its value at the clean input, shape (batch, *node).
        lower, upper: bounds of its value over the box, same shape.
        scale, shift: of a BatchNorm, shape (1, channels, ...): what it did, in the statistics of
            the clean batch; None elsewhere.
    """

    clean: Tensor
    lower: Tensor
    upper: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None

    @property
    def centre(self) -> Tensor:
        """The middle of the bounds."""
        return (self.lower + self.upper) / 2

    @property
    def radius(self) -> Tensor:
        """Half their width."""
        return (self.upper - self.lower) / 2


Rule = Callable[[nn.Module, Reach], Reach]


def reach_monotone(layer: nn.Module, x: Reach) -> Reach:
    """Non-decreasing layers map ends to ends."""
    return Reach(layer(x.clean), layer(x.lower), layer(x.upper))


def reach_linear(layer: nn.Module, x: Reach) -> Reach:
    """W c + b -+ |W| r."""
    assert isinstance(layer, nn.Linear)
    middle = functional.linear(x.centre, layer.weight, layer.bias)
    spread = functional.linear(x.radius, layer.weight.abs())
    return Reach(layer(x.clean), middle - spread, middle + spread)


def reach_conv(layer: nn.Module, x: Reach) -> Reach:
    """The same with W a convolution; padding is zeros, which are known exactly."""
    assert isinstance(layer, nn.Conv2d)
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise unsupported(f"Conv2d with padding {layer.padding!r}, mode {layer.padding_mode!r}")
    middle = layer(x.centre)
    spread = functional.conv2d(
        x.radius,
        layer.weight.abs(),
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
    )
    return Reach(layer(x.clean), middle - spread, middle + spread)


def reach_batch_norm(layer: nn.Module, x: Reach) -> Reach:
    """scale * x + shift, in evaluation by the running statistics, in training by the clean batch's.

    The running statistics are updated by the clean batch alone, as Shi et al. 2021
    (arXiv:2103.17268) advise: the ends of boxes are no inputs that the network will see.
    """
    assert isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)
    shape = [1, -1, *[1] * (x.clean.dim() - 2)]
    if layer.training or layer.running_mean is None or layer.running_var is None:
        axes = [axis for axis in range(x.clean.dim()) if axis != 1]
        mean, variance = x.clean.mean(axes), x.clean.var(axes, unbiased=False)
    else:
        mean, variance = layer.running_mean, layer.running_var
    scale = (variance + layer.eps).rsqrt()
    if layer.weight is not None:
        scale = scale * layer.weight
    shift = -mean * scale if layer.bias is None else layer.bias - mean * scale
    scale, shift = scale.view(shape), shift.view(shape)
    middle, spread = scale * x.centre + shift, scale.abs() * x.radius
    return Reach(layer(x.clean), middle - spread, middle + spread, scale, shift)


MONOTONE = (
    *(nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Identity),
    *(nn.Flatten, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.MaxPool2d),
)
RULES: MappingProxyType[type[nn.Module], Rule] = MappingProxyType(
    {
        **dict.fromkeys(MONOTONE, reach_monotone),
        nn.Linear: reach_linear,
        nn.Conv2d: reach_conv,
        nn.BatchNorm1d: reach_batch_norm,
        nn.BatchNorm2d: reach_batch_norm,
    }
)
# Functions and methods that a forward may call, as the layer that does the same.
FUNCTIONS: MappingProxyType[Any, nn.Module] = MappingProxyType(
    {
        **dict.fromkeys((torch.relu, functional.relu, "relu"), nn.ReLU()),
        **dict.fromkeys((torch.sigmoid, functional.sigmoid, "sigmoid"), nn.Sigmoid()),
        **dict.fromkeys((torch.tanh, functional.tanh, "tanh"), nn.Tanh()),
    }
)
SUMS = (operator.add, torch.add, "add")
SCALINGS = (operator.sub, operator.mul, operator.truediv, torch.sub, torch.mul, torch.div)


def unsupported(what: str) -> AttackInputError:
    """The one error for what has no bounds here."""
    known = sorted({kind.__name__ for kind in RULES})
    return AttackInputError(
        f"Certified training has no bounds for {what}. Supported are {', '.join(known)}, sums of "
        "branches, and (x - constant) / constant. Replace it, or train adversarially."
    )


class Traced:
    """A module as a list of nodes, traced once and walked for each batch.

    Attributes:
        net: the module itself; its weights and its mode are read at each walk.
        nodes: of its forward, in order.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        try:
            graph = fx.Tracer().trace(net)
        except Exception as error:  # fx has no common base for what it raises
            first = (str(error).splitlines() or [""])[0]
            raise unsupported(
                f"{type(net).__name__}, which torch.fx cannot trace ({first})"
            ) from error
        self.nodes: list[fx.Node] = list(graph.nodes)
        for node in self.nodes:
            self.layer_of(node)

    @property
    def last(self) -> fx.Node:
        """The node of the logits."""
        found = self.nodes[-1].args[0]
        if not isinstance(found, fx.Node):
            raise unsupported("a module that does not return one tensor")
        return found

    def layer_of(self, node: fx.Node) -> nn.Module | None:
        """The layer that a node applies; None for sums, constants and the ends.

        Raises:
            AttackInputError: if it has no bounds.
        """
        if node.op == "call_module":
            layer = self.net.get_submodule(str(node.target))
            if type(layer) not in RULES:
                raise unsupported(f"layer {node.target}, a {type(layer).__name__}")
            return layer
        if node.op in {"call_function", "call_method"}:
            if node.target in FUNCTIONS:
                return FUNCTIONS[node.target]
            if node.target in (torch.flatten, "flatten"):
                if node.args[1:] != (1,) or node.kwargs:
                    raise unsupported("a flatten that does not start at axis 1")
                return FLATTEN
            if node.target not in (*SUMS, *SCALINGS):
                raise unsupported(f"the operation {node.target!s}")
        return None

    def constant(self, node: Any) -> Any:
        """The number or tensor behind an argument that does not depend on the input."""
        if not isinstance(node, fx.Node):
            return node
        if node.op != "get_attr":
            raise unsupported(f"the operation on {node}, whose second argument is computed")
        owner, _, name = str(node.target).rpartition(".")
        return getattr(self.net.get_submodule(owner), name)

    def walk(self, clean: Tensor, lower: Tensor, upper: Tensor) -> dict[fx.Node, Reach]:
        """The reach of each node when the input lies in a box.

        Args:
            clean: shape (batch, *input): the clean inputs, whose logits come with the bounds.
            lower, upper: same shape; the box need not hold `clean`.
        """
        found: dict[fx.Node, Reach] = {}
        for node in self.nodes:
            layer = self.layer_of(node)
            if node.op == "placeholder":
                found[node] = Reach(clean, lower, upper)
            elif layer is not None:
                found[node] = RULES[type(layer)](layer, found[argument(node)])
            elif node.op.startswith("call_"):
                found[node] = self.combine(node, found)
        return found

    def combine(self, node: fx.Node, found: dict[fx.Node, Reach]) -> Reach:
        """A sum of two branches, or a constant added or multiplied."""
        x, other = found[argument(node)], node.args[1]
        if node.target in SUMS and other in found:
            y = found[other]  # type: ignore[index]  # `in found` says that it is a node
            return Reach(x.clean + y.clean, x.lower + y.lower, x.upper + y.upper)
        apply: Any = getattr(Tensor, str(node.target)) if node.op == "call_method" else node.target
        value = self.constant(other)
        ends = apply(x.lower, value), apply(x.upper, value)
        return Reach(apply(x.clean, value), torch.minimum(*ends), torch.maximum(*ends))


FLATTEN = nn.Flatten()


def argument(node: fx.Node) -> fx.Node:
    """The node that a layer is applied to."""
    first = node.args[0] if node.args else None
    if not isinstance(first, fx.Node) or first.op == "get_attr":
        raise unsupported(f"the operation {node.target!s}, whose first argument is a constant")
    return first
