"""Attacks on properties behind `verify.search.outcome.Refuter`: where attacks and verify meet."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attacks.unsafe import Goal, UnsafeSearch
from verify.graph.ir import Graph
from verify.ops.registry import lookup
from verify.runtime import with_tail
from verify.search.outcome import Refuter
from verify.search.questions import RefuterFor
from verify.search.replaying import Replaying
from verify.search.stating import is_classification
from verify.values.bounds import Bounds
from verify.values.budget import Budget, Cancelled, never
from verify.values.property import Case

STEPS = ("Sign", "Floor", "Ceil", "Round")
"""Operators whose slope is 0 wherever there is one."""


@dataclass(eq=False)
class AttackRefuter:
    """Looks for counterexamples of one case by sampling and descent.

    Attributes:
        graph: the network in float32, softmax left out.
        replay: what decides.
        case: the clauses still open.
        deadline: on the clock of `time.monotonic`.
        seed: of the first call; every call has another.
        cancelled: whether nobody waits any more.
    """

    graph: Graph
    replay: Replaying
    case: Case
    deadline: float = math.inf
    seed: int = 0
    cancelled: Callable[[], bool] = never
    calls: int = field(default=0, init=False)

    def __call__(self, lower: Tensor, upper: Tensor, *, effort: float = 1.0) -> Tensor | None:
        """A confirmed counterexample in one of the boxes, or None."""
        whole = self.replay.case.witnesses()
        inside = floats_of_boxes(lower, upper, whole)
        if not len(inside.lower):
            return None
        self.calls += 1
        search = UnsafeSearch(seed=self.seed * 1_000_003 + self.calls)
        if not all(len(clause) for clause in self.case.clauses):
            return self.check(inside.lower / 2 + inside.upper / 2)
        found: list[Tensor] = []

        def confirm(points: Tensor) -> Tensor | None:
            replayed = self.replay.check(points)
            if replayed is not None:
                found.append(replayed)
            return replayed

        search(
            self.model,
            inside.lower,
            inside.upper,
            self.goal(),
            confirm,
            effort=effort,
            deadline=self.deadline,
        )
        return found[0] if found else None

    def check(self, candidates: Tensor) -> Tensor | None:
        """See `Replay.check`."""
        return self.replay.check(candidates)

    def model(self, points: Tensor) -> Tensor:
        """Outputs, and inputs behind them where rows need them; raises Cancelled."""
        if self.cancelled():
            raise Cancelled
        return self.outputs(self.graph, points)

    def outputs(self, graph: Graph, points: Tensor) -> Tensor:
        """What the rows are over."""
        output = straight(graph, points.view(-1, *graph.input.shape))
        if graph.tail is not None and not is_classification(self.replay.case):
            output = with_tail(output, graph.tail)
        flat = output.flatten(1)
        return torch.cat((flat, points), dim=1) if self.wide else flat

    @property
    def wide(self) -> bool:
        """Whether the rows are over outputs and inputs."""
        return self.case.clauses[0].coeff.shape[1] > self.graph.output.size

    def goal(self) -> Goal:
        """The clauses still open, in float32."""
        spec = self.case.spec()
        assert spec.clause is not None
        return Goal(spec.coeff[0].float(), spec.const[0].float(), spec.clause)


def straight(graph: Graph, x: Tensor) -> Tensor:
    """The network's output, with a slope through operators that have none.

    A sign passes on the slope of tanh(z / s), s the usual size of z: "straight through" (Bengio et
    al. 2013, arXiv:1308.3432); a floor passes on that of z. Values are the network's own.
    """
    values = {graph.input.name: x}
    for node in graph.nodes[1:]:
        inputs = [values[name] for name in node.inputs]
        value = lookup(node).forward(node, *inputs)
        if node.op in STEPS and torch.is_grad_enabled():
            (z,) = inputs
            size = z.detach().flatten(1).abs().mean(dim=1).clamp(min=1e-12)
            soft = torch.tanh(z / size.view(-1, *[1] * (z.ndim - 1))) if node.op == "Sign" else z
            value = soft + (value - soft).detach()
        values[node.name] = value
    return values[graph.output.name]


def floats_of_boxes(lower: Tensor, upper: Tensor, whole: Bounds) -> Bounds:
    """The float32 numbers of boxes within a case, (box, inputs); boxes without any are left out."""
    low = torch.maximum(lower.to(torch.float32), whole.lower)
    high = torch.minimum(upper.to(torch.float32), whole.upper)
    some = (low <= high).all(dim=1)
    return Bounds(low[some], high[some])


def refuters(seed: int) -> RefuterFor:
    """Attacks for `verify.prove_property`, `verify.certify` and `verify.radius`."""
    single: list[tuple[Graph, Graph]] = []

    def make(graph: Graph, replay: Replaying, case: Case, budget: Budget) -> Refuter:
        if not single or single[0][0] is not graph:
            single[:] = [(graph, graph.to(torch.float32))]
        return AttackRefuter(single[0][1], replay, case, budget.deadline, seed, budget.cancelled)

    return make
