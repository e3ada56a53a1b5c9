"""Layer normalisation: what a variance in one pass loses is paid for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.readers.onnx_models import one, random, read_back, reference
from verify.ops.registry import REGISTRY
from verify.traverse import propagate
from verify.values.bounds import Bounds
from verify.values.rounding import FLOAT32

EPSILON = 1e-3


def one_pass(x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """What kernels compute that read x once, in float32."""
    n = np.float32(x.shape[1])
    mean = x.sum(axis=1, keepdims=True) / n
    variance = (x * x).sum(axis=1, keepdims=True) / n - mean * mean
    return (x - mean) / np.sqrt(variance + np.float32(EPSILON)) * scale + bias


def outside(folder: Path) -> int:
    """How many outputs of ONNX Runtime, or of one pass, lie outside our bounds of the points."""
    scale, bias = random(8), random(8, seed=1)
    proto = one("LayerNormalization", (1, 8), scale, bias, axis=-1, epsilon=EPSILON)
    read = read_back(proto, folder)
    x = random(400, 8, seed=2) * np.float32(0.1)
    x = x + np.linspace(0, 30, len(x), dtype=np.float32)[:, None]  # means that dwarf the variance
    point = torch.from_numpy(x).double()
    found = propagate(read.graph, Bounds(point, point), FLOAT32)[read.graph.output.name]
    count = 0
    for executed in (reference(read, torch.from_numpy(x)), one_pass(x, scale, bias)):
        y = torch.from_numpy(np.asarray(executed)).double()
        count += int(((y < found.lower) | (y > found.upper)).sum())
    return count


def test_executions_stay_within_bounds(tmp_path: Path) -> None:
    """Also where the mean of squares dwarfs what it less the square of the mean is."""
    assert outside(tmp_path) == 0


def test_without_its_charge_they_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail."""
    silent = replace(REGISTRY["Blurred"], noise=None, rounds=False)
    monkeypatch.setitem(REGISTRY, "Blurred", silent)
    assert outside(tmp_path) > 0
