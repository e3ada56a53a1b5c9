"""Scores: certified bounds of what a softmax says, per input, over a region.

All are stated in real arithmetic of the executed float32 logits divided by the temperature: p is
softmax(z / T) of whatever logits z an execution gives. A softmax that is itself computed in float32
adds its own rounding (below 4e-6 relative, docs/guarantees.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.confidence import directed, simplex
from verify.confidence.differences import Differences
from verify.errors import InternalError
from verify.values.bounds import Bounds


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Enclosures for every input of each region; float64, shape (batch,) unless said otherwise.

    Attributes:
        probability: of each class, shape (batch, classes).
        confidence: of the largest probability.
        wrong_confidence: of the largest probability of a class other than the label.
        nll: of the label's negative log-likelihood, in nats.
        entropy: in nats.
        energy: of -log sum_k e^(z_k / T); infinite where only probabilities are known.
        brier: of sum_k (p_k - [k = label])², in [0, 2].
        possible: which classes may be the most probable, bool, (batch, classes).
        labels: int64.
    """

    probability: Bounds
    confidence: Bounds
    wrong_confidence: Bounds
    nll: Bounds
    entropy: Bounds
    energy: Bounds
    brier: Bounds
    possible: Tensor
    labels: Tensor

    def take(self, rows: Tensor) -> Scores:
        """Some of the batch, by indices or a mask."""
        named = {name: bounds.take(rows) for name, bounds in self.named().items()}
        probability = self.probability.take(rows)
        return Scores(probability, **named, possible=self.possible[rows], labels=self.labels[rows])

    def intersect(self, other: Scores) -> Scores:
        """What both say; sound whenever both are."""
        named = {name: own.intersect(other.named()[name]) for name, own in self.named().items()}
        return Scores(
            self.probability.intersect(other.probability),
            **named,
            possible=self.possible & other.possible,
            labels=self.labels,
        )

    @property
    def may_be_right(self) -> Tensor:
        """Where some input of the region may be classified as its label; bool."""
        return self.possible.gather(1, self.labels[:, None]).squeeze(1)

    @property
    def may_be_wrong(self) -> Tensor:
        """Where some input of the region may be classified otherwise; bool."""
        own = torch.nn.functional.one_hot(self.labels, self.possible.shape[1]).bool()
        return (self.possible & ~own).any(dim=1)

    def never_confidently_wrong(self, threshold: float) -> Tensor:
        """Where no input of the region gets another class at a confidence >= threshold; bool."""
        own = torch.nn.functional.one_hot(self.labels, self.possible.shape[1]).bool()
        confident = self.possible & ~own & ~(self.probability.upper < threshold)
        return ~confident.any(dim=1)

    def always_below(self, threshold: float) -> Tensor:
        """Where every input of the region has a confidence < threshold; bool."""
        return self.confidence.upper < threshold

    def always_right_and_accepted(self, threshold: float) -> Tensor:
        """Where every input gets its label, at a confidence >= threshold; bool."""
        return ~self.may_be_wrong & (self.confidence.lower >= threshold)

    def named(self) -> dict[str, Bounds]:
        """The scalar enclosures by name."""
        names = ("confidence", "wrong_confidence", "nll", "entropy", "energy", "brier")
        return {name: getattr(self, name) for name in names}


def scores(
    log_probability: Bounds, energy: Bounds, labels: Tensor, found: Differences | None
) -> Scores:
    """Everything that follows from bounds of log p, the energy and the differences.

    Args:
        log_probability: shape (batch, classes).
        energy: shape (batch,).
        labels: shape (batch,).
        found: of z / T, to tell which classes may win; None leaves all.
    """
    lower = directed.exp_down(log_probability.lower).clamp(0, 1)
    upper = directed.exp_up(log_probability.upper).clamp(0, 1)
    own = labels[:, None]
    nll = Bounds(
        (-log_probability.upper.gather(1, own).squeeze(1)).clamp(min=0),
        -log_probability.lower.gather(1, own).squeeze(1),
    )
    return completed(Bounds(lower, upper), nll, energy, labels, found)


