"""Tools: what is used of other packages, as functions; `verify.cli.exploring` passes them in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from verify.protocols import Falsifier, Judge, Model
from verify.search.questions import RefuterFor


@dataclass(frozen=True, slots=True, eq=False)
class Doubts:
    """What several members say of one input.

    Attributes:
        members: each one's class probabilities, (member, class).
        mean: of the members, (class,).
        total, aleatoric, epistemic: entropies in nats.
    """

    members: list[list[float]]
    mean: list[float]
    total: float
    aleatoric: float
    epistemic: float

    def to_record(self) -> dict[str, object]:
        """As the page gets it."""
        return {
            "members": self.members,
            "mean": self.mean,
            "total": self.total,
            "aleatoric": self.aleatoric,
            "epistemic": self.epistemic,
        }


class FalsifierNamed(Protocol):
    """Makes the falsifier of a name."""

    def __call__(self, name: str, judge: Judge, seconds: float) -> Falsifier:
        """One that stops after so many seconds and keeps what it has."""
        ...


class Turning(Protocol):
    """Looks for the rotation that misleads most."""

    def __call__(self, model: Model, x: Tensor, label: Tensor, degrees: float) -> float:
        """The worst angle found within -degrees..degrees, in degrees.

        Args:
            model: see `verify.protocols.Model`.
            x: one image, shape (1, channel, height, width).
            label: shape (1,).
            degrees: >= 0.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Tools:
    """What attacks and uncertainty can do here.

    Attributes:
        attacks: names that a person may choose from, with a line each; the first is the default.
        falsifier: makes one of them.
        refuters: for complete search; see `verify.api.prove_property`.
        turning: the search for angles.
        doubt: of one input (1, *input), or None.
        doubt_about: who the members are, in words.
    """

    attacks: Mapping[str, str]
    falsifier: FalsifierNamed
    refuters: RefuterFor | None
    turning: Turning
    doubt: Callable[[Tensor], Doubts] | None = None
    doubt_about: str = ""
