"""The attacks by name, for command lines and for the tests that every attack must pass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from attacks.apgd import APGD
from attacks.autoattack import AutoAttack
from attacks.errors import AttackInputError
from attacks.fab import FAB
from attacks.fgsm import FGSM
from attacks.gama import GAMA
from attacks.ifgsm import IFGSM
from attacks.momentum import MIFGSM
from attacks.pgd import PGD
from attacks.protocol import Attack
from attacks.square import Square


@dataclass(frozen=True, slots=True)
class Entry:
    """One attack in the registry.

    Attributes:
        name: as written on the command line.
        summary: one line for a list of attacks.
        make: the attack with its default settings, or others by keyword.
    """

    name: str
    summary: str
    make: Callable[..., Attack]


ATTACKS: Mapping[str, Entry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Entry("fgsm", "one step to the worst point of the linearised model", FGSM),
            Entry("ifgsm", "iterative FGSM (BIM): small projected steps from the input", IFGSM),
            Entry("mifgsm", "iterative FGSM along accumulated gradients, for transfer", MIFGSM),
            Entry(
                "nifgsm",
                "the same, with gradients taken where the accumulated one leads",
                partial(MIFGSM, nesterov=True),
            ),
            Entry("pgd", "projected gradient descent with momentum and random restarts", PGD),
            Entry("apgd-ce", "PGD that chooses its steps (Auto-PGD), on the cross-entropy", APGD),
            Entry("apgd-dlr", "the same on the logit ratio", partial(APGD, loss="dlr")),
            Entry(
                "apgd-t",
                "the same towards each of the nine likeliest classes",
                partial(APGD, loss="dlr", targeted=9),
            ),
            Entry("gama", "PGD on probabilities, first guided away from the input's own", GAMA),
            Entry(
                "fab",
                "to the nearest linearised boundary, then along it towards the input",
                partial(FAB, targeted=None),
            ),
            Entry("fab-t", "the same for each of the nine likeliest classes", FAB),
            Entry("square", "random search in windows, by scores alone (Square attack)", Square),
            Entry("autoattack", "APGD-CE, APGD-T, FAB-T, Square, each on what is left", AutoAttack),
            Entry(
                "autoattack-plus",
                "the same with APGD-DLR and FAB, and five restarts",
                partial(AutoAttack, version="plus"),
            ),
            Entry(
                "autoattack-rand",
                "APGD-CE and APGD-DLR on mean answers, for random models",
                partial(AutoAttack, version="rand"),
            ),
        )
    }
)


def attack_named(name: str) -> Attack:
    """The attack called `name`, with its default settings.

    Raises:
        AttackInputError: if there is none of that name.
    """
    if name not in ATTACKS:
        raise AttackInputError(
            f"There is no attack {name!r}; expected one of {', '.join(sorted(ATTACKS))}."
        )
    return ATTACKS[name].make()
