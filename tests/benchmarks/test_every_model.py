"""One small model a category is read, checked and bounded, where the competition's folders are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.every_model import models, tried
from benchmarks.suites.vnncomp import DEFAULT_FOLDER

FOLDER = Path(os.environ.get("TASHIKA_VNNCOMP", DEFAULT_FOLDER))
SMALL = (
    "acasxu",
    "collins_rul_cnn",
    "linearizenn",
    "lsnc",
    "ml4acopf",
    "nn4sys",
    "reach_prob_density",
    "safenlp",
    "tllverifybench",
    "verivital",
)
"""Categories whose first model takes less than a second."""


@pytest.mark.parametrize("category", SMALL)
def test_the_first_model_has_finite_bounds(category: str) -> None:
    """By intervals and by CROWN, and CROWN's are not the wider ones."""
    found = [tried(*case) for case in models(FOLDER, [category], 1)]
    if not found:
        pytest.skip(f"{FOLDER / category} is not here")
    assert found[0].stage == "", found[0].message
    assert found[0].crown_width <= found[0].ibp_width * (1 + 1e-9)
