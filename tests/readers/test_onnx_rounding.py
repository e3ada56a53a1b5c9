"""What float32 does to a file stays within the rounding that its graph is charged for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.readers.onnx_models import probe, read_back
from tests.readers.test_onnx_operators import CASES
from verify.readers.onnx import OnnxModel
from verify.runtime import Runtime
from verify.traverse import propagate
from verify.values.bounds import Bounds
from verify.values.rounding import FLOAT32, Rounding


def escapes(read: OnnxModel, rounding: Rounding | None) -> bool:
    """Whether an output in ONNX Runtime, optimised or not, leaves the bounds of a single point."""
    x = probe(read)
    point = Bounds(x.to(torch.float64), x.to(torch.float64))
    bounds = propagate(read.graph, point, rounding)[read.graph.output.name]
    outputs = [y.to(torch.float64) for y in Runtime(read).each_way(x)]
    return any(bool(((y < bounds.lower) | (y > bounds.upper)).any()) for y in outputs)


@pytest.mark.parametrize("name", CASES)
def test_float32_outputs_lie_within_the_charged_rounding(name: str, tmp_path: Path) -> None:
    """Also where passes folded several of the file's nodes into one."""
    read = read_back(CASES[name], tmp_path)
    if read.graph.tail is None:
        assert not escapes(read, FLOAT32)


@pytest.mark.parametrize("name", ["gemm", "conv", "conv and batch normalisation", "sigmoid"])
def test_without_the_charge_they_would_escape(name: str, tmp_path: Path) -> None:
    """The test above can fail: float32 does round."""
    assert escapes(read_back(CASES[name], tmp_path), None)
