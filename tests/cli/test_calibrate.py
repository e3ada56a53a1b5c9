"""`verify calibrate`: a net whose temperature is known, the file it writes, what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from tests.cli.commands import DENSE, Run
from tests.readers.onnx_models import model

TRUE_TEMPERATURE = 2.0


def write_net(folder: Path, tail: str | None, inputs: int = 2000) -> Path:
    """logits = 2 x of three inputs, for labels drawn from softmax(x): its temperature is 2."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(inputs, 3)).astype(np.float32) * 2
    y = (x - np.log(-np.log(rng.random(x.shape)))).argmax(axis=1)
    np.savez(folder / "data.npz", x=x, y=y)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["z" if tail else "y"])]
    if tail:
        nodes.append(helper.make_node(tail, ["z"], ["y"], axis=-1))
    path = folder / "net.onnx"
    onnx.save(
        model(nodes, ["batch", 3], {"w": TRUE_TEMPERATURE * np.eye(3, dtype=np.float32)}), path
    )
    return path


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0].astype(np.float64)


@pytest.mark.parametrize("tail", [None, "Softmax", "LogSoftmax"])
@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_the_written_file_gives_the_calibrated_outputs(
    tmp_path: Path, verify: Run, tail: str | None, method: str
) -> None:
    """Of the found scaling, in ONNX Runtime; a valid file, readable again; the first untouched."""
    path, out = write_net(tmp_path, tail), tmp_path / "calibrated.onnx"
    original = path.read_bytes()
    done = verify(
        "calibrate",
        path,
        "--data",
        tmp_path / "data.npz",
        "--method",
        method,
        "-o",
        out,
        "--json",
        "-",
    )
    assert (done.code, done.err.count("written:")) == (0, 1)
    summary = done.record["summary"]
    found = summary["parameters"]
    if method == "temperature":
        assert found["temperature"] == pytest.approx(TRUE_TEMPERATURE, rel=0.1)
        scale, shift = np.full(3, 1 / found["temperature"]), np.zeros(3)
    else:
        scale, shift = np.array(found["scale"]), np.array(found["shift"])
        np.testing.assert_allclose(scale, 0.5, rtol=0.25)
    x = np.load(tmp_path / "data.npz")["x"][:50]
    wanted = 2 * x * scale + shift
    if tail:
        wanted = wanted - np.log(np.exp(wanted).sum(axis=1, keepdims=True))
        wanted = np.exp(wanted) if tail == "Softmax" else wanted
    np.testing.assert_allclose(outputs(out, x), wanted, atol=1e-5)
    names = [node.name for node in onnx.load(out).graph.node]
    assert any(name.startswith("tashika_calibration_") for name in names)
    assert path.read_bytes() == original
    assert summary["after"]["nll"] < summary["before"]["nll"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["calibrated.onnx", "data.npz", "net.onnx"]


def test_the_calibrated_example_is_valid_onnx(tmp_path: Path, verify: Run) -> None:
    """As ONNX's own checker sees it, with one node more, which has a name."""
    out = tmp_path / "calibrated.onnx"
    assert verify("calibrate", DENSE, "--data", "digits", "-o", out, "-q").code == 0
    before, after = onnx.load(DENSE), onnx.load(out)
    onnx.checker.check_model(after, full_check=True)
    assert len(after.graph.node) == len(before.graph.node) + 1
    assert [o.name for o in after.graph.output] == [o.name for o in before.graph.output]
    (made,) = (node for node in after.graph.node if node.op_type == "Div")
    assert made.name == "tashika_calibration_Div"


def test_a_calibrated_file_needs_no_more_calibration_and_keeps_its_radii(
    tmp_path: Path, verify: Run
) -> None:
    """Fitted to the same rows again, its temperature is 1; and it is certified as before."""
    path, out = write_net(tmp_path, None), tmp_path / "calibrated.onnx"
    data = ("--data", tmp_path / "data.npz", "--json", "-")
    verify("calibrate", path, *data, "-o", out)
    again = verify("calibrate", out, *data).record["summary"]
    assert again["parameters"]["temperature"] == pytest.approx(1, abs=1e-5)
    rows = [verify("radius", p, *data, "--limit", 3).record["results"] for p in (path, out)]
    for before, after in zip(*rows, strict=True):
        assert after["radius_certified"] == pytest.approx(before["radius_certified"], rel=0.02)


def test_the_figures_are_those_of_the_judging_part(tmp_path: Path, verify: Run) -> None:
    """Counted again from the rows of the record."""
    path = write_net(tmp_path, None)
    record = verify(
        "calibrate", path, "--data", tmp_path / "data.npz", "--split", "0.25", "--json", "-"
    ).record
    rows, summary = record["results"], record["summary"]
    assert (summary["fitted_on"], summary["judged_on"], len(rows)) == (500, 1500, 1500)
    for when in ("before", "after"):
        c = np.array([row[f"confidence_{when}"] for row in rows])
        y = np.array([row["label"] == row["predicted"] for row in rows])
        index = np.ceil(c * 15).astype(int) - 1
        gap = np.abs(np.bincount(index, y - c)).sum() / len(c)
        found = summary[when]
        assert found["ece"] == pytest.approx(gap, abs=1e-12)
        assert found["accuracy"] == y.mean()
        assert found["ece_low"] <= found["ece_high"]
    assert summary["before"]["ece_p_value"] < 0.01 < summary["after"]["ece_p_value"]


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_the_file(
    tmp_path: Path, verify: Run
) -> None:
    """Rows sorted by label, as files often are, give the same calibration."""
    path = write_net(tmp_path, None, inputs=300)
    with np.load(tmp_path / "data.npz") as data:
        order = np.argsort(data["y"], kind="stable")
        np.savez(tmp_path / "sorted.npz", x=data["x"][order], y=data["y"][order])

    def temperature(data: str, *more: object) -> float:
        done = verify("calibrate", path, "--data", tmp_path / data, "--json", "-", *more)
        return done.record["summary"]["parameters"]["temperature"]

    first = temperature("data.npz")
    assert temperature("sorted.npz") == pytest.approx(first, rel=1e-9)
    assert temperature("data.npz", "--seed", 1) != first


@pytest.mark.parametrize("method", ["temperature", "dirichlet", "isotonic"])
def test_the_embedded_example_goes_through_every_kind_of_method(
    tmp_path: Path, verify: Run, method: str
) -> None:
    """With table and picture; whether it helps is said beside it."""
    picture = tmp_path / "reliability.png"
    done = verify("calibrate", DENSE, "--data", "digits", "--method", method, "--plot", picture)
    assert done.code == 0
    assert "floor: calibrated, by chance" in done.out
    assert "NLL on the judging part changes by" in done.out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_normalisation_in_front_is_calibrated_with(tmp_path: Path, verify: Run) -> None:
    """(x - 0) / .5 doubles the logits, so twice the temperature, and so does the file."""
    path, out = write_net(tmp_path, None), tmp_path / "calibrated.onnx"
    done = verify(
        "calibrate", path, "--data", tmp_path / "data.npz", "--std", "0.5", "-o", out, "--json", "-"
    )
    assert done.record["summary"]["parameters"]["temperature"] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--method", "magic"), "expected one of temperature"),
        (("--split", "1"), "between 0 and 1"),
        (("--bins", "0"), "expected 1 to"),
        (("--seed", "-1"), "from 0"),
        (("--plot", "a.gif"), "ending of png"),
        (("-o", "nowhere/there/x.onnx"), "in no folder"),
        (("-o", "x.txt"), "ends in .onnx"),
        (("-o", "x.onnx", "--method", "isotonic"), "cannot write method isotonic"),
        (("-o", DENSE), "the model itself"),
        (("--labels", "predicted"), "needs true labels"),
        (("--limit", "1"), "leave 0 to fit on"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    verify: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    """Exit code 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    done = verify("calibrate", DENSE, "--data", "digits", *arguments)
    assert done.code == 2
    assert complaint in done.err
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
