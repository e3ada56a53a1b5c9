"""`verify attack` and `verify info`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.cli.commands import CONV, DENSE, Run, write_identity
from tests.readers.onnx_models import model
from verify.recipes import METHODS


@pytest.mark.parametrize("attack", ["pgd", "fgsm", "ifgsm"])
def test_attacks_find_what_is_there_and_nothing_else(
    tmp_path: Path, verify: Run, attack: str
) -> None:
    """Of two inputs with radii 0.3 and 0.05, only the second falls at 0.1."""
    path = write_identity(tmp_path, [[0.8, 0.2], [0.6, 0.5]], [0, 0])
    done = verify("attack", path, "--eps", "0.1", "--attack", attack, "--json", "-")
    assert done.code == 1
    assert [row["verdict"] for row in done.record["results"]] == ["unknown", "falsified"]
    assert done.record["summary"]["clean_accuracy"] == 1
    assert done.record["summary"]["attacked_accuracy"] == 0.5
    assert "clean accuracy 100.00%, attacked accuracy 50.00%" in done.err
    assert verify("attack", path, "--eps", "0.01", "--attack", attack).code == 0


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_saved_counterexamples_fool_the_file_in_onnx_runtime(
    tmp_path: Path, verify: Run, norm: str
) -> None:
    """Each within eps of its original and the input range, and misclassified by the file itself."""
    eps = {"inf": 0.12, "2": 0.8, "1": 4.0}[norm]
    target = tmp_path / "found.npz"
    done = verify(
        "attack", CONV, "--eps", eps, "--norm", norm, "--limit", 20, "--save", target, "--json", "-"
    )
    assert done.code == 1
    with np.load(target) as saved:
        x, original, label, index = (saved[key] for key in ("x", "original", "label", "index"))
    hit = [row["index"] for row in done.record["results"] if row["verdict"] == "falsified"]
    assert index.tolist() == hit
    assert x.dtype == np.float32
    assert x.min() >= 0
    assert x.max() <= 1
    moved = (x.astype(np.float64) - original).reshape(len(x), -1)
    order = {"inf": np.inf, "2": 2, "1": 1}[norm]
    assert (np.linalg.norm(moved, order, axis=1) <= eps * (1 + 1e-12)).all()
    session = onnxruntime.InferenceSession(CONV, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": x})
    assert (logits.argmax(axis=1) != label).all()


def test_nothing_found_saves_an_empty_file(tmp_path: Path, verify: Run) -> None:
    """With the shapes of the inputs, so that a script need not ask."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    target = tmp_path / "none.npz"
    assert verify("attack", path, "--eps", "0.1", "--save", target).code == 0
    with np.load(target) as saved:
        assert saved["x"].shape == (0, 2)


def test_info_lists_layers_totals_and_methods(verify: Run) -> None:
    """Of the convolutional example: what examples/README.md and the file itself say."""
    done = verify("info", CONV)
    assert done.code == 0
    for text in ("2 Conv", "2 BatchNormalization", "1 MaxPool", "opset:     17", "10 classes"):
        assert text in done.out
    assert "batch x 1 x 8 x 8" in done.out
    assert "supported: every operator has sound bounds" in done.out
    assert all(method in done.out for method in METHODS)


def test_info_as_json(verify: Run) -> None:
    """The dense example has 64·64 + 64 + 64·32 + 32 + 32·10 + 10 parameters."""
    done = verify("info", DENSE, "--json", "-", "--quiet")
    summary = done.record["summary"]
    assert summary["parameters"] == 64 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10
    assert summary["input_shape"] == [64]
    assert summary["outputs"] == 10
    assert sum(layer["parameters"] for layer in summary["layers"]) == summary["parameters"]
    assert set(summary["methods"]) == set(METHODS)
    assert done.err == ""


def test_info_of_an_unsupported_model_says_what_is_missing(tmp_path: Path, verify: Run) -> None:
    """A table of operators, then the one line and exit code 2 of bad input."""
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["h"]),
        onnx.helper.make_node("Tan", ["h"], ["y"]),
    ]
    path = tmp_path / "tan.onnx"
    onnx.save(model(nodes, ["batch", 2]), path)
    done = verify("info", path)
    assert done.code == 2
    assert "Relu" in done.out
    lines = [line for line in done.out.splitlines() if "Tan" in line]
    assert len(lines) == 1
    assert "no" in lines[0]
    assert done.err.startswith("error: ")
    assert "Tan" in done.err
    assert done.err.count("\n") == 1
