"""`verify transfer`: matrices counted by ONNX Runtime, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.commands import CONV, DENSE, Run, write_identity
from tests.readers.onnx_models import model

EPS = ("--eps", "0.15", "--limit", "25")


def linear(path: Path, weights: np.ndarray) -> str:
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"])
    onnx.save(model([node], ["batch", len(weights)], {"w": weights.astype(np.float32)}), path)
    return str(path)


def test_flat_and_image_models_share_a_matrix(verify: Run) -> None:
    """The embedded nets: all cells there, the diagonal the highest, noise the lowest."""
    done = verify("transfer", DENSE, CONV, *EPS, "--attack", "ifgsm,mifgsm-di-ti", "--json", "-")
    assert done.code == 0
    rows = done.record["results"]
    assert len(rows) == 2 * 3 * 2
    rate = {(row["attack"], row["source"], row["target"]): row["rate"] for row in rows}
    for attack in ("ifgsm", "mifgsm-di-ti"):
        for target in ("digits_dense", "digits_conv"):
            column = [rate[attack, s, target] for s in ("digits_dense", "digits_conv", "noise")]
            assert max(column) == rate[attack, target, target]
            assert min(column) == rate[attack, "noise", target]
    for row in rows:
        assert row["fooled"] <= row["found"] <= row["counted"] <= 25
        assert row["low"] <= row["rate"] <= row["high"]
        assert row["rate"] == pytest.approx(row["fooled"] / row["counted"])
    assert set(done.record["summary"]["mean_transfer"]) == {"ifgsm", "mifgsm-di-ti"}
    assert [m["name"] for m in done.record["settings"]["models"]] == ["digits_dense", "digits_conv"]
    assert all(len(m["sha256"]) == 64 for m in done.record["settings"]["models"])
    assert "reshaped from 1 x 8 x 8 for: digits_dense" in done.err


def test_a_known_matrix(tmp_path: Path, verify: Run) -> None:
    """logits = x and its mirror: what fools one is what the other wants; nothing transfers.

    The third has the first's classes at half the scale: what fools the first fools it.
    """
    first = write_identity(tmp_path, [[0.6, 0.5], [0.9, 0.1]], [0, 0])
    mirror = linear(tmp_path / "mirror.onnx", np.array([[-1.0, 0], [0, -1]]))
    half = linear(tmp_path / "half.onnx", np.eye(2) / 2)
    data = ("--data", tmp_path / "model.npz")
    common = ("--eps", "0.1", "--attack", "fgsm", "--json", "-")
    done = verify("transfer", first, mirror, half, *data, *common)
    rate = {(row["source"], row["target"]): row["rate"] for row in done.record["results"]}
    assert rate["model", "model"] == rate["model", "half"] == rate["half", "model"] == 0.5
    # The mirror is wrong about both inputs: nothing is counted.
    assert rate["mirror", "model"] is rate["model", "mirror"] is None
    assert rate["mean of others", "mirror"] is None


def test_the_table_and_the_picture(tmp_path: Path, verify: Run) -> None:
    target = tmp_path / "map.png"
    done = verify("transfer", DENSE, CONV, *EPS, "--attack", "fgsm", "--plot", target)
    assert done.code == 0
    for text in ("fgsm: share of inputs fooled", "noise", "mean transfer", "25 inputs, 2 models"):
        assert text in done.out
    assert target.read_bytes()[:4] == b"\x89PNG"
    csv = tmp_path / "cells.csv"
    same = verify("transfer", DENSE, DENSE, *EPS, "--attack", "fgsm", "--csv", csv, "--quiet")
    assert "share of inputs" not in same.out
    assert "digits_dense (2)" in csv.read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((DENSE,), "two models or more"),
        ((DENSE, CONV, "--attack", "nothing"), "There is no attack 'nothing'"),
        ((DENSE, CONV, "--attack", ","), "expected names"),
        ((DENSE, DENSE, "--attack", "mifgsm-di"), "channels, height, width"),
        ((DENSE, CONV, "--plot", "map.doc"), "--plot is map.doc"),
        ((DENSE, "missing.onnx"), "missing.onnx"),
    ],
)
def test_bad_input_is_one_line(verify: Run, arguments: tuple[str, ...], complaint: str) -> None:
    done = verify("transfer", *arguments, *EPS, "--quiet")
    assert done.code == 2
    assert complaint in done.err
    assert len(done.err.splitlines()) == 1


def test_models_that_do_not_fit_are_refused(tmp_path: Path, verify: Run) -> None:
    small = write_identity(tmp_path, [[0.6, 0.5]], [0])
    wide = linear(tmp_path / "wide.onnx", np.ones((3, 2)))
    three = linear(tmp_path / "three.onnx", np.ones((2, 3)))
    for other, complaint in ((wide, "the same input"), (three, "the same classes")):
        done = verify("transfer", small, other, "--eps", "0.1", "--quiet")
        assert done.code == 2
        assert complaint in done.err
        assert len(done.err.splitlines()) == 1
