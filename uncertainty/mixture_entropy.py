"""Differential entropy of a mixture of Gaussians: no closed form, so quadrature with its error.

Each input's integral is cut at mu_i + j sigma_i, so that no piece is wide against a component it
crosses. A piece is accepted once its two halves say the same as the whole; else the halves are
looked at in turn. What lies beyond REACH standard deviations of every component is bounded.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import erfc, logsumexp

from uncertainty.arrays import Array, Floats, Integers, as_floats, as_positive, same_shape
from uncertainty.errors import UncertaintyInputError
from uncertainty.measures import Decomposition, gaussian_entropy

NODES = 20
"""Of the Gauss-Legendre rule on each piece."""

REACH = 12.0
"""Standard deviations covered on each side: the mass beyond is 4e-33."""

CUTS = np.array([*range(-4, 5), -6, 6, -9, 9, -REACH, REACH])

DEEPEST = 40
"""Halvings of a piece: more cannot be told apart in float64."""

AT_ONCE = 64
"""Inputs integrated together: their pieces, nodes and components share one array."""


@dataclass(frozen=True, slots=True, eq=False)
class EntropyEstimate:
    """A differential entropy and how far it may be off.

    Attributes:
        value: nats, shape (inputs,).
        error: estimated, not proved: the change of the integral when each piece is halved, plus
            rounding, plus a bound of the tails; nats, shape (inputs,).
    """

    value: Floats
    error: Floats


def mixture_entropy(
    means: Array, variances: Array, weights: Array | None = None, *, tolerance: float = 1e-10
) -> EntropyEstimate:
    """-integral of p log p for p = sum_i w_i N(mu_i, sigma_i^2), in nats.

    Args:
        means: mu_i in target units, shape (members, inputs).
        variances: sigma_i^2 > 0, same shape.
        weights: one for each member, >= 0, summing to 1; equal by default.
        tolerance: absolute error at which a piece is no longer halved, shared over the pieces.
    """
    mu, var, w = _members(means, variances, weights)
    mu, var, w = mu[w > 0], var[w > 0], w[w > 0]
    value, error = np.empty(mu.shape[1]), np.empty(mu.shape[1])
    for start in range(0, mu.shape[1], AT_ONCE):
        part = slice(start, start + AT_ONCE)
        value[part], error[part] = _integrate(mu[:, part], np.sqrt(var[:, part]), w, tolerance)
    return EntropyEstimate(value, error)


def mixture_entropy_bounds(
    means: Array, variances: Array, weights: Array | None = None
) -> tuple[Floats, Floats]:
    """Closed-form lower and upper bounds of `mixture_entropy`, each of shape (inputs,), in nats.

    h >= sum_i w_i H_i - sum_i w_i log sum_j w_j exp(-B_ij),  B the Bhattacharyya distance
    h <= the same with KL_ij, and <= 1/2 log(2 pi e Var y)

    Args:
        means: shape (members, inputs).
        variances: same shape.
        weights: as for `mixture_entropy`.

    Source:
        Kolchinsky and Tracey 2017, "Estimating mixture entropy with pairwise distances",
        arXiv:1706.02419.
    """
    mu, var, w = _members(means, variances, weights)
    mu, var, w = mu[w > 0], var[w > 0], w[w > 0]
    gap = (mu[:, None] - mu[None, :]) ** 2
    first, second = var[:, None], var[None, :]
    bhattacharyya = gap / (4 * (first + second)) + 0.5 * np.log(
        (first + second) / (2 * np.sqrt(first) * np.sqrt(second))
    )
    kullback = 0.5 * (first / second + gap / second - 1 + np.log(second) - np.log(first))
    own = np.einsum("i,in->n", w, gaussian_entropy(var))
    weigh = np.log(w)[None, :, None]

    def paired(distance: Floats) -> Floats:
        return np.asarray(own - np.einsum("i,in->n", w, logsumexp(weigh - distance, axis=1)))

    mean = np.einsum("i,in->n", w, mu)
    spread = np.einsum("i,in->n", w, var + (mu - mean) ** 2)
    return paired(bhattacharyya), np.minimum(paired(kullback), gaussian_entropy(spread))


def gaussian_mixture_decomposition(means: Array, variances: Array) -> Decomposition:
    """Differential entropy of equally likely Gaussian members, in nats, in its two parts.

    total = h(mixture), aleatoric = mean_i 1/2 log(2 pi e sigma_i^2), epistemic = the difference,
    in [0, log members]. Total and aleatoric may be negative; the epistemic part has no unit.

    Args:
        means: shape (members, inputs).
        variances: > 0, same shape.
    """
    found = mixture_entropy(means, variances)
    aleatoric = gaussian_entropy(variances).mean(axis=0)
    # The quadrature's rounding must not make a difference negative that cannot be.
    epistemic = np.maximum(found.value - aleatoric, 0.0)
    return Decomposition(aleatoric + epistemic, aleatoric, epistemic)


def _members(
    means: Array, variances: Array, weights: Array | None
) -> tuple[Floats, Floats, Floats]:
    mu, var = as_floats(means, "means"), as_positive(variances, "variances")
    same_shape(mu, var, "means and variances")
    if mu.ndim != 2 or not len(mu):
        raise UncertaintyInputError(
            f"means have shape {mu.shape}, expected (members, inputs), at least one member; for "
            "several outputs pass one after the other."
        )
    if weights is None:
        return mu, var, np.full(len(mu), 1 / len(mu))
    w = as_floats(weights, "weights")
    if w.shape != (len(mu),) or w.min() < 0 or abs(w.sum() - 1) > 1e-9:
        raise UncertaintyInputError(
            f"weights have shape {w.shape} and sum {w.sum():g}, expected {len(mu)} numbers >= 0 "
            "with sum 1; divide them by their sum."
        )
    return mu, var, w


def _integrate(mu: Floats, sigma: Floats, w: Floats, tolerance: float) -> tuple[Floats, Floats]:
    inputs = mu.shape[1]
    if not inputs:
        return np.empty(0), np.empty(0)
    cuts = np.sort((mu[:, None] + CUTS[None, :, None] * sigma[:, None]).reshape(-1, inputs), axis=0)
    low, high = cuts[:-1].T.ravel(), cuts[1:].T.ravel()
    owner = np.repeat(np.arange(inputs), len(cuts) - 1)
    share = tolerance / (len(cuts) - 1)
    value, error, size = np.zeros(inputs), np.zeros(inputs), np.zeros(inputs)
    for depth in range(DEEPEST + 1):
        middle = 0.5 * (low + high)
        whole = _rule(low, high, owner, mu, sigma, w)
        left, right = (_rule(a, b, owner, mu, sigma, w) for a, b in ((low, middle), (middle, high)))
        change = np.abs(left + right - whole)
        done = (change <= share) | (depth == DEEPEST) | (middle <= low) | (middle >= high)
        np.add.at(value, owner[done], (left + right)[done])
        np.add.at(error, owner[done], change[done])
        np.add.at(size, owner[done], (np.abs(left) + np.abs(right))[done])
        if done.all():
            break
        low, high, owner = (
            np.concatenate((low[~done], middle[~done])),
            np.concatenate((middle[~done], high[~done])),
            np.concatenate((owner[~done], owner[~done])),
        )
    eps = np.finfo(np.float64).eps
    # Beyond REACH: at most the sum of the components' tails of -N log N, each about REACH^2 times
    # its mass; positions are rounded relative to their distance from zero, not to sigma.
    tails = 2 * REACH**2 * erfc(REACH / np.sqrt(2))
    rounding = eps * (8 * size + (np.abs(mu) / sigma).max(axis=0))
    return value, error + rounding + tails


def _rule(
    low: Floats, high: Floats, owner: Integers, mu: Floats, sigma: Floats, w: Floats
) -> Floats:
    """Gauss-Legendre of -p log p on each piece."""
    nodes, node_weights = np.polynomial.legendre.leggauss(NODES)
    half = 0.5 * (high - low)
    x = (0.5 * (low + high))[:, None] + half[:, None] * nodes
    spread = sigma[:, owner, None]
    z = (x - mu[:, owner, None]) / spread
    log_terms = np.log(w)[:, None, None] - 0.5 * z**2 - np.log(spread * np.sqrt(2 * np.pi))
    log_p = logsumexp(log_terms, axis=0)
    return np.asarray(half * ((-np.exp(log_p) * log_p) @ node_weights))
