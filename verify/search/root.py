"""The root of a search over activations: alpha-CROWN everywhere, and what domains start from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.bounders.alpha_crown import Pair
from verify.bounders.backward import BackwardPass
from verify.bounders.beta_crown import Clauses
from verify.bounders.cone import cone
from verify.bounders.crown import refine
from verify.bounders.domains import Domains, Frame, frame_of
from verify.bounders.memo import Memo
from verify.bounders.slopes import Ascent
from verify.graph.ir import Graph
from verify.ops.movement import pull_pad
from verify.ops.registry import lookup
from verify.values.budget import Budget, OutOfTime
from verify.values.linear_form import LinearForm
from verify.values.property import Case
from verify.values.region import Box
from verify.values.relaxation import Relaxation
from verify.values.result import Verdict
from verify.values.rounding import FLOAT32, Rounding
from verify.values.semantics import proof_by

NEURONS_SHARE = 0.25
"""Of the time, what optimised slopes of neurons may take before plain ones have to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Root:
    """What is known of a case before any split.

    Attributes:
        proof: a rigorous pass that visited every node.
        frame: the same for the search.
        others: rigorous lines of nonlinear nodes that are no Relu.
        clauses: of the case, float64.
        margin: proved margin of each clause, (clause,).
        slack: how much more than 0 the search must find, for the proof to find more than 0.
        slopes: of free nodes, of each clause's best row, (free, clause, 1, *node).
        domains: one per clause that is still open.
        closed: one per clause that is not.
        conditional: whether bounds hold for executions only that meet the clause.
    """

    proof: BackwardPass
    frame: Frame
    others: dict[str, Relaxation]
    clauses: Clauses
    margin: Tensor
    slopes: dict[str, Tensor]
    slack: float
    domains: Domains
    closed: Domains
    conditional: bool = False

    @property
    def worth(self) -> Verdict:
        """What a proof from here is worth."""
        assert self.proof.rounding is not None
        return proof_by(self.proof.rounding)


def clauses_of(case: Case) -> Clauses:
    """The clauses' rows, padded with zeros."""
    rows = max(len(clause) for clause in case.clauses)
    out = case.clauses[0].coeff.shape[1]
    coeff = torch.zeros(len(case.clauses), rows, out, dtype=torch.float64)
    const = torch.zeros(len(case.clauses), rows, dtype=torch.float64)
    real = torch.zeros(len(case.clauses), rows, dtype=torch.bool)
    for i, clause in enumerate(case.clauses):
        coeff[i, : len(clause)], const[i, : len(clause)] = clause.coeff, clause.const
        real[i, : len(clause)] = True
    return Clauses(coeff, const, real)


def root_of(
    graph: Graph,
    case: Case,
    ascent: Ascent,
    budget: Budget,
    memo: Memo | None = None,
    rounding: Rounding = FLOAT32,
) -> Root:
    """Bound every node and every clause; raises OutOfTime. A memo is given the neurons' slopes."""
    shape = (1, *graph.input.shape)
    box = Box(case.lower.view(shape), case.upper.view(shape))
    proof = BackwardPass(graph, box, rounding, budget)
    proof.wanted = cone(proof.graph, case.spec().coeff)
    search = BackwardPass(graph.to(torch.float32), box.to(torch.float32), None, budget)
    pair = Pair(proof, search, ascent, memo, True)
    early = budget.share(NEURONS_SHARE)
    names = proof.names()
    curved = [name for name in names if lookup(proof.graph.node(name)).relax is not None]
    for name in names:
        if name in curved:
            # Wide layers come first, and would take all of it; later ones are nearer to the output.
            refine_within(pair, name, early.share(1 / (len(curved) - curved.index(name))))
        pair.visit(name)
    clauses = clauses_of(case)
    spec = case.spec()
    start, form = proof.spec_form(spec.coeff, spec.const)
    rows = LinearForm(form.coeff.to(torch.float32), form.const.to(torch.float32))
    found = ascent(search, start, rows, enough=0.0)
    proved = pair.prove(start, form, found)[0]
    assert spec.clause is not None
    others = {
        name: line for name, line in proof.lines.items() if proof.graph.node(name).op != "Relu"
    }
    frame = frame_of(proof, others)
    margin, best = best_rows(proved, spec.clause, len(case.clauses))
    taken = (found.value[0].to(torch.float64) - proved).max()
    slopes = {name: alpha[0, 0, best] for name, alpha in found.alpha.items()}
    domains = domains_of(frame, clauses, margin, best, spec.clause, slopes)
    closed = margin > 0
    return Root(
        proof,
        frame,
        others,
        clauses,
        margin,
        {name: alpha[:, 0, best, None] for name, alpha in found.alpha.items()},
        max(0.0, 2 * float(taken)),
        domains.take((~closed).nonzero().flatten()),
        domains.take(closed.nonzero().flatten()),
    )


