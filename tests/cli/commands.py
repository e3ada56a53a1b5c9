"""Running the command line inside the test's own process, and a net whose radii are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import ArrayLike

from tests.readers.onnx_models import model
from verify.cli import main
from verify.readers.examples import example_path

DENSE, CONV = (str(example_path(f"digits_{kind}.onnx")) for kind in ("dense", "conv"))


@dataclass(frozen=True)
class Outcome:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> dict:
        """Standard output as JSON; nothing else may be there."""
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call `verify` with these arguments."""

    def run(*arguments: object) -> Outcome:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def write_identity(folder: Path, x: ArrayLike, y: ArrayLike | None = None) -> str:
    """logits = x for two inputs, saved as model.onnx beside model.npz; returns its path.

    The margin of label 0 is x0 - x1, so its radius is (x0 - x1)/2, (x0 - x1)/sqrt(2) and x0 - x1 in
    the norms inf, 2 and 1.
    """
    node = onnx.helper.make_node("Gemm", ["x", "w"], ["y"])
    proto = model([node], ["batch", 2], {"w": np.eye(2, dtype=np.float32)})
    path = folder / "model.onnx"
    onnx.save(proto, path)
    arrays = {"x": np.asarray(x, dtype=np.float32)}
    if y is not None:
        arrays["y"] = np.asarray(y, dtype=np.int64)
    np.savez(folder / "model.npz", **arrays)
    return str(path)
