"""F15: certified radii of linear classifiers never exceed the exact ones, and come near them."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.soundness.traps import gemms
from verify.api import radius


@pytest.mark.parametrize("norm", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("seed", range(8))
def test_a_certified_radius_is_at_most_the_exact_one(
    norm: float, seed: int, tmp_path: Path
) -> None:
    """r <= margin / |w|_dual, compared in rational numbers (squares under L2)."""
    generator = np.random.default_rng(seed)
    rows = (generator.standard_normal((2, 6)) * 10.0 ** generator.uniform(-4, 4)).astype("f4")
    x = generator.standard_normal((1, 6)).astype("f4")
    onnx.save(gemms([(rows.tolist(), [0.0, 0.0])]), tmp_path / "net.onnx")
    (found,) = radius(
        tmp_path / "net.onnx",
        torch.tensor(x),
        norm=norm,
        method="crown",
        tolerance=1e-4,
        largest=50.0,
    )
    sign = 1 if found.label == 0 else -1
    w = [sign * (Fraction(float(a)) - Fraction(float(b))) for a, b in rows.T]
    margin = sum((v * Fraction(float(p)) for v, p in zip(w, x[0], strict=True)), Fraction(0))
    dual = {
        1.0: max(abs(v) for v in w) ** 2,
        2.0: sum((v * v for v in w), Fraction(0)),
        math.inf: sum((abs(v) for v in w), Fraction(0)) ** 2,
    }[norm]
    squared = Fraction(found.certified) ** 2 * dual
    assert 0 < squared <= margin**2
    assert found.certified > 49.9 or squared >= Fraction(99, 100) ** 2 * margin**2
