"""Rows: which entries of a node to bound, on which side; and the linear forms they start as."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.graph.ir import Graph, Node
from verify.ops.registry import lookup
from verify.ops.windowed import DENSE_SHARE
from verify.values.linear_form import LinearForm
from verify.values.window import Window


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Lower bounds wanted of sign · entry.

    Attributes:
        index: flat indices into the node, int64, shape (batch, row).
        sign: +1 for the entry's lower bound, -1 for its upper one, same shape.
    """

    index: Tensor
    sign: Tensor

    def part(self, first: int, last: int) -> Rows:
        """Some of the rows."""
        return Rows(self.index[:, first:last], self.sign[:, first:last])

    def among(self, mask: Tensor) -> Rows:
        """The rows whose entries are still in a mask (batch, entries); filled up with others."""
        wanted = mask.gather(1, self.index)
        if len(mask) == 1:
            kept = wanted[0].nonzero().flatten()[None]
        else:
            count = int(wanted.sum(dim=1).max())
            order = wanted.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
            kept = order[:, :count]
        return Rows(self.index.gather(1, kept), self.sign.gather(1, kept))

    def opposite(self) -> Rows:
        """The same entries on their other side."""
        return Rows(self.index, -self.sign)

    def to(self, dtype: torch.dtype) -> Rows:
        """The same rows for another arithmetic."""
        return Rows(self.index, self.sign.to(dtype))


def start_form(
    graph: Graph, name: str, rows: Rows, noise: Tensor | None, *, rigorous: bool
) -> tuple[str, LinearForm]:
    """The rows as a linear form, and the name of the node that it is over.

    Where the node's operator can lay out its own rows, the form is already over its input, and the
    node's own noise is charged here.

    Args:
        graph: the network.
        name: of the node.
        rows: entries and signs.
        noise: of the node, shape (batch, *node), or None.
        rigorous: whether the form carries an error term.
    """
    node = graph.node(name)
    if len(node.shape) == 3:
        return patches(node, rows, noise, rigorous)
    layout = lookup(node).rows
    if layout is None or len(node.shape) > 1:
        coeff = rows.sign.new_zeros(*rows.index.shape, node.size)
        coeff.scatter_(2, rows.index[:, :, None], rows.sign[:, :, None])
        coeff = coeff.view(*rows.index.shape, *node.shape)
        const = torch.zeros_like(rows.sign)
        return name, LinearForm(coeff, const, torch.zeros_like(const) if rigorous else None)
    const = node.tensors["bias"][rows.index] * rows.sign
    coeff = layout(node, rows.index)
    coeff = coeff * rows.sign.view(*rows.sign.shape, *[1] * (coeff.ndim - 2))
    return node.inputs[0], LinearForm(coeff, const, own_error(rows, noise, rigorous))


def patches(node: Node, rows: Rows, noise: Tensor | None, rigorous: bool) -> tuple[str, LinearForm]:
    """The same for a map of shape (channels, height, width): rows as windows."""
    places = node.shape[1] * node.shape[2]
    channel, place = rows.index // places, rows.index % places
    window = Window(place, 1, (node.shape[1], node.shape[2]), stride=(1, 1), offset=(0, 0))
    sign = rows.sign[..., None, None, None]
    if node.op == "Conv" and node.scalar("groups") == 1 and node.settings["dilation"] == (1, 1):
        stride, padding = node.settings["stride"], node.settings["padding"]
        window = window.through((stride[0], stride[1]), (padding[0], padding[1]))
        coeff = node.tensors["weight"][channel] * sign
        const = node.tensors["bias"][channel] * rows.sign
        error = own_error(rows, noise, rigorous)
        return node.inputs[0], LinearForm(coeff, const, error, window)
    every = torch.eye(node.shape[0], dtype=rows.sign.dtype, device=rows.sign.device)
    const = torch.zeros_like(rows.sign)
    error = torch.zeros_like(const) if rigorous else None
    return node.name, LinearForm(every[channel][..., None, None] * sign, const, error, window)


def widest_row(graph: Graph, name: str) -> int:
    """The most coefficients that a row of a node has on its way back: patches count as patches."""
    start = graph.node(name)
    if len(start.shape) != 3:
        return max(node.size for node in graph.nodes)
    most, patches = 1, {name: (1, 1)}
    for node in reversed(graph.nodes[1:]):
        if node.name not in patches:
            continue
        patch = patches.pop(node.name)
        if node.op == "Conv" and len(node.tensors["weight"].shape) == 4:
            kernel, stride = node.tensors["weight"].shape[2:], node.settings["stride"]
            height, width = ((p - 1) * s + k for p, s, k in zip(patch, stride, kernel, strict=True))
            patch = (height, width)
        elif node.op != "Add" and lookup(node).relax is None:
            return max(most, *(other.size for other in graph.nodes))
        for source, shape in zip(node.inputs, node.input_shapes, strict=True):
            if patch[0] * patch[1] > DENSE_SHARE * shape[1] * shape[2]:
                return max(most, *(other.size for other in graph.nodes))
            before = patches.get(source, (1, 1))
            # Patches that meet are laid over each other, and may be off by one another's padding.
            patches[source] = (max(patch[0], before[0]), max(patch[1], before[1]))
            most = max(most, shape[0] * patches[source][0] * patches[source][1])
    return most


def own_error(rows: Rows, noise: Tensor | None, rigorous: bool) -> Tensor | None:
    """What the start node itself may be off by."""
    if not rigorous:
        return None
    if noise is None:
        return torch.zeros_like(rows.sign)
    return noise.flatten(1).gather(1, rows.index)
