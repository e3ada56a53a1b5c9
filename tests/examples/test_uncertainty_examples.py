"""The uncertainty examples: what they promise, on the small parts that take no time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.integrate import quad

from examples import uncertainty_moons, uncertainty_sine


def test_the_oracles_nll_is_the_mean_over_the_inputs() -> None:
    """By quadrature over (0, 2 pi); the sampled NLL lies within five standard errors of it."""
    mean = quad(lambda x: 0.5 * math.log(2 * math.pi * math.e * 0.005 * x**2), 0, 2 * math.pi)[0]
    assert pytest.approx(mean / (2 * math.pi), abs=1e-9) == uncertainty_sine.ORACLE_NLL
    assert pytest.approx(-0.39234, abs=1e-5) == uncertainty_sine.ORACLE_NLL
    x, y = uncertainty_sine.draw_data(5000, seed=3)
    nll = -uncertainty_sine.oracle(x[:, 0].double().numpy()).log_prob(y)
    assert abs(nll.mean() - uncertainty_sine.ORACLE_NLL) < 5 * nll.std() / math.sqrt(5000)


@pytest.mark.slow
def test_the_sine_example_is_aleatoric_inside_and_epistemic_outside(tmp_path: Path) -> None:
    """Each model: near the oracle's NLL, and more epistemic variance outside than inside."""
    for row in uncertainty_sine.main(tmp_path):
        assert row.nll >= uncertainty_sine.ORACLE_NLL - 0.05
        if row.name not in {"mean-field BNN", "SWAG"}:  # known to stay too sure outside
            assert row.nll < -0.2
            assert min(row.epistemic[[0, 4, 5]]) > max(row.epistemic[1:4])
    assert len(np.unique(np.asarray(Image.open(tmp_path / "uncertainty_sine.png")))) > 50


@pytest.mark.slow
def test_the_moons_example_is_epistemic_away_from_the_data(tmp_path: Path) -> None:
    """Each model: more mutual information far from the data than near."""
    for near, far in uncertainty_moons.main(tmp_path).values():
        assert far > 1.5 * near
