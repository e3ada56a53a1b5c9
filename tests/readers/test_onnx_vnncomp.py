"""Networks of the verification competition are read and agree with ONNX Runtime, where present."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from verify.readers.onnx import read_onnx
from verify.runtime import Runtime, cross_check

BESIDE_THE_CLONE = Path(__file__).resolve().parents[3] / "shared" / "data" / "vnncomp"
FOLDER = Path(os.environ.get("TASHIKA_VNNCOMP", BESIDE_THE_CLONE))

READ = (
    "test",
    "acasxu",
    "mnist_fc",
    "verivital",
    "eran",
    "oval21",
    "cifar10_resnet",
    "sri_resnet_a",
    "marabou-cifar10",
    "collins_rul_cnn",
    "tllverifybench",
    "safenlp",
    "cora",
    "rl_benchmarks",
    "reach_prob_density",
    "dist_shift",
    "linearizenn",
    "yolo",
    "cgan",
    "lsnc",
    "ml4acopf",
    "nn4sys",
    "traffic_signs",
    "vit",
    "carvana_unet",
    "cctsdb_yolo",
)
"""Categories of which every network is read; the test takes the first and the last of each."""


def files(category: str) -> list[Path]:
    """The first and the last network of a category, the smallest ones of which load quickly."""
    found = sorted((FOLDER / category).rglob("*.onnx*"))
    if not found:
        pytest.skip(f"{FOLDER / category} is not here")
    return found if len(found) < 3 else [found[0], found[-1]]


@pytest.mark.parametrize("category", READ)
def test_networks_agree_with_onnx_runtime(category: str) -> None:
    """The check at load passes, and not by a hair."""
    for path in files(category):
        read = read_onnx(path)
        assert cross_check(read, Runtime(read)).share < 0.5
