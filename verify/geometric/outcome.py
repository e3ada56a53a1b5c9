"""What is known of one image under a transformation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from verify.values.result import Verdict, number_of


@dataclass(frozen=True, slots=True, eq=False)
class GeometricResult:
    """A verdict, and a bracket of the share of the range that is safe.

    A share s stands for the range shrunk towards the point that changes nothing:
    origin + s·(range - origin); for rotation(-30,30), s = 0.5 is -15..15 degrees.

    Attributes:
        index: number of the image in its data source.
        label: the class that must hold.
        predicted: what the model says of the image itself.
        verdict: `VERIFIED` means for every parameter of the range and every float32 execution.
        margin: if verified, the certified lower bound of the least y_label - y_other; else NaN.
        certified: no transformation of a smaller share changes the label, and at 1
            none in the whole range; rounded down.
        attacked: a counterexample of this share is known, rounded up; infinite if none is.
        volume: certified part of the whole range by volume, in [0, 1].
        boxes: how many boxes of parameters were bounded.
        noise: how far each pixel may move besides, in model input units.
        method: what bounded them, or "replay" if the image itself is misclassified.
        seconds: this image's wall-clock time.
        reason: empty, or why it is not decided.
        parameters: of the counterexample of the least share, in the units of the steps; or None.
        witness: the counterexample, shape (*input), float32, misclassified by the judge; or None.
        spans: certified boxes, low and high, shape (box, 2, parameter).
        attack: what found the counterexample: "search", or the name of an attack.
    """

    index: int
    label: int
    predicted: int
    verdict: Verdict
    margin: float
    certified: float
    attacked: float
    volume: float
    boxes: int
    noise: float
    method: str
    seconds: float
    reason: str
    parameters: tuple[float, ...] | None
    witness: Tensor | None
    spans: Tensor
    attack: str = ""

    def to_record(self) -> dict[str, object]:
        """The fields of the record schema; see docs/record-schema.md."""
        return {
            "index": self.index,
            "label": self.label,
            "predicted": self.predicted,
            "verdict": self.verdict.value,
            "margin": self.margin,
            "eps": self.noise or None,
            "norm": "inf" if self.noise else None,
            "method": self.method,
            "seconds": self.seconds,
            "reason": self.reason,
            "share_certified": self.certified,
            "share_attacked": None if math.isinf(self.attacked) else self.attacked,
            "volume_certified": self.volume,
            "boxes": self.boxes,
            "attack": self.attack,
            "parameters": self.parameters,
        }

    @classmethod
    def from_record(
        cls, row: Mapping[str, object], witness: Tensor | None, spans: Tensor
    ) -> GeometricResult:
        """The result whose fields these are; the inverse of `to_record`."""
        found = row["parameters"]
        return cls(
            index=int(number_of(row["index"])),
            label=int(number_of(row["label"])),
            predicted=int(number_of(row["predicted"])),
            verdict=Verdict(row["verdict"]),
            margin=number_of(row["margin"]),
            certified=number_of(row["share_certified"]),
            attacked=number_of(row["share_attacked"], unknown=math.inf),
            volume=number_of(row["volume_certified"]),
            boxes=int(number_of(row["boxes"])),
            noise=number_of(row["eps"], unknown=0.0),
            method=str(row["method"]),
            seconds=number_of(row["seconds"]),
            reason=str(row["reason"]),
            parameters=tuple(map(number_of, found)) if isinstance(found, list | tuple) else None,
            witness=witness,
            spans=spans,
            attack=str(row["attack"]),
        )
