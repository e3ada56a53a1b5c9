"""Result: the outcome of one claim about one input, with what it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from torch import Tensor


class Verdict(str, Enum):
    """What is known of a claim.

    `VERIFIED` holds for every float32 execution of the file. `VERIFIED_REAL` holds for the
    real-valued network only; no deployment is proved by it, so it never counts as `VERIFIED`.
    """

    VERIFIED = "verified"
    VERIFIED_REAL = "verified (real arithmetic)"
    FALSIFIED = "falsified"
    UNKNOWN = "unknown"

    @property
    def proved(self) -> bool:
        """Whether it is a proof, of either kind; what kind, has to be said."""
        return self in (Verdict.VERIFIED, Verdict.VERIFIED_REAL)


class StopReason(str, Enum):
    """Why nothing was decided, and what to try."""

    BOUNDS_TOO_LOOSE = (
        "bounds too loose: no method in the strategy proved it and no attack refuted it; "
        "try a smaller eps, more --iterations, or --method auto"
    )
    OUT_OF_TIME = "timeout: give more with --timeout"
    NOT_FINITE = (
        "bounds are not finite: weights or inputs are too large for float32; "
        "rescale the model or the inputs"
    )
    WITHIN_ROUNDING = (
        "within rounding: somewhere the margin is smaller than what float32 executions of the "
        "model may differ by, and no split helps"
    )
    EXECUTED_OTHERWISE = (
        "proved in real arithmetic as far as a counterexample of the executed file reaches: "
        "rounding decides there"
    )
    NOT_REPLAYED = (
        "an attack found a counterexample that the model's own runtime does not confirm; "
        "the margin there is within rounding"
    )


def norm_name(p: float) -> str:
    """The norm as it is written on the command line: "inf", "2" or "1"."""
    return "inf" if math.isinf(p) else f"{p:g}"


def number_of(value: object, *, unknown: float = math.nan) -> float:
    """A number from a record, where what is not finite is null and a norm is its name."""
    return unknown if value is None else float(str(value))


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Whether every input within eps keeps its label.

    Attributes:
        index: number of the input in its data source.
        label: the class that must hold.
        predicted: what the model says of the input itself.
        verdict: `VERIFIED` means for every float32 execution of the model file.
        margin: if verified or unknown, the certified lower bound of the least
            y_label - y_other over the region, in units of the logits; if falsified, its value at
            the witness. NaN if nothing is known.
        eps: radius in model input units.
        p: the norm.
        method: what decided: a bounder's name, or an attack's.
        seconds: this input's share of the wall-clock time.
        reason: empty, or why nothing was decided.
        witness: shape (*input), float32, misclassified in the model's own runtime; or None.
        distance: of the witness from the input, in the norm, rounded up; NaN without one.
    """

    index: int
    label: int
    predicted: int
    verdict: Verdict
    margin: float
    eps: float
    p: float
    method: str
    seconds: float
    reason: str = ""
    witness: Tensor | None = None
    distance: float = math.nan

    def to_record(self) -> dict[str, object]:
        """The fields of the record schema; see docs/record-schema.md."""
        return {
            "index": self.index,
            "label": self.label,
            "predicted": self.predicted,
            "verdict": self.verdict.value,
            "margin": self.margin,
            "eps": self.eps,
            "norm": norm_name(self.p),
            "method": self.method,
            "seconds": self.seconds,
            "reason": self.reason,
            "distance": self.distance,
        }

    @classmethod
    def from_record(cls, row: Mapping[str, object], witness: Tensor | None = None) -> Result:
        """The result whose fields these are; the inverse of `to_record`."""
        return cls(
            index=int(number_of(row["index"])),
            label=int(number_of(row["label"])),
            predicted=int(number_of(row["predicted"])),
            verdict=Verdict(row["verdict"]),
            margin=number_of(row["margin"]),
            eps=number_of(row["eps"]),
            p=number_of(row["norm"]),
            method=str(row["method"]),
            seconds=number_of(row["seconds"]),
            reason=str(row["reason"]),
            witness=witness,
            distance=number_of(row["distance"]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Bracket:
    """A certified lower and an attacked upper bound of one input's robustness radius.

    Attributes:
        index: number of the input in its data source.
        label: the class that must hold.
        predicted: what the model says of the input itself.
        certified: no input within this distance changes the label; in model input units.
        attacked: a misclassified input is this near, rounded up; infinite if none was found.
        margin: certified lower bound of the margin at the certified radius; NaN if that is 0.
        p: the norm.
        method: the bounder behind `certified`.
        attack: the attack behind `attacked`, or "".
        seconds: this input's share of the wall-clock time.
        reason: why the certified radius is 0, or the search stopped early; or "".
        witness: shape (*input), float32, replayed in the model's own runtime; or None.
        proof: what the certified radius is worth: `VERIFIED`, or `VERIFIED_REAL`.
    """

    index: int
    label: int
    predicted: int
    certified: float
    attacked: float
    margin: float
    p: float
    method: str
    attack: str
    seconds: float
    reason: str = ""
    witness: Tensor | None = None
    proof: Verdict = Verdict.VERIFIED

    @property
    def verdict(self) -> Verdict:
        """Falsified if the input itself is misclassified, `proof` if a radius is certified."""
        if self.attacked == 0:
            return Verdict.FALSIFIED
        return self.proof if self.certified > 0 else Verdict.UNKNOWN

    def to_record(self) -> dict[str, object]:
        """The fields of the record schema; see docs/record-schema.md."""
        return {
            "index": self.index,
            "label": self.label,
            "predicted": self.predicted,
            "verdict": self.verdict.value,
            "margin": self.margin,
            "eps": self.certified,
            "norm": norm_name(self.p),
            "method": self.method,
            "seconds": self.seconds,
            "reason": self.reason,
            "radius_certified": self.certified,
            "radius_attacked": self.attacked,
            "attack": self.attack,
        }

    @classmethod
    def from_record(cls, row: Mapping[str, object], witness: Tensor | None = None) -> Bracket:
        """The bracket whose fields these are; the inverse of `to_record`."""
        verdict = Verdict(row["verdict"])
        return cls(
            index=int(number_of(row["index"])),
            label=int(number_of(row["label"])),
            predicted=int(number_of(row["predicted"])),
            certified=number_of(row["radius_certified"]),
            attacked=number_of(row["radius_attacked"], unknown=math.inf),
            margin=number_of(row["margin"]),
            p=number_of(row["norm"]),
            method=str(row["method"]),
            attack=str(row["attack"]),
            seconds=number_of(row["seconds"]),
            reason=str(row["reason"]),
            witness=witness,
            proof=verdict if verdict.proved else Verdict.VERIFIED,
        )
