"""certify_scores: from a network and a question to certified scores, and the options on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from verify.confidence import directed
from verify.confidence.differences import (
    MOST_PAIRED,
    Differences,
    check_temperature,
    differences,
    independent,
)
from verify.confidence.joint import boxed, from_above, from_below, ranges
from verify.confidence.reach import Reach
from verify.confidence.scores import Scores, checked, scores
from verify.graph.ir import Graph
from verify.protocols import Bounder
from verify.traverse import run
from verify.values.bounds import Bounds
from verify.values.budget import Budget, OutOfTime
from verify.values.question import Question


@dataclass(frozen=True, slots=True, eq=False)
class Certified:
    """Certified scores of a batch.

    Attributes:
        scores: the tightest known.
        differences: of z / T, before the joint rows.
        late: whether time ran out, so that less is known than could be.
        neurons: bounds of the network's nodes over the region, by name, as far as the method keeps
            them; shape (batch, *node).
    """

    scores: Scores
    differences: Differences
    late: bool = False
    neurons: Mapping[str, Bounds] = field(default_factory=dict)


def certify_scores(
    graph: Graph,
    asked: Question,
    bounder: Bounder,
    *,
    predicted: Tensor | None = None,
    temperature: float = 1.0,
    joint: bool = True,
    budget: Budget = Budget(),
) -> Certified:
    """Bounds of every score over each neighbourhood, for every float32 execution.

    Args:
        graph: the network, float64.
        asked: the inputs, their labels and radii.
        bounder: how rows are bounded; `AlphaCrown` is the tightest.
        predicted: the model's own answers, shape (batch,); by default those of our arithmetic.
        temperature: logits are divided by it; needs no other bounds.
        joint: whether to refine by rows that use all differences at once.
        budget: time for the whole batch, and memory. What is not known when time is over counts as
            unbounded.

    Raises:
        SettingError: if the temperature is not a positive number.
    """
    check_temperature(temperature)
    logits = run(graph, asked.x.to(graph.dtype)).flatten(1)
    predicted = logits.argmax(dim=1) if predicted is None else predicted
    anchors = torch.stack((asked.labels, predicted), dim=1)
    late = False
    neurons: Mapping[str, Bounds] = {}
    try:
        reach = Reach(graph, asked.region(), budget, bounder)
        found = differences(reach, anchors)
        neurons = {} if reach.walk is None else reach.walk.all_bounds()
    except OutOfTime:
        late = True
        found = nothing_known(len(asked.x), graph.output.size)
    scaled = found.at_temperature(temperature)
    box = ranges(scaled)
    sums = boxed(box)
    if joint and not late:
        try:
            sums = sums.intersect(refined(reach, box, logits / temperature, temperature, anchors))
        except OutOfTime:
            late = True
    return Certified(checked(scores_of(sums, scaled, asked.labels)), scaled, late, neurons)


def scores_over(reach: Reach, asked: Question, temperature: float) -> tuple[Scores, Differences]:
    """All that one reach gives: scores, and the differences of z / T; raises OutOfTime.

    Args:
        reach: of the batch.
        asked: the same batch, for its inputs and labels.
        temperature: logits are divided by it.
    """
    logits = run(reach.graph, asked.x.to(reach.graph.dtype)).flatten(1)
    anchors = torch.stack((asked.labels, logits.argmax(dim=1)), dim=1)
    found = differences(reach, anchors).at_temperature(temperature)
    box = ranges(found)
    more = refined(reach, box, logits / temperature, temperature, anchors)
    return scores_of(boxed(box).intersect(more), found, asked.labels), found


def independent_scores(found: Differences, labels: Tensor) -> Scores:
    """What bounds of single logits alone give: the comparison, not the method."""
    loose = independent(found.logits)
    return checked(scores_of(boxed(ranges(loose)), loose, labels))


def scores_of(sums: Bounds, found: Differences, labels: Tensor) -> Scores:
    """Scores from bounds of log sum_j e^(F[m, j]), shape (batch, classes + 1).

    F[m, j] = z_j - z_m for each class m gives -log p_m; the last row, F[j] = z_j, the energy. The
    two are tied: log sum_j e^(z_j) = z_m - log p_m for each m.
    """
    classes = found.upper.shape[1]
    each = Bounds(sums.lower[:, :classes].clamp(min=0), sums.upper[:, :classes].clamp(min=0))
    tied_low = directed.added_down(found.logits.lower, each.lower).amax(dim=1)
    tied_high = directed.added_up(found.logits.upper, each.upper).amin(dim=1)
    whole = Bounds(
        torch.maximum(sums.lower[:, classes], tied_low),
        torch.minimum(sums.upper[:, classes], tied_high),
    )
    log_probability = Bounds(-each.upper, -each.lower)
    return scores(log_probability, Bounds(-whole.upper, -whole.lower), labels, found)


def refined(
    reach: Reach, box: Bounds, logits: Tensor, temperature: float, anchors: Tensor
) -> Bounds:
    """Bounds of log sum_j e^(F[m, j]) by joint rows, (batch, classes + 1); infinite where not done.

    Every class gets its rows where pairs did too; with more classes, the anchors' do.
    """
    classes = logits.shape[1]
    which = torch.arange(classes + 1)
    if classes > MOST_PAIRED:
        which = torch.cat((anchors.unique(), which[-1:]))
    of = Bounds(box.lower[:, which], box.upper[:, which])
    upper = from_above(reach, of, which, temperature)
    apart = logits[:, None, :] - logits[:, :, None]
    clean = torch.cat((apart, logits[:, None]), dim=1)[:, which]
    lower = torch.full_like(upper, -torch.inf)
    # Tangents at three points: the corner where the box has its bound, the input, and midway.
    for point in (of.lower, clean, (of.lower + clean) / 2):
        weights = torch.nan_to_num(point.softmax(dim=2))
        lower = torch.maximum(lower, from_below(reach, weights, which, temperature))
    shape = (len(logits), classes + 1)
    every = which.expand(len(logits), -1)
    return Bounds(
        upper.new_full(shape, -torch.inf).scatter(1, every, lower),
        upper.new_full(shape, torch.inf).scatter(1, every, upper),
    )


def nothing_known(batch: int, classes: int) -> Differences:
    """Infinite bounds: sound of anything."""
    infinite = torch.full((batch, classes), torch.inf, dtype=torch.float64)
    upper = torch.full((batch, classes, classes), torch.inf, dtype=torch.float64)
    upper.diagonal(dim1=1, dim2=2).zero_()
    return Differences(upper, Bounds(-infinite, infinite))
