"""Diary: what a decision leaves behind, kept on the way, so that nothing is searched twice.

Slopes are taken from the bounders, trees from the searches. A search over activations is asked for
a little more than the property, which pays for what the checker computes otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.memo import SPEC, Memo
from verify.certificates.programs import ProgramTrees
from verify.certificates.recording import InputTree, ReluTrees, slopes_of, tightened
from verify.certificates.tree import Proof, Slopes
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.protocols import Bounder
from verify.search.activation_split import ActivationSplit
from verify.search.choosing import Later
from verify.search.input_split import InputSplit
from verify.search.outcome import Outcome, Refuter, Search, Watcher
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.enclosure import Enclosure
from verify.values.property import Case

ROOM = 2**30
"""Bytes of slopes that may be kept; beyond, the checker's plain bounds have to do."""


def memo_of_one() -> Memo:
    """For the slopes of one case."""
    memo = Memo(1, ROOM)
    memo.turn(torch.zeros(1, dtype=torch.long))
    return memo


@dataclass(frozen=True, eq=False)
class Sloped:
    """Slopes of one case's rows, and of the neurons below them if those were bounded too."""

    lower: Tensor
    upper: Tensor
    coeff: Tensor
    memo: Memo

    def rows(self) -> Slopes:
        """Of `coeff`, in its order."""
        parts = self.memo.new.get(SPEC, [])
        return slopes_of(parts[-1]) if parts else {}


@dataclass(frozen=True, eq=False)
class Searched:
    """The tree of a search on what was open of a case, and the slopes of its root."""

    case: Case
    tree: InputTree | ReluTrees | ProgramTrees
    memo: Memo

    def rows(self) -> Slopes:
        """Of the case's rows, in their order."""
        parts = self.memo.new.get(SPEC, [])
        return slopes_of(parts[-1]) if parts else {}


@dataclass(eq=False)
class Diary:
    """A `verify.search.outcome.Diary`.

    Attributes:
        graph: the network, float64.
        spare: how much more than the property a search over activations is asked for, in units of
            its rows at the middle of the box.
        sloped: in the order of the bounders.
        searched: by the number of the case.
    """

    graph: Graph
    spare: float = 1e-4
    sloped: list[Sloped] = field(default_factory=list)
    searched: dict[int, Searched] = field(default_factory=dict)

    def bounder(self, bounder: Bounder) -> Bounder:
        """The bounder, its slopes kept."""
        return Keeping(bounder, self) if isinstance(bounder, AlphaCrown) else bounder

    def search(self, number: int, case: Case, search: Search) -> Search:
        """The search, its tree kept."""
        self.searched.pop(number, None)
        module = search.module if isinstance(search, Later) else ""
        if module == "input_split":
            boxes = InputTree()
            self.searched[number] = Searched(case, boxes, memo_of_one())
            return InputSplit(on_step=boxes.record)
        if module == "activation_split":
            relus, memo = ReluTrees(), memo_of_one()
            self.searched[number] = Searched(case, relus, memo)
            return Harder(ActivationSplit(recorder=relus, memo=memo), self.spare)
        if module == "milp":
            from verify.search.milp import Milp  # scipy and HiGHS, which few decisions need

            signs, memo = ProgramTrees(), memo_of_one()
            self.searched[number] = Searched(case, signs, memo)
            return Harder(Milp(recorder=signs, memo=memo), self.spare)
        return search

    def rows(self, case: Case, coeff: Tensor) -> Slopes:
        """The last slopes of each row over a case's box, NaN where there are none."""
        found: Slopes = {}
        for kept in self.about(case):
            for name, alpha in kept.rows().items():
                whole = found.setdefault(name, alpha[:1].repeat(len(coeff), 0) * float("nan"))
                for i, row in enumerate(coeff):
                    same = (kept.coeff == row).all(dim=1).nonzero().flatten()
                    if len(same):
                        whole[i] = alpha[int(same[0])]
        return found

    def about(self, case: Case) -> list[Sloped]:
        """The slopes over a case's box."""
        return [
            kept
            for kept in self.sloped
            if torch.equal(kept.lower, case.lower) and torch.equal(kept.upper, case.upper)
        ]


@dataclass(frozen=True, eq=False)
class Keeping:
    """A bounder whose slopes are kept, if it is asked about one box."""

    bounder: AlphaCrown
    diary: Diary

    def __call__(self, problem: Problem, budget: Budget) -> Enclosure:
        """What the bounder says."""
        box = problem.region.bounds()
        if len(box.lower) != 1:
            return self.bounder(problem, budget)
        memo = memo_of_one()
        found = self.bounder(problem, budget, memo)
        ends = box.lower.flatten(), box.upper.flatten()
        self.diary.sloped.append(Sloped(*ends, problem.spec.coeff[0].flatten(1), memo))
        return found


@dataclass(frozen=True, eq=False)
class Harder:
    """A search that is asked for a little more; what it then proves holds all the more."""

    search: Search
    spare: float

    def __call__(
        self,
        graph: Graph,
        case: Case,
        refute: Refuter | None,
        budget: Budget,
        watch: Watcher | None = None,
    ) -> Outcome:
        """What the search says; a counterexample is one of the case itself, or none."""
        return self.search(graph, harder(graph, case, self.spare), refute, budget, watch)


def harder(graph: Graph, case: Case, spare: float) -> Case:
    """The case with every row lowered by a share of its size at the middle of the box."""
    middle = ((case.lower + case.upper) / 2).view(1, *graph.input.shape)
    size = run(graph, middle).flatten().abs()
    clauses = tuple(
        replace(
            c,
            const=c.const - spare * (c.const.abs() + c.coeff.abs() @ size),
            narrow=c.const if c.narrow is None else c.narrow,
        )
        for c in case.clauses
    )
    return replace(case, clauses=clauses)


def rows_of_root(memo: Memo, graph: Graph) -> list[Proof]:
    """The rows of a memo that bound neurons, for all clauses of a case."""
    readers = {n.inputs[0]: n.name for n in graph.nodes if n.op in ("Relu", "MaxPool")}
    return [
        one
        for name, kept in memo.new.items()
        if name in readers
        for part in kept
        for one in tightened(readers[name], part)
    ]
