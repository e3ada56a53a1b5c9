"""Pictures of certified confidence: a band for each input, and a reliability diagram of ranges."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from verify.report.plots import BLUE, GREY, VERMILLION, save_figure
from verify.report.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUPS = 8
"""Groups of inputs in the reliability diagram, by their clean confidence."""
LEAST_IN_GROUP = 5
OFFSET = 0.13
GREEN = "#009E73"
_ACCURACY = {
    "certified_low": "certified_correct",
    "certified_high": "possibly_correct",
    "attacked_low": "attacked_correct",
    "attacked_high": "attacked_possible",
    "clean": "clean_correct",
}


def plot_confidence(record: Record, path: str | Path) -> None:
    """Draw certified, attacked and clean confidence of each input, and of groups of them.

    Args:
        record: of `verify confidence`, with at least one result.
        path: of the picture; its ending says the format (png, svg or pdf).

    Raises:
        SettingError: if the format is unknown or the file cannot be written.
    """
    # Imported here for start-up: most commands draw nothing.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
    _draw_bands(left, record)
    _draw_reliability(right, record)
    settings = record.settings
    name = Path(record.model.path).name if record.model.path else "model in memory"
    figure.suptitle(
        f"Confidence of {name} within eps {settings.get('eps'):g} (norm {settings.get('norm')}), "
        f"{len(record.results)} inputs"
    )
    save_figure(figure, path)


def _draw_bands(axes: "Axes", record: Record) -> None:
    """Inputs sorted by clean confidence, each with its certified and attacked range."""
    rows = sorted((_values(row, "confidence") for row in record.results), key=lambda v: v["clean"])
    places = range(len(rows))
    width = max(0.6, min(6.0, 360 / len(rows)))
    axes.vlines(
        places,
        [v["certified_low"] for v in rows],
        [v["certified_high"] for v in rows],
        color=BLUE,
        alpha=0.45,
        linewidth=width,
        label=f"certified{record.remark}: no perturbation leaves it",
    )
    axes.vlines(
        places,
        [v["attacked_low"] for v in rows],
        [v["attacked_high"] for v in rows],
        color=VERMILLION,
        linewidth=0.6 * width,
        label="attacked: values attained",
    )
    axes.plot(places, [v["clean"] for v in rows], ".", color="black", markersize=3, label="clean")
    threshold = record.settings.get("threshold")
    if isinstance(threshold, float):
        axes.axhline(threshold, color=GREY, linestyle=":", label=f"threshold {threshold:g}")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("inputs, by clean confidence")
    axes.set_ylabel("confidence")
    axes.legend(loc="lower right", facecolor="white", edgecolor="none", framealpha=0.85)


def _draw_reliability(axes: "Axes", record: Record) -> None:
    """Groups of as many inputs each: ranges of mean confidence and of accuracy, side by side."""
    rows = sorted(record.results, key=lambda row: _values(row, "confidence")["clean"])
    count = max(1, min(GROUPS, len(rows) // LEAST_IN_GROUP))
    cuts = [round(i * len(rows) / count) for i in range(count + 1)]
    labels = []
    for place, (first, last) in enumerate(zip(cuts, cuts[1:], strict=False)):
        members = rows[first:last]
        values = [_values(row, "confidence") for row in members]
        ends = {
            f"{kind}_{end}": _mean([v[f"{kind}_{end}"] for v in values])
            for kind in ("certified", "attacked")
            for end in ("low", "high")
        }
        ends["clean"] = _mean([v["clean"] for v in values])
        _draw_range(axes, place - OFFSET, ends, BLUE, "" if place else "mean confidence")
        right = {
            name: _mean([float(bool(row[key])) for row in members])
            for name, key in _ACCURACY.items()
        }
        _draw_range(axes, place + OFFSET, right, GREEN, "" if place else "accuracy")
        labels.append(f"{values[0]['clean']:.2f}\nto {values[-1]['clean']:.2f}")
    axes.set_xticks(range(count), labels, fontsize=8)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("groups of inputs, by clean confidence")
    axes.set_title(f"pale: certified{record.remark}, full: attacked, dot: clean", fontsize=10)
    axes.legend(loc="lower right", facecolor="white", edgecolor="none", framealpha=0.85)


def _draw_range(
    axes: "Axes", place: float, ends: Mapping[str, float], colour: str, label: str
) -> None:
    """One group's certified range, the attacked one on it, and the clean value."""
    for kind, alpha, width in (("certified", 0.35, 9.0), ("attacked", 1.0, 4.0)):
        low, high = ends[f"{kind}_low"], ends[f"{kind}_high"]
        name = label if kind == "attacked" else ""
        axes.vlines(place, low, high, color=colour, alpha=alpha, linewidth=width, label=name)
    axes.plot(place, ends["clean"], "o", color="black", markersize=4, zorder=4)


def _values(row: Mapping[str, object], name: str) -> dict[str, float]:
    """The five figures of one quantity."""
    found = row[name]
    assert isinstance(found, Mapping)
    return {key: float(value) for key, value in found.items()}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
