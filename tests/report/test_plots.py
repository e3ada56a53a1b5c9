"""The pictures: what is drawn, read back from the figure itself."""

import math
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from PIL import Image

from verify.errors import SettingError
from verify.report import AccuracyCurves, Brackets, plot_accuracy, plot_brackets, plots

CURVES = AccuracyCurves((0.0, 0.1, 0.2), (0.9, 0.5, 0.0), (0.9, 0.8, 0.3), 0.9, 10)
BRACKETS = Brackets((0.1, 0.05, 0.0, 0.2), (0.2, 0.05, None, math.inf))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that are saved, caught on their way."""
    figures: list[matplotlib.figure.Figure] = []
    save = plots.save_figure

    def keep(figure: matplotlib.figure.Figure, path: str | Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "save_figure", keep)
    return figures


def test_accuracy_shows_three_lines_and_the_gap(
    tmp_path: Path, drawn: list[matplotlib.figure.Figure]
) -> None:
    """The lines hold the given values; the shade lies between certified and attacked."""
    plot_accuracy(CURVES, tmp_path / "a.png", model="net.onnx", norm="inf")
    (axes,) = drawn[0].axes
    lines = {str(line.get_label()).split()[0]: line for line in axes.lines}
    np.testing.assert_array_equal(lines["certified"].get_ydata(), CURVES.certified)
    np.testing.assert_array_equal(lines["attacked"].get_ydata(), CURVES.attacked)
    np.testing.assert_array_equal(lines["clean"].get_ydata(), [0.9, 0.9])
    (shade,) = (c for c in axes.collections if isinstance(c, PolyCollection))
    corners = {tuple(np.round(corner, 9)) for corner in shade.get_paths()[0].vertices}
    for eps, low, high in zip(CURVES.eps, CURVES.certified, CURVES.attacked, strict=True):
        assert {(eps, low), (eps, high)} <= corners
    assert "net.onnx" in axes.get_title()
    assert "input units" in axes.get_xlabel()
    assert axes.get_ylabel() == "share of 10 inputs"


def test_brackets_show_a_segment_for_each_input(
    tmp_path: Path, drawn: list[matplotlib.figure.Figure]
) -> None:
    """Sorted by certified radius; an open end reaches the edge; the histograms count all."""
    plot_brackets(BRACKETS, tmp_path / "b.png", model="net.onnx", norm="2")
    upper, lower = drawn[0].axes
    edge = upper.get_xlim()[1]
    (segments,) = (c for c in upper.collections if isinstance(c, LineCollection))
    found = [[float(x) for x in segment[:, 0]] for segment in segments.get_segments()]
    assert found == [[0.0, edge], [0.05, 0.05], [0.1, 0.2], [0.2, edge]]
    dots = {c.get_label(): c for c in upper.collections if isinstance(c, PathCollection)}
    assert len(dots["certified radius"].get_offsets()) == 4
    assert len(dots["attacked radius"].get_offsets()) == 2
    assert len(dots["no attack found"].get_offsets()) == 2
    bars = [patch.get_height() for patch in lower.patches if hasattr(patch, "get_height")]
    assert sum(bars) == 4
    assert "$L_2$" in lower.get_xlabel()
    assert "4 inputs, net.onnx" in upper.get_title()


@pytest.mark.parametrize("ending", ["png", "PNG", "svg", "pdf"])
def test_the_ending_says_the_format(tmp_path: Path, ending: str) -> None:
    """The file begins as its format does."""
    plot_accuracy(CURVES, tmp_path / f"a.{ending}", model="net", norm="1")
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert (tmp_path / f"a.{ending}").read_bytes().startswith(starts[ending.lower()])


def test_the_picture_is_not_empty(tmp_path: Path) -> None:
    """Both colours are there to be seen."""
    plot_brackets(BRACKETS, tmp_path / "b.png", model="net", norm="inf")
    with Image.open(tmp_path / "b.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in (plots.BLUE, plots.VERMILLION):
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == rgb).all(axis=1).sum() > 20


@pytest.mark.parametrize(
    "brackets",
    [Brackets((0.0,), (0.0,)), Brackets((0.0,), (None,)), Brackets((0.1,) * 500, (0.2,) * 500)],
    ids=["all zero", "nothing found", "many alike"],
)
def test_extreme_brackets_can_be_drawn(tmp_path: Path, brackets: Brackets) -> None:
    """No axis collapses and nothing warns."""
    plot_brackets(brackets, tmp_path / "b.png", model="net", norm="inf")
    assert (tmp_path / "b.png").stat().st_size > 5000


def test_one_radius_is_enough_for_curves(tmp_path: Path) -> None:
    """A grid of one point."""
    curves = AccuracyCurves((0.1,), (0.5,), (0.5,), 0.5, 2)
    plot_accuracy(curves, tmp_path / "a.png", model="net", norm="inf")
    assert (tmp_path / "a.png").is_file()


def test_another_ending_is_refused(tmp_path: Path) -> None:
    """The formats there are, in the message."""
    with pytest.raises(SettingError, match="has ending 'gif', expected png, svg, pdf"):
        plot_accuracy(CURVES, tmp_path / "a.gif", model="net", norm="inf")


def test_lists_of_different_lengths_are_refused() -> None:
    """Neither can be drawn."""
    with pytest.raises(SettingError, match="got 1 eps, 2 certified and 1 attacked"):
        AccuracyCurves((0.1,), (0.5, 0.4), (0.5,), 0.5, 2)
    with pytest.raises(SettingError, match="got 1 certified and 0 attacked"):
        Brackets((0.1,), ())


def test_importing_the_report_does_not_import_matplotlib() -> None:
    """Commands that draw nothing start without it."""
    code = "import sys, verify.report; sys.exit('matplotlib' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
