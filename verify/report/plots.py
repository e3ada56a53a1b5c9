"""Pictures of what is proved and what is refuted; matplotlib is imported when one is drawn.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; line style and marker
say the same again for print. Figures are made without pyplot: no window, no global state.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from verify.errors import SettingError
from verify.report.writers import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#5F5F5F"
_NORM_NAMES = {"inf": r"$L_\infty$", "2": "$L_2$", "1": "$L_1$"}


@dataclass(frozen=True, slots=True)
class AccuracyCurves:
    """Accuracy over a grid of radii, as shares of one set of inputs.

    Attributes:
        eps: radii, ascending, in model input units.
        certified: share proved correct within each radius: a lower bound of the robust accuracy.
        attacked: share that no attack within each radius refuted: an upper bound of it.
        clean: share classified correctly without any change.
        count: number of inputs.
        remark: behind the word certified, where a proof holds in real arithmetic only.

    Raises:
        SettingError: if the three lists differ in length or are empty.
    """

    eps: tuple[float, ...]
    certified: tuple[float, ...]
    attacked: tuple[float, ...]
    clean: float
    count: int
    remark: str = ""

    def __post_init__(self) -> None:
        if not len(self.eps) == len(self.certified) == len(self.attacked) > 0:
            raise SettingError(
                f"accuracy curves need one value for each eps, got {len(self.eps)} eps, "
                f"{len(self.certified)} certified and {len(self.attacked)} attacked. "
                "Give three lists of one length."
            )


@dataclass(frozen=True, slots=True)
class Brackets:
    """Certified lower and attacked upper radius of each input, in model input units.

    Attributes:
        certified: one for each input.
        attacked: one for each input; infinite or None where no attack succeeded.
        remark: behind the word certified, where a proof holds in real arithmetic only.

    Raises:
        SettingError: if the two differ in length or are empty.
    """

    certified: tuple[float, ...]
    attacked: tuple[float | None, ...]
    remark: str = ""

    def __post_init__(self) -> None:
        if not len(self.certified) == len(self.attacked) > 0:
            raise SettingError(
                f"brackets need both ends for each input, got {len(self.certified)} certified and "
                f"{len(self.attacked)} attacked. Give two lists of one length."
            )


def plot_accuracy(curves: AccuracyCurves, path: str | Path, *, model: str, norm: str) -> None:
    """Draw certified, attacked and clean accuracy over eps, the gap between the first two shaded.

    Args:
        path: of the picture; its ending says the format (png, svg or pdf).
        model: name of the model, for the title.
        norm: "inf", "2" or "1", for the axis.

    Raises:
        SettingError: if the format is unknown or the file cannot be written.
    """
    figure, (axes,) = figure_of(6.4, 4.2, 1)
    eps = curves.eps
    size = 4 if len(eps) <= 40 else 0  # more dots than that hide the line
    axes.axhline(curves.clean, color=GREY, linestyle=":", label="clean (no change)")
    axes.plot(
        eps,
        curves.attacked,
        "s--",
        color=VERMILLION,
        label="attacked (upper bound)",
        markersize=size,
    )
    axes.fill_between(
        eps,
        curves.certified,
        curves.attacked,
        color=GREY,
        alpha=0.22,
        linewidth=0,
        label="undecided",
    )
    proved = f"certified (lower bound){curves.remark}"
    axes.plot(eps, curves.certified, "o-", color=BLUE, label=proved, markersize=size)
    axes.set_xlabel(f"radius eps ({_norm_name(norm)}, model input units)")
    axes.set_ylabel(f"share of {curves.count} inputs")
    axes.set_ylim(-0.02, 1.02)
    if len(eps) > 1:
        axes.set_xlim(min(eps), max(eps))
    axes.set_title(f"Robust accuracy of {model}")
    _legend(axes, "best")
    save_figure(figure, path)


def plot_brackets(brackets: Brackets, path: str | Path, *, model: str, norm: str) -> None:
    """Draw each input's radius as a segment from certified to attacked, and both histograms.

    Args:
        path: of the picture; its ending says the format (png, svg or pdf).
        model: name of the model, for the title.
        norm: "inf", "2" or "1", for the axis.

    Raises:
        SettingError: if the format is unknown or the file cannot be written.
    """
    figure, (upper, lower) = figure_of(6.4, 6.0, 2, whole_counts=True)
    pairs = sorted(
        (low, math.inf if high is None else high)
        for low, high in zip(brackets.certified, brackets.attacked, strict=True)
    )
    ends = [end for pair in pairs for end in pair if math.isfinite(end)]
    right = 1.05 * max(ends, default=0.0) or 1.0
    proved = f"certified radius{brackets.remark}"
    _draw_segments(upper, pairs, right, proved)
    _draw_histograms(lower, pairs, right, proved)
    upper.set_title(f"Robustness radii of {len(pairs)} inputs, {model}")
    lower.set_xlabel(f"radius ({_norm_name(norm)}, model input units)")
    save_figure(figure, path)


def _draw_segments(
    axes: "Axes", pairs: Sequence[tuple[float, float]], right: float, proved: str
) -> None:
    heights = range(len(pairs))
    lows, highs = [low for low, _ in pairs], [min(high, right) for _, high in pairs]
    size = min(22.0, 1800.0 / len(pairs))  # dots must not melt into each other
    width = min(3.0, 180.0 / len(pairs))
    axes.hlines(heights, lows, highs, color=GREY, alpha=0.5, linewidth=width, label="undecided")
    axes.scatter(lows, heights, s=size, color=BLUE, marker="o", label=proved, zorder=4)
    found = [(h, high) for h, (_, high) in zip(heights, pairs, strict=True) if math.isfinite(high)]
    if found:
        axes.scatter(
            [high for _, high in found],
            [h for h, _ in found],
            s=size,
            color=VERMILLION,
            marker="s",
            label="attacked radius",
            zorder=3,
        )
    missing = [h for h, (_, high) in zip(heights, pairs, strict=True) if not math.isfinite(high)]
    if missing:
        axes.scatter(
            [right] * len(missing),
            missing,
            s=size,
            color=GREY,
            marker=">",
            label="no attack found",
            clip_on=False,
        )
    axes.set_xlim(0, right)
    axes.set_ylim(-0.04 * len(pairs) - 0.5, 1.04 * len(pairs) - 0.5)
    axes.set_ylabel("inputs, by certified radius")
    _legend(axes, "lower right")


def _draw_histograms(
    axes: "Axes", pairs: Sequence[tuple[float, float]], right: float, proved: str
) -> None:
    count = max(8, min(40, round(2 * math.sqrt(len(pairs)))))
    bins = [right * i / count for i in range(count + 1)]
    finite = [high for _, high in pairs if math.isfinite(high)]
    lows = [low for low, _ in pairs]
    missing = len(pairs) - len(finite)
    attacked = "attacked radius" + (f" ({missing} without)" if missing else "")
    axes.hist(lows, bins, color=BLUE, alpha=0.55, label=proved)
    axes.hist(finite, bins, histtype="step", color=VERMILLION, linewidth=1.8, label=attacked)
    axes.set_xlim(0, right)
    axes.set_ylabel("number of inputs")
    _legend(axes, "best")


def figure_of(
    width: float,
    height: float,
    panels: int,
    *,
    whole_counts: bool = False,
    ratios: Sequence[float] | None = None,
) -> "tuple[Figure, tuple[Axes, ...]]":
    """An empty figure with panels below each other, sizes in inches; `ratios` of their heights."""
    # Imported here for start-up: most commands draw nothing.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(panels, 1, squeeze=False, height_ratios=ratios)
    for axes in grid[:, 0]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
        if whole_counts:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, tuple(grid[:, 0])


def _legend(axes: "Axes", place: Literal["best", "lower right"]) -> None:
    """A legend that stays readable over lines."""
    axes.legend(loc=place, facecolor="white", edgecolor="none", framealpha=0.85).set_zorder(5)


def _norm_name(norm: str) -> str:
    return _NORM_NAMES.get(norm, f"$L_{{{norm}}}$")


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure in the format that the ending says.

    Raises:
        SettingError: if the format is unknown or the file cannot be written.
    """
    ending = Path(path).suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise SettingError(
            f"picture {path} has ending {ending!r}, expected {', '.join(FORMATS)}. "
            "The ending says the format."
        )
    drawn = io.BytesIO()
    figure.savefig(drawn, format=ending, dpi=150)
    write_whole(path, drawn.getvalue())
