"""Inputs as pictures with a caption, and histograms of scores; drawn without pyplot."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verify.errors import DataError
from verify.report.plots import BLUE, VERMILLION, save_figure

COLUMNS = 5
BINS = 40
COLOURS = (VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One input and what is said of it.

    Attributes:
        values: shape (height, width), (channels, height, width), (height, width, channels) or a
            square number of values, row by row.
        caption: may have several lines.
    """

    values: NDArray[np.generic]
    caption: str


@dataclass(frozen=True, slots=True, eq=False)
class ScorePanel:
    """Scores of one detector.

    Attributes:
        title: of the panel.
        inside: in-distribution scores.
        outside: scores of each out-of-distribution set, by its name.
        threshold: above which an input is called out of distribution.
    """

    title: str
    inside: NDArray[np.float64]
    outside: Mapping[str, NDArray[np.float64]]
    threshold: float


def as_image(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """(height, width) or (height, width, 3).

    Raises:
        DataError: if the values are no image.
    """
    array = np.squeeze(values)
    side = math.isqrt(array.size)
    if array.ndim == 1 and side > 1 and side * side == array.size:
        return array.reshape(side, side)
    if array.ndim == 3 and array.shape[0] == 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3):
        return array
    raise DataError(
        f"inputs of shape {values.shape} are no images, so they cannot be drawn; leave out --plot."
    )


def plot_pictures(pictures: Sequence[Picture], path: str | Path, *, title: str) -> None:
    """Draw pictures in rows of five, each with its caption.

    Raises:
        DataError: if there are none, or an input is no image.
        SettingError: if the format is unknown or the file cannot be written.
    """
    from matplotlib.figure import Figure

    images = [as_image(picture.values).astype(np.float64) for picture in pictures]
    if not images:
        raise DataError("there are no inputs to draw.")
    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(max(5.0, 1.9 * columns), 2.35 * rows + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, picture in zip(grid.flat, images, pictures, strict=False):
        low, high = float(image.min()), float(image.max())
        shown = (image - low) / (high - low) if high > low else np.zeros(image.shape)
        axes.imshow(shown, cmap="gray", interpolation="nearest")
        axes.set_title(picture.caption, fontsize=7)
    save_figure(figure, path)


def plot_scores(panels: Sequence[ScorePanel], path: str | Path, *, title: str) -> None:
    """Draw one histogram for each detector: in distribution filled, each other set as a line.

    Raises:
        SettingError: if the format is unknown or the file cannot be written.
    """
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows + 0.7), layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        every = np.concatenate([panel.inside, *panel.outside.values()])
        # The outermost half percent may lie so far out that nothing else would be seen.
        low, high = np.quantile(every, (0.005, 0.995))
        high = high if high > low else low + 1.0
        bins = np.linspace(low, high, BINS + 1)
        share = [1 / len(panel.inside)] * len(panel.inside)
        clipped = np.clip(panel.inside, low, high)
        axes.hist(clipped, bins, weights=share, color=BLUE, alpha=0.45, label="in distribution")
        for i, (name, scores) in enumerate(panel.outside.items()):
            axes.hist(
                np.clip(scores, low, high),
                bins,
                weights=[1 / len(scores)] * len(scores),
                histtype="step",
                linewidth=1.5,
                color=COLOURS[i % len(COLOURS)],
                label=name,
            )
        axes.axvline(panel.threshold, color="black", linestyle="--", linewidth=1, label="threshold")
        axes.set_title(panel.title, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel("share of inputs", fontsize=7)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    save_figure(figure, path)
