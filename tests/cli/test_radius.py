"""`verify radius` and `verify compare`: brackets around known radii, curves counted from them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import DENSE, Run, write_identity
from verify.cli.curves import count_accuracy, default_grid
from verify.values.result import Bracket

PNG = b"\x89PNG"


def bracket(certified: float, attacked: float) -> Bracket:
    return Bracket(0, 0, 0, certified, attacked, 0.0, math.inf, "crown", "pgd", 0.0)


@pytest.mark.parametrize(("norm", "radius"), [("inf", 0.3), ("2", 0.6 / 2**0.5), ("1", 0.6)])
def test_brackets_hold_the_exact_radius(
    tmp_path: Path, verify: Run, norm: str, radius: float
) -> None:
    """The net of identity weights has the radius (x0 - x1) / |(1, -1)|_q; both ends are near it."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    done = verify("radius", path, "--norm", norm, "--json", "-")
    assert done.code == 0
    (row,) = done.record["results"]
    assert row["radius_certified"] <= radius <= row["radius_attacked"]
    assert row["radius_certified"] >= 0.98 * radius
    assert row["radius_attacked"] <= 1.02 * radius


def test_a_misclassified_input_has_radius_0(tmp_path: Path, verify: Run) -> None:
    """At both ends, and the reason says why."""
    path = write_identity(tmp_path, [[0.2, 0.8]], [0])
    (row,) = verify("radius", path, "--json", "-").record["results"]
    assert (row["radius_certified"], row["radius_attacked"]) == (0, 0)
    assert "itself is misclassified" in row["reason"]


def test_without_attack_only_the_lower_end_is_known(tmp_path: Path, verify: Run) -> None:
    """The upper one is null in the record and "none found" in the table."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    done = verify("radius", path, "--attack", "none", "--json", "-")
    (row,) = done.record["results"]
    assert row["radius_attacked"] is None
    assert 0.29 <= row["radius_certified"] <= 0.3
    assert "none found" in done.err


def test_the_search_ends_at_the_largest_radius_of_interest(tmp_path: Path, verify: Run) -> None:
    """Nothing above --max-radius is searched or found."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    (row,) = verify("radius", path, "--max-radius", "0.1", "--json", "-").record["results"]
    assert 0.09 <= row["radius_certified"] <= 0.1
    assert row["radius_attacked"] is None


def test_the_table_shows_both_ends_and_the_gap(tmp_path: Path, verify: Run) -> None:
    """What a newcomer looks for."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    done = verify("radius", path)
    for heading in ("certified radius", "attacked radius", "gap"):
        assert heading in done.out


def test_pictures_are_drawn(tmp_path: Path, verify: Run) -> None:
    """By radius and by compare, into the files that were named."""
    path = write_identity(tmp_path, [[0.8, 0.2], [0.6, 0.5], [0.2, 0.9]], [0, 0, 1])
    names = [tmp_path / f"{name}.png" for name in ("brackets", "curves", "histogram")]
    assert verify("radius", path, "--plot", names[0]).code == 0
    assert verify("compare", path, "--plot", names[1], "--histogram", names[2]).code == 0
    assert all(name.read_bytes().startswith(PNG) for name in names)


def test_compare_counts_accuracies_over_the_grid(tmp_path: Path, verify: Run) -> None:
    """Radii 0.3, 0.05 and a misclassified one, against a grid on either side of them."""
    path = write_identity(tmp_path, [[0.8, 0.2], [0.6, 0.5], [0.2, 0.9]], [0, 0, 0])
    done = verify("compare", path, "--eps-grid", "0,0.04,0.06,0.29,0.31", "--json", "-")
    assert done.code == 0
    summary = done.record["summary"]
    assert summary["clean_accuracy"] == 2 / 3
    curves = summary["curves"]
    assert curves["eps"] == [0, 0.04, 0.06, 0.29, 0.31]
    assert curves["certified"] == [2 / 3, 2 / 3, 1 / 3, 1 / 3, 0]
    assert curves["attacked"] == [2 / 3, 2 / 3, 1 / 3, 1 / 3, 0]
    assert "clean 66.67%" in done.err
    assert len(done.record["results"]) == 3


def test_a_grid_of_first_last_and_count(tmp_path: Path, verify: Run) -> None:
    """Both ends included."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    done = verify("compare", path, "--eps-grid", "0:0.4:5", "--json", "-")
    assert done.record["summary"]["curves"]["eps"] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_at_the_ends_of_a_bracket_both_curves_err_to_the_safe_side() -> None:
    """Certified up to and including its end; refuted from its end on."""
    curves = count_accuracy([bracket(0.1, 0.2)], [0.1, 0.15, 0.2])
    assert curves.certified == (1, 0, 0)
    assert curves.attacked == (1, 1, 0)


def test_a_misclassified_input_is_certified_nowhere() -> None:
    """Not even at eps 0, where its certified radius 0 would seem to reach."""
    curves = count_accuracy([bracket(0, 0)], [0.0])
    assert (curves.certified, curves.attacked, curves.clean) == ((0,), (0,), 0)


@pytest.mark.parametrize(
    ("brackets", "top"),
    [
        ([bracket(0.1, 0.1834)], 0.19),
        ([bracket(0.1, math.inf), bracket(0.42, math.inf)], 0.42),
        ([bracket(0, 0)], 1.0),
    ],
)
def test_the_default_grid_reaches_the_largest_end(brackets: list[Bracket], top: float) -> None:
    """Rounded up to two figures; infinite ends do not count."""
    grid = default_grid(brackets)
    assert grid[0] == 0
    assert grid[-1] == pytest.approx(top)
    assert np.all(np.diff(grid) > 0)


def test_the_demo_of_the_makefile_runs(verify: Run) -> None:
    """`make demo` is this command with ten inputs."""
    done = verify("radius", DENSE, "--data", "digits", "--limit", 2, "--method", "crown")
    assert done.code == 0
    assert "2 inputs, 2 verified" in done.out
