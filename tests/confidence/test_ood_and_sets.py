"""Detection, conformal sets and ensembles: closed forms, brute force, and coverage counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from verify.confidence import (
    auroc,
    certified_auroc,
    certified_coverage,
    certified_rejection,
    ensemble_scores,
    lac_threshold,
    robust_threshold,
)
from verify.confidence.conformal import largest, sets, smallest
from verify.confidence.scores import Scores, of_probabilities
from verify.errors import DataError, SettingError, ShapeError
from verify.values.bounds import Bounds


def planted(seed: int, batch: int, classes: int, width: float) -> tuple[Scores, torch.Tensor]:
    """Scores of a box of probabilities, and a point of it."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(batch, classes, generator=generator, dtype=torch.float64).softmax(dim=1)
    down, up = width * torch.rand(2, batch, classes, generator=generator, dtype=torch.float64)
    box = Bounds((p - down).clamp(min=0), (p + up).clamp(max=1))
    labels = torch.randint(0, classes, (batch,), generator=generator)
    return of_probabilities(box, labels), p


def test_auroc_is_that_of_scikit_learn() -> None:
    """With ties, which count half."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        inside, outside = rng.integers(0, 8, 40) / 8 + 0.1, rng.integers(0, 8, 30) / 8
        truth = roc_auc_score([1] * 40 + [0] * 30, np.concatenate((inside, outside)))
        assert auroc(torch.as_tensor(inside), torch.as_tensor(outside)) == pytest.approx(truth)


def test_the_certified_auroc_holds_whatever_is_moved() -> None:
    """Points drawn from the boxes never leave the range, whose ends are attained by its ends."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(20, generator=generator, dtype=torch.float64)
    low = torch.rand(30, generator=generator, dtype=torch.float64) * 0.5
    outside = Bounds(low, low + 0.3)
    inside = Bounds(clean - 0.1, clean + 0.1)
    found = certified_auroc(clean, inside, outside)
    for _ in range(200):
        moved = low + 0.3 * torch.rand(30, generator=generator, dtype=torch.float64)
        shaken = clean + 0.2 * torch.rand(20, generator=generator, dtype=torch.float64) - 0.1
        assert found.outside.low <= auroc(clean, moved) <= found.outside.high
        assert found.both.low <= auroc(shaken, moved) <= found.both.high
    assert found.outside.low == auroc(clean, outside.upper)
    assert found.both.low < found.outside.low < found.outside.high < found.both.high


@pytest.mark.parametrize("bad", [torch.zeros(0), torch.tensor([math.nan])])
def test_an_auroc_of_nothing_is_refused(bad: torch.Tensor) -> None:
    """No inputs of one kind, or a score that ranks nowhere."""
    with pytest.raises(DataError):
        auroc(torch.ones(3), bad)


def test_rejection_counts_what_stays_below_and_what_may() -> None:
    """Strictly below: a confidence that may reach the threshold is not certified out."""
    box = Bounds(torch.tensor([0.1, 0.4, 0.5, 0.8]), torch.tensor([0.3, 0.5, 0.9, 0.9]))
    found = certified_rejection(box, 0.5)
    assert (found.low, found.high) == (1 / 4, 2 / 4)


def test_the_threshold_is_the_right_order_statistic() -> None:
    """ceil((n + 1)(1 - alpha)) of n; every class where there are too few inputs."""
    scores = torch.arange(1, 20).double() / 100
    assert lac_threshold(scores, 0.1) == 0.18  # ceil(20 * .9) = 18
    assert lac_threshold(scores, 0.05) == 0.19
    assert lac_threshold(scores, 0.04) == math.inf
    assert lac_threshold(scores[:9], 0.1) == 0.09  # 10 * (1 - .1) is 9, also in floats


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    """A share of misses lies strictly between."""
    with pytest.raises(SettingError, match="alpha is"):
        lac_threshold(torch.ones(3), alpha)


