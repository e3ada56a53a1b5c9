"""Operators that only move entries: exact in floating point, so they carry no noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from verify.graph.ir import Node
from verify.ops.affine import dot_constant
from verify.ops.registry import Op, register
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding, gamma, unit


def movement(
    name: str,
    forward: Callable[..., Tensor],
    adjoint: Callable[[Node, Tensor], tuple[Tensor, ...]],
    background: Callable[[Node], Tensor] | None = None,
    copies: Callable[[Node], int] | None = None,
) -> Op:
    """Register an operator that moves entries.

    Args:
        name: of the operator.
        forward: (node, *inputs) -> output; monotone, so that it maps lower to lower.
        adjoint: (node, coeff of shape (any, *node)) -> coefficients per input.
        background: node -> what stands where no input entry lands (Pad), shape (*node); or None.
        copies: node -> how often an input entry is read at most; where that is more than once,
            pulled-back coefficients are summed, and rounded.
    """

    def noise(node: Node, rounding: Rounding, dtype: torch.dtype, *inputs: Bounds) -> Tensor | None:
        most = 1 if copies is None else copies(node)
        if most == 1:
            return None
        return gamma(most, unit(dtype)) * forward(node, *(x.magnitude() for x in inputs))

    def interval(node: Node, *inputs: Bounds) -> Bounds:
        lower = forward(node, *(x.lower for x in inputs))
        return Bounds(lower, forward(node, *(x.upper for x in inputs)))

    def pull_back(node: Node, form: LinearForm, lines: Relaxation | None) -> tuple[LinearForm, ...]:
        batch, row = form.coeff.shape[:2]
        first, *rest = adjoint(node, form.coeff.flatten(0, 1))
        const = form.const
        if background is not None:
            const = const + dot_constant(form.coeff, background(node))
        head = LinearForm(first.unflatten(0, (batch, row)), const, form.error)
        zeros = torch.zeros_like(const)
        return (head, *(LinearForm(p.unflatten(0, (batch, row)), zeros) for p in rest))

    return register(
        Op(
            name=name,
            forward=forward,
            interval=interval,
            pull_back=pull_back,
            noise=None if copies is None else noise,
        )
    )


def transpose(node: Node, x: Tensor) -> Tensor:
    """Permute the axes."""
    return x.permute(0, *(axis + 1 for axis in node.settings["perm"]))


def pull_transpose(node: Node, coeff: Tensor) -> tuple[Tensor]:
    """Permute them back."""
    perm = node.settings["perm"]
    inverse = sorted(range(len(perm)), key=lambda axis: perm[axis])
    return (coeff.permute(0, *(axis + 1 for axis in inverse)),)


def select(node: Node, x: Tensor) -> Tensor:
    """Entries of one axis."""
    axis, index = node.scalar("axis"), node.tensors["index"]
    if node.input_shapes[0][axis] == 1:
        # Only one entry: it is repeated.
        shape = list(x.shape)
        shape[axis + 1] = len(index)
        return x.expand(shape)
    return x.index_select(axis + 1, index.to(x.device))


def pull_select(node: Node, coeff: Tensor) -> tuple[Tensor]:
    """Rows laid back where they were read; an entry read twice collects both."""
    axis, index = node.scalar("axis"), node.tensors["index"]
    if node.input_shapes[0][axis] == 1:
        return (coeff.sum(dim=axis + 1, keepdim=True),)
    laid = coeff.new_zeros(len(coeff), *node.input_shapes[0])
    return (laid.index_add_(axis + 1, index.to(coeff.device), coeff),)


def most_read(node: Node) -> int:
    """How often the most wanted entry is selected."""
    return int(torch.bincount(node.tensors["index"].flatten()).max())


def torch_pads(node: Node) -> list[int]:
    """ONNX pads (befores, afters) in torch's order (last axis first, before and after paired)."""
    pads = node.settings["pads"]
    rank = len(pads) // 2
    return [pads[axis + rank * side] for axis in reversed(range(rank)) for side in (0, 1)]


def pad(node: Node, x: Tensor) -> Tensor:
    """Constant padding; negative pads crop."""
    return functional.pad(x, torch_pads(node), value=float(node.tensors["value"]))


def pull_pad(node: Node, coeff: Tensor) -> tuple[Tensor]:
    """Crop what was padded; what was cropped has coefficient zero."""
    return (functional.pad(coeff, [-p for p in torch_pads(node)]),)


def pad_background(node: Node) -> Tensor:
    """The padding value where padding is, zero where the input is."""
    value = node.tensors["value"]
    inside = value.new_zeros(1, *node.input_shapes[0])
    return functional.pad(inside, torch_pads(node), value=float(value))[0]


def concat(node: Node, *xs: Tensor) -> Tensor:
    """Inputs side by side along one axis."""
    return torch.cat(xs, dim=node.scalar("axis") + 1)


def pull_concat(node: Node, coeff: Tensor) -> tuple[Tensor, ...]:
    """Each input's own columns."""
    axis = node.scalar("axis")
    return torch.split(coeff, [shape[axis] for shape in node.input_shapes], dim=axis + 1)


movement(
    "Reshape",
    lambda node, x: x.reshape(len(x), *node.shape),
    lambda node, coeff: (coeff.reshape(len(coeff), *node.input_shapes[0]),),
)
movement("Transpose", transpose, pull_transpose)
movement("Select", select, pull_select, copies=most_read)
movement("Pad", pad, pull_pad, pad_background)
movement("Concat", concat, pull_concat)
register(
    Op(
        name="Input",
        forward=lambda node, x: x,
        interval=lambda node, x: x,
        pull_back=lambda node, form, lines: (form,),
    )
)
