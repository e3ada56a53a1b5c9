"""Ensembles: certified bounds of the mean prediction of several networks.

Each member's bounds hold at every input of the region, so their mean bounds the mean prediction,
and from it follow confidence, NLL, Brier score and predictive entropy.

Mutual information (predictive entropy less the members' mean entropy) gets no certificate: the two
entropies are bounded apart, at inputs of their own, and the difference of two such intervals
holds 0 already at radii of a pixel's least digit (the research page: clean .128, attacked .086,
certified .004). A bound that says nothing is not printed as one; attack it instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from verify.confidence import directed
from verify.confidence.scores import Scores, of_probabilities
from verify.errors import SettingError, ShapeError
from verify.values.bounds import Bounds

MUTUAL_INFORMATION = (
    "mutual information: no certificate, as bounds of two entropies that are taken apart say "
    "nothing of their difference; certify the predictive entropy, and attack the information"
)
"""What to say where somebody asks for it."""


def ensemble_scores(members: Sequence[Scores]) -> Scores:
    """Scores of the mean of the members' class probabilities, each member weighing the same.

    Raises:
        SettingError: if there is no member.
        ShapeError: if the members are of different inputs or classes.
    """
    if not members:
        raise SettingError("an ensemble has at least one member; give one")
    first = members[0]
    for other in members[1:]:
        same = other.probability.lower.shape == first.probability.lower.shape
        if not same or not bool((other.labels == first.labels).all()):
            raise ShapeError(
                "the members of an ensemble differ in inputs, labels or classes: "
                f"{tuple(first.probability.lower.shape)} and "
                f"{tuple(other.probability.lower.shape)}; certify all on the same inputs"
            )
    if len(members) == 1:
        return first
    lower = directed.sum_down(torch.stack([m.probability.lower for m in members]), 0)
    upper = directed.sum_up(torch.stack([m.probability.upper for m in members]), 0)
    mean = Bounds(
        directed.over_down(lower, len(members)).clamp(0, 1),
        directed.over_up(upper, len(members)).clamp(0, 1),
    )
    return of_probabilities(mean, first.labels)
