"""Outcome: what a complete search says of one case, and what it cost; and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from verify.graph.ir import Graph
from verify.protocols import Bounder
from verify.values.budget import Budget
from verify.values.property import Case
from verify.values.result import Verdict


class Refuter(Protocol):
    """Looks for counterexamples in boxes; what it returns was replayed in the model's runtime."""

    def __call__(self, lower: Tensor, upper: Tensor, *, effort: float = 1.0) -> Tensor | None:
        """A float32 input of shape (*input) that meets the case, or None.

        Args:
            lower, upper: float64 boxes within the case, shape (batch, inputs), likeliest first.
            effort: 1 for the thorough search before bounding; small, such as 0.01, for a glance
                at sub-boxes in the middle of a search.
        """
        ...

    def check(self, candidates: Tensor) -> Tensor | None:
        """The first of the candidates (batch, inputs) that the runtime confirms, or None."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """A verdict on one case.

    Attributes:
        verdict: `VERIFIED`: no input meets the case, in any float32 execution; `VERIFIED_REAL`: in
            real arithmetic; `FALSIFIED`: the witness does, in the model's own runtime.
        method: what decided.
        why: why this search was chosen; one line for people.
        reason: empty, or why nothing was decided and what to try.
        bound: the least margin proved over all that was left open; > 0 if verified.
        domains: sub-problems bounded.
        witness: float32, shape (*input), or None.
    """

    verdict: Verdict
    method: str
    why: str = ""
    reason: str = ""
    bound: float = float("nan")
    domains: int = 0
    witness: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a search stands, for a progress display.

    Attributes:
        bounded: sub-problems bounded so far.
        open_: sub-problems waiting.
        bound: the least lower bound among them.
    """

    bounded: int
    open_: int
    bound: float


Watcher = Callable[[Progress], None]
"""Called now and then while a search runs."""


class Search(Protocol):
    """A complete (or as complete as it can be) search on one case.

    The graph is the network in float64 with dead ends removed; the case's box is flat, in the order
    of the graph's input. Never raises OutOfTime: it answers UNKNOWN with what it knows by then.
    """

    def __call__(
        self,
        graph: Graph,
        case: Case,
        refute: Refuter | None,
        budget: Budget,
        watch: Watcher | None = None,
    ) -> Outcome:
        """The verdict within the budget."""
        ...


class Diary(Protocol):
    """Keeps what a decision of a property leaves behind, for certificates."""

    def bounder(self, bounder: Bounder) -> Bounder:
        """The bounder to run in place of this one."""
        ...

    def search(self, number: int, case: Case, search: Search) -> Search:
        """The search to run in place of this one on what is open of a case."""
        ...
