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
from verify.certificates.halves import Halves
from verify.certificates.programs import ProgramTrees
from verify.certificates.recording import InputTree, ReluTrees, slopes_of, tightened
from verify.certificates.tree import Proof, Slopes
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.protocols import Bounder
from verify.search.activation_split import ActivationSplit
from verify.search.choosing import Later
from verify.search.halving import Halving
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

    number: int
    case: Case
    tree: InputTree | ReluTrees | ProgramTrees | Halves
    memo: Memo

    def about(self, number: int, case: Case) -> bool:
        """Whether this was the box of a case."""
        return self.number == number and same_box(self.case.lower, self.case.upper, case)

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
        searched: on cases, or on parts of them; the last search of each box.
    """

    graph: Graph
    spare: float = 1e-3
    sloped: list[Sloped] = field(default_factory=list)
    searched: list[Searched] = field(default_factory=list)

    def bounder(self, bounder: Bounder) -> Bounder:
        """The bounder, its slopes kept."""
        return Keeping(bounder, self) if isinstance(bounder, AlphaCrown) else bounder

    def search(self, number: int, case: Case, search: Search) -> Search:
        """The search, its tree kept."""
        self.searched = [s for s in self.searched if not s.about(number, case)]
        module, memo = (search.module if isinstance(search, Later) else ""), memo_of_one()
        if module == "input_split":
            boxes = InputTree()
            self.searched.append(Searched(number, case, boxes, memo))
            return InputSplit(on_step=boxes.record)
        if module == "activation_split":
            relus = ReluTrees()
            self.searched.append(Searched(number, case, relus, memo))
            return Harder(ActivationSplit(recorder=relus, memo=memo), self.spare)
        if module == "halving":
            halves = Halves(case)
            self.searched.append(Searched(number, case, halves, memo))
            return Halving(recorder=Halved(halves, self.spare))
        if module == "milp":
            from verify.search.milp import Milp  # scipy and HiGHS, which few decisions need

            signs = ProgramTrees()
            self.searched.append(Searched(number, case, signs, memo))
            return Harder(Milp(recorder=signs, memo=memo), self.spare)
        return search

    def found(self, number: int, case: Case) -> Searched | None:
        """What the last search over a case's box left behind."""
        return next((s for s in self.searched if s.about(number, case)), None)

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
        return [kept for kept in self.sloped if same_box(kept.lower, kept.upper, case)]


def same_box(lower: Tensor, upper: Tensor, case: Case) -> bool:
    """Whether a box is a case's."""
    return torch.equal(lower, case.lower) and torch.equal(upper, case.upper)


@dataclass(frozen=True, eq=False)
class Keeping:
    """A bounder whose slopes are kept, each box's on their own."""

    bounder: AlphaCrown
    diary: Diary

    def __call__(self, problem: Problem, budget: Budget) -> Enclosure:
        """What the bounder says."""
        box = problem.region.bounds()
        memo = Memo(len(box.lower), ROOM)
        memo.turn(torch.arange(len(box.lower)))
        found = self.bounder(problem, budget, memo)
        lower, upper = box.lower.flatten(1), box.upper.flatten(1)
        for i, coeff in enumerate(
            problem.spec.coeff.expand(len(lower), *problem.spec.coeff.shape[1:])
        ):
            own = memo if len(lower) == 1 else memo.entry(i)
            self.diary.sloped.append(Sloped(lower[i], upper[i], coeff.flatten(1), own))
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


@dataclass(frozen=True, eq=False)
class Halved:
    """A `verify.search.recorder.BoxRecorder`."""

    halves: Halves
    spare: float

    def inner(self, case: Case) -> Search:
        """The search of one box, its tree kept."""
        half = self.halves.of(case)
        half.trees, half.memo = ReluTrees(), memo_of_one()
        return Harder(ActivationSplit(recorder=half.trees, memo=half.memo), self.spare)

    def halved(self, case: Case, below: Case, above: Case) -> None:
        """A box was cut in two."""
        self.halves.halved(case, below, above)


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
