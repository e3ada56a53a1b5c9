"""Mosaics: pictures of images beside each other, and of matrices with a number in each cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from verify.errors import SettingError
from verify.report.plots import GREY, VERMILLION, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_IMAGES = 10
"""In one strip: more would be too small to see."""

DARK = 0.55
"""Cells above this share are dark, and their number is white."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """An image before and after.

    Attributes:
        before, after: shape (channels, height, width), one or three channels.
        title: above the first, such as "0: label 7".
        became: below the second, such as "became 9"; may have lines.
        fooled: whether the second is misclassified.
    """

    before: Tensor
    after: Tensor
    title: str
    became: str
    fooled: bool


def plot_strip(pairs: Sequence[Pair], path: str | Path, *, heading: str) -> None:
    """Draw each image above what became of it; the first `MOST_IMAGES` of them.

    Args:
        path: of the picture; its ending says the format (png, svg or pdf).
        heading: of the whole picture.

    Raises:
        SettingError: if there is nothing to draw, the format is unknown or the file cannot be
            written.
    """
    from matplotlib.figure import Figure

    pairs = pairs[:MOST_IMAGES]
    if not pairs:
        raise SettingError(f"there is no image to draw in {path}; choose others with --indices")
    values = [image for pair in pairs for image in (pair.before, pair.after)]
    low = min(float(image.min()) for image in values)
    high = max(max(float(image.max()) for image in values), low + 1e-9)
    figure = Figure(figsize=(max(1.45 * len(pairs), 4.0), 4.2), layout="constrained")
    figure.suptitle(heading, fontsize=10, wrap=True)
    grid = figure.subplots(2, len(pairs), squeeze=False)
    for column, pair in enumerate(pairs):
        for axes, image in zip(grid[:, column], (pair.before, pair.after), strict=True):
            show_image(axes, image, low, high)
        grid[0, column].set_title(pair.title, fontsize=8)
        colour = VERMILLION if pair.fooled else GREY
        grid[1, column].set_xlabel(pair.became, fontsize=8, color=colour)
        for spine in grid[1, column].spines.values():
            spine.set(color=colour, linewidth=2 if pair.fooled else 0.8)
    for axes, text in zip(grid[:, 0], ("original", "transformed"), strict=True):
        axes.set_ylabel(text, fontsize=9)
    save_figure(figure, path)


def show_image(axes: Axes, image: Tensor, low: float, high: float) -> None:
    """One image without ticks; grey for one channel, scaled to the range of the whole picture."""
    shown = ((image.detach().cpu().double() - low) / (high - low)).clamp(0, 1)
    if shown.shape[0] == 3:
        axes.imshow(shown.permute(1, 2, 0).numpy(), interpolation="nearest")
    else:
        axes.imshow(shown.mean(dim=0).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


@dataclass(frozen=True, slots=True)
class Panel:
    """A matrix of shares.

    Attributes:
        title: above it.
        rows, columns: names.
        cells: one list for each row, between 0 and 1, NaN where there is none.
        marked: cells with a frame, as (row, column).
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[float, ...], ...]
    marked: tuple[tuple[int, int], ...] = ()


def plot_matrices(
    panels: Sequence[Panel], path: str | Path, *, heading: str, row_name: str, column_name: str
) -> None:
    """Draw matrices side by side on one scale from 0 to 1, each cell with its number in per cent.

    Args:
        path: of the picture; its ending says the format (png, svg or pdf).
        heading: of the whole picture.
        row_name, column_name: of the axes.

    Raises:
        SettingError: if there is nothing to draw, the format is unknown or the file cannot be
            written.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    if not panels:
        raise SettingError(f"there is no matrix to draw in {path}")
    across = 2 if len(panels) == 4 else min(3, len(panels))
    down = math.ceil(len(panels) / across)
    columns = max(len(panel.columns) for panel in panels)
    rows = max(len(panel.rows) for panel in panels)
    longest = max(len(name) for panel in panels for name in (*panel.rows, *panel.columns))
    size = ((0.75 * columns + 0.4) * across + 0.085 * longest + 1.2, 0.55 * rows + 1.0)
    figure = Figure(
        figsize=(max(5.0, size[0]), size[1] * down + 0.07 * longest + 0.4), layout="constrained"
    )
    figure.suptitle(heading, fontsize=10)
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    image = None
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for number, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
        image = axes.imshow(panel.cells, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_facecolor("#DDDDDD")
        axes.set_title(panel.title, fontsize=10)
        axes.set_xticks(range(len(panel.columns)), panel.columns, rotation=35, ha="right")
        axes.set_yticks(range(len(panel.rows)), panel.rows)
        axes.tick_params(labelsize=8, length=0, labelleft=number % across == 0)
        axes.spines[:].set_visible(False)
        for i, row in enumerate(panel.cells):
            for j, share in enumerate(row):
                text = "-" if math.isnan(share) else f"{100 * share:.0f}"
                colour = "white" if share > DARK else "black"
                axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=9)
        for i, j in panel.marked:
            axes.add_patch(
                Rectangle(
                    (j - 0.47, i - 0.46), 0.94, 0.92, fill=False, edgecolor=VERMILLION, lw=1.5
                )
            )
        if number % across == 0:
            axes.set_ylabel(row_name, fontsize=9)
        if number + across >= len(panels):
            axes.set_xlabel(column_name, fontsize=9)
    if image is not None:
        bar = figure.colorbar(image, ax=list(grid.flat), shrink=0.8, pad=0.02)
        bar.set_label("share fooled", fontsize=9)
        bar.ax.tick_params(labelsize=8)
    save_figure(figure, path)