def refine_within(pair: Pair, name: str, early: Budget) -> None:
    """Plain rows for a node's inputs, then optimised ones while their share of the time lasts."""
    refine(pair.proof, name)
    for position, source in enumerate(pair.proof.graph.node(name).inputs):
        pair.follow(source)
        whole = pair.proof.budget
        pair.proof.budget = pair.search.budget = early
        try:
            pair.refine_input(name, position)
        except OutOfTime:
            pair.follow(source)  # what was found is kept
        finally:
            pair.proof.budget = pair.search.budget = whole


def best_rows(proved: Tensor, clause: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best margin of each clause, and which row has it; both (clause,)."""
    best = torch.stack(
        [torch.where(clause == i, proved, -torch.inf).argmax() for i in range(count)]
    )
    return proved[best], best


def domains_of(
    frame: Frame,
    clauses: Clauses,
    margin: Tensor,
    best: Tensor,
    clause: Tensor,
    slopes: dict[str, Tensor],
) -> Domains:
    """One domain without splits per clause, weighing its best row alone."""
    count = len(margin)
    first = torch.stack([(clause == i).to(torch.uint8).argmax() for i in range(count)])
    weight = torch.zeros(count, clauses.coeff.shape[1]).scatter_(1, (best - first)[:, None], 1.0)
    alpha = torch.zeros(count, frame.columns)
    for layer in frame.layers:
        if layer.name in slopes:
            layer.of(alpha).copy_(layer.pick(slopes[layer.name]))
    none = torch.zeros(count, 0)
    return Domains(
        clause=torch.arange(count),
        weight=weight,
        slots=none.long(),
        sign=none,
        beta=none,
        scale=none,
        alpha=alpha,
        value=margin.to(torch.float32),
        picks=none.long(),
        pulls=none,
        target=torch.full((count,), frame.columns),
        push=torch.zeros(count),
        cut=none,
    )


def to_input(graph: Graph, entry: str, point: Tensor) -> Tensor:
    """Points of the search's input space, (batch, ...), in that of the network; (batch, inputs).

    A pass enters the network behind operators that map boxes to boxes; each has an inverse.

    Args:
        graph: the whole network.
        entry: the node that the pass starts at.
        point: values of that node.
    """
    node = graph.node(entry)
    value = point.to(torch.float64).view(len(point), *node.shape)
    while node.name != graph.input.name:
        if node.op == "ScaleShift":
            scale = node.tensors["scale"].to(torch.float64)
            value = (value - node.tensors["shift"]) / torch.where(scale == 0, 1.0, scale)
        elif node.op == "Transpose":
            back = torch.tensor(node.settings["perm"]).argsort()
            value = value.permute(0, *(int(i) + 1 for i in back))
        elif node.op == "Pad":
            value = pull_pad(node, value)[0]
        value = value.reshape(len(value), *node.input_shapes[0])
        node = graph.node(node.inputs[0])
    return value.flatten(1)
