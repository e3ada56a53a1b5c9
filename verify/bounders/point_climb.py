"""Bounds of parts: slopes and multipliers of cuts are raised in float32, then proved in float64.

For a cut s·(z - p) >= 0 of an entry z, every beta >= 0 gives min g >= min (g - beta·s·(z - p)); the
gradient in beta is -s·(z - p) at the minimiser. Cuts are on executed values, so what rounding costs
is charged where the form passes the node that computes z.

Source:
    Shi et al. 2024 (GenBaB), arXiv:2405.21063, for cuts of nonlinear nodes other than Relu.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.beta_crown import Clauses, Climb, Moments, moments
from verify.bounders.point_parts import Columns, Parts, under
from verify.bounders.slopes import along_lines, free_nodes, initial_alpha, lines_at
from verify.graph.ir import Node
from verify.ops.registry import lookup
from verify.ops.windowed import dense
from verify.traverse import pull_back
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import unit


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One backward walk of a batch of parts, and the forward walk from its minimiser.

    Attributes:
        walk: the pass over the parts' bounds.
        lines: of nonlinear nodes.
        coeff: coefficients met at the outputs of nonlinear nodes, (batch, *node).
        values: of every node along the lines, (batch, *node).
        point: the minimiser, (batch, *input).
    """

    walk: BackwardPass
    lines: dict[str, Relaxation]
    coeff: dict[str, Tensor]
    values: dict[str, Tensor]
    point: Tensor


def rows_of(walk: BackwardPass, clauses: Clauses, parts: Parts) -> LinearForm:
    """Each part's weighted row over the output, (batch, 1, *output); one weight is 1."""
    output = walk.graph.output
    weight = parts.weight.to(clauses.coeff.dtype)[:, None]
    coeff = torch.bmm(weight, clauses.coeff[parts.clause])
    const = torch.bmm(weight, clauses.const[parts.clause][:, :, None])[:, :, 0]
    error = None if walk.rounding is None else torch.zeros_like(const)
    return LinearForm(coeff.view(len(parts), 1, *output.shape), const, error)


def multipliers(walk: BackwardPass, columns: Columns, parts: Parts) -> dict[str, LinearForm]:
    """-beta·s·(z - p) of all cuts, by the node that z is of."""
    dtype = walk.graph.dtype
    rigorous = walk.rounding is not None
    found = {}
    for name, first in columns.first.items():
        shape = columns.shapes[name]
        size = int(torch.Size(shape).numel())
        here = (parts.slots >= first) & (parts.slots < first + size) & (parts.side != 0)
        pull = torch.where(here, -parts.beta.to(dtype) * parts.side.to(dtype), 0.0)
        if not bool(pull.any()):
            continue
        coeff = pull.new_zeros(len(parts), size)
        coeff.scatter_add_(1, (parts.slots - first).clamp(0, size - 1), pull)
        terms = pull * parts.point.to(dtype)
        const = -terms.sum(dim=1, keepdim=True)
        error = None
        if rigorous:
            # One entry may have been cut several times: sums of a few terms, here and above.
            each = 2 * (parts.slots.shape[1] + 2) * unit(dtype)
            reach = walk.bounds[name].magnitude().flatten(1)
            total = pull.new_zeros(len(parts), size)
            total.scatter_add_(1, (parts.slots - first).clamp(0, size - 1), pull.abs())
            error = (terms.abs().sum(dim=1) + (total * reach).sum(dim=1))[:, None] * each
        found[name] = LinearForm(coeff.view(len(parts), 1, *shape), const, error)
    return found


def pulled(
    walk: BackwardPass,
    columns: Columns,
    clauses: Clauses,
    parts: Parts,
    lines: dict[str, Relaxation],
    record: dict[str, Tensor] | None = None,
) -> LinearForm:
    """The parts' rows at the input."""
    walk.budget.check()
    output = walk.graph.output.name
    sizes = None
    if walk.rounding is not None:
        sizes = {name: bounds.magnitude() for name, bounds in walk.bounds.items()}
    return pull_back(
        walk.graph,
        output,
        rows_of(walk, clauses, parts),
        lines,
        noise=None if walk.rounding is None else walk.noise,
        sizes=sizes,
        record=record,
        added=multipliers(walk, columns, parts),
    )


def seen(
    walk: BackwardPass, form: LinearForm, lines: dict[str, Relaxation], record: dict[str, Tensor]
) -> Seen:
    """The forward walk from the minimiser of a form at the input, along each part's lines."""
    shape = walk.graph.input.shape
    coeff = dense(form, shape).coeff[:, 0]
    bounds = walk.region.bounds()
    point = torch.where(coeff > 0, bounds.lower, bounds.upper)
    values = {walk.graph.input.name: point}
    for node in walk.graph.nodes[1:]:
        if any(name not in values for name in node.inputs):
            continue
        op = lookup(node)
        given = [values[name] for name in node.inputs]
        if op.relax is None:
            values[node.name] = op.forward(node, *given)
        elif node.name in record:
            along = along_lines if op.along is None else partial(op.along, node)
            wide = [value[:, None] for value in given]
            values[node.name] = along(lines[node.name], record[node.name], *wide)[:, 0]
    met = {name: part[:, 0] for name, part in record.items()}
    return Seen(walk, lines, met, values, point)


