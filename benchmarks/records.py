"""What the driver stores of each instance, and how two tools' margins are compared."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass

import torch

# The bar of the project: a margin counts as worse when it falls short by more than this, relative.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Measured:
    """One tool on one instance.

    Attributes:
        margins: certified lower bounds of y_label - y_j, j other than the label, increasing.
        seconds: every timed repetition, warm-up excluded.
        build_seconds: reading and converting the model, once.
        settings: what the tool was told beyond the method.
    """

    margins: tuple[float, ...]
    seconds: tuple[float, ...]
    build_seconds: float
    settings: str = ""

    @property
    def median(self) -> float:
        """Seconds of the middle repetition."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Record:
    """One instance under one method, by each tool that took part."""

    network: str
    instance: str
    label: int
    method: str
    ours: Measured | None
    peer: Measured | None

    def as_json(self) -> dict[str, object]:
        """The record as nested plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How our margins stand to the peer's over some records.

    Attributes:
        margins: how many were compared.
        worse: ours < peer's by more than TOLERANCE * max(1, |peer's|).
        worse_relative: ours < peer's by more than TOLERANCE * |peer's|; stricter near zero.
        better: ours > peer's by more than TOLERANCE * max(1, |peer's|).
        median_difference: of ours - peer's, in units of the model output.
        mean_difference: likewise.
        worst_difference: the least of ours - peer's over max(1, |peer's|).
    """

    margins: int
    worse: int
    worse_relative: int
    better: int
    median_difference: float
    mean_difference: float
    worst_difference: float


def compare(records: list[Record]) -> Comparison:
    """Our margins against the peer's, over the records that hold both.

    Raises:
        ValueError: if no record holds both.
    """
    both = [(r.ours, r.peer) for r in records if r.ours and r.peer]
    if not both:
        raise ValueError(
            f"cannot compare {len(records)} records: none holds both tools' margins. "
            "Run the driver with --only both."
        )
    ours = torch.tensor([value for mine, _ in both for value in mine.margins], dtype=torch.float64)
    peer = torch.tensor([value for _, his in both for value in his.margins], dtype=torch.float64)
    scale = peer.abs().clamp(min=1)
    difference = ours - peer
    # Counted as "not at least", so that a NaN of ours is on the losing side.
    return Comparison(
        margins=len(ours),
        worse=int((~(difference >= -TOLERANCE * scale)).sum()),
        worse_relative=int((~(difference >= -TOLERANCE * peer.abs())).sum()),
        better=int((difference > TOLERANCE * scale).sum()),
        median_difference=difference.median().item(),
        mean_difference=difference.mean().item(),
        worst_difference=(difference / scale).min().item(),
    )
