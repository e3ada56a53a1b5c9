"""`verify train`: a network comes out, its figures are true, and it can be stopped and resumed."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from attacks import defences
from tests.cli.commands import Run

SHORT = ("--eps", "0.05", "--epochs", "3", "--widths", "16", "--certify", "10", "--quiet")


def test_the_digits_train_into_a_file_that_verify_certifies(verify: Run, tmp_path: Path) -> None:
    """The record holds the figures, the history and how it came about; the picture is drawn."""
    path, picture = tmp_path / "net.onnx", tmp_path / "curves.png"
    done = verify("train", *SHORT, "-o", path, "--plot", picture, "--json", "-")
    assert done.code == 0, done.err
    record = done.record
    assert record["command"] == "train"
    assert record["summary"]["certified"] <= record["summary"]["attacked"]
    assert [row["epoch"] for row in record["summary"]["training"]] == [1, 2, 3]
    assert record["model"]["path"] == str(path)
    assert picture.read_bytes().startswith(b"\x89PNG")
    onnx.checker.check_model(onnx.load(path))
    again = verify(
        "certify", path, "--data", "digits", "--eps", "0.05", "--limit", "10", "--json", "-"
    )
    verdicts = [row["verdict"] for row in again.record["results"]]
    assert verdicts == [row["verdict"] for row in record["results"]]


def test_a_table_names_each_figure(verify: Run, tmp_path: Path) -> None:
    """What is a bound says of which side."""
    done = verify("train", *SHORT[:-1], "-o", tmp_path / "net.onnx", "--method", "pgd")
    assert done.code == 0, done.err
    for text in ("clean", "under PGD", "upper bound", "lower bound", "next: verify"):
        assert text in done.out


def test_stopped_and_resumed_writes_the_same_bytes(
    verify: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the second epoch: exit code 130, what to do is said, no network is written."""
    whole, parts = tmp_path / "whole.onnx", tmp_path / "parts.onnx"
    assert verify("train", *SHORT, "-o", whole).code == 0
    steps = defences.fitting.Loop.steps

    def stopped(self: defences.fitting.Loop, number: int) -> float:
        if number == 1:
            raise KeyboardInterrupt
        return steps(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(defences.fitting.Loop, "steps", stopped)
        cut = verify("train", *SHORT, "-o", parts, "--checkpoint", tmp_path / "run")
    assert cut.code == 130
    assert "add --resume" in cut.err
    assert not parts.exists()
    assert (
        verify("train", *SHORT, "-o", parts, "--checkpoint", tmp_path / "run", "--resume").code == 0
    )
    assert onnx.load(parts).graph.initializer == onnx.load(whole).graph.initializer


def test_own_data_are_parted_and_images_take_a_convolutional_net(
    verify: Run, tmp_path: Path
) -> None:
    """A CSV of bytes: a fifth is held out, the square shape is seen."""
    rng = np.random.default_rng(0)
    rows = [[i % 2, *(rng.integers(0, 100, 16) + 100 * (i % 2))] for i in range(40)]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n")
    net = tmp_path / "net.onnx"
    done = verify(
        *("train", path, "--eps", "2/255", "--epochs", "2", "--arch", "conv", "--widths", "2,4"),
        *("--certify", "0", "--method", "trades", "--set", "beta=3", "-o", net),
    )
    assert done.code == 0, done.err
    assert "on 32 inputs" in done.out
    assert "held out: 8" in done.out
    shape = onnx.load(net).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in shape][1:] == [1, 4, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "madry"), "no training method 'madry'"),
        (("--method", "sabr", "--set", "beta=3"), "no setting 'beta'; it has tau"),
        (("--set", "beta"), "expected NAME=VALUE"),
        (("--epochs", "0"), "epochs = 0"),
        (("--arch", "resnet"), "no architecture 'resnet'"),
        (("--widths", "0"), "whole numbers from 1"),
        (("--resume",), "--resume needs the --checkpoint"),
        (("--resume", "--checkpoint", "nowhere"), "no checkpoint"),
        (("--plot", "curves.gif"), "expected an ending"),
        (("-o", "net.pt"), "ends in .onnx"),
        (("-o", "nowhere/net.onnx"), "no folder that is there"),
        (("--eps", "-1"), "a radius is >= 0"),
        (("nothing.csv",), "cannot be read"),
    ],
)
def test_mistakes_end_in_one_line(
    verify: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple, message: str
) -> None:
    """Exit code 2, and no file is written."""
    monkeypatch.chdir(tmp_path)
    done = verify("train", "--eps", "0.1", "--epochs", "1", *arguments)
    assert (done.code, done.out) == (2, done.out)
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.glob("*.onnx"))
