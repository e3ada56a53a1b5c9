"""The methods by name, and what each of them is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from attacks.defences.adversarial import (
    TRADES,
    AttackTraining,
    FastTraining,
    PGDTraining,
    Standard,
)
from attacks.defences.batch import Batch
from attacks.defences.certified import IBP, MTLIBP, SABR, CrownIBP
from attacks.defences.reach import Traced
from attacks.errors import AttackInputError


class Method(Protocol):
    """A loss to train on; a frozen dataclass of its settings.

    Attributes:
        certified: it bounds, so the network must have bounds.
        guarded: it can overfit catastrophically and is watched; see `attacks.defences.guard`.
    """

    certified: ClassVar[bool]
    guarded: ClassVar[bool]

    def loss(self, net: Traced | nn.Module, batch: Batch) -> Tensor:
        """One number, differentiable in the weights.

        Args:
            net: in training mode; as `Traced` where the method is certified, else as it is.
            batch: the step's inputs and where they may be moved.

        Raises:
            AttackInputError: if the method has nothing to say of this network or norm.
        """
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One method in the registry.

    Attributes:
        name: as written on the command line.
        summary: one line for a list.
        make: the method with its default settings, or others by keyword.
    """

    name: str
    summary: str
    make: Callable[..., Method]


METHODS: Mapping[str, Entry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Entry("standard", "clean inputs only: no defence", Standard),
            Entry("pgd", "points that projected gradient descent finds (Madry)", PGDTraining),
            Entry("fast", "one step from a random start, guarded", FastTraining),
            Entry("trades", "accuracy plus beta times the divergence nearby", TRADES),
            Entry("attack", "points that any attack by name finds", AttackTraining),
            Entry("ibp", "worst logits by interval bounds", IBP),
            Entry("crown-ibp", "the same, led by CROWN's bounds early on", CrownIBP),
            Entry("sabr", "interval bounds of a small box around a PGD point", SABR),
            Entry("mtl-ibp", "alpha times IBP's loss, the rest adversarial", MTLIBP),
        )
    }
)


def method_named(name: str, **settings: Any) -> Method:
    """The method called `name`, with these settings in place of its defaults.

    Raises:
        AttackInputError: if there is none of that name, or it has no such setting.
    """
    if name not in METHODS:
        raise AttackInputError(
            f"There is no training method {name!r}; expected one of {', '.join(METHODS)}."
        )
    make: Any = METHODS[name].make
    known = [field.name for field in dataclasses.fields(make)]
    for key in settings:
        if key not in known:
            raise AttackInputError(
                f"Method {name!r} has no setting {key!r}; it has {', '.join(known) or 'none'}."
            )
    method: Method = make(**settings)
    return method
