"""Predictions held against labels: what every calibration metric needs, found in one pass.

    scored = score_logits(logits, labels)
    scored.accuracy, scored.nll, scored.brier
    calibration_error(scored), smooth_calibration_error(scored), ...

A million rows of a thousand classes are read a block at a time, from memory or from a file mapped
into it; what is kept are a few numbers per row and a table per class. Several parts, scored one
after the other, are joined by `joined`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uncertainty.arrays import (
    BLOCK,
    Array,
    Flags,
    Floats,
    Integers,
    Numbers,
    as_confidences,
    as_labels,
    as_logits,
    as_numpy,
    as_outcomes,
    as_probabilities,
    needs_inputs,
)
from uncertainty.binning import edges_of_equal_width
from uncertainty.errors import UncertaintyInputError

CLASS_BINS = 15


@dataclass(frozen=True, slots=True, eq=False)
class ClassBins:
    """Sums over inputs, for each class and each bin of its probability; shape (classes, bins).

    Attributes:
        counts: inputs whose probability of the class lies in the bin.
        probability: sum of those probabilities.
        squared: sum of their squares.
        hits: how many of those inputs have the class as label.
        hit_probability: sum of the probabilities of those.
    """

    counts: Floats
    probability: Floats
    squared: Floats
    hits: Floats
    hit_probability: Floats

    def plus(self, other: ClassBins) -> ClassBins:
        """The sums over both."""
        if self.counts.shape != other.counts.shape:
            raise UncertaintyInputError(
                f"parts with {self.counts.shape} and {other.counts.shape} classes and bins cannot "
                "be joined; score them alike."
            )
        return ClassBins(
            self.counts + other.counts,
            self.probability + other.probability,
            self.squared + other.squared,
            self.hits + other.hits,
            self.hit_probability + other.hit_probability,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Predictions of n inputs beside what happened.

    Attributes:
        confidence: probability of the predicted class, or of the event; in [0, 1], shape (n,).
        correct: whether that class was the label, or the event happened; shape (n,).
        log_losses: -log p(label) in nats; infinite where a probability of 0 was wrong; shape (n,).
        brier_scores: sum_k (p_k - [k = label])^2, in [0, 2]; for an event (p - y)^2; shape (n,).
        predicted: ties go to the lower class; shape (n,).
        labels: shape (n,).
        class_bins: of the classwise metrics; None for events.
    """

    confidence: Floats
    correct: Flags
    log_losses: Floats
    brier_scores: Floats
    predicted: Integers
    labels: Integers
    class_bins: ClassBins | None

    def __len__(self) -> int:
        return len(self.confidence)

    @property
    def accuracy(self) -> float:
        """The share that is correct."""
        return float(self._of_some().correct.mean())

    @property
    def mean_confidence(self) -> float:
        """The accuracy that the predictions claim."""
        return float(self._of_some().confidence.mean())

    @property
    def nll(self) -> float:
        """Negative log-likelihood, mean over the inputs, in nats."""
        return float(self._of_some().log_losses.mean())

    @property
    def brier(self) -> float:
        """Brier score, mean over the inputs: in [0, 2] for classes, in [0, 1] for events."""
        return float(self._of_some().brier_scores.mean())

    def _of_some(self) -> Scored:
        needs_inputs(len(self), "a mean")
        return self


def score_logits(logits: Array, labels: Array, *, class_bins: int = CLASS_BINS) -> Scored:
    """Score the softmax of logits.

    Args:
        logits: shape (inputs, classes), of any floating type, a numpy memory map among them;
            computed in float64.
        labels: shape (inputs,).
        class_bins: bins of equal width for the classwise metrics.
    """
    return _score(logits, labels, class_bins, given_logits=True)


def score_probabilities(
    probabilities: Array, labels: Array, *, class_bins: int = CLASS_BINS
) -> Scored:
    """Score probabilities of classes, as given: rows are not divided by their sums.

    Args:
        probabilities: shape (inputs, classes).
        labels: shape (inputs,).
        class_bins: bins of equal width for the classwise metrics.
    """
    return _score(probabilities, labels, class_bins, given_logits=False)


def score_events(probabilities: Array, outcomes: Array) -> Scored:
    """Score probabilities of one event: the positive class of two, or any yes-or-no forecast.

    This is another convention than that of the predicted class: `calibration_error` of the result
    compares p with how often the event happens, over all of [0, 1].

    Args:
        probabilities: of the event, shape (inputs,).
        outcomes: 1 where it happened, else 0, shape (inputs,).
    """
    p = as_confidences(probabilities, "probabilities")
    happened = as_outcomes(outcomes, len(p)).astype(bool)
    with np.errstate(divide="ignore"):
        losses = -np.where(happened, np.log(p), np.log1p(-p))
    return Scored(
        confidence=p,
        correct=happened,
        log_losses=losses,
        brier_scores=(p - happened) ** 2,
        predicted=(p > 0.5).astype(np.int64),
        labels=happened.astype(np.int64),
        class_bins=None,
    )