def climbed(
    search: BackwardPass,
    columns: Columns,
    clauses: Clauses,
    parts: Parts,
    goal: float,
    how: Climb,
) -> tuple[Parts, Seen]:
    """Raise every part's bound over its slopes and multipliers; a proposal, which proves nothing.

    Args:
        search: a pass in float32 that visited every node, a batch of one.
        columns: of its graph.
        clauses: in float32.
        parts: with slopes to begin from, for some of the free nodes.
        goal: bounds above it are enough.
        how: the settings.
    """
    walk, _ = under(search, columns, parts)
    nodes = free_nodes(walk, walk.graph.output.name)
    alpha = {
        node.name: parts.alpha.get(node.name, initial_alpha(walk, node)).clone() for node in nodes
    }
    now = replace(parts, alpha=alpha)
    best = replace(now, value=torch.full_like(parts.value, -torch.inf))
    states = {name: moments(a) for name, a in alpha.items()}
    cuts = moments(parts.beta)
    for number in range(1, how.iterations + 1):
        lines = lines_at(walk, nodes, now.alpha)
        record: dict[str, Tensor] = {}
        form = pulled(walk, columns, clauses, now, lines, record)
        value = walk.region.minimise(form)[:, 0]
        best = better_of(best, now, value)
        found = seen(walk, form, lines, record)
        if number == how.iterations or bool((best.value > goal).all()):
            break
        now = stepped(now, found, columns, nodes, states, cuts, how, number)
    return best, found


def better_of(best: Parts, now: Parts, value: Tensor) -> Parts:
    """The best met so far."""
    better = value > best.value
    alpha = {
        name: torch.where(better.view(1, -1, *[1] * (a.ndim - 2)), now.alpha[name], a)
        for name, a in best.alpha.items()
    }
    beta = torch.where(better[:, None], now.beta, best.beta)
    return replace(best, value=torch.where(better, value, best.value), alpha=alpha, beta=beta)


def stepped(
    now: Parts,
    found: Seen,
    columns: Columns,
    nodes: list[Node],
    states: dict[str, Moments],
    cuts: Moments,
    how: Climb,
    number: int,
) -> Parts:
    """Slopes and multipliers after one step of Adam."""
    decay = how.decay ** (number - 1)
    alpha = dict(now.alpha)
    for node in nodes:
        if node.name not in found.coeff:
            continue
        ascend = lookup(node).ascend
        assert ascend is not None
        bounds, *others = found.walk.inputs_of(node)
        first, *rest = (found.values[name][:, None] for name in node.inputs)
        more = [part for pair in zip(others, rest, strict=True) for part in pair]
        coeff = found.coeff[node.name][:, None]
        gradient = ascend(node, bounds, alpha[node.name], coeff, first, *more)
        moved = states[node.name].step(gradient, how, number)
        alpha[node.name] = (alpha[node.name] + decay * how.alpha_rate * moved).clamp(0, 1)
    beta = now.beta
    if beta.shape[1]:
        at = columns.laid(found.values, beta, len(now)).gather(1, now.slots.clamp(min=0))
        gradient = -now.side.to(beta.dtype) * (at - now.point.to(beta.dtype))
        moved = cuts.step(gradient, how, number) * scales(now, found, columns)
        beta = (beta + decay * how.beta_rate * moved).clamp(min=0)
    return replace(now, alpha=alpha, beta=beta)


def scales(now: Parts, found: Seen, columns: Columns) -> Tensor:
    """A step size for every multiplier: how much the row depends on the entries that were cut."""
    pull = columns.laid(reach_of(found), now.beta, len(now))
    own = pull.gather(1, now.slots.clamp(min=0))
    return torch.maximum(own, 0.1 * own.amax(dim=1, keepdim=True)).clamp(min=1e-6)


def reach_of(found: Seen) -> dict[str, Tensor]:
    """|coefficient| of nonlinear nodes' outputs, by input where that has their shape."""
    reach: dict[str, Tensor] = {}
    for name, coeff in found.coeff.items():
        node = found.walk.graph.node(name)
        for source, shape in zip(node.inputs, node.input_shapes, strict=True):
            size = coeff.abs()
            if shape != node.shape:
                size = size.flatten(1).amax(dim=1).view(-1, *[1] * len(shape))
                size = size.expand(len(coeff), *shape)
            reach[source] = torch.maximum(reach[source], size) if source in reach else size
    return reach


def proved(proof: BackwardPass, columns: Columns, clauses: Clauses, parts: Parts) -> Tensor:
    """Lower bounds of the parts' rows that hold for every execution, (batch,); inf if empty.

    Args:
        proof: a rigorous pass that visited every node, a batch of one.
        columns: of its graph.
        clauses: float64.
        parts: what the search proposes.
    """
    walk, empty = under(proof, columns, parts)
    nodes = free_nodes(walk, walk.graph.output.name)
    alpha = {node.name: parts.alpha[node.name].to(torch.float64) for node in nodes}
    lines = lines_at(walk, nodes, alpha)
    value = walk.region.minimise(pulled(walk, columns, clauses, parts, lines))[:, 0]
    return torch.where(empty, torch.inf, value)
