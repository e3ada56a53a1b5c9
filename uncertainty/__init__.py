"""What can be said about a prediction with probability; imports nothing of `verify`.

    from uncertainty import entropy_decomposition

    parts = entropy_decomposition(members)  # probabilities, (members, inputs, classes)
    parts.total, parts.aleatoric, parts.epistemic

Arrays, tensors and lists go in, numpy float64 comes out: see `uncertainty.arrays`.
"""

from uncertainty.binning import BinTable
from uncertainty.brier import BrierParts, brier_decomposition, confidence_brier_decomposition
from uncertainty.calibrated import CalibratedModel, logits_of
from uncertainty.calibration_error import (
    Binning,
    CalibrationError,
    calibration_error,
    classwise_calibration_error,
    maximum_calibration_error,
)
from uncertainty.calibrators import (
    CALIBRATORS,
    BetaCalibration,
    Calibrator,
    DirichletCalibration,
    HistogramBinning,
    IsotonicCalibration,
    MatrixScaling,
    OneVersusRest,
    PlattScaling,
    TemperatureScaling,
    VectorScaling,
)
from uncertainty.conformal import (
    ConformalClassifier,
    ConformalInterval,
    Penalty,
    conformal_threshold,
    coverage_distribution,
)
from uncertainty.errors import NotFittedError, UncertaintyError, UncertaintyInputError
from uncertainty.heads import GaussianHead, gaussian_nll
from uncertainty.measures import (
    Decomposition,
    class_variance,
    confidence,
    disagreement,
    entropy,
    entropy_decomposition,
    expected_entropy,
    gaussian_entropy,
    log_softmax,
    mean_probabilities,
    mutual_information,
    pooled_log_probabilities,
    predictive_entropy,
    softmax,
    softmax_variance,
    variance_decomposition,
    variation_ratio,
    vote_counts,
    votes,
)
from uncertainty.mixture_entropy import (
    EntropyEstimate,
    gaussian_mixture_decomposition,
    mixture_entropy,
    mixture_entropy_bounds,
)
from uncertainty.plots import plot_pit, plot_reliability, plot_risk_coverage
from uncertainty.predictions import CategoricalMixture, GaussianMixture
from uncertainty.regression_calibration import QuantileRecalibration, SigmaScaling
from uncertainty.regression_scores import (
    gaussian_crps,
    gaussian_interval,
    gaussian_log_score,
    gaussian_pit,
    interval_calibration_error,
    interval_score,
    mixture_crps,
    mixture_log_score,
    mixture_pit,
    quantile_calibration_error,
    sample_crps,
    sharpness,
)
from uncertainty.sampling import (
    Floor,
    Interval,
    bootstrap_calibration_error,
    bootstrap_mean,
    calibration_floor,
    wilson,
)
from uncertainty.scored import Scored, joined, score_events, score_logits, score_probabilities
from uncertainty.selective import RiskCoverage, risk_coverage
from uncertainty.smooth import smooth_calibration_error

__all__ = [
    "CALIBRATORS",
    "BetaCalibration",
    "BinTable",
    "Binning",
    "BrierParts",
    "CalibratedModel",
    "CalibrationError",
    "Calibrator",
    "CategoricalMixture",
    "ConformalClassifier",
    "ConformalInterval",
    "Decomposition",
    "DirichletCalibration",
    "EntropyEstimate",
    "Floor",
    "GaussianHead",
    "GaussianMixture",
    "HistogramBinning",
    "Interval",
    "IsotonicCalibration",
    "MatrixScaling",
    "NotFittedError",
    "OneVersusRest",
    "Penalty",
    "PlattScaling",
    "QuantileRecalibration",
    "RiskCoverage",
    "Scored",
    "SigmaScaling",
    "TemperatureScaling",
    "UncertaintyError",
    "UncertaintyInputError",
    "VectorScaling",
    "bootstrap_calibration_error",
    "bootstrap_mean",
    "brier_decomposition",
    "calibration_error",
    "calibration_floor",
    "class_variance",
    "classwise_calibration_error",
    "confidence",
    "confidence_brier_decomposition",
    "conformal_threshold",
    "coverage_distribution",
    "disagreement",
    "entropy",
    "entropy_decomposition",
    "expected_entropy",
    "gaussian_crps",
    "gaussian_entropy",
    "gaussian_interval",
    "gaussian_log_score",
    "gaussian_mixture_decomposition",
    "gaussian_nll",
    "gaussian_pit",
    "interval_calibration_error",
    "interval_score",
    "joined",
    "log_softmax",
    "logits_of",
    "maximum_calibration_error",
    "mean_probabilities",
    "mixture_crps",
    "mixture_entropy",
    "mixture_entropy_bounds",
    "mixture_log_score",
    "mixture_pit",
    "mutual_information",
    "plot_pit",
    "plot_reliability",
    "plot_risk_coverage",
    "pooled_log_probabilities",
    "predictive_entropy",
    "quantile_calibration_error",
    "risk_coverage",
    "sample_crps",
    "score_events",
    "score_logits",
    "score_probabilities",
    "sharpness",
    "smooth_calibration_error",
    "softmax",
    "softmax_variance",
    "variance_decomposition",
    "variation_ratio",
    "vote_counts",
    "votes",
    "wilson",
]
