"""Calibrators of class probabilities: logits in, logits out, in scikit-learn's habit.

calibrator = TemperatureScaling().fit(logits, labels)
calibrator.predict_proba(new_logits)
"""

from collections.abc import Callable

from uncertainty.calibrators.affine import DirichletCalibration, MatrixScaling, VectorScaling
from uncertainty.calibrators.base import Calibrator
from uncertainty.calibrators.one_vs_rest import (
    BetaCalibration,
    HistogramBinning,
    IsotonicCalibration,
    OneVersusRest,
    PlattScaling,
)
from uncertainty.calibrators.temperature import TemperatureScaling

CALIBRATORS: dict[str, Callable[[], Calibrator]] = {
    "temperature": TemperatureScaling,
    "vector": VectorScaling,
    "matrix": MatrixScaling,
    "dirichlet": DirichletCalibration,
    "platt": PlattScaling,
    "beta": BetaCalibration,
    "isotonic": IsotonicCalibration,
    "histogram": HistogramBinning,
}
"""By name, each with its default settings."""

__all__ = [
    "CALIBRATORS",
    "BetaCalibration",
    "Calibrator",
    "DirichletCalibration",
    "HistogramBinning",
    "IsotonicCalibration",
    "MatrixScaling",
    "OneVersusRest",
    "PlattScaling",
    "TemperatureScaling",
    "VectorScaling",
]
