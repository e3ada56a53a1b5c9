"""Learning curves: what each epoch of training did, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from verify.report.plots import BLUE, GREY, VERMILLION, figure_of, save_figure


def plot_learning(epochs: Sequence[Mapping[str, object]], path: str | Path, *, title: str) -> None:
    """Draw the accuracies on held-out data over the epochs, and below them the loss.

    Args:
        epochs: each with epoch, loss, clean, adversarial and certified.
        path: of the picture; its ending says the format (png, svg or pdf).

    Raises:
        SettingError: if the format is unknown or the file cannot be written.
    """
    figure, (upper, lower) = figure_of(6.4, 5.4, 2)
    numbers = [int(str(row["epoch"])) for row in epochs]

    def values(name: str) -> list[float]:
        return [float(str(row[name])) for row in epochs]

    size = 3 if len(numbers) <= 40 else 0
    kinds = (
        ("clean", "clean", GREY, ":"),
        ("adversarial", "under a short PGD (upper bound)", VERMILLION, "--"),
        ("certified", "certified by intervals (lower bound)", BLUE, "-"),
    )
    for name, label, colour, line in kinds:
        shares = values(name)
        if any(share == share for share in shares):  # NaN where the network has no bounds
            upper.plot(numbers, shares, line, color=colour, label=label, marker="o", ms=size)
    upper.set_ylim(-0.02, 1.02)
    upper.set_ylabel("share of held-out inputs")
    upper.set_title(title)
    lower.plot(numbers, values("loss"), "-", color="black", marker="o", ms=size)
    lower.set_ylabel("training loss")
    lower.set_xlabel("epoch")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save_figure(figure, path)
