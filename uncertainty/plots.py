"""Pictures of calibration: reliability, risk over coverage, PIT; matplotlib is imported when drawn.

Each function returns a matplotlib Figure made without pyplot: no window, no global state. Save it
with `figure.savefig(path)`. Colours are those of Okabe and Ito, which colour-blind readers can tell
apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from uncertainty.arrays import Array, as_confidences, needs_inputs
from uncertainty.calibration_error import CalibrationError
from uncertainty.errors import UncertaintyInputError
from uncertainty.sampling import Floor, wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from uncertainty.selective import RiskCoverage

BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#5F5F5F"
LINES = ((BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (GREY, ":"))


def plot_reliability(
    errors: Mapping[str, CalibrationError],
    *,
    floors: Mapping[str, Floor] | None = None,
    level: float = 0.95,
) -> Figure:
    """Accuracy over confidence with Wilson intervals, above the number of inputs in each bin.

    A calibrated model's dots lie on the diagonal, up to their intervals; below it, it is
    overconfident. The size of a bin is what its dot is worth.

    Args:
        errors: one panel each, named.
        floors: the ECE that a perfectly calibrated model would show, told in the panel's title.
        level: of the intervals.
    """
    if not errors:
        raise UncertaintyInputError("there is nothing to draw; give one calibration error or more.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(errors), 5.2), layout="constrained")
    panels = figure.subplots(
        2, len(errors), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1)
    )
    for (name, error), upper, lower in zip(errors.items(), panels[0], panels[1], strict=True):
        floor = None if floors is None else floors.get(name)
        _reliability(upper, error, level)
        _counts(lower, error)
        said = f"{name}: {_error_name(error)} {100 * error.value:.2f} %"
        # Told in the title, where no dot can hide it.
        said += "" if floor is None else f"\nby chance alone {100 * floor.mean:.2f} %"
        upper.set_title(f"{said}, {error.count} inputs" if floor else said, fontsize=10)
        lower.set_xlabel("confidence")
    panels[0, 0].set_ylabel("accuracy")
    panels[1, 0].set_ylabel("inputs")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def plot_risk_coverage(curves: Mapping[str, RiskCoverage]) -> Figure:
    """The error rate of what is kept, over the share kept, most certain first.

    Args:
        curves: by `risk_coverage`, named.
    """
    figure, axes = _single()
    for (name, curve), (colour, line) in zip(curves.items(), _styles(len(curves)), strict=True):
        label = f"{name}: AURC {100 * curve.aurc:.2f} %"
        axes.plot(curve.coverage, curve.risk, line, color=colour, label=label)
    axes.set_xlabel("coverage (share of inputs kept, most certain first)")
    axes.set_ylabel("risk (mean loss of those kept)")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return figure


def plot_pit(values: Array, *, bins: int = 20, level: float = 0.95) -> Figure:
    """Histogram of PIT values; flat, up to the band, where the predicted distributions are right.

    Heaped at both ends: too narrow. In the middle: too wide. At one end: off to one side.

    Args:
        values: predicted distribution functions at what happened, in [0, 1], shape (inputs,).
        bins: of equal width.
        level: of the band in which a bar of a calibrated model lies.
    """
    from scipy.stats import binom

    found = as_confidences(values, "values")
    needs_inputs(len(found), "a histogram")
    figure, axes = _single()
    axes.hist(
        found, bins=[k / bins for k in range(bins + 1)], color=BLUE, alpha=0.6, edgecolor="white"
    )
    low, high = (binom.ppf(q, len(found), 1 / bins) for q in ((1 - level) / 2, (1 + level) / 2))
    axes.axhspan(low, high, color=GREY, alpha=0.2, label=f"calibrated, {100 * level:g} % of bars")
    axes.axhline(len(found) / bins, color=GREY, linestyle=":")
    axes.set_xlabel("PIT: predicted distribution function at the outcome")
    axes.set_ylabel(f"number of {len(found)} inputs")
    axes.set_xlim(0, 1)
    axes.legend(frameon=False)
    return figure


def _reliability(axes: Axes, error: CalibrationError, level: float) -> None:
    table = error.table
    some = table.counts > 0
    accuracy, held = table.accuracy[some], table.confidence[some]
    low, high = wilson(accuracy * table.counts[some], table.counts[some].astype(float), level=level)
    axes.plot((0, 1), (0, 1), color=GREY, linestyle=":", label="calibrated")
    axes.vlines(held, held, accuracy, color=VERMILLION, linewidth=5, alpha=0.35, label="gap")
    axes.errorbar(
        held,
        accuracy,
        # Rounding may put an end a hair inside the dot.
        yerr=np.maximum([accuracy - low, high - accuracy], 0),
        fmt="o",
        color=BLUE,
        markersize=4,
        capsize=2,
        label=f"accuracy, {100 * level:g} % interval",
        clip_on=False,
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    _plain(axes)


def _counts(axes: Axes, error: CalibrationError) -> None:
    table = error.table
    axes.bar(
        table.low,
        table.counts,
        width=table.high - table.low,
        align="edge",
        color=BLUE,
        alpha=0.6,
        edgecolor="white",
    )
    # Most inputs lie in the last bin; the others are to be seen too.
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    _plain(axes)


def _error_name(error: CalibrationError) -> str:
    names = {"l1": "ECE", "l2": "root mean square error", "max": "MCE"}
    return names.get(error.how.norm, f"{error.how.norm} error")


def _styles(count: int) -> list[tuple[str, str]]:
    return [LINES[i % len(LINES)] for i in range(count)]


def _single() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
