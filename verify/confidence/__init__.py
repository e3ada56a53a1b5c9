"""Certified uncertainty: what a softmax says, for every input of a region.

    from verify.confidence import certify_scores

    found = certify_scores(graph, asked, AlphaCrown()).scores
    found.confidence.lower, found.entropy.upper, found.never_confidently_wrong(0.9)

From bounds of all differences of logits (`differences`), refined by joint rows (`joint`), follow
bounds of class probabilities, confidence, NLL, entropy, energy and Brier score per input
(`scores`), and of a whole test set: calibration error (`calibration`), detection (`ood`),
conformal sets (`conformal`), ensembles (`ensemble`).
"""

from verify.confidence.calibration import (
    Outcomes,
    Range,
    calibration_error,
    error_range,
    outcomes,
    points,
    worst_choice,
)
from verify.confidence.certifying import Certified, certify_scores, independent_scores
from verify.confidence.conformal import (
    Coverage,
    certified_coverage,
    lac_threshold,
    robust_threshold,
)
from verify.confidence.differences import Differences
from verify.confidence.ensemble import MUTUAL_INFORMATION, ensemble_scores
from verify.confidence.ood import Separation, auroc, certified_auroc, certified_rejection
from verify.confidence.scores import Scores
from verify.confidence.splitting import BY_PART, split_scores, splittable

__all__ = [
    "BY_PART",
    "MUTUAL_INFORMATION",
    "Certified",
    "Coverage",
    "Differences",
    "Outcomes",
    "Range",
    "Scores",
    "Separation",
    "auroc",
    "calibration_error",
    "certified_auroc",
    "certified_coverage",
    "certified_rejection",
    "certify_scores",
    "ensemble_scores",
    "error_range",
    "independent_scores",
    "lac_threshold",
    "outcomes",
    "points",
    "robust_threshold",
    "split_scores",
    "splittable",
    "worst_choice",
]