def test_a_set_lies_between_its_certified_ends() -> None:
    """For points of the boxes; ranges of coverage and size follow."""
    found, p = planted(0, 200, 5, 0.1)
    q = robust_threshold(found, 0.2)
    least, most = smallest(found.probability, q), largest(found.probability, q)
    truth = sets(p, q)
    assert (least <= truth).all()
    assert (truth <= most).all()
    ranges = certified_coverage(found, q)
    covered = truth.gather(1, found.labels[:, None]).double().mean()
    assert ranges.coverage.low <= float(covered) <= ranges.coverage.high
    assert ranges.size.low <= float(truth.sum(dim=1).double().mean()) <= ranges.size.high


def test_calibrated_on_certified_scores_the_coverage_survives_the_worst_attack() -> None:
    """Mean coverage over many splits, each test input at the least probability of its label."""
    covered, plain = [], []
    for seed in range(60):
        found, p = planted(seed, 300, 4, 0.2)
        own = found.labels[:, None]
        worst = found.probability.lower.gather(1, own).squeeze(1)
        clean = p.gather(1, own).squeeze(1)
        q = lac_threshold(1 - worst[:150], 0.1)
        covered.append(float((1 - worst[150:] <= q).double().mean()))
        q = lac_threshold(1 - clean[:150], 0.1)
        plain.append(float((1 - worst[150:] <= q).double().mean()))
    assert np.mean(covered) >= 0.9 - 3 * 0.03 / 60**0.5
    assert np.mean(plain) < 0.85


def test_both_ways_are_the_published_algorithms() -> None:
    """VRCP-I and VRCP-C written out from the paper, one input and class at a time.

    Score s(x, y) = 1 - p_y. I: the quantile of clean scores; y is in the set of the received x~ if
    the least score over the ball around x~ is at most it. C: the quantile of the largest scores
    over the balls of the calibration inputs; sets by plain scores.
    """
    found, p = planted(3, 240, 5, 0.1)
    alpha, labels = 0.2, found.labels.tolist()
    low, high = found.probability.lower.tolist(), found.probability.upper.tolist()
    count = 120

    def quantile(scores: list[float]) -> float:
        return sorted(scores)[math.ceil((count + 1) * (1 - alpha)) - 1]

    q_i = quantile([1 - float(p[n, labels[n]]) for n in range(count)])
    q_c = quantile([1 - low[n][labels[n]] for n in range(count)])
    calibration = found.take(torch.arange(count))
    own = p[:count].gather(1, calibration.labels[:, None]).squeeze(1)
    assert lac_threshold(1 - own, alpha) == q_i
    assert robust_threshold(calibration, alpha) == q_c
    for n in range(count, 240):
        inference = [1 - high[n][k] <= q_i for k in range(5)]
        assert largest(found.probability, q_i)[n].tolist() == inference
        plain = [1 - float(p[n, k]) <= q_c for k in range(5)]
        assert sets(p, q_c)[n].tolist() == plain


def test_an_ensemble_encloses_the_mean_of_its_members() -> None:
    """Probabilities, entropy, NLL and Brier score of the mean prediction."""
    members = [planted(seed, 50, 4, 0.05) for seed in range(3)]
    labels = members[0][0].labels
    parts = [of_probabilities(found.probability, labels) for found, _ in members]
    found = ensemble_scores(parts)
    mean = torch.stack([p for _, p in members]).mean(dim=0)
    entropy = torch.special.entr(mean).sum(dim=1)
    nll = -mean.gather(1, labels[:, None]).squeeze(1).log()
    for bounds, value in (
        (found.probability, mean),
        (found.entropy, entropy),
        (found.nll, nll),
        (found.confidence, mean.amax(dim=1)),
    ):
        assert (bounds.lower <= value).all()
        assert (value <= bounds.upper).all()
    assert found.possible.gather(1, mean.argmax(dim=1)[:, None]).all()
    assert ensemble_scores(parts[:1]) is parts[0]


def test_members_that_do_not_fit_are_refused() -> None:
    """None at all, other labels, other classes."""
    with pytest.raises(SettingError, match="at least one"):
        ensemble_scores([])
    first, _ = planted(0, 5, 4, 0.1)
    for other in (planted(1, 5, 4, 0.1)[0], planted(0, 5, 3, 0.1)[0]):
        with pytest.raises(ShapeError, match="differ"):
            ensemble_scores([first, other])
