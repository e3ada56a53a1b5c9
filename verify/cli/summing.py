"""What `verify confidence` knows of each input, and what follows for the whole data set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from uncertainty import calibration_error, score_events
from verify.cli.judged import Judged
from verify.confidence import (
    Scores,
    auroc,
    certified_auroc,
    certified_coverage,
    certified_rejection,
    error_range,
    lac_threshold,
    outcomes,
    points,
    robust_threshold,
    worst_choice,
)
from verify.confidence.conformal import sets
from verify.confidence.scores import of_parts
from verify.values.bounds import Bounds

LEAST_FOR_SETS = 20
"""Inputs below which a conformal split says nothing worth printing."""


def span(clean: float, attacked: Sequence[float], certified: Sequence[float]) -> dict[str, object]:
    """One quantity of the data set, clean, attacked and certified."""
    return {
        "clean": clean,
        "attacked_low": attacked[0],
        "attacked_high": attacked[1],
        "certified_low": certified[0],
        "certified_high": certified[1],
    }


def summed_up(
    found: Sequence[Judged],
    strangers: Sequence[Judged],
    *,
    bins: int,
    alpha: float,
    threshold: float,
    seed: int,
) -> dict[str, object]:
    """The summary of the record: ranges of the data set's figures."""
    if not found:
        return {}
    scores = of_parts([one.scores for one in found])
    summary: dict[str, object] = {"ece": errors(found, scores, bins), "accuracy": accuracy(found)}
    for name in ("confidence", "nll", "brier", "entropy"):
        summary[f"mean_{name}"] = mean_span(found, scores, name)
    summary["abstention"] = {
        "threshold": threshold,
        "clean_safe": share([not (o.clean["wrong_confidence"] >= threshold) for o in found]),
        "attacked_safe": share([not o.confidently_wrong for o in found]),
        "certified_safe": share(scores.never_confidently_wrong(threshold).tolist()),
        "certified_accepted_and_right": share(scores.always_right_and_accepted(threshold).tolist()),
    }
    if len(found) >= LEAST_FOR_SETS:
        summary["conformal"] = conformal(found, scores, alpha, seed)
    if strangers:
        summary["ood"] = detection(found, scores, strangers, threshold)
    return summary


def share(holds: Sequence[bool]) -> float:
    """Of all."""
    return sum(holds) / max(1, len(holds))


def ece(confidence: Tensor, correct: Tensor, bins: int) -> float:
    """As package `uncertainty` computes it."""
    event = score_events(confidence.numpy(), correct.numpy())
    return float(calibration_error(event, bins=bins).value)


def errors(found: Sequence[Judged], scores: Scores, bins: int) -> dict[str, object]:
    """The calibration error: clean, at the worst attained points, and its certified range."""
    longest = max(len(one.path) for one in found)
    # Fewer points than others: the first one again.
    path = torch.stack([padded(one.path, longest) for one in found])
    correct = torch.stack([padded(one.path_correct, longest) for one in found])
    chosen = worst_choice(points(path, correct), bins)[:, None]
    clean = ece(path[:, 0], correct[:, 0], bins)
    worst = ece(path.gather(1, chosen)[:, 0], correct.gather(1, chosen)[:, 0], bins)
    certified = error_range(outcomes(scores), bins)
    return {
        "bins": bins,
        **span(clean, (clean, max(clean, worst)), (certified.low, certified.high)),
    }


def padded(values: Tensor, length: int) -> Tensor:
    """The values, then the first one until there are enough."""
    return torch.cat((values, values[:1].expand(length - len(values))))


def accuracy(found: Sequence[Judged]) -> dict[str, object]:
    """Shares of right predictions."""
    return span(
        share([bool(one.path_correct[0]) for one in found]),
        (
            share([bool(one.path_correct.all()) for one in found]),
            share([bool(one.path_correct.any()) for one in found]),
        ),
        (
            share([not bool(one.scores.may_be_wrong[0]) for one in found]),
            share([bool(one.scores.may_be_right[0]) for one in found]),
        ),
    )


