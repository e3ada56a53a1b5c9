"""Recorder: who wants to know what proves what in a search, for certificates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from torch import Tensor

from verify.bounders.domains import Domains
from verify.bounders.lp import Vector
from verify.bounders.refining import Bounded
from verify.bounders.safe_lp import Prover
from verify.bounders.simplex import Domain
from verify.search.outcome import Search
from verify.search.root import Root
from verify.values.property import Case


class Recorder(Protocol):
    """Of a search over activations."""

    def closed(self, base: Root, leaves: Domains, by: Root, proofs: Domains) -> None:
        """Leaves of a base are closed, by rows over the bounds of a root, the base or another."""
        ...

    def bounded(self, base: Root, domain: Domains, found: Bounded) -> None:
        """Neurons of one layer are bounded anew below one domain of a base."""
        ...

    def divided(self, base: Root, top: Domains) -> None:
        """What was found below these domains is dropped; the search begins there again."""
        ...


class ProgramRecorder(Protocol):
    """Of a search by linear programs, one clause after the other."""

    def begin(self, prover: Prover, clause: int) -> None:
        """What follows is about one clause of the case, and a program of it."""
        ...

    def closed(self, domains: Sequence[Domain], duals: Sequence[Vector], weights: Tensor) -> None:
        """Nodes are closed by these dual values and weights of the clause's rows."""
        ...

    def clipped(self, domain: Domain, duals: Vector, place: Tensor, times: Tensor) -> None:
        """Neurons of a node were bounded by its plane.

        Args:
            domain, duals: of the node.
            place: of the neurons that moved, among all open ones.
            times: what the plane was multiplied by, and not 0 where it is about the lower bounds
                of z, then about the upper ones; (2, neuron), NaN where a bound did not move.
        """
        ...


class BoxRecorder(Protocol):
    """Of a search that halves boxes, each searched by another one."""

    def inner(self, case: Case) -> Search:
        """The search of one box."""
        ...

    def halved(self, case: Case, below: Case, above: Case) -> None:
        """A box was cut in two; what was found of it as a whole is dropped."""
        ...


def telling(
    recorder: Recorder | None, base: Root, domain: Domains
) -> Callable[[Bounded], None] | None:
    """What tells a recorder of neurons that are bounded anew below one domain of a base."""
    return None if recorder is None else partial(recorder.bounded, base, domain)
