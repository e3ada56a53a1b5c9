"""Ends: both ends of a bracket, which only ever close, and what follows from them at one size."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from verify.errors import InternalError
from verify.values.result import Verdict

MOST_KNOWN = 64
"""Inputs whose brackets are kept."""


@dataclass(eq=False)
class Ends:
    """A bracket under way.

    Attributes:
        low: nothing nearer changes the class: proved.
        high: something at this distance does: replayed; infinite if nothing is known.
        method, attack: behind either end.
        finished: why no more is searched, or "".
    """

    low: float = 0.0
    high: float = math.inf
    method: str = ""
    attack: str = ""
    finished: str = ""

    def certify(self, low: float, method: str) -> bool:
        """Take over a certified end; says whether it is news.

        Raises:
            InternalError: if it reaches the attacked end.
        """
        if not low > self.low:
            return False
        self.low, self.method = low, method
        self.refuse_crossed()
        return True

    def refute(self, high: float, attack: str) -> bool:
        """Take over an attacked end; says whether it is news.

        Raises:
            InternalError: if the certified end reaches it.
        """
        if not high < self.high:
            return False
        self.high, self.attack = high, attack
        self.refuse_crossed()
        return True

    def refuse_crossed(self) -> None:
        """Stop loudly where both cannot be."""
        if self.low >= self.high and self.low > 0:
            raise InternalError(
                f"a certified end of {self.low!r} ({self.method}) reaches an attacked one of "
                f"{self.high!r} ({self.attack}); this is a bug, please report it with the model"
            )

    def verdict(self, size: float) -> Verdict:
        """What they say of everything up to that size."""
        if self.high <= size:
            return Verdict.FALSIFIED
        if 0 < size <= self.low:
            return Verdict.VERIFIED
        return Verdict.UNKNOWN

    def to_record(self) -> dict[str, object]:
        """As the page gets it."""
        return {
            "certified": self.low,
            "attacked": None if math.isinf(self.high) else self.high,
            "method": self.method,
            "attack": self.attack,
            "finished": self.finished,
        }


@dataclass(eq=False)
class Memory:
    """Brackets of the inputs looked at last, so that another radius of one need not start anew."""

    kept: OrderedDict[tuple[object, ...], Ends] = field(default_factory=OrderedDict)
    lock: Lock = field(default_factory=Lock)

    def ends(self, key: tuple[object, ...], make: Callable[[], Ends] = Ends) -> Ends:
        """The ends of one input, new ones if it was not looked at lately."""
        with self.lock:
            if key not in self.kept:
                self.kept[key] = make()
                while len(self.kept) > MOST_KNOWN:
                    self.kept.popitem(last=False)
            self.kept.move_to_end(key)
            return self.kept[key]
