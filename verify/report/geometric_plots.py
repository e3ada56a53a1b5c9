"""Pictures of certified transformations: accuracy over the range, and the images themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verify.report.plots import BLUE, GREY, VERMILLION, save_figure


@dataclass(frozen=True, slots=True)
class ShareCurves:
    """Certified and attacked share of a range, one of each per image; infinite: none found.

    `remark` stands behind the word certified.
    """

    certified: tuple[float, ...]
    attacked: tuple[float, ...]
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """One image (channel, height, width) as nested lists, in [0, 1], and what stands above it."""

    image: list[list[list[float]]]
    title: str
    wrong: bool = False


@dataclass(frozen=True, slots=True)
class StripRow:
    """One image's frames: itself, the ends of its certified range, its counterexample."""

    frames: tuple[Frame, ...]


def plot_shares(ends: ShareCurves, path: str | Path, *, model: str, transform: str) -> None:
    """Draw certified and attacked accuracy over the share of the range, the gap shaded.

    Raises:
        SettingError: if the format is unknown or the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.6)
    count = len(ends.certified)
    shares = sorted({0.0, 1.0, *ends.certified, *(a for a in ends.attacked if math.isfinite(a))})
    # Up to and with the certified share an image is safe; from the attacked one on it is not.
    low = [sum(c >= s and c > 0 for c in ends.certified) / count for s in shares]
    high = [sum(a > s for a in ends.attacked) / count for s in shares]
    axes.step(shares, high, "--", where="post", color=VERMILLION, label="attacked (upper bound)")
    # What holds at one certified share holds up to it: steps fall after each.
    proved = f"certified (lower bound){ends.remark}"
    axes.step(shares, low, "-", where="pre", color=BLUE, label=proved)
    grid = [i / 400 for i in range(401)]
    under = [sum(c >= s and c > 0 for c in ends.certified) / count for s in grid]
    over = [sum(a > s for a in ends.attacked) / count for s in grid]
    axes.fill_between(grid, under, over, color=GREY, alpha=0.22, linewidth=0, label="undecided")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(f"share of the range {transform}")
    axes.set_ylabel(f"share of {count} images")
    axes.set_title(f"Accuracy of {model} under transformations")
    axes.legend(loc="lower left", facecolor="white", edgecolor="none", framealpha=0.85)
    save_figure(figure, path)


def plot_strip(rows: Sequence[StripRow], path: str | Path, *, model: str, transform: str) -> None:
    """Draw images beside the ends of their certified range and their first counterexample.

    Raises:
        SettingError: if the format is unknown or the file cannot be written.
    """
    from matplotlib.figure import Figure

    columns = max(len(row.frames) for row in rows)
    figure = Figure(figsize=(1.9 * columns, 0.5 + 1.95 * len(rows)), layout="constrained")
    cells = figure.subplots(len(rows), columns, squeeze=False)
    for row, line in zip(rows, cells, strict=True):
        for axes in line:
            axes.axis("off")
        for frame, axes in zip(row.frames, line, strict=False):
            channels = frame.image
            if len(channels) == 3:
                height, width = len(channels[0]), len(channels[0][0])
                pixels = [
                    [[min(max(c[i][j], 0.0), 1.0) for c in channels] for j in range(width)]
                    for i in range(height)
                ]
                axes.imshow(pixels, interpolation="nearest")
            else:
                axes.imshow(channels[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(frame.title, fontsize=8, color=VERMILLION if frame.wrong else "black")
    figure.suptitle(f"{model}: {transform}", fontsize=9)
    save_figure(figure, path)
