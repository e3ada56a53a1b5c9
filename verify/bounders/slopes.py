"""Ascent: raising linear bounds over the slopes of their relaxations, without autograd.

For fixed slopes the bound is the value of a linear form at its minimiser x*. Running the network
forward from x* with each row's own lines gives every z(x*), and d bound / d alpha = A+·z(x*) for
relu (Danskin's theorem). One forward walk costs as much as the backward one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.graph.ir import Node
from verify.ops.registry import lines_of, lookup
from verify.ops.windowed import dense
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation


@dataclass(frozen=True, slots=True, eq=False)
class Optimised:
    """What an optimisation of rows ended with.

    Attributes:
        value: the best bound met, shape (batch, row).
        alpha: the slopes that gave it, per nonlinear node, shape (free, batch, row, *node).
    """

    value: Tensor
    alpha: dict[str, Tensor]


SMALLEST_STEP = 1e-12
"""Keeps Adam's quotient finite where a slope never had a gradient."""


@dataclass(frozen=True, slots=True)
class Ascent:
    """Projected Adam on the slopes.

    Attributes:
        iterations: backward passes; the first one evaluates the initial slopes.
        rate: step size, in units of slope.
        decay: factor on the rate per iteration.
        momentum: Adam's beta1. Half of the usual, because the bound is piecewise linear in the
            slopes: a gradient of nine steps ago belongs to another piece. Measured in
            benchmarks/README.md.
        memory: Adam's beta2.

    Source:
        Kingma and Ba 2015, arXiv:1412.6980; alpha-CROWN: Xu et al. 2021, arXiv:2011.13824.
    """

    iterations: int = 20
    rate: float = 0.25
    decay: float = 0.97
    momentum: float = 0.5
    memory: float = 0.99

    def __call__(
        self,
        walk: BackwardPass,
        start: str,
        form: LinearForm,
        *,
        enough: float | None = None,
        initial: dict[str, Tensor] | None = None,
        remember: bool = True,
    ) -> Optimised:
        """Raise every row's bound over its own slopes.

        Args:
            walk: bounds and lines of all nodes below `start`.
            start: the node the rows are over.
            form: the rows.
            enough: stop as soon as all rows exceed this.
            initial: slopes to start from, shape (free, batch, row, *node), for some of the nodes;
                where they are NaN or not given, those of the smallest relaxation.
            remember: keep each row's best slopes; otherwise the last ones are returned.
        """
        nodes = free_nodes(walk, start)
        batch, row = form.const.shape
        alpha = {node.name: spread(initial_alpha(walk, node), row).clone() for node in nodes}
        for name, known in (initial or {}).items():
            if name in alpha:
                alpha[name] = torch.where(torch.isnan(known), alpha[name], known)
        best, best_alpha = form.const.new_full((batch, row), -torch.inf), dict(alpha)
        first = {name: torch.zeros_like(a) for name, a in alpha.items()}
        second = {name: torch.zeros_like(a) for name, a in alpha.items()}
        for step in range(self.iterations):
            lines = lines_at(walk, nodes, alpha)
            record: dict[str, Tensor] = {}
            pulled = walk.pulled(start, form, lines, record)
            value = walk.region.minimise(pulled)
            better = value > best
            best = torch.where(better, value, best)
            if remember and step > 0:
                keep(best_alpha, alpha, better)
            last = step == self.iterations - 1
            if last or not nodes or (enough is not None and bool((best > enough).all())):
                break
            slopes = slope_gradients(walk, start, pulled, lines, record, alpha, nodes)
            rate = self.rate * self.decay**step
            warm = 1 - self.momentum ** (step + 1)
            scale = rate * (1 - self.memory ** (step + 1)) ** 0.5 / warm
            for name, gradient in slopes.items():
                first[name].mul_(self.momentum).add_(gradient, alpha=1 - self.momentum)
                second[name].mul_(self.memory).addcmul_(gradient, gradient, value=1 - self.memory)
                size = second[name].sqrt().add_(SMALLEST_STEP)
                # A new tensor: the best slopes so far may be this very one.
                alpha[name] = torch.addcdiv(alpha[name], first[name], size, value=scale)
                alpha[name].clamp_(0, 1)
        return Optimised(best, best_alpha if remember else alpha)


