"""Selective prediction: keep what is most certain, and see how wrong the rest of it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uncertainty.arrays import Array, Floats, as_floats, needs_inputs
from uncertainty.errors import UncertaintyInputError


@dataclass(frozen=True, slots=True, eq=False)
class RiskCoverage:
    """Mean loss of the most certain inputs, for each number kept.

    Attributes:
        coverage: k/n for k = 1 ... n, shape (inputs,).
        risk: expected mean loss of the k most certain, ties in random order; shape (inputs,).
        aurc: mean of the risk over all coverages; lower is better.
        best: the aurc of the same losses in the best order.
    """

    coverage: Floats
    risk: Floats
    aurc: float
    best: float

    @property
    def excess(self) -> float:
        """E-AURC: what the order of the uncertainties costs against the best order; >= 0."""
        return self.aurc - self.best

    def coverage_at(self, risk: float) -> float:
        """The largest coverage whose risk is at most `risk`; 0 if there is none."""
        found = self.coverage[self.risk <= risk]
        return float(found.max()) if len(found) else 0.0


def risk_coverage(losses: Array, uncertainty: Array) -> RiskCoverage:
    """The risk-coverage curve.

    Inputs of equal uncertainty are kept in random order: the curve is the mean over all orders of
    them, so it does not depend on the order of the inputs.

    Args:
        losses: of each input: 1 where the prediction is wrong, else 0, or any loss; shape
            (inputs,).
        uncertainty: higher is kept later, shape (inputs,); a confidence goes in as 1 - confidence.

    Source:
        Geifman and El-Yaniv 2017, arXiv:1705.08500; Geifman et al. 2019, arXiv:1805.08206 (E-AURC;
        here against the best order of these very losses, not its limit for many inputs).
    """
    loss, doubt = as_floats(losses, "losses", axes=1), as_floats(uncertainty, "uncertainty", axes=1)
    if len(loss) != len(doubt):
        raise UncertaintyInputError(
            f"there are {len(loss)} losses and {len(doubt)} uncertainties; give one of each."
        )
    needs_inputs(len(loss), "a risk-coverage curve")
    _, group, counts = np.unique(doubt, return_inverse=True, return_counts=True)
    expected = np.bincount(group, loss) / counts
    kept = np.arange(1, len(loss) + 1)
    risk = np.cumsum(np.repeat(expected, counts)) / kept
    best = np.cumsum(np.sort(loss)) / kept
    return RiskCoverage(kept / len(loss), risk, float(risk.mean()), float(best.mean()))
