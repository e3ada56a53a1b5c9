"""ScaleShift, Add and Reduce: affine operators that are not matrices."""

from __future__ import annotations

from torch import Tensor

from verify.graph.ir import Node
from verify.ops.affine import affine


def scale_shift(node: Node, x: Tensor) -> Tensor:
    """x·scale + shift, entry by entry."""
    return x * node.tensors["scale"] + node.tensors["shift"]


def scale_only(node: Node, x: Tensor) -> Tensor:
    """x·|scale|."""
    return x * node.tensors["scale"].abs()


def pull_scale(node: Node, coeff: Tensor) -> tuple[Tensor]:
    """A·diag(scale)."""
    return (coeff * node.tensors["scale"],)


def add(node: Node, *xs: Tensor) -> Tensor:
    """The signed sum."""
    total = xs[0] * node.settings["signs"][0]
    for x, sign in zip(xs[1:], node.settings["signs"][1:], strict=True):
        total = total + sign * x
    return total


def add_absolute(_node: Node, *xs: Tensor) -> Tensor:
    """The sum without signs."""
    total = xs[0]
    for x in xs[1:]:
        total = total + x
    return total


def pull_add(node: Node, coeff: Tensor) -> tuple[Tensor, ...]:
    """The same row for every summand, with its sign."""
    return tuple(coeff if sign == 1 else coeff * sign for sign in node.settings["signs"])


def axes_of(node: Node) -> tuple[int, ...]:
    """The reduced axes, counted with the batch axis."""
    return tuple(axis + 1 for axis in node.settings["axes"])


def reduce(node: Node, x: Tensor) -> Tensor:
    """scale · sum over axes."""
    return x.sum(dim=axes_of(node)) * node.tensors["scale"]


def reduce_absolute(node: Node, x: Tensor) -> Tensor:
    """|scale| · sum over axes."""
    return x.sum(dim=axes_of(node)) * node.tensors["scale"].abs()


def pull_reduce(node: Node, coeff: Tensor) -> tuple[Tensor]:
    """The row spread over the reduced axes."""
    spread = coeff * node.tensors["scale"]
    for axis in sorted(axes_of(node)):
        spread = spread.unsqueeze(axis)
    return (spread.expand(len(coeff), *node.input_shapes[0]),)


def reduce_fan(node: Node) -> tuple[int, int]:
    """Terms of one output sum, and of one pulled-back entry."""
    terms = 1
    for axis in node.settings["axes"]:
        terms *= node.input_shapes[0][axis]
    return terms, 1


affine(
    "ScaleShift",
    forward=scale_shift,
    absolute=scale_only,
    adjoint=pull_scale,
    fan=lambda _node: (1, 1),
    bias="shift",
    mixes=False,
)
affine(
    "Add",
    forward=add,
    absolute=add_absolute,
    adjoint=pull_add,
    fan=lambda node: (len(node.inputs), 1),
)
affine("Reduce", forward=reduce, absolute=reduce_absolute, adjoint=pull_reduce, fan=reduce_fan)