def mean_span(found: Sequence[Judged], scores: Scores, name: str) -> dict[str, object]:
    """Means over the inputs: each end of the range of means is a mean of ends."""
    bounds = scores.named()[name]

    def mean(values: Sequence[float]) -> float:
        return math.fsum(values) / len(values)

    return span(
        mean([one.clean[name] for one in found]),
        (mean([one.low[name] for one in found]), mean([one.high[name] for one in found])),
        # Outward by one unit: a mean is rounded twice.
        (
            math.nextafter(mean(bounds.lower.tolist()), -math.inf),
            math.nextafter(mean(bounds.upper.tolist()), math.inf),
        ),
    )


def conformal(
    found: Sequence[Judged], scores: Scores, alpha: float, seed: int
) -> dict[str, object]:
    """Sets of half of the inputs, calibrated on the other half: plain, and on certified scores."""
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    half = len(found) // 2
    known, asked = order[:half], order[half:]
    clean = torch.tensor([math.exp(-one.clean["nll"]) for one in found], dtype=torch.float64)
    thresholds = {
        "plain": lac_threshold(1 - clean[known], alpha),
        "certified": robust_threshold(scores.take(known), alpha),
    }
    tested = [found[i] for i in asked.tolist()]
    report: dict[str, object] = {"alpha": alpha, "calibration": half, "test": len(tested)}
    for name, q in thresholds.items():
        ranges = certified_coverage(scores.take(asked), q)
        sizes = torch.stack([sets(one.probability, q).sum(dim=1) for one in tested]).double()
        own = [sets(one.probability[:1], q)[0, one.label] for one in tested]
        low = [1 - math.exp(-one.high["nll"]) <= q for one in tested]
        high = [1 - math.exp(-one.low["nll"]) <= q for one in tested]
        report[name] = {
            "threshold": q,
            "coverage": span(
                share([bool(hit) for hit in own]),
                (share(low), share(high)),
                (ranges.coverage.low, ranges.coverage.high),
            ),
            "size": span(
                float(sizes[:, 0].mean()),
                (float(sizes.amin(dim=1).mean()), float(sizes.amax(dim=1).mean())),
                (ranges.size.low, ranges.size.high),
            ),
        }
    return report


def detection(
    found: Sequence[Judged], scores: Scores, strangers: Sequence[Judged], threshold: float
) -> dict[str, object]:
    """AUROC with the OOD inputs moved, and the share of them that stays below the threshold."""
    theirs = of_parts([one.scores for one in strangers])
    report: dict[str, object] = {"count": len(strangers), "threshold": threshold}
    # In distribution is a high score, so entropy and energy count with their sign turned.
    for name, sign in (("confidence", 1.0), ("entropy", -1.0), ("energy", -1.0)):
        inside, outside = scores.named()[name], theirs.named()[name]
        if not bool(torch.isfinite(outside.lower).all()):
            continue
        if sign < 0:
            inside, outside = (Bounds(-b.upper, -b.lower) for b in (inside, outside))
        own = torch.tensor([sign * one.clean[name] for one in found], dtype=torch.float64)
        plain, low, high = (
            torch.tensor([sign * values[name] for values in side], dtype=torch.float64)
            for side in (
                [one.clean for one in strangers],
                [one.low if sign > 0 else one.high for one in strangers],
                [one.high if sign > 0 else one.low for one in strangers],
            )
        )
        certified = certified_auroc(own, inside, outside)
        report[f"auroc_{name}"] = span(
            auroc(own, plain),
            (auroc(own, high), auroc(own, low)),
            (certified.outside.low, certified.outside.high),
        )
        report[f"auroc_{name}_both_certified_low"] = certified.both.low
    rejected = certified_rejection(theirs.confidence, threshold)
    report["rejected"] = span(
        share([one.clean["confidence"] < threshold for one in strangers]),
        (
            share([one.high["confidence"] < threshold for one in strangers]),
            share([one.low["confidence"] < threshold for one in strangers]),
        ),
        (rejected.low, rejected.high),
    )
    return report