def joined(parts: Iterable[Scored]) -> Scored:
    """The parts as one, in their order.

    Logits that a generator makes and scores part by part never lie in memory together.

    Raises:
        UncertaintyInputError: if there are none, or they have other classes or bins.
    """
    found = list(parts)
    if not found:
        raise UncertaintyInputError("there is nothing to join; give one part or more.")
    total = found[0].class_bins
    for part in found[1:]:
        if (total is None) != (part.class_bins is None):
            raise UncertaintyInputError("classes and events cannot be joined; score them alike.")
        if total is not None and part.class_bins is not None:
            total = total.plus(part.class_bins)
    return Scored(
        confidence=np.concatenate([part.confidence for part in found]),
        correct=np.concatenate([part.correct for part in found]),
        log_losses=np.concatenate([part.log_losses for part in found]),
        brier_scores=np.concatenate([part.brier_scores for part in found]),
        predicted=np.concatenate([part.predicted for part in found]),
        labels=np.concatenate([part.labels for part in found]),
        class_bins=total,
    )


def _score(values: Array, labels: Array, class_bins: int, *, given_logits: bool) -> Scored:
    name = "logits" if given_logits else "probabilities"
    rows = as_numpy(values, name)
    if rows.ndim != 2 or not rows.shape[1]:
        # These two say what is wrong.
        (as_logits if given_logits else as_probabilities)(values, name)
    inputs, classes = rows.shape
    wanted = as_labels(labels, inputs=inputs, classes=classes)
    edges = torch.from_numpy(edges_of_equal_width(class_bins))
    step = max(1, BLOCK // classes)
    # At least one block, an empty one if need be, so that no inputs are no special case.
    starts = range(0, max(inputs, 1), step)
    return joined(
        _score_block(rows[i : i + step], wanted[i : i + step], edges, given_logits) for i in starts
    )


def _score_block(rows: Numbers, labels: Integers, edges: Tensor, given_logits: bool) -> Scored:
    values = np.array(rows, dtype=np.float64)  # a copy: a map may not be written to
    # The sum is finite only if all of them are, up to overflow; then look closely.
    if not (given_logits and np.isfinite(values.sum())):
        (as_logits if given_logits else as_probabilities)(values)
    p, wanted = torch.from_numpy(values), torch.from_numpy(labels)
    each = torch.arange(len(p))
    # The first of the largest, as torch's max() does not promise.
    predicted = torch.from_numpy(values.argmax(axis=1))
    if given_logits:
        p -= p[each, predicted][:, None]
        own = p[each, wanted]
        total = p.exp_().sum(dim=1)
        losses = total.log() - own
        p /= total[:, None]
    else:
        losses = -p[each, wanted].log()
    hit = p[each, wanted]
    squares = p.square()
    rest = squares.sum(dim=1) - hit**2
    return Scored(
        confidence=np.minimum(p[each, predicted].numpy(), 1.0),
        correct=(predicted == wanted).numpy(),
        log_losses=losses.numpy(),
        # Not sum p^2 - 2 hit + 1, which loses the digits of a small score.
        brier_scores=((1 - hit) ** 2 + rest.clamp(min=0)).numpy(),
        predicted=predicted.numpy(),
        labels=labels,
        class_bins=_class_bins(p, squares, wanted, edges),
    )


def _class_bins(p: Tensor, squares: Tensor, labels: Tensor, edges: Tensor) -> ClassBins:
    """Only the probabilities above the first edge are looked at one by one: a row has few of them.

    Those in the first bin are what is left of the sums over all.
    """
    classes, bins = p.shape[1], len(edges) - 1
    counts, probability, squared, hits, hit_probability = torch.zeros(
        5, classes, bins, dtype=torch.float64
    ).unbind()
    if bins > 1:
        place = torch.from_numpy(np.flatnonzero(p.numpy() > float(edges[1])))
        large = p.view(-1)[place]
        cell = place % classes * bins + _bin_of(large, edges)
        for table, weights in (
            (counts, torch.ones_like(large)),
            (probability, large),
            (squared, large**2),
        ):
            table.view(-1).index_add_(0, cell, weights)
    # What remains is a sum of numbers >= 0, up to rounding. As a product it is read row by row.
    ones = torch.ones(1, len(p), dtype=torch.float64)
    counts[:, 0] += len(p) - counts.sum(dim=1)
    probability[:, 0] += ((ones @ p)[0] - probability.sum(dim=1)).clamp(min=0)
    squared[:, 0] += ((ones @ squares)[0] - squared.sum(dim=1)).clamp(min=0)
    hit = p.gather(1, labels[:, None])[:, 0]
    own = labels * bins + _bin_of(hit, edges)
    hits.view(-1).index_add_(0, own, torch.ones_like(hit))
    hit_probability.view(-1).index_add_(0, own, hit)
    return ClassBins(*(t.numpy() for t in (counts, probability, squared, hits, hit_probability)))


def _bin_of(p: Tensor, edges: Tensor) -> Tensor:
    """Bins (low, high], as `uncertainty.binning` counts them."""
    found: Tensor = (torch.searchsorted(edges, p, right=False) - 1).clamp(0, len(edges) - 2)
    return found
