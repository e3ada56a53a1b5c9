"""Pictures of coverage: what each layer reaches, and how it grows with the inputs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verify.report.plots import BLUE, GREY, VERMILLION, figure_of, save_figure

LINES = ("-", "--", "-.", ":")
COLOURS = (BLUE, VERMILLION, "#009E73", "#CC79A7", GREY)


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """One cell of the heat map.

    Attributes:
        criterion, layer: whose.
        share: covered, of what there is; None where there is no total.
        possible: the share not proved out of reach; None where that was not asked.
    """

    criterion: str
    layer: str
    share: float | None
    possible: float | None = None


def plot_coverage(
    rows: Sequence[CoverageRow],
    curves: Mapping[str, Sequence[tuple[int, float]]],
    path: str | Path,
    *,
    model: str,
) -> None:
    """Draw a heat map, layers by criteria, above the growth of each criterion's share.

    Args:
        rows: one per criterion and layer; those without a share are left out.
        curves: by criterion, (inputs seen, share covered), for criteria with a share.
        path: of the picture; its ending says the format (png, svg or pdf).
        model: name of the model, for the title.

    Raises:
        SettingError: if the format is unknown or the file cannot be written.
    """
    shown = [row for row in rows if row.share is not None]
    criteria = list(dict.fromkeys(row.criterion for row in shown))
    layers = list(dict.fromkeys(row.layer for row in shown))
    height = 1.6 + 0.45 * len(layers) + 2.8
    figure, (upper, lower) = figure_of(
        max(6.4, 1.5 + 1.1 * len(criteria)), height, 2, ratios=(0.9 + 0.45 * len(layers), 2.8)
    )
    cells = {(row.layer, row.criterion): row for row in shown}
    table = [
        [math.nan if (row := cells.get((layer, c))) is None else row.share or 0.0 for c in criteria]
        for layer in layers
    ]
    upper.grid(visible=False)
    upper.imshow(table or [[math.nan]], vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for i, layer in enumerate(layers):
        for j, criterion in enumerate(criteria):
            row = cells.get((layer, criterion))
            if row is None or row.share is None:
                continue
            text = f"{row.share:.0%}"
            if row.possible is not None and row.possible < 1:
                text += f"\nof {row.possible:.0%}"
            dark = row.share < 0.55
            upper.text(j, i, text, ha="center", va="center", color="white" if dark else "black")
    upper.set_xticks(range(len(criteria)), criteria)
    upper.set_yticks(range(len(layers)), layers)
    bounded = any(row.possible is not None for row in shown)
    upper.set_title(
        f"Coverage of {model}" + (" (of what is not proved out of reach)" if bounded else "")
    )
    for number, (criterion, points) in enumerate(curves.items()):
        lower.plot(
            [seen for seen, _ in points],
            [share for _, share in points],
            LINES[number % len(LINES)],
            color=COLOURS[number % len(COLOURS)],
            marker="o" if len(points) == 1 else None,
            label=criterion,
        )
    lower.set_ylim(-0.02, 1.02)
    lower.set_xlabel("inputs seen")
    lower.set_ylabel("share covered")
    if curves:
        lower.legend(loc="best", facecolor="white", edgecolor="none", framealpha=0.85)
    save_figure(figure, path)
