"""How uncertain a prediction is, from one distribution over classes or from several.

Several members (an ensemble, dropout passes, posterior samples) split what is uncertain in two:

    H(mean_i p_i)   =   mean_i H(p_i)   +   I
    total               aleatoric           epistemic: mutual information of label and member

and, for regression, by the law of total variance,

    Var y           =   mean_i sigma_i^2 +  Var_i mu_i

All are per input, higher where the prediction is less to be trusted, in nats or in squared target
units. See `uncertainty.arrays` for shapes.

Source:
    Depeweg et al. 2018, arXiv:1710.07283 (decompositions); Gal 2016, "Uncertainty in deep learning"
    (variation ratio, mutual information); Lakshminarayanan et al. 2017, arXiv:1612.01474.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import entr, logsumexp

from uncertainty.arrays import (
    Array,
    Floats,
    Integers,
    as_floats,
    as_members,
    as_numpy,
    as_positive,
    as_probabilities,
    check_whole,
    same_shape,
)
from uncertainty.errors import UncertaintyInputError


@dataclass(frozen=True, slots=True, eq=False)
class Decomposition:
    """One uncertainty in its two parts, each of shape (inputs,); total = aleatoric + epistemic.

    Attributes:
        total: of the mean prediction.
        aleatoric: in the data: what the members see on average, each for itself.
        epistemic: in the model: what the members disagree about; >= 0.
    """

    total: Floats
    aleatoric: Floats
    epistemic: Floats


def softmax(logits: Array) -> Floats:
    """exp(z_k) / sum_j exp(z_j) over the last axis, without overflow; the shape of `logits`."""
    return np.exp(log_softmax(logits))


def log_softmax(logits: Array) -> Floats:
    """Logarithms of the softmax over the last axis; the shape of `logits`."""
    found = as_floats(logits, "logits")
    centred = found - found.max(axis=-1, keepdims=True, initial=-np.inf)
    return np.asarray(centred - np.log(np.exp(centred).sum(axis=-1, keepdims=True)))


def pooled_log_probabilities(member_logits: Array) -> Floats:
    """log of the members' mean probability: log (1/I) sum_i softmax(z_i).

    Not the softmax of the mean logits, which is a different model.

    Args:
        member_logits: shape (members, inputs, classes).

    Returns:
        Shape (inputs, classes). It serves as logits: its softmax is the mean probability.
    """
    found = as_floats(member_logits, "member_logits", axes=3)
    if not len(found):
        raise UncertaintyInputError("member_logits has no members; give one or more.")
    pooled = logsumexp(log_softmax(found), axis=0) - np.log(len(found))
    return np.asarray(pooled)


def mean_probabilities(members: Array) -> Floats:
    """The predictive distribution of equally likely members, shape (inputs, classes)."""
    return np.asarray(as_members(members).mean(axis=0))


def confidence(probabilities: Array) -> Floats:
    """The largest probability of each input, shape (inputs,)."""
    return np.asarray(as_probabilities(probabilities).max(axis=1))


def entropy(probabilities: Array) -> Floats:
    """-sum_k p_k log p_k in nats, in [0, log classes], shape (inputs,)."""
    return np.asarray(entr(as_probabilities(probabilities)).sum(axis=1))


def predictive_entropy(members: Array) -> Floats:
    """Entropy of the members' mean: the total uncertainty, shape (inputs,)."""
    return np.asarray(entr(mean_probabilities(members)).sum(axis=1))


def expected_entropy(members: Array) -> Floats:
    """Mean of the members' entropies: the aleatoric part, shape (inputs,)."""
    return np.asarray(entr(as_members(members)).sum(axis=2).mean(axis=0))


def mutual_information(members: Array, *, corrected: bool = False) -> Floats:
    """Predictive minus expected entropy, in [0, log min(members, classes)], shape (inputs,).

    Args:
        members: shape (members, inputs, classes).
        corrected: multiply by I/(I-1), which removes, to first order, the bias of I members drawn
            from a posterior: I = 5 of them show about 80 % of its mutual information.

    Raises:
        UncertaintyInputError: if `corrected` is asked of one member.
    """
    found = entropy_decomposition(members).epistemic
    count = len(as_numpy(members, "members"))
    if corrected and count < 2:
        raise UncertaintyInputError("the corrected mutual information needs at least 2 members.")
    return found * (count / (count - 1)) if corrected else found


