"""Semantics: which executions a proof is to hold for, and the verdict that says so."""

from __future__ import annotations

from dataclasses import dataclass

from verify.errors import SettingError
from verify.values.result import Verdict
from verify.values.rounding import FLOAT32, REAL, Rounding


@dataclass(frozen=True, slots=True)
class Semantics:
    """What a proof claims.

    Attributes:
        name: on the command line and in records.
        rounding: what bounds behind it have to charge.
        proof: the verdict on what is proved so.
    """

    name: str
    rounding: Rounding
    proof: Verdict

    @property
    def executed(self) -> bool:
        """Whether a proof holds for what is deployed; one that does not may pass a counterexample
        by rounding, and the label has to say so."""
        return self.proof is Verdict.VERIFIED

    @property
    def remark(self) -> str:
        """What stands behind every figure and answer of another kind than the usual one."""
        return "" if self.executed else " (real arithmetic)"


EXECUTED = Semantics("float32", FLOAT32, Verdict.VERIFIED)
"""Every float32 execution of the file: what a plain "verified" means."""
IDEAL = Semantics("real", REAL, Verdict.VERIFIED_REAL)
"""The real-valued network only."""
SEMANTICS = {kind.name: kind for kind in (EXECUTED, IDEAL)}


def semantics_of(name: str) -> Semantics:
    """The semantics of that name.

    Raises:
        SettingError: if there are none.
    """
    if name not in SEMANTICS:
        raise SettingError(f"semantics is {name!r}, expected {' or '.join(SEMANTICS)}")
    return SEMANTICS[name]


def proof_by(rounding: Rounding) -> Verdict:
    """What a proof is worth whose bounds charge this rounding."""
    charged = rounding.execution >= FLOAT32.execution and rounding.kernels
    return Verdict.VERIFIED if charged else Verdict.VERIFIED_REAL