def keep(best: dict[str, Tensor], alpha: dict[str, Tensor], better: Tensor) -> None:
    """Overwrite the best slopes of the rows that improved."""
    for name, value in alpha.items():
        mask = better.view(1, *better.shape, *[1] * (value.ndim - 3))
        best[name] = torch.where(mask, value, best[name])


def free_nodes(walk: BackwardPass, start: str) -> list[Node]:
    """The nonlinear nodes below `start` whose lines alpha can move, in graph order."""
    needed = {start}
    found = []
    for node in reversed(walk.graph.nodes):
        if node.name in needed:
            needed.update(node.inputs)
            if lookup(node).free:
                found.append(node)
    return found[::-1]


def initial_alpha(walk: BackwardPass, node: Node) -> Tensor:
    """The slopes of the smallest relaxation, shape (free, batch, 1, *node); of products
    of matrices (free, batch, 1, *lead, m, n, k).
    """
    rule = lookup(node).initial
    assert rule is not None
    return rule(node, *walk.inputs_of(node))


def spread(alpha: Tensor, row: int) -> Tensor:
    """Slopes of one row, (free, batch, 1, ...), for several."""
    return alpha.expand(-1, -1, row, *alpha.shape[3:])


def slopes_of(node: Node) -> int:
    """How many slopes a row has at a node: one or two for each entry, or for each product."""
    free = lookup(node).free
    return free * node.size * (node.input_shapes[0][-1] if node.op == "MatMul" else 1)


def lines_at(
    walk: BackwardPass, nodes: list[Node], alpha: dict[str, Tensor]
) -> dict[str, Relaxation]:
    """The pass's lines with those of the free nodes moved to the given slopes."""
    lines = dict(walk.lines)
    for node in nodes:
        lines[node.name] = lines_of(node, walk.inputs_of(node), alpha[node.name])
    return lines


def slope_gradients(
    walk: BackwardPass,
    start: str,
    pulled: LinearForm,
    lines: dict[str, Relaxation],
    record: dict[str, Tensor],
    alpha: dict[str, Tensor],
    nodes: list[Node],
) -> dict[str, Tensor]:
    """d bound / d alpha for every free node: one forward walk from the rows' minimisers."""
    point = walk.region.minimiser(dense(pulled, walk.graph.input.shape).coeff)
    batch, row = point.shape[:2]
    values = {walk.graph.input.name: point.flatten(0, 1)}
    wanted = {node.name for node in nodes if node.name in record}
    gradients: dict[str, Tensor] = {}
    for node in walk.graph.nodes[1:]:
        if len(gradients) == len(wanted):
            break
        if any(name not in values for name in node.inputs):
            continue
        op = lookup(node)
        if op.relax is None:
            values[node.name] = op.forward(node, *(values[name] for name in node.inputs))
            continue
        if node.name not in record:
            continue  # no row of these reads it
        coeff = record[node.name]
        given = [values[name].unflatten(0, (batch, row)) for name in node.inputs]
        if node.name in wanted:
            assert op.ascend is not None
            bounds, *others = walk.inputs_of(node)
            more = [part for pair in zip(others, given[1:], strict=True) for part in pair]
            gradients[node.name] = op.ascend(node, bounds, alpha[node.name], coeff, given[0], *more)
        along = along_lines if op.along is None else partial(op.along, node)
        values[node.name] = along(lines[node.name], coeff, *given).flatten(0, 1)
    return gradients


def along_lines(lines: Relaxation, coeff: Tensor, value: Tensor) -> Tensor:
    """Each row's own line at its value: the lower one where the coefficient is positive."""
    if lines.lower_source is not None and lines.upper_source is not None:
        flat = value.flatten(2)
        rows = flat.shape[1]
        shape = coeff.shape
        low = flat.gather(2, lines.lower_source[:, None].expand(len(flat), rows, -1)).view(shape)
        high = flat.gather(2, lines.upper_source[:, None].expand(len(flat), rows, -1)).view(shape)
    else:
        low = high = value
    lower = low * lines.lower_slope
    if lines.lower_offset is not None:
        lower = lower + lines.lower_offset
    upper = high * lines.upper_slope
    if lines.upper_offset is not None:
        upper = upper + lines.upper_offset
    return torch.where(coeff > 0, lower, upper)
