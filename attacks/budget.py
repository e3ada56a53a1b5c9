"""A limit on what an attack may spend on each sample, whatever the attack.

    from attacks import PGD, Budget, spending

    with spending(Budget(forward=100)):
        result = PGD()(model, x, labels, ball)

The limit is kept where all queries pass, in the oracle: what a sample may no longer afford is not
evaluated, and reads as a margin of inf without slope. So an attack ends as it always does, with the
best that it has seen.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.errors import AttackInputError


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent; None for no limit.

    Attributes:
        forward: evaluations of the model per sample, that of the input itself included.
        backward: gradients per sample.
        seconds: of wall time for the whole call; queries that have begun are not broken off.
    """

    forward: int | None = None
    backward: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that cannot be meant."""
        for name, least in (("forward", 1), ("backward", 0), ("seconds", 0.0)):
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise AttackInputError(
                    f"Budget got {name} = {value}; expected at least {least}, or None for no limit."
                )


class Ledger:
    """What each sample has spent under a budget; mutable.

    Samples are told apart by their keys, so equal inputs share one budget unless given keys of
    their own (`sample_keys`).
    """

    def __init__(self, budget: Budget) -> None:
        """Nothing spent; the clock runs."""
        self.budget = budget
        self.deadline = math.inf if budget.seconds is None else time.monotonic() + budget.seconds
        self.spent: dict[int, list[int]] = {}
        self.logits: dict[int, Tensor] = {}

    def admit(self, keys: Tensor, backward: bool = False) -> Tensor:
        """Which queries, one per entry of `keys`, may be made, earliest first; they are charged.

        Args:
            keys: shape (rows,), int64, of the samples.
            backward: whether a gradient is taken, too.

        Returns:
            Shape (rows,), bool.
        """
        most = (
            math.inf if self.budget.forward is None else self.budget.forward,
            math.inf if self.budget.backward is None else self.budget.backward,
        )
        late = time.monotonic() >= self.deadline
        allowed = []
        for key in keys.tolist():
            spent = self.spent.setdefault(key, [0, 0])
            fits = spent[0] < most[0] and (not backward or spent[1] < most[1]) and not late
            if fits:
                spent[0] += 1
                spent[1] += backward
            allowed.append(fits)
        return torch.tensor(allowed, dtype=torch.bool, device=keys.device)

    def at_inputs(self, keys: Tensor, logits: Tensor | None = None) -> Tensor | None:
        """The logits of the inputs, so that the members of an ensemble need not ask again.

        Args:
            keys: shape (batch,), int64.
            logits: what the model has just answered; it is kept and charged. None to look it up.

        Returns:
            Shape (batch, classes); None where one of them is not known.
        """
        names = keys.tolist()
        if logits is not None:
            for name, row in zip(names, logits, strict=True):
                self.logits[name] = row
                self.spent.setdefault(name, [0, 0])[0] += 1
            return logits
        known = [self.logits[name] for name in names if name in self.logits]
        return torch.stack(known) if names and len(known) == len(names) else None


# The ledger of the call under way in this thread or task.
CURRENT: ContextVar[Ledger | None] = ContextVar("attack_ledger", default=None)


@contextmanager
def spending(budget: Budget) -> Iterator[Ledger]:
    """All attacks begun inside share this budget, sample by sample."""
    ledger = Ledger(budget)
    token = CURRENT.set(ledger)
    try:
        yield ledger
    finally:
        CURRENT.reset(token)
