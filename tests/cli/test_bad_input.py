"""Whatever cannot be used ends with one line on standard error, exit code 2 and no traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.cli.commands import DENSE, Run, write_identity
from tests.readers.onnx_models import model
from verify.cli import main, session

EPS = ("--eps", "0.1")


def identity(folder: Path) -> str:
    return write_identity(folder, [[0.8, 0.2]], [0])


def saved(folder: Path, proto: onnx.ModelProto) -> str:
    path = folder / "bad.onnx"
    onnx.save(proto, path)
    return str(path)


def corrupt(folder: Path) -> list[str]:
    path = folder / "bad.onnx"
    path.write_bytes(Path(DENSE).read_bytes()[:2000])
    return ["certify", str(path), *EPS]


def unsupported(folder: Path) -> list[str]:
    node = onnx.helper.make_node("Tan", ["x"], ["y"], name="strange")
    return ["certify", saved(folder, model([node], ["batch", 64])), *EPS]


def not_a_number(folder: Path) -> list[str]:
    weights = np.eye(64, dtype=np.float32)
    weights[3, 4] = np.nan
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"])
    return ["certify", saved(folder, model([node], ["batch", 64], {"w": weights})), *EPS]


def external_data_outside(folder: Path) -> list[str]:
    (folder / "secret.bin").write_bytes(bytes(64 * 64 * 4))
    (folder / "models").mkdir()
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"])
    proto = model([node], ["batch", 64], {"w": np.zeros((64, 64), dtype=np.float32)})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../secret.bin"), ("offset", "0"), ("length", "16384")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path = folder / "models" / "bad.onnx"
    path.write_bytes(proto.SerializeToString())
    return ["certify", str(path), *EPS]


def wrong_shape(folder: Path) -> list[str]:
    np.savez(folder / "other.npz", x=np.zeros((2, 5), dtype=np.float32), y=np.zeros(2, dtype=int))
    return ["certify", DENSE, *EPS, "--data", str(folder / "other.npz")]


def nan_in_the_data(folder: Path) -> list[str]:
    return ["certify", write_identity(folder, [[0.8, np.nan]], [0]), *EPS]


def label_out_of_range(folder: Path) -> list[str]:
    return ["certify", write_identity(folder, [[0.8, 0.2]], [2]), *EPS]


def no_data(folder: Path) -> list[str]:
    path = identity(folder)
    (folder / "model.npz").unlink()
    return ["certify", path, *EPS]


def no_labels(folder: Path) -> list[str]:
    return ["certify", write_identity(folder, [[0.8, 0.2]]), *EPS, "--labels", "data"]


def digits(*options: str, command: str = "certify") -> Callable[[Path], list[str]]:
    return lambda folder: [command, DENSE, *options]


# what is wrong -> (the command line, what the line must name)
BAD: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "missing file": (lambda folder: ["certify", str(folder / "no.onnx"), *EPS], "no.onnx"),
    "folder": (lambda folder: ["certify", str(folder), *EPS], "is a folder"),
    "corrupt file": (corrupt, "bad.onnx"),
    "unsupported operator": (unsupported, "'strange' (Tan) is not supported"),
    "NaN weights": (not_a_number, "[3, 4]"),
    "external data outside": (external_data_outside, "secret.bin"),
    "wrong shape": (wrong_shape, "(64,)"),
    "NaN in the data": (nan_in_the_data, "row 0"),
    "label out of range": (label_out_of_range, "is 2, expected 0 to 1"),
    "no data": (no_data, "Name data with --data"),
    "missing data": (digits(*EPS, "--data", "no.npz"), "no.npz is not there"),
    "unknown kind of data": (digits(*EPS, "--data", __file__), "is of no known kind"),
    "no labels": (no_labels, "has no labels"),
    "strange labels": (digits(*EPS, "--labels", "mine"), "--labels is 'mine'"),
    "negative eps": (digits("--eps", "-0.1"), "--eps is -0.1, but a radius is >= 0"),
    "eps not a number": (digits("--eps", "nan"), "--eps is 'nan'"),
    "eps infinite": (digits("--eps", "inf"), "--eps is 'inf'"),
    "eps a word": (digits("--eps", "small"), "--eps is 'small'"),
    "eps by zero": (digits("--eps", "1/0"), "--eps is '1/0'"),
    "no eps": (digits(), "Missing option '--eps'"),
    "unknown option": (digits(*EPS, "--espilon", "1"), "--espilon"),
    "unknown command": (lambda folder: ["certfy", DENSE], "certfy"),
    "unknown norm": (digits(*EPS, "--norm", "3"), "--norm is '3'"),
    "unknown method": (digits(*EPS, "--method", "magic"), "no method 'magic'"),
    "unknown attack": (digits(*EPS, "--attack", "magic"), "no attack 'magic'"),
    "no attack at all": (digits(*EPS, "--attack", "none", command="attack"), "nothing to do"),
    "no restarts": (digits(*EPS, "--restarts", "0"), "restarts = 0"),
    "setting of another attack": (digits(*EPS, "--attack", "fgsm", "--restarts", "2"), "takes no"),
    "limit 0": (digits(*EPS, "--limit", "0"), "--limit is 0"),
    "limit a word": (digits(*EPS, "--limit", "ten"), "--limit"),
    "index out of range": (digits(*EPS, "--indices", "360"), "360"),
    "strange indices": (digits(*EPS, "--indices", "3-1"), "--indices has the part '3-1'"),
    "huge indices": (digits(*EPS, "--indices", "0-99999999999"), "--indices has the part"),
    "range of one": (digits(*EPS, "--input-range", "1"), "--input-range is '1'"),
    "range upside down": (digits(*EPS, "--input-range", "1 0"), "--input-range is '1 0'"),
    "data outside the range": (digits(*EPS, "--input-range", "0 0.5"), "outside the input range"),
    "too many means": (digits(*EPS, "--mean", "0.1,0.2,0.3"), "mean has 3 values"),
    "std 0": (digits(*EPS, "--std", "0"), "std must be positive"),
    "scale 0": (digits(*EPS, "--scale", "0"), "--scale is 0"),
    "timeout 0": (digits(*EPS, "--timeout", "0"), "--timeout is 0"),
    "little memory": (digits(*EPS, "--memory", "10MB"), "raise --memory"),
    "strange memory": (digits(*EPS, "--memory", "much"), "--memory is 'much'"),
    "batch 0": (digits(*EPS, "--batch", "0"), "--batch is 0"),
    "iterations 0": (digits(*EPS, "--iterations", "0"), "iterations is 0"),
    "json into nowhere": (digits(*EPS, "--json", "/no/such/folder/r.json"), "--json is /no/such"),
    "both to standard output": (digits(*EPS, "--json", "-", "--csv", "-"), "cannot share"),
    "picture of no kind": (digits("--plot", "p.bmp", command="radius"), "p.bmp cannot be drawn"),
    "picture into nowhere": (digits("--plot", "/no/p.png", command="compare"), "cannot be drawn"),
    "tolerance 1": (digits("--tolerance", "1", command="radius"), "--tolerance is 1"),
    "strange grid": (digits("--eps-grid", "0:1", command="compare"), "--eps-grid is '0:1'"),
    "negative grid": (digits("--eps-grid", "-1,2", command="compare"), "--eps-grid"),
    "save as text": (digits(*EPS, "--save", "a.txt", command="attack"), "--save is a.txt"),
    "info of nothing": (lambda folder: ["info", str(folder / "no.onnx")], "no.onnx"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line begins with "error: ", names what is wrong, and has no traceback after it."""
    build, words = BAD[case]
    code = main(build(tmp_path))
    err = capsys.readouterr().err
    assert code == 2
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert words in err


def test_the_check_above_can_fail(tmp_path: Path, verify: Run) -> None:
    """The same net with good data is no error."""
    assert verify("certify", identity(tmp_path), *EPS).code == 0


def test_a_fault_of_ours_is_one_line_with_the_way_to_a_traceback(
    verify: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 70, which says neither "falsified" nor "bad input"; --debug shows the traceback."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("made\nup")

    monkeypatch.setattr(session, "open_session", broken)
    done = verify("certify", DENSE, *EPS)
    assert done.code == 70
    assert done.err.count("\n") == 1
    assert "unexpected ZeroDivisionError: made up" in done.err
    assert "--debug" in done.err
    assert "Traceback" in verify("certify", DENSE, *EPS, "--debug").err
