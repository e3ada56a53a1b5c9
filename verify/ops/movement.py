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


def movement(
    name: str,
    forward: Callable[..., Tensor],
    adjoint: Callable[[Node, Tensor], tuple[Tensor, ...]],
    background: Callable[[Node], Tensor] | None = None,
) -> Op:
    """Register an operator that moves entries.

    Args:
        name: of the operator.
        forward: (node, *inputs) -> output; monotone, so that it maps lower to lower.
        adjoint: (node, coeff of shape (any, *node)) -> coefficients per input.
        background: node -> what stands where no input entry lands (Pad), shape (*node); or None.
    """

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

    return register(Op(name=name, forward=forward, interval=interval, pull_back=pull_back))


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
    return x.index_select(node.scalar("axis") + 1, node.tensors["index"].to(x.device))


def pull_select(node: Node, coeff: Tensor) -> tuple[Tensor]:
    """Rows laid back where they were read; an entry read twice collects both."""
    laid = coeff.new_zeros(len(coeff), *node.input_shapes[0])
    return (laid.index_add_(node.scalar("axis") + 1, node.tensors["index"], coeff),)


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
movement("Select", select, pull_select)
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
