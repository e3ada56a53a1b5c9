"""BackwardPass: what CROWN and alpha-CROWN share; node bounds by pulling rows back to the input.

Only entries whose tightening can still help get rows, and rows go in chunks that fit the memory
that was granted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from verify.graph.ir import Graph, Node
from verify.ops.registry import lookup, noise_of
from verify.traverse import interval_step, pull_back
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.linear_form import LinearForm
from verify.values.region import Region
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding
from verify.values.window import Window

WORKING_COPIES = 6
"""Tensors of the size of a chunk's coefficients that live at once in a pull-back."""


@dataclass(eq=False)
class BackwardPass:
    """Bounds found so far, and the lines and noise they lead to; filled in graph order.

    Attributes:
        graph: the network, in the dtype to compute in.
        region: the inputs, in the same dtype.
        rounding: which executions the bounds must hold for; None for plain arithmetic.
        budget: the deadline that every walk checks, and the memory for one chunk of rows.
        bounds, lines, noise, sizes: per node, as `verify.traverse.pull_back` takes them.
        exact: nodes whose interval bounds are attained, so that no row can tighten them.
    """

    graph: Graph
    region: Region
    rounding: Rounding | None
    budget: Budget
    bounds: dict[str, Bounds] = field(default_factory=dict)
    lines: dict[str, Relaxation] = field(default_factory=dict)
    noise: dict[str, Tensor] = field(default_factory=dict)
    sizes: dict[str, Tensor] = field(default_factory=dict)
    exact: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Enter the input's bounds."""
        start = self.graph.input.name
        self.bounds[start] = self.region.bounds()
        if self.region.is_box:
            self.exact[start] = 0

    def visit(self, node: Node, *, lines: bool = True) -> None:
        """Interval bounds and noise of a node whose inputs are done, and its lines if wanted.

        Whatever tightens the inputs' bounds comes before this call.
        """
        op = lookup(node)
        inputs = tuple(self.bounds[name] for name in node.inputs)
        if op.relax is not None and lines:
            self.lines[node.name] = op.relax(node, inputs[0], None)
        if self.rounding is not None:
            for name, bounds in zip(node.inputs, inputs, strict=True):
                self.sizes[name] = bounds.magnitude()
            noise = noise_of(node, self.rounding, self.graph.dtype, inputs)
            if noise is not None:
                self.noise[node.name] = noise
        self.bounds[node.name] = interval_step(node, self.rounding, inputs)
        self.mark_exact(node)

    def mark_exact(self, node: Node) -> None:
        """Interval bounds stay exact over a box through at most one mixing operator."""
        if len(node.inputs) != 1 or node.inputs[0] not in self.exact:
            return
        op = lookup(node)
        mixed = self.exact[node.inputs[0]] + int(op.mixes)
        # An elementwise function of one attained interval attains its image's ends.
        if mixed <= 1:
            self.exact[node.name] = mixed

    def undecided_rows(self, node: Node) -> Tensor | None:
        """Flat indices, shape (batch, row), of the input entries of a nonlinear node worth a row.

        Batch entries with fewer of them than others are filled up with decided ones.
        """
        op, source = lookup(node), node.inputs[0]
        if source in self.exact or op.undecided is None:
            return None
        mask = op.undecided(node, self.bounds[source]).flatten(1)
        count = int(mask.sum(dim=1).max()) if mask.numel() else 0
        if count == 0:
            return None
        if len(mask) == 1:
            return mask[0].nonzero().flatten()[None]
        return mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]

    def chunks(self, index: Tensor, copies: int = WORKING_COPIES) -> Iterator[Tensor]:
        """The row indices in pieces whose coefficients, both signs, fit the memory."""
        widest = max(node.size for node in self.graph.nodes)
        width = torch.finfo(self.graph.dtype).bits // 8
        per_row = 2 * len(index) * widest * width * copies
        yield from index.split(max(1, self.budget.memory // per_row), dim=1)

    def both_signs(self, name: str, index: Tensor) -> tuple[str, LinearForm]:
        """Rows for the entries of a node and for their negations, and the node they are over.

        Where the node's operator can lay out its own rows, the form is already over its input.
        """
        node = self.graph.node(name)
        if len(node.shape) == 3:
            return self.patches(node, index)
        rows = lookup(node).rows
        batch, count = index.shape
        if rows is None or (node.op == "Gemm" and len(node.shape) > 1):
            coeff = torch.zeros(batch, count, node.size, dtype=self.graph.dtype)
            coeff.scatter_(2, index[:, :, None], 1.0)
            coeff = coeff.view(batch, count, *node.shape)
            return name, self.signed(coeff, coeff.new_zeros(batch, count), None)
        bias = node.tensors["bias"]
        const = bias[index // (node.size // len(bias))]
        return node.inputs[0], self.signed(rows(node, index), const, self.start_error(node, index))

    def patches(self, node: Node, index: Tensor) -> tuple[str, LinearForm]:
        """The same for a map of shape (channels, height, width): rows as windows."""
        places = node.shape[1] * node.shape[2]
        channel = index // places
        window = Window(
            index % places, 2, (node.shape[1], node.shape[2]), stride=(1, 1), offset=(0, 0)
        )
        plain = node.op == "Conv" and node.scalar("groups") == 1
        if plain and node.settings["dilation"] == (1, 1):
            stride, padding = node.settings["stride"], node.settings["padding"]
            window = window.through((stride[0], stride[1]), (padding[0], padding[1]))
            coeff, const = node.tensors["weight"][channel], node.tensors["bias"][channel]
            form = self.signed(coeff, const, self.start_error(node, index), window)
            return node.inputs[0], form
        every = torch.eye(node.shape[0], dtype=self.graph.dtype)
        coeff = every[channel][..., None, None]
        zeros = coeff.new_zeros(index.shape)
        return node.name, self.signed(coeff, zeros, None, window)

    def start_error(self, node: Node, index: Tensor) -> Tensor | None:
        """What the start node itself may be off by, where its rows skip the walk's charge."""
        if self.rounding is None:
            return None
        return self.noise[node.name].flatten(1).gather(1, index)

    def signed(
        self, coeff: Tensor, const: Tensor, error: Tensor | None, window: Window | None = None
    ) -> LinearForm:
        """Rows and their negations, one after the other."""
        if self.rounding is not None:
            error = torch.zeros_like(const) if error is None else error
            error = error.repeat(1, 2)
        return LinearForm(
            torch.cat((coeff, -coeff), dim=1), torch.cat((const, -const), dim=1), error, window
        )

    def pulled(
        self,
        start: str,
        form: LinearForm,
        lines: dict[str, Relaxation] | None = None,
        record: dict[str, Tensor] | None = None,
    ) -> LinearForm:
        """The form at the input, by this pass's lines or by others; raises OutOfTime."""
        self.budget.check()
        return pull_back(
            self.graph,
            start,
            form,
            self.lines if lines is None else lines,
            noise=None if self.rounding is None else self.noise,
            sizes=self.sizes,
            record=record,
        )

    def enclose(self, name: str, index: Tensor) -> Bounds:
        """Bounds of some entries of a node, shape (batch, row), with the lines of this pass."""
        start, form = self.both_signs(name, index)
        least = self.region.minimise(self.pulled(start, form))
        count = index.shape[1]
        return Bounds(least[:, :count], -least[:, count:])

    def tighten(self, name: str, index: Tensor, found: Bounds) -> None:
        """Intersect the bounds of some entries of a node with what was found for them."""
        old = self.bounds[name]
        flat = Bounds(old.lower.flatten(1), old.upper.flatten(1))
        both = Bounds(flat.lower.gather(1, index), flat.upper.gather(1, index)).intersect(found)
        self.bounds[name] = Bounds(
            flat.lower.scatter(1, index, both.lower).view_as(old.lower),
            flat.upper.scatter(1, index, both.upper).view_as(old.upper),
        )

    def spec_form(self, coeff: Tensor, const: Tensor) -> tuple[str, LinearForm]:
        """The spec's rows as a form over the output node."""
        output = self.graph.output
        rows = coeff.view(*coeff.shape[:2], *output.shape)
        error = None if self.rounding is None else torch.zeros_like(const)
        return output.name, LinearForm(rows, const, error)
