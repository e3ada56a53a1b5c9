"""What `verify calibrate` shows: figures before and after, as data, as a table, as a picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text
from torch import Tensor

from uncertainty.calibration_error import Binning, CalibrationError, calibration_error
from uncertainty.plots import plot_reliability
from uncertainty.sampling import (
    Floor,
    Interval,
    bootstrap_calibration_error,
    calibration_floor,
)
from uncertainty.scored import Scored, score_logits
from uncertainty.smooth import smooth_calibration_error
from verify.cli.presenting import Presenter
from verify.report.writers import write_whole

Logits = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """How well one set of logits is calibrated on the judging part."""

    scored: Scored
    error: CalibrationError
    floor: Floor
    interval: Interval
    maximum: CalibrationError
    smooth: float

    @classmethod
    def of(cls, logits: Logits, labels: Tensor, bins: int, seed: int) -> Judgement:
        """Every figure of the table."""
        scored = score_logits(logits, labels, class_bins=bins)
        how = Binning(bins=bins)
        return cls(
            scored,
            calibration_error(scored, bins=bins),
            calibration_floor(scored, how, seed=seed),
            bootstrap_calibration_error(scored, how, seed=seed),
            calibration_error(scored, bins=bins, norm="max"),
            smooth_calibration_error(scored),
        )

    def as_summary(self) -> dict[str, object]:
        """The figures as the record holds them."""
        worst = self.maximum.worst_bin
        return {
            "accuracy": self.scored.accuracy,
            "mean_confidence": self.scored.mean_confidence,
            "nll": self.scored.nll,
            "brier": self.scored.brier,
            "ece": self.error.value,
            "ece_low": self.interval.low,
            "ece_high": self.interval.high,
            "ece_floor": self.floor.mean,
            "ece_floor_95": self.floor.quantile,
            "ece_p_value": self.floor.p_value,
            "smooth_ece": self.smooth,
            "mce": self.maximum.value,
            "mce_inputs": self.maximum.table.counts[worst],
        }

    def cells(self) -> dict[str, str]:
        """The figures as people read them."""
        worst = self.maximum.worst_bin
        low, high = 100 * self.interval.low, 100 * self.interval.high
        return {
            "accuracy": f"{self.scored.accuracy:.2%}",
            "mean confidence": f"{self.scored.mean_confidence:.2%}",
            "NLL (nats)": f"{self.scored.nll:.4f}",
            "Brier score": f"{self.scored.brier:.4f}",
            "ECE": f"{self.error.value:.2%}",
            "  95 % interval": f"{low:.2f} to {high:.2f} %",
            "  floor: calibrated, by chance": f"{self.floor.mean:.2%}",
            "  as large by chance: p": f"{self.floor.p_value:.3f}",
            "smooth ECE": f"{self.smooth:.2%}",
            "MCE (inputs in that bin)": f"{self.maximum.value:.2%} "
            f"({self.maximum.table.counts[worst]})",
        }


def draw(before: Judgement, after: Judgement, path: Path) -> None:
    """The reliability diagrams side by side."""
    figure = plot_reliability(
        {"before": before.error, "after": after.error},
        floors={"before": before.floor, "after": after.floor},
    )
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix.lower().removeprefix("."), dpi=150)
    write_whole(path, drawn.getvalue())


def print_table(
    before: Judgement, after: Judgement, model: str, method: str, show: Presenter
) -> None:
    """Before and after; of a quiet run, one line."""
    first, second = before.cells(), after.cells()
    if show.options.quiet:
        line = f"NLL {first['NLL (nats)']} to {second['NLL (nats)']}, "
        line += f"ECE {first['ECE']} to {second['ECE']}, {len(before.scored)} inputs"
        show.console.print(Text(line), soft_wrap=True)
        return
    table = Table(title=Text(f"calibrate {model}: {method}, {len(before.scored)} inputs"))
    table.add_column("")
    for heading in ("before", "after"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, value in first.items():
        table.add_row(name, value, second[name])
    show.console.print(table)
