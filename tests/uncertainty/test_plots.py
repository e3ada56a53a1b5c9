"""Pictures hold the numbers that they are drawn from; how they look is looked at by eye."""

from __future__ import annotations

import io

import numpy as np
import pytest

from uncertainty.calibration_error import calibration_error
from uncertainty.errors import UncertaintyInputError
from uncertainty.plots import plot_pit, plot_reliability, plot_risk_coverage
from uncertainty.sampling import calibration_floor, wilson
from uncertainty.scored import score_events
from uncertainty.selective import risk_coverage


def saved(figure) -> bool:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue().startswith(b"\x89PNG")


def test_the_reliability_diagram_shows_bins_intervals_and_counts() -> None:
    """Dots at the bins' accuracies, bars of Wilson's intervals, the counts below."""
    scored = score_events([0.15] * 4 + [0.95] * 6, [0, 0, 0, 1] + [1] * 6)
    error, floor = calibration_error(scored, bins=10), calibration_floor(scored, replicates=50)
    figure = plot_reliability({"one": error, "two": error}, floors={"one": floor})
    upper, lower = figure.axes[0], figure.axes[2]
    (dots,) = (line for line in upper.lines if line.get_marker() == "o")
    np.testing.assert_allclose(dots.get_xydata(), [[0.15, 0.25], [0.95, 1]])
    ends = np.sort(upper.collections[-1].get_segments()[0][:, 1])
    np.testing.assert_allclose(ends, [end[0] for end in wilson(np.array([1.0]), np.array([4.0]))])
    assert [bar.get_height() for bar in lower.patches if bar.get_height()] == [4, 6]
    assert f"by chance alone {100 * floor.mean:.2f} %" in upper.get_title()
    assert saved(figure)


def test_the_other_pictures_are_drawn() -> None:
    """Risk over coverage ends at the error rate; the PIT histogram counts every value."""
    curve = risk_coverage([0, 1, 0, 0], [0.1, 0.9, 0.3, 0.2])
    figure = plot_risk_coverage({"confidence": curve})
    assert figure.axes[0].lines[0].get_ydata()[-1] == 0.25
    assert saved(figure)
    figure = plot_pit(np.linspace(0, 1, 100), bins=10)
    bars = [bar.get_height() for bar in figure.axes[0].patches if bar.get_width() < 0.2]
    assert sum(bars) == 100
    assert saved(figure)


def test_nothing_cannot_be_drawn() -> None:
    """Said in words rather than by matplotlib."""
    for call in (lambda: plot_reliability({}), lambda: plot_pit([]), lambda: plot_pit([2.0])):
        with pytest.raises(UncertaintyInputError):
            call()
