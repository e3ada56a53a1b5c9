"""Multipliers: the bound that any Lagrangian multipliers of a linear relaxation prove, rigorously.

A linear-programming solver works with tolerances, so its optimum proves nothing. Its dual values
are a proposal all the same. Let h = f(z) be a function with one kink at 0 (Relu, TwoPiece), z in
[l, u]. For a row that arrives at h with coefficient A, and for *any* number v,

    A·h >= v·z + min over z in {l, 0, u} of (A·f(z) - v·z),

since the right side is piecewise linear in z. With v = A·slope this is CROWN's line, with
v = A·slope - beta it is a split with its multiplier, and with v the dual value of the row that
defines z it is the linear program's own optimum, less what the solver got wrong: the residual is
paid for out of the bounds [l, u], so that no tolerance is left (Neumaier and Shcherbina 2004, Safe
bounds in linear and mixed-integer linear programming, Math. Prog. 99, for this program).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from verify.graph.ir import Graph, Node
from verify.ops.registry import lookup, noise_of
from verify.traverse import charged, merged
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding, gamma, unit

KINKED = ("Relu", "TwoPiece")
"""Operators that are linear on either side of 0."""


def slopes_of(node: Node) -> tuple[Tensor, Tensor]:
    """The slopes below and above 0, float64, broadcastable to the node."""
    if node.op == "Relu":
        zero = torch.zeros((), dtype=torch.float64)
        return zero, zero + 1
    return node.tensors["below"].to(torch.float64), node.tensors["above"].to(torch.float64)


def at(node: Node, z: Tensor) -> Tensor:
    """f(z) in float64; exact for Relu, else rounded once."""
    below, above = slopes_of(node)
    return below * z.clamp(max=0) + above * z.clamp(min=0)


def through_kink(node: Node, form: LinearForm, nu: Tensor, bounds: Bounds) -> LinearForm:
    """A row over f(z) as a row over z, with coefficient `nu` where the sign of z is open.

    Args:
        node: the kinked operator.
        form: over its output, dense, shape (batch, row, *node), with an error.
        nu: coefficients over z, shape (batch, row, *node), any finite numbers; NaN where the
            function's own slope is to be taken, which takes a z whose sign is known.
        bounds: of z, shape (batch or 1, *node).
    """
    lower, upper = bounds.lower[:, None], bounds.upper[:, None]
    below, above = slopes_of(node)
    coeff = form.coeff
    open_ = ~((lower >= 0) | (upper <= 0))
    own = torch.isnan(nu)
    slope = torch.where(lower >= 0, above, torch.where(open_, torch.nan, below))
    given = torch.where(own, coeff * slope, nu)
    ends = torch.minimum(
        coeff * at(node, lower) - given * lower, coeff * at(node, upper) - given * upper
    )
    ends = torch.where(open_, ends.clamp(max=0), ends)
    # By the function's own slope nothing is lost but rounding, which the charge below covers.
    offset = torch.where(own, 0.0, ends)
    steep = torch.maximum(below.abs(), above.abs())
    size = (coeff.abs() * steep + given.abs()) * torch.maximum(lower.abs(), upper.abs())
    charge = gamma(node.size + 8, unit(coeff.dtype)) * size.flatten(2).sum(dim=2)
    error = charge if form.error is None else form.error + charge
    return LinearForm(given, form.const + offset.flatten(2).sum(dim=2), error)


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """What rows pay at each node of a graph, whatever their multipliers.

    Attributes:
        graph: in float64.
        bounds: rigorous bounds of every node over the whole region, shape (1, *node).
        lines: of nonlinear nodes that are not kinked.
        noise, sizes: as `verify.traverse.pull_back` takes them.
    """

    graph: Graph
    bounds: Mapping[str, Bounds]
    lines: Mapping[str, Relaxation]
    noise: dict[str, Tensor] = field(default_factory=dict)
    sizes: dict[str, Tensor] = field(default_factory=dict)

    def kinks(self) -> list[Node]:
        """The kinked nodes, in graph order."""
        return [node for node in self.graph.nodes if node.op in KINKED]

    def pull(
        self,
        start: str,
        form: LinearForm,
        multipliers: Mapping[str, Tensor],
        tighter: Mapping[str, Bounds],
        arrived: dict[str, Tensor] | None = None,
    ) -> LinearForm:
        """A row over the input that bounds `form`, stated at node `start`, from below.

        Args:
            start: name of the node that the form is over.
            form: dense, shape (batch, row, *start), with an error.
            multipliers: per kinked node, (batch, row, *node).
            tighter: bounds of inputs of kinked nodes that hold in each batch entry's domain,
                shape (batch, *node); where none are given, those over the whole region.
            arrived: is given the coefficients over each kinked node's output, if it is there.
        """
        pending = {start: form}
        for node in reversed(self.graph.nodes[1:]):
            if node.name not in pending:
                continue
            here = pending.pop(node.name)
            if node.op in KINKED:
                (source,) = node.inputs
                if arrived is not None:
                    arrived[node.name] = here.coeff
                bounds = tighter[source] if source in tighter else self.bounds[source]
                step = through_kink(node, here, multipliers[node.name], bounds)
                pieces: tuple[LinearForm, ...] = (step,)
            else:
                pieces = lookup(node).pull_back(node, here, self.lines.get(node.name))
            pieces = charged(here, pieces, self.noise.get(node.name))
            for name, piece in zip(node.inputs, pieces, strict=True):
                if name in pending:
                    piece = merged(
                        pending[name], piece, self.graph.node(name).shape, self.sizes[name]
                    )
                pending[name] = piece
        return pending[self.graph.input.name]


def ledger(graph: Graph, bounds: Mapping[str, Bounds], rounding: Rounding) -> Ledger:
    """The noise of every node under given rigorous bounds, and lines where no multiplier enters."""
    noise: dict[str, Tensor] = {}
    lines: dict[str, Relaxation] = {}
    for node in graph.nodes[1:]:
        inputs = tuple(bounds[name] for name in node.inputs)
        found = noise_of(node, rounding, torch.float64, inputs)
        if found is not None:
            noise[node.name] = found
        op = lookup(node)
        if op.relax is not None and node.op not in KINKED:
            lines[node.name] = op.relax(node, inputs[0], None)
    sizes = {name: b.magnitude() for name, b in bounds.items()}
    return Ledger(graph, bounds, lines, noise, sizes)
