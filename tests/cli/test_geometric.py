"""`verify geometric`: verdicts, brackets, pictures, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import CONV, DENSE, Run

PNG = b"\x89PNG"


def test_brackets_of_digits_under_rotation(tmp_path: Path, verify: Run) -> None:
    """One record per image; shares do not cross; pictures are drawn; the exit code tells."""
    curve, strip = tmp_path / "curve.png", tmp_path / "strip.png"
    arguments = ("--transform", "rotation(-25,25)", "--limit", 3, "--json", "-", "--attack", "grid")
    done = verify("geometric", CONV, *arguments, "--plot", curve, "--strip", strip)
    assert done.code == 1
    record = done.record
    assert record["settings"]["transform"] == "rotation(-25,25)"
    assert {row["verdict"] for row in record["results"]} == {"verified", "falsified"}
    for row in record["results"]:
        if row["verdict"] == "falsified":
            assert 0.97 * row["share_attacked"] < row["share_certified"] < row["share_attacked"]
            assert abs(row["parameters"][0]) == pytest.approx(25 * row["share_attacked"])
        else:
            assert (row["share_certified"], row["share_attacked"]) == (1.0, None)
    assert "certified share" in done.err
    assert curve.read_bytes().startswith(PNG)
    assert strip.read_bytes().startswith(PNG)


def test_without_splits_a_wide_range_stays_unknown(verify: Run) -> None:
    """One box over everything proves nothing here, and no attack was asked for."""
    arguments = ("--transform", "rotation(-5,5) scale(.9,1.1)", "--indices", 1, "--attack", "none")
    done = verify("geometric", CONV, *arguments, "--no-split", "--method", "ibp", "--json", "-")
    assert done.code == 3
    (row,) = done.record["results"]
    assert row["verdict"] == "unknown"


def test_noise_and_brightness_on_top(verify: Run) -> None:
    """Small ranges of both are verified."""
    text = "rotation(-.2,.2) brightness(-.005,.005)"
    arguments = ("--transform", text, "--indices", 1, "--pixel-noise", "1/2550", "--json", "-")
    (row,) = verify("geometric", CONV, *arguments).record["results"]
    assert row["verdict"] == "verified"
    assert row["eps"] == pytest.approx(1 / 2550)


def test_flows_are_attacked_and_certified(tmp_path: Path, verify: Run) -> None:
    """Small ones are verified, large ones refuted; the record says what was asked."""
    strip = tmp_path / "strip.png"
    small = verify("geometric", CONV, "--flow", 0.03, "--smooth", 0.01, "--limit", 2, "--json", "-")
    assert small.code == 0
    assert {row["verdict"] for row in small.record["results"]} == {"verified"}
    assert (small.record["settings"]["flow"], small.record["settings"]["smooth"]) == (0.03, 0.01)
    large = verify("geometric", CONV, "--flow", 1.5, "--limit", 2, "--strip", strip, "--json", "-")
    assert large.code == 1
    for row in large.record["results"]:
        assert 0 < row["share_certified"] < row["share_attacked"] <= 1
    assert strip.read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((CONV, "--transform", "rotation(5,-5)"), "no range"),
        ((CONV, "--transform", "wobble(0,1)"), "not known"),
        ((CONV, "--transform", "rotation(0,1)", "--attack", "pgd"), "--attack"),
        ((CONV, "--transform", "rotation(0,1)", "--method", "magic"), "magic"),
        ((CONV, "--transform", "rotation(0,1)", "--pixel-noise", "-1"), "-1"),
        ((CONV, "--transform", "rotation(0,1)", "--plot", "x.bmp"), "x.bmp"),
        ((DENSE, "--transform", "rotation(0,1)"), "only images"),
        ((CONV,), "--transform"),
        ((CONV, "--transform", "rotation(0,1)", "--flow", "1"), "one of them"),
        ((CONV, "--transform", "rotation(0,1)", "--smooth", "1"), "--smooth"),
        ((CONV, "--flow", "1", "--attack", "grid"), "--attack"),
        ((CONV, "--flow", "1", "--method", "forward"), "forward"),
        ((CONV, "--flow", "1", "--pixel-noise", "0.1"), "--pixel-noise"),
    ],
)
def test_bad_input_is_one_line(verify: Run, arguments: tuple[str, ...], complaint: str) -> None:
    """Exit code 2, and what to do."""
    done = verify("geometric", *arguments)
    assert done.code == 2
    assert complaint in done.err
    assert done.err.count("\n") == 1
