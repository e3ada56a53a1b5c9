"""One pass over predictions: against plain formulas, in pieces, and for what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uncertainty import arrays, scored
from uncertainty.brier import brier_decomposition, confidence_brier_decomposition
from uncertainty.calibration_error import calibration_error, classwise_calibration_error
from uncertainty.errors import UncertaintyInputError
from uncertainty.scored import joined, score_events, score_logits, score_probabilities


def example(seed: int, inputs: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(inputs, classes))
    return logits, (logits + 2 * rng.normal(size=logits.shape)).argmax(axis=1)


def test_each_number_against_its_formula() -> None:
    """Accuracy, NLL, Brier and classwise error as one would write them down."""
    logits, labels = example(0)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    hot = np.eye(4)[labels]
    found = score_logits(logits, labels)
    assert found.accuracy == (p.argmax(axis=1) == labels).mean()
    assert found.nll == pytest.approx(-np.log((p * hot).sum(axis=1)).mean(), abs=1e-14)
    assert found.brier == pytest.approx(((p - hot) ** 2).sum(axis=1).mean(), abs=1e-14)
    assert found.mean_confidence == pytest.approx(p.max(axis=1).mean(), abs=1e-14)
    each = []
    for k in range(4):
        index = np.ceil(p[:, k] * 15).astype(int) - 1
        gap = np.bincount(index, hot[:, k] - p[:, k], minlength=15)
        each.append(np.abs(gap).sum() / len(p))
    assert classwise_calibration_error(found) == pytest.approx(np.mean(each), abs=1e-14)


def test_probabilities_and_logits_agree_also_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of a few rows, parts joined, tensors, float32: one result."""
    logits, labels = example(1)
    whole = score_logits(logits, labels)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    parts = (
        score_logits(torch.from_numpy(logits[i : i + 7]), labels[i : i + 7])
        for i in range(0, 200, 7)
    )
    others = [score_probabilities(p, labels), joined(parts)]
    monkeypatch.setattr(scored, "BLOCK", 12)
    others.append(score_logits(logits, labels))
    for other in others:
        np.testing.assert_allclose(other.log_losses, whole.log_losses, atol=1e-13)
        np.testing.assert_array_equal(other.correct, whole.correct)
        for name in ("counts", "probability", "squared", "hits", "hit_probability"):
            mine, theirs = (getattr(one.class_bins, name) for one in (whole, other))
            np.testing.assert_allclose(theirs, mine, atol=1e-10)
    small = score_logits(logits.astype(np.float32), labels)
    assert small.nll == pytest.approx(whole.nll, abs=1e-6)


def test_a_memory_map_is_read_as_an_array(tmp_path: Path) -> None:
    """Read-only, from a file, in float32."""
    logits, labels = example(2)
    np.save(tmp_path / "z.npy", logits.astype(np.float32))
    mapped = np.load(tmp_path / "z.npy", mmap_mode="r")
    assert score_logits(mapped, labels).nll == score_logits(logits.astype(np.float32), labels).nll


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 20))
def test_the_parts_of_the_brier_score_sum_to_it(seed: int, classes: int, bins: int) -> None:
    """Exactly, with the term within bins; for all classes and for the confidence alone."""
    logits, labels = example(seed, 40, classes)
    found = score_logits(logits, labels, class_bins=bins)
    assert brier_decomposition(found).brier == pytest.approx(found.brier, abs=1e-12)
    top = confidence_brier_decomposition(found, bins=bins)
    assert top.brier == pytest.approx(((found.confidence - found.correct) ** 2).mean(), abs=1e-12)


def test_murphys_formula_where_a_bin_holds_one_confidence() -> None:
    """Two forecasts, .2 and .8: reliability, resolution and uncertainty by hand."""
    p = np.array([0.2] * 4 + [0.8] * 4)
    y = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    parts = brier_decomposition(score_events(p, y))
    assert parts.reliability == pytest.approx(0.05**2)
    assert parts.resolution == pytest.approx(0.25**2)
    assert parts.uncertainty == pytest.approx(0.25)
    assert parts.within_bins == pytest.approx(0, abs=1e-15)


def test_saturated_logits_keep_their_likelihood() -> None:
    """log-sum-exp in float64: the loss of a certain mistake is the margin, not infinity."""
    found = score_logits(np.array([[1000.0, 0.0], [1000.0, 0.0]], dtype=np.float32), [1, 0])
    assert found.log_losses.tolist() == [1000.0, 0.0]
    assert found.brier_scores.tolist() == [2.0, 0.0]


def test_a_wrong_certainty_costs_infinitely_much() -> None:
    """Also told of probabilities, rather than clipped."""
    assert score_probabilities([[1.0, 0.0]], [1]).nll == np.inf
    assert score_events([1.0], [0]).nll == np.inf


def test_ties_go_to_the_lower_class() -> None:
    """A constant model predicts class 0 with confidence 1/K."""
    found = score_logits(np.zeros((6, 3)), [0, 1, 2, 0, 1, 2])
    assert found.predicted.tolist() == [0] * 6
    assert calibration_error(found).value == pytest.approx(0, abs=1e-15)


def test_no_inputs_have_no_mean() -> None:
    """Scoring an empty batch is no mistake, asking for its accuracy is."""
    empty = score_logits(np.zeros((0, 3)), np.zeros(0, dtype=int))
    assert len(empty) == 0
    with pytest.raises(UncertaintyInputError, match="at least 1 inputs"):
        _ = empty.accuracy
    assert len(joined([empty, score_logits(np.zeros((2, 3)), [0, 1])])) == 2


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: score_logits([[0.0, np.nan]], [0]), "nan"),
        (lambda: score_logits([[0.0, np.inf]], [0]), "inf"),
        (lambda: score_logits([[0.0, -np.inf]], [0]), "-inf"),
        (lambda: score_logits([[0.0, 1.0]], [2]), "0 to 1"),
        (lambda: score_logits([[0.0, 1.0]], [0.5]), "whole numbers"),
        (lambda: score_logits([[0.0, 1.0]], [0, 1]), "2 labels for 1 inputs"),
        (lambda: score_logits([[0.0, 1.0]], [[0]]), "labels have shape"),
        (lambda: score_logits([0.0, 1.0], [0]), "inputs, classes"),
        (lambda: score_logits(np.zeros((1, 0)), [0]), "no classes"),
        (lambda: score_logits([[0.0, 1.0]], [0], class_bins=0), "bins is 0"),
        (lambda: score_probabilities([[3.0, -1.0]], [0]), "apply softmax"),
        (lambda: score_events([1.5], [1]), "not logits"),
        (lambda: score_events([0.5], [2]), "other than 0 and 1"),
        (lambda: joined([]), "nothing to join"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, complaint: str) -> None:
    """One error class, and the message says what is wrong."""
    with pytest.raises(UncertaintyInputError, match=complaint):
        call()


def test_integer_and_float_labels_of_whole_numbers_are_one() -> None:
    """As tensors of any dtype come."""
    assert score_logits([[0, 1], [1, 0]], torch.tensor([1.0, 0.0])).accuracy == 1
    assert arrays.as_labels(np.array([True, False])).tolist() == [1, 0]
