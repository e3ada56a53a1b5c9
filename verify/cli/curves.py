"""Accuracy over radii, counted from brackets."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from verify.cli.presenting import Presenter
from verify.report import AccuracyCurves
from verify.values.result import Bracket
from verify.values.semantics import EXECUTED, Semantics

POINTS = 21


def default_grid(brackets: Sequence[Bracket]) -> tuple[float, ...]:
    """Radii from 0 to the largest end of a bracket, rounded up to two figures."""
    ends = [end for found in brackets for end in (found.certified, found.attacked)]
    top = max((end for end in ends if math.isfinite(end)), default=0.0) or 1.0
    unit = 10.0 ** (math.floor(math.log10(top)) - 1)
    steps = math.ceil(top / unit)
    return tuple(steps * unit * i / (POINTS - 1) for i in range(POINTS))


def count_accuracy(
    brackets: Sequence[Bracket], grid: Sequence[float], semantics: Semantics = EXECUTED
) -> AccuracyCurves:
    """Shares of the inputs at each radius.

    An input counts as certified at eps if it is correct and eps <= its certified radius, and as
    attacked, that is refuted, if a misclassified input was found at a distance <= eps.
    """
    count = len(brackets)

    def share(holds: Sequence[bool]) -> float:
        return sum(holds) / count

    return AccuracyCurves(
        eps=tuple(grid),
        certified=tuple(
            share([found.attacked > 0 and eps <= found.certified for found in brackets])
            for eps in grid
        ),
        attacked=tuple(share([found.attacked > eps for found in brackets]) for eps in grid),
        clean=share([found.attacked > 0 for found in brackets]),
        count=count,
        remark=semantics.remark,
    )


def print_curves(curves: AccuracyCurves, show: Presenter) -> None:
    """The table of the curves, unless only the summary is wanted."""
    if show.options.quiet:
        return
    table = Table(title=f"accuracy of {curves.count} inputs; clean {curves.clean:.2%}")
    for heading in ("eps", f"certified{curves.remark}", "attacked", "undecided"):
        table.add_column(heading, justify="right", no_wrap=True)
    for eps, low, high in zip(curves.eps, curves.certified, curves.attacked, strict=True):
        table.add_row(f"{eps:.4g}", f"{low:.2%}", f"{high:.2%}", f"{high - low:.2%}")
    show.console.print(table)
