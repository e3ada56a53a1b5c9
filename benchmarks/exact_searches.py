"""The searches that `benchmarks.exact_fuzz` asks, driven into their rarer paths, and its judge."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.exact_problems import Problem, met_at
from benchmarks.provocative import executed, graph_of
from benchmarks.reached import counting
from verify.bounders.beta_crown import Climb
from verify.bounders.slopes import Ascent
from verify.graph.ir import Graph
from verify.search import pacing
from verify.search.activation_split import ActivationSplit
from verify.search.cutting import Cutting
from verify.search.halving import Halving
from verify.search.input_split import InputSplit
from verify.search.milp import Milp
from verify.search.outcome import Outcome, Refuter, Search, Watcher
from verify.search.point_split import PointSplit
from verify.values.budget import Budget
from verify.values.property import Case, Halfspaces
from verify.values.result import Verdict
from verify.values.rounding import Rounding
from verify.values.semantics import SEMANTICS

SECONDS = 0.12
"""Of CPU, for one search."""
QUICK = Ascent(iterations=2)
"""Roots that leave something to do."""
BRIEFLY = 0.02
"""Seconds for what is searched in one box, before it is halved."""


@dataclass(frozen=True, slots=True)
class Brief:
    """A search that is given little time, so that what comes after it is reached.

    Attributes:
        search: the one.
        seconds: for a call.
    """

    search: Search
    seconds: float

    def __call__(
        self,
        graph: Graph,
        case: Case,
        refute: Refuter | None,
        budget: Budget,
        watch: Watcher | None = None,
    ) -> Outcome:
        """What it says by then."""
        return self.search(graph, case, refute, budget.within(self.seconds), watch)


@dataclass(frozen=True, slots=True)
class Hurried:
    """Activation splitting without patience: bases are divided and bounded anew at once.

    Attributes:
        search: the one.
    """

    search: Search

    def __call__(
        self,
        graph: Graph,
        case: Case,
        refute: Refuter | None,
        budget: Budget,
        watch: Watcher | None = None,
    ) -> Outcome:
        """What it says."""
        with patch.multiple(
            pacing, PATIENCE=0.0, WORTH_WAITING=0.0, DEEPENING_COSTS=0.0, ROUNDS=(2, 4)
        ):
            return self.search(graph, case, refute, budget, watch)


def with_cuts(rounding: Rounding) -> Search:
    """One domain at a time, few iterations, cuts after every batch."""
    cutting = Cutting(first=1, climb=Climb(iterations=3))
    climb = Climb(iterations=1)
    return ActivationSplit(
        ascent=QUICK, climb=climb, cutting=cutting, batch=1, refining=None, rounding=rounding
    )


def hurried(rounding: Rounding) -> Search:
    """See `Hurried`; batches of one domain, so that trees last."""
    climb = Climb(iterations=1)
    return Hurried(ActivationSplit(ascent=QUICK, climb=climb, batch=1, rounding=rounding))


def halving(rounding: Rounding) -> Search:
    """Boxes that are halved soon."""
    return Halving(inner=Brief(ActivationSplit(rounding=rounding), BRIEFLY), rounding=rounding)


SEARCHES: dict[str, Callable[[Rounding], Search]] = {
    "input split": lambda rounding: InputSplit(workers=1, rounding=rounding),
    "activation split": lambda rounding: ActivationSplit(rounding=rounding),
    "lp tree": lambda rounding: Milp(rounding=rounding),
    "point split": lambda rounding: PointSplit(rounding=rounding),
    "halving": halving,
    "bases divided": hurried,
    "cuts": with_cuts,
}
CURVED = ("input split", "point split", "halving", "activation split", "bases divided")
"""Those that take nets which are not piecewise linear in pairs; programs refuse such."""


@dataclass(frozen=True, slots=True, eq=False)
class Exactly:
    """A refuter that decides in exact numbers.

    Attributes:
        asked: the problem.
    """

    asked: Problem

    def __call__(self, lower: Tensor, upper: Tensor, *, effort: float = 1.0) -> Tensor | None:
        """The middles of some boxes, and the exact minimiser."""
        del effort
        places = torch.from_numpy(self.asked.places)
        return self.check(torch.cat((places, ((lower + upper) / 2)[:4].to(torch.float32))))

    def check(self, candidates: Tensor) -> Tensor | None:
        """The first that meets the threshold."""
        x = candidates.detach().to(torch.float32).numpy()[:16]
        x = np.clip(x, self.asked.low, self.asked.high)
        for point, met in zip(x, met_at(self.asked, x), strict=True):
            if met:
                return torch.from_numpy(point.copy())
        return None


def case_of(asked: Problem) -> Case:
    """The problem as a search takes it."""
    low, high = (torch.from_numpy(side).double() for side in (asked.low, asked.high))
    none = torch.zeros(0, dtype=torch.float64)
    free = Halfspaces(none.view(0, 1).expand(0, len(low)), none, none.bool())
    row = torch.tensor([asked.row], dtype=torch.float64)
    const = torch.tensor([-asked.threshold], dtype=torch.float64)
    return Case(low, high, free, (Halfspaces(row, const, torch.zeros(1).bool()),))


def runs_below(asked: Problem, generator: np.random.Generator) -> bool:
    """Whether a float32 execution reaches the threshold at one of the places."""
    threshold = Fraction(asked.threshold)
    for y in executed(asked.net, asked.seen(asked.places), generator):
        for one in y.tolist():
            if not np.isfinite(one).all():
                return True
            value = sum(c * Fraction(v) for c, v in zip(asked.row, one, strict=True))
            if value <= threshold:
                return True
    return False


@contextmanager
def paid_time() -> Iterator[None]:
    """Budgets are of CPU time while it is open: what is found does not depend on the load."""
    with patch.object(time, "monotonic", time.process_time):
        yield


@contextmanager
def unwatched() -> Iterator[Counter[str]]:
    """Counts nothing."""
    yield Counter()


def answered(
    asked: Problem, name: str, meaning: str, *, count: bool = False
) -> tuple[str, float, dict[str, int]]:
    """What one search says, in one semantics: proved, refuted or open; seconds; what it reached."""
    search, began = SEARCHES[name](SEMANTICS[meaning].rounding), time.process_time()
    with_point = None if name == "lp tree" and meaning == "real" else Exactly(asked)
    graph, case = graph_of(asked.net), case_of(asked)
    with paid_time(), counting() if count else unwatched() as reached:
        done = search(graph, case, with_point, Budget().within(SECONDS))
    word = {Verdict.UNKNOWN: "open", Verdict.FALSIFIED: "refuted"}.get(done.verdict, "proved")
    if done.verdict.proved and done.verdict is not SEMANTICS[meaning].proof:
        word = "false claim"
    if done.witness is not None and Exactly(asked).check(done.witness[None]) is None:
        word = "false witness"
    return word, time.process_time() - began, {k: v for k, v in reached.items() if v}


def judgement(asked: Problem, word: str, meaning: str, generator: np.random.Generator) -> str:
    """ "wrong", or empty.

    Of a curved net it is not known that a threshold is safe: a witness decides about itself.
    """
    if word.startswith("false") or (word == "refuted" and not asked.truth and not asked.curved):
        return "wrong"
    if word != "proved":
        return ""
    beaten = asked.truth or any(met_at(asked, asked.places))
    beaten = beaten or (meaning == "float32" and runs_below(asked, generator))
    return "wrong" if beaten else ""
