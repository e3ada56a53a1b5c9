"""`verify uncertainty` and `verify ood`: figures by hand, pictures, and what they refuse."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.cli.commands import CONV, DENSE, Run
from tests.readers.onnx_models import model


def write(path: Path, weight: np.ndarray, dropout: float | None = None) -> Path:
    """logits = x W, with a Dropout node behind where a rate is given."""
    nodes = [onnx.helper.make_node("Gemm", ["x", "w"], ["h" if dropout else "y"])]
    arrays = {"w": weight.astype(np.float32)}
    if dropout:
        nodes.append(onnx.helper.make_node("Dropout", ["h", "rate"], ["y"]))
        arrays["rate"] = np.array(dropout, dtype=np.float32)
    onnx.save(model(nodes, ["batch", 2], arrays), path)
    return path


@pytest.fixture
def members(tmp_path: Path) -> list[Path]:
    """Two members, one that says class 0 for x0 > x1, the other the opposite; and three inputs."""
    weight = 50 * np.eye(2)
    paths = [write(tmp_path / "a.onnx", weight), write(tmp_path / "b.onnx", weight[::-1])]
    x = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=np.array([0, 1, 1]))
    return paths


def test_contradicting_members_are_epistemic_and_clueless_ones_aleatoric(
    members: list[Path], verify: Run
) -> None:
    """Sure opposites: log 2 of mutual information; zero logits: log 2 of entropy each."""
    done = verify("uncertainty", *members, "--json", "-")
    assert done.code == 0
    rows = done.record["results"]
    for i, (aleatoric, epistemic) in enumerate([(0, 1), (1, 0), (0, 1)]):
        assert rows[i]["total"] == pytest.approx(math.log(2))
        assert rows[i]["aleatoric"] == pytest.approx(aleatoric * math.log(2), abs=1e-12)
        assert rows[i]["epistemic"] == pytest.approx(epistemic * math.log(2), abs=1e-12)
        assert rows[i]["confidence"] == pytest.approx(0.5)
    assert [row["label"] for row in rows] == [0, 1, 1]
    assert done.record["summary"]["members"] == 2
    assert [m["path"] for m in done.record["settings"]["models"]] == [str(p) for p in members]


def test_numbers_have_variances(members: list[Path], verify: Run) -> None:
    """Outputs (mean, log-variance) = (50, 0) and (0, 50 clamped to log 1e6), at the first input."""
    done = verify("uncertainty", *members, "--task", "numbers", "--json", "-")
    row = done.record["results"][0]
    assert row["predicted"] == pytest.approx(25)
    assert row["epistemic"] == pytest.approx(625)
    assert row["aleatoric"] == pytest.approx((1 + 1e6) / 2, rel=1e-5)


def test_dropout_nodes_make_one_file_an_ensemble(tmp_path: Path, verify: Run) -> None:
    """Passes are counted, depend on the seed only, and not on the other inputs."""
    path = write(tmp_path / "d.onnx", np.eye(2), dropout=0.5)
    np.savez(tmp_path / "d.npz", x=np.array([[1.0, 0.0], [0.3, 0.2]], dtype=np.float32))
    asked = ("uncertainty", path, "--passes", "20", "--json", "-")
    first = verify(*asked).record
    assert first["summary"]["members"] == 20
    assert first["summary"]["epistemic_mean"] > 0.01
    assert first["results"] == verify(*asked).record["results"]
    (alone,) = verify(*asked, "--indices", "1").record["results"]
    for part in ("total", "aleatoric", "epistemic"):
        assert alone[part] == pytest.approx(first["results"][1][part], abs=1e-12)
    assert first["results"] != verify(*asked, "--seed", "1").record["results"]


def test_the_most_uncertain_are_listed_and_drawn(tmp_path: Path, verify: Run) -> None:
    """The table begins with the largest total; the picture holds more than one colour."""
    target = tmp_path / "u.png"
    done = verify("uncertainty", DENSE, CONV, "--limit", 30, "--show", 3, "--plot", target)
    assert done.code == 0
    assert "the 3 most uncertain of 30 inputs" in done.out
    assert "accuracy" in done.out
    assert len(np.unique(np.asarray(Image.open(target)))) > 20


def test_ood_tells_noise_from_digits(tmp_path: Path, verify: Run) -> None:
    """Raw-input neighbours separate it wholly; figures, intervals and the picture are there."""
    target = tmp_path / "o.png"
    done = verify(
        "ood",
        DENSE,
        "--ood",
        "noise",
        "--ood",
        "permuted",
        "--method",
        "all",
        "--json",
        "-",
        "--plot",
        target,
    )
    assert done.code == 0
    rows = {(r["ood"], r["method"]): r for r in done.record["results"]}
    assert len(rows) == 26
    assert rows["noise", "input-knn"]["auroc"] == 1
    assert rows["noise", "input-knn"]["auroc_low"] < 1
    for row in rows.values():
        assert 0 <= row["auroc_low"] <= row["auroc"] <= row["auroc_high"] <= 1
        assert row["id_count"] == row["ood_count"] == 180
    assert rows["noise", "msp"]["auroc"] > 0.8
    assert rows["noise", "energy"]["id_kept"] > 0.85
    assert len(np.unique(np.asarray(Image.open(target)))) > 20


def test_ood_needs_no_node_of_ours_to_be_supported(tmp_path: Path, verify: Run) -> None:
    """A Softmax-free net of any operators works; its own inner node serves as the feature."""
    nodes = [
        onnx.helper.make_node("Erf", ["x"], ["f"], name="odd"),
        onnx.helper.make_node("Gemm", ["f", "w"], ["y"]),
    ]
    path = tmp_path / "m.onnx"
    onnx.save(model(nodes, ["batch", 2], {"w": np.eye(2, dtype=np.float32)}), path)
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    np.savez(tmp_path / "m.npz", x=x)
    np.savez(tmp_path / "far.npz", x=x + 9)
    done = verify(
        "ood",
        path,
        "--ood",
        tmp_path / "far.npz",
        "--layer",
        "odd",
        "--method",
        "mahalanobis",
        "--fit",
        tmp_path / "m.npz",
        "--json",
        "-",
    )
    assert done.code == 0
    assert done.record["results"][0]["id_count"] == 40
    assert done.record["settings"]["layer"] == "odd"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("uncertainty", DENSE), "has no Dropout node"),
        (("uncertainty", DENSE, DENSE), "two of the MODEL files are the same"),
        (("uncertainty", DENSE, CONV, "--task", "x"), "--task is 'x'"),
        (("uncertainty", DENSE, CONV, "--task", "numbers"), "predicts 5 numbers"),
        (("uncertainty", DENSE, CONV, "--plot", "x.gif"), "picture x.gif"),
        (("uncertainty", DENSE, "missing.onnx"), "there is no file missing.onnx"),
        (("ood", DENSE), "--ood"),
        (("ood", DENSE, "--ood", "noise", "--method", "magic"), "--method has 'magic'"),
        (("ood", DENSE, "--ood", "noise", "--layer", "magic"), "no value or node 'magic'"),
        (("ood", DENSE, "--ood", "noise", "--tpr", "2"), "--tpr is 2"),
        (("ood", DENSE, "--ood", "missing.npz"), "missing.npz"),
        (("ood", DENSE, "--ood", "noise", "--limit", "2"), "too few to fit on"),
        (("ood", DENSE, "--ood", "noise", "--ood", "noise"), "named twice"),
        (("ood", DENSE, "--ood", "noise", "--layer", "v1", "--method", "vim"), "vim needs"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    verify: Run, arguments: tuple[str, ...], what: str
) -> None:
    """What is wrong, on standard error, without a traceback."""
    done = verify(*arguments)
    assert done.code == 2
    assert what in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_probabilities_are_not_taken_for_logits(members: list[Path], verify: Run) -> None:
    """A Softmax at the end is refused in one line."""
    whole = onnx.load(members[1])
    whole.graph.node[-1].output[0] = "h"
    whole.graph.node.append(onnx.helper.make_node("Softmax", ["h"], ["y"]))
    onnx.save(whole, members[1])
    done = verify("uncertainty", *members)
    assert done.code == 2
    assert "ends in a Softmax" in done.err
    assert done.err.count("\n") == 1


def test_labels_beyond_the_classes_are_no_errors_of_the_model(
    members: list[Path], tmp_path: Path, verify: Run
) -> None:
    """Two classes, and a label 2."""
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 2), dtype=np.float32), y=np.array([0, 2]))
    done = verify("uncertainty", *members)
    assert done.code == 2
    assert "label 2, expected 0 to 1" in done.err


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_ood_does_not_take_probabilities_for_logits(
    tmp_path: Path, verify: Run, operator: str
) -> None:
    """Energies of probabilities, or of their logarithms, mean nothing."""
    proto = onnx.load(DENSE)
    last = proto.graph.output[0].name
    proto.graph.node.append(onnx.helper.make_node(operator, [last], ["p"], axis=-1))
    del proto.graph.output[:]
    kind = onnx.TensorProto.FLOAT
    proto.graph.output.append(onnx.helper.make_tensor_value_info("p", kind, ["batch", 10]))
    path = tmp_path / "soft.onnx"
    onnx.save(proto, path)
    done = verify("ood", path, "--id", "digits", "--ood", "noise")
    assert done.code == 2
    assert f"ends in a {operator}" in done.err