def of_probabilities(p: Bounds, labels: Tensor) -> Scores:
    """The same where only probabilities are known, as of the mean of an ensemble."""
    own = p.take(torch.arange(len(labels)))
    low, high = (side.gather(1, labels[:, None]).squeeze(1) for side in (own.lower, own.upper))
    nll = Bounds((-directed.log_up(high)).clamp(min=0), -directed.log_down(low.clamp(min=0)))
    nothing = torch.full_like(low, torch.inf)
    return checked(completed(p, nll, Bounds(-nothing, nothing), labels, None))


def completed(
    p: Bounds, nll: Bounds, energy: Bounds, labels: Tensor, found: Differences | None
) -> Scores:
    """Confidence, entropy and Brier score from the probabilities; see `scores`."""
    classes = p.lower.shape[1]
    own = torch.nn.functional.one_hot(labels, classes).bool()
    most = p.lower.amax(dim=1).clamp(min=1 / classes * (1 - directed.ELEMENTARY))
    possible = p.upper >= p.lower.amax(dim=1, keepdim=True)
    if found is not None:
        # z_k >= z_j for all j has to be possible: U[k, j] >= 0.
        possible = possible & ~(found.upper < 0).any(dim=2)
        most = torch.maximum(most, least_maximum(found, possible))
    ceiling = torch.where(possible, p.upper, -torch.inf).amax(dim=1).clamp(0, 1)
    confidence = Bounds(most, torch.maximum(ceiling, most))
    others = Bounds(
        p.lower.masked_fill(own, 0).amax(dim=1), p.upper.masked_fill(own, 0).amax(dim=1)
    )
    return Scores(
        p,
        confidence,
        others,
        nll,
        simplex.entropy(p),
        energy,
        simplex.brier(p, labels),
        possible,
        labels,
    )


def checked(found: Scores) -> Scores:
    """The same scores, of regions that hold an execution: some class wins there.

    Raises:
        InternalError: if the bounds contradict that.
    """
    if not bool(found.possible.any(dim=1).all()):
        raise InternalError(
            "certified bounds leave no class that could be the most probable; this is a bug, "
            "please report it with the model"
        )
    return found


def least_maximum(found: Differences, possible: Tensor) -> Tensor:
    """A lower bound of the largest probability, by cases over the class m that has it.

    Where m is the most probable, z_k - z_m <= 0 besides U[k, m], so
    p_m >= 1 / sum_k e^min(U[k, m], 0); the least of the cases that are possible holds for all.

    Args:
        found: differences of z / T.
        possible: which classes may be the most probable, bool, (batch, classes).
    """
    ahead = found.upper.clamp(max=0).mT
    case = directed.exp_down(-directed.logsumexp_up(ahead, 2))
    return torch.where(possible, case, torch.inf).amin(dim=1).clamp(max=1)


def of_parts(parts: Sequence[Scores]) -> Scores:
    """The scores of several batches as one."""

    def joined(bounds: Sequence[Bounds]) -> Bounds:
        lower, upper = [b.lower for b in bounds], [b.upper for b in bounds]
        return Bounds(torch.cat(lower), torch.cat(upper))

    return Scores(
        joined([part.probability for part in parts]),
        **{name: joined([part.named()[name] for part in parts]) for name in parts[0].named()},
        possible=torch.cat([part.possible for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
    )


def hull(parts: Scores) -> Scores:
    """What holds of each of several parts of one region: a batch of one."""

    def around(bounds: Bounds) -> Bounds:
        return Bounds(bounds.lower.amin(dim=0)[None], bounds.upper.amax(dim=0)[None])

    return Scores(
        around(parts.probability),
        **{name: around(bounds) for name, bounds in parts.named().items()},
        possible=parts.possible.any(dim=0)[None],
        labels=parts.labels[:1],
    )
