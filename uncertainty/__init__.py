"""What can be said about a prediction with probability; imports nothing of `verify`.

    from uncertainty import entropy_decomposition

    parts = entropy_decomposition(members)  # probabilities, (members, inputs, classes)
    parts.total, parts.aleatoric, parts.epistemic

Arrays, tensors and lists go in, numpy float64 comes out: see `uncertainty.arrays`.
"""

from uncertainty.errors import UncertaintyError, UncertaintyInputError
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
from uncertainty.predictions import CategoricalMixture, GaussianMixture

__all__ = [
    "CategoricalMixture",
    "Decomposition",
    "EntropyEstimate",
    "GaussianHead",
    "GaussianMixture",
    "UncertaintyError",
    "UncertaintyInputError",
    "class_variance",
    "confidence",
    "disagreement",
    "entropy",
    "entropy_decomposition",
    "expected_entropy",
    "gaussian_entropy",
    "gaussian_mixture_decomposition",
    "gaussian_nll",
    "log_softmax",
    "mean_probabilities",
    "mixture_entropy",
    "mixture_entropy_bounds",
    "mutual_information",
    "pooled_log_probabilities",
    "predictive_entropy",
    "softmax",
    "softmax_variance",
    "variance_decomposition",
    "variation_ratio",
    "vote_counts",
    "votes",
]
