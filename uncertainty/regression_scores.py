"""How good predicted distributions of numbers are: CRPS, NLL, PIT, intervals, sharpness.

Targets and means have one unit, in which CRPS, interval scores and sharpness are told too.
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

from uncertainty.arrays import Array, Floats, as_confidences, as_floats, as_positive, needs_inputs
from uncertainty.errors import UncertaintyInputError

LEVELS = np.arange(1, 100) / 100


def gaussian_log_score(targets: Array, means: Array, deviations: Array) -> Floats:
    """-log N(y; mu, sigma^2) in nats, constant included, shape (inputs,)."""
    y, mu, sigma = _alike(targets, means, deviations)
    z = (y - mu) / sigma
    return np.asarray(0.5 * z**2 + np.log(sigma) + 0.5 * np.log(2 * np.pi))


def gaussian_crps(targets: Array, means: Array, deviations: Array) -> Floats:
    """Continuous ranked probability score of a Gaussian, shape (inputs,); lower is better.

    sigma [z (2 Phi(z) - 1) + 2 phi(z) - 1/sqrt(pi)],  z = (y - mu)/sigma

    Source:
        Gneiting and Raftery 2007, doi:10.1198/016214506000001437.
    """
    y, mu, sigma = _alike(targets, means, deviations)
    z = (y - mu) / sigma
    return np.asarray(sigma * (z * (2 * ndtr(z) - 1) + 2 * _density(z) - 1 / np.sqrt(np.pi)))


def mixture_crps(targets: Array, means: Array, deviations: Array) -> Floats:
    """CRPS of the equal mixture of Gaussian members, exactly.

    mean_i A(y - mu_i, s_i^2) - 1/2 mean_ij A(mu_i - mu_j, s_i^2 + s_j^2),
    A(m, v) = E|N(m, v)| = 2 sqrt(v) phi(m / sqrt v) + m (2 Phi(m / sqrt v) - 1)

    Args:
        targets: shape (inputs,).
        means: shape (members, inputs).
        deviations: > 0, same shape.

    Source:
        Grimit et al. 2006, doi:10.1256/qj.05.235.
    """
    y, mu, sigma = _mixture(targets, means, deviations)
    first = _absolute(y - mu, sigma**2).mean(axis=0)
    second = np.zeros_like(first)
    for m, s in zip(mu, sigma, strict=True):
        second += _absolute(m - mu, s**2 + sigma**2).mean(axis=0)
    return np.asarray(first - 0.5 * second / len(mu))


def sample_crps(targets: Array, samples: Array, *, fair: bool = False) -> Floats:
    """CRPS of the distribution of samples: mean_i |x_i - y| - 1/2 mean_ij |x_i - x_j|.

    Args:
        targets: shape (inputs,).
        samples: shape (samples, inputs).
        fair: divide the second sum by S (S - 1) instead of S^2: unbiased for the distribution
            that the samples are drawn from.
    """
    y, x = as_floats(targets, "targets", axes=1), as_floats(samples, "samples")
    if x.ndim != 2 or x.shape[1] != len(y) or len(x) < (2 if fair else 1):
        raise UncertaintyInputError(
            f"samples have shape {x.shape} for {len(y)} targets, expected (samples, inputs), at "
            "least one sample, two for the fair score."
        )
    count = len(x)
    # sum_ij |x_i - x_j| = 2 sum_k (2 k - S - 1) x_(k), of sorted samples.
    weights = 2 * np.arange(1, count + 1) - count - 1
    pairs = 2 * (weights @ np.sort(x, axis=0))
    return np.asarray(
        np.abs(x - y).mean(axis=0) - 0.5 * pairs / (count * (count - 1 if fair else count))
    )


def gaussian_pit(targets: Array, means: Array, deviations: Array) -> Floats:
    """Phi((y - mu)/sigma), in [0, 1], shape (inputs,): uniform where the model is right."""
    y, mu, sigma = _alike(targets, means, deviations)
    return np.asarray(ndtr((y - mu) / sigma))


def mixture_pit(targets: Array, means: Array, deviations: Array) -> Floats:
    """The same for the equal mixture of members of shape (members, inputs)."""
    y, mu, sigma = _mixture(targets, means, deviations)
    return np.asarray(ndtr((y - mu) / sigma).mean(axis=0))


def mixture_log_score(targets: Array, means: Array, deviations: Array) -> Floats:
    """-log mean_i N(y; mu_i, sigma_i^2) in nats: of the mixture, not of a Gaussian like it."""
    y, mu, sigma = _mixture(targets, means, deviations)
    z = (y - mu) / sigma
    log_p = -0.5 * z**2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
    return np.asarray(np.log(len(mu)) - logsumexp(log_p, axis=0))


def interval_score(targets: Array, low: Array, high: Array, alpha: float) -> Floats:
    """Width + 2/alpha times what y lies outside, shape (inputs,); lower is better.

    Args:
        targets: shape (inputs,).
        low: lower ends of central (1 - alpha) intervals.
        high: upper ends.
        alpha: in (0, 1).

    Source:
        Winkler 1972; Gneiting and Raftery 2007, doi:10.1198/016214506000001437.
    """
    if not 0 < alpha < 1:
        raise UncertaintyInputError(f"alpha is {alpha}, expected between 0 and 1; take 0.1.")
    y, below, above = (
        as_floats(values, name, axes=1)
        for values, name in ((targets, "targets"), (low, "low"), (high, "high"))
    )
    if not len(y) == len(below) == len(above) or (below > above).any():
        raise UncertaintyInputError("give as many low and high ends as targets, low <= high.")
    outside = np.maximum(below - y, 0) + np.maximum(y - above, 0)
    return np.asarray(above - below + 2 / alpha * outside)


def sharpness(deviations: Array) -> float:
    """Root mean predicted variance, in target units: how narrow the predictions are."""
    sigma = as_positive(deviations, "deviations")
    needs_inputs(sigma.size, "sharpness")
    return float(np.sqrt((sigma**2).mean()))


def quantile_calibration_error(pit: Array, *, norm: str = "l1") -> float:
    """Mean over levels p = .01 ... .99 of |share of PIT values <= p  -  p|.

    Args:
        pit: in [0, 1], shape (inputs,).
        norm: "l1" (mean absolute), "l2" (root mean square) or "max".

    Source:
        Kuleshov, Fenner, Ermon 2018, arXiv:1807.00263.
    """
    gap = _gaps(pit, LEVELS)
    norms = {"l1": gap.mean(), "l2": np.sqrt((gap**2).mean()), "max": gap.max()}
    if norm not in norms:
        raise UncertaintyInputError(f"norm is {norm!r}, expected {', '.join(norms)}; choose one.")
    return float(norms[norm])


def interval_calibration_error(pit: Array) -> float:
    """Mean over levels p = .01 ... .99 of |share inside the central p interval  -  p|."""
    found = as_confidences(pit, "pit")
    return float(_gaps(np.abs(2 * found - 1), LEVELS).mean())


def gaussian_interval(means: Array, deviations: Array, alpha: float) -> tuple[Floats, Floats]:
    """Central (1 - alpha) intervals mu +- z sigma."""
    mu, sigma = as_floats(means, "means"), as_positive(deviations, "deviations")
    half = float(ndtri(1 - alpha / 2)) * sigma
    return mu - half, mu + half


def _gaps(values: Array, levels: Floats) -> Floats:
    found = np.sort(as_confidences(values, "pit"))
    needs_inputs(len(found), "a calibration error")
    return np.asarray(np.abs(np.searchsorted(found, levels, side="right") / len(found) - levels))


def _absolute(mean: Floats, variance: Floats) -> Floats:
    s = np.sqrt(variance)
    z = mean / s
    return np.asarray(2 * s * _density(z) + mean * (2 * ndtr(z) - 1))


def _density(z: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))


def _alike(targets: Array, means: Array, deviations: Array) -> tuple[Floats, Floats, Floats]:
    y, mu = as_floats(targets, "targets", axes=1), as_floats(means, "means", axes=1)
    sigma = as_positive(deviations, "deviations")
    if not y.shape == mu.shape == sigma.shape:
        raise UncertaintyInputError(
            f"targets, means and deviations have shapes {y.shape}, {mu.shape} and {sigma.shape}, "
            "expected (inputs,) of each."
        )
    return y, mu, sigma


def _mixture(targets: Array, means: Array, deviations: Array) -> tuple[Floats, Floats, Floats]:
    y, mu = as_floats(targets, "targets", axes=1), as_floats(means, "means")
    sigma = as_positive(deviations, "deviations")
    if mu.ndim != 2 or mu.shape != sigma.shape or mu.shape[1] != len(y) or not len(mu):
        raise UncertaintyInputError(
            f"means and deviations have shapes {mu.shape} and {sigma.shape} for {len(y)} targets, "
            "expected (members, inputs), at least one member."
        )
    return y, mu, sigma
