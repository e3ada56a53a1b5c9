"""The minimal-norm attacks by name, for command lines and for the tests that each must pass."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from attacks.boundary import Boundary
from attacks.carlini_wagner import CarliniWagner
from attacks.ddn import DDN
from attacks.deepfool import DeepFool
from attacks.ead import EAD
from attacks.errors import AttackInputError
from attacks.fmn import FMN
from attacks.hopskipjump import HopSkipJump
from attacks.minimal import Minimiser
from attacks.pdpgd import PDPGD
from attacks.sigma_zero import SigmaZero
from attacks.spsa import SPSA
from attacks.targeted_l1 import TargetedL1

EVERY_NORM = (math.inf, 2.0, 1.0, 0.0)
CONVEX = (math.inf, 2.0, 1.0)


@dataclass(frozen=True, slots=True)
class MinimiserEntry:
    """One minimal-norm attack in the registry.

    Attributes:
        name: as written on the command line.
        summary: one line for a list of attacks.
        norms: the p of the balls it takes; 0 is that of a `SparseBall`.
        gradient: whether it needs the model's gradient.
        make: the attack with its default settings, or others by keyword.
    """

    name: str
    summary: str
    norms: tuple[float, ...]
    gradient: bool
    make: Callable[..., Minimiser]


MINIMISERS: Mapping[str, MinimiserEntry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            MinimiserEntry(
                "deepfool", "to the nearest linearised boundary", EVERY_NORM, True, DeepFool
            ),
            MinimiserEntry("cw", "Carlini-Wagner: a weighted penalty", (2.0,), True, CarliniWagner),
            MinimiserEntry("ead", "elastic net: Carlini-Wagner with L1", (1.0, 2.0), True, EAD),
            MinimiserEntry("ddn", "a sphere that shrinks at successes", (2.0,), True, DDN),
            MinimiserEntry("fmn", "projection onto a ball that adapts", EVERY_NORM, True, FMN),
            MinimiserEntry("pdpgd", "primal-dual proximal gradient", CONVEX, True, PDPGD),
            MinimiserEntry("sigma-zero", "few entries, smoothly counted", (0.0,), True, SigmaZero),
            MinimiserEntry(
                "targeted-l1", "cross-entropy to a class + lambda |d|_1", (1.0,), True, TargetedL1
            ),
            MinimiserEntry("spsa", "FMN on gradients estimated from scores", CONVEX, False, SPSA),
            MinimiserEntry(
                "hopskipjump",
                "the boundary's normal from decisions",
                (math.inf, 2.0),
                False,
                HopSkipJump,
            ),
            MinimiserEntry("boundary", "a random walk along the boundary", (2.0,), False, Boundary),
        )
    }
)


def minimiser_named(name: str) -> Minimiser:
    """The minimal-norm attack called `name`, with its default settings.

    Raises:
        AttackInputError: if there is none of that name.
    """
    if name not in MINIMISERS:
        raise AttackInputError(
            f"There is no minimal-norm attack {name!r}; expected one of "
            f"{', '.join(sorted(MINIMISERS))}."
        )
    return MINIMISERS[name].make()