def entropy_decomposition(members: Array) -> Decomposition:
    """Predictive entropy = expected entropy + mutual information, in nats.

    The mutual information is computed as the mean Kullback-Leibler divergence from the mean, so it
    keeps its digits where both entropies are large and close.
    """
    found = as_members(members)
    mean = found.mean(axis=0)
    aleatoric = entr(found).sum(axis=2).mean(axis=0)
    # p log(p / mean): where p > 0 the mean is > 0 as well, up to underflow of the mean.
    ratio = np.divide(found, mean, out=np.ones_like(found), where=(found > 0) & (mean > 0))
    epistemic = np.maximum((found * np.log(ratio)).sum(axis=2).mean(axis=0), 0.0)
    return Decomposition(aleatoric + epistemic, aleatoric, epistemic)


def class_variance(members: Array) -> Floats:
    """Variance over the members of each class's probability, divisor I, shape (inputs, classes)."""
    return np.asarray(as_members(members).var(axis=0))


def softmax_variance(members: Array) -> Floats:
    """Mean over the classes of `class_variance`, in [0, 1/4], shape (inputs,)."""
    return np.asarray(class_variance(members).mean(axis=1))


def votes(members: Array) -> Integers:
    """The class that each member predicts, ties to the lower one; shape (members, inputs)."""
    return np.asarray(as_members(members).argmax(axis=2))


def variation_ratio(predicted: Array) -> Floats:
    """1 - (count of the modal class) / (number of predictions), in [0, 1), shape (inputs,).

    Args:
        predicted: classes, shape (predictions, inputs): the members' `votes`, or labels sampled
            from the predictive distribution. The mode is that of the votes, not the arg-max of a
            mean probability.
    """
    counts = vote_counts(predicted)
    return np.asarray(1 - counts.max(axis=1) / counts.sum(axis=1))


def disagreement(predicted: Array) -> Floats:
    """The share of pairs of predictions that differ, in [0, 1], shape (inputs,).

    1 - sum_k m_k (m_k - 1) / (I (I - 1))  with m_k votes of I for class k; 0 for a single vote.

    Args:
        predicted: classes, shape (predictions, inputs), as for `variation_ratio`.
    """
    counts = vote_counts(predicted).astype(np.float64)
    total = counts.sum(axis=1)
    agreeing = (counts * (counts - 1)).sum(axis=1)
    return np.asarray(1 - np.where(total > 1, agreeing / np.maximum(total * (total - 1), 1), 1.0))


def vote_counts(predicted: Array) -> Integers:
    """How many predictions each class got, shape (inputs, classes up to the largest seen)."""
    found = as_numpy(predicted, "predicted")
    if found.ndim != 2 or not len(found):
        raise UncertaintyInputError(
            f"predicted has shape {found.shape}, expected (predictions, inputs), at least one "
            "prediction; give classes, and for probabilities votes(members)."
        )
    check_whole(found, "predicted", None)
    chosen = found.astype(np.int64)
    inputs = chosen.shape[1]
    classes = int(chosen.max(initial=0)) + 1
    cells = chosen + classes * np.arange(inputs)
    return np.bincount(cells.ravel(), minlength=inputs * classes).reshape(inputs, classes)


def variance_decomposition(means: Array, variances: Array) -> Decomposition:
    """Law of total variance for equally likely members, in squared target units.

    Var y = mean_i sigma_i^2 + mean_i (mu_i - mean mu)^2

    Args:
        means: shape (members, inputs) or (members, inputs, outputs).
        variances: sigma_i^2 >= 0, of the same shape; 0 for members that predict no noise.

    Returns:
        Parts of the shape of one member. Divisor I: this is the variance of the mixture of these
        very members; I/(I-1) times the epistemic part estimates that of the posterior.
    """
    mu, noise = as_floats(means, "means"), as_floats(variances, "variances")
    same_shape(mu, noise, "means and variances")
    if mu.ndim not in (2, 3) or not len(mu):
        raise UncertaintyInputError(
            f"means have shape {mu.shape}, expected (members, inputs), at least one member."
        )
    if noise.size and noise.min() < 0:
        raise UncertaintyInputError(f"variances have {noise.min():g}, expected numbers >= 0.")
    aleatoric, epistemic = noise.mean(axis=0), mu.var(axis=0)
    return Decomposition(aleatoric + epistemic, aleatoric, epistemic)


def gaussian_entropy(variance: Array) -> Floats:
    """Differential entropy 1/2 log(2 pi e sigma^2) in nats; the shape of `variance`.

    It may be negative, and shifts by log s when the target's unit changes by the factor s.
    """
    return np.asarray(0.5 * (np.log(2 * np.pi * np.e) + np.log(as_positive(variance, "variance"))))
