"""Measures of uncertainty: closed forms, identities, and the defects of known libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uncertainty import measures as m
from uncertainty.errors import UncertaintyInputError


def members(seed: int, count: int = 4, inputs: int = 6, classes: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), size=(count, inputs))


def test_entropy_of_known_distributions() -> None:
    """Certain: 0. Uniform over K: log K. A fair coin among three: log 2."""
    found = m.entropy([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]])
    np.testing.assert_allclose(found, [0, math.log(3), math.log(2)], atol=1e-15)


def test_entropy_of_saturated_float32_logits_is_a_number() -> None:
    """-(p log p) gives NaN at [200, 0, -200] in float32; entropy there is 200 e^-200, or 0."""
    logits = torch.tensor([[200.0, 0.0, -200.0]])
    assert m.entropy(m.softmax(logits))[0] == pytest.approx(0, abs=1e-80)
    assert m.entropy(torch.softmax(logits, 1))[0] == 0


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 5))
def test_total_is_aleatoric_plus_epistemic_within_its_range(
    seed: int, count: int, classes: int
) -> None:
    """And 0 <= mutual information <= log min(members, classes)."""
    p = members(seed, count, 5, classes)
    found = m.entropy_decomposition(p)
    np.testing.assert_allclose(found.total, m.predictive_entropy(p), atol=1e-12)
    np.testing.assert_allclose(found.aleatoric, m.expected_entropy(p), atol=1e-12)
    assert (found.epistemic >= 0).all()
    assert (found.epistemic <= math.log(min(count, classes)) + 1e-12).all()


def test_mutual_information_at_its_extremes() -> None:
    """Members that are certain of different classes: log 2, nothing aleatoric; alike: 0."""
    opposed = m.entropy_decomposition([[[1, 0]], [[0, 1]]])
    assert (opposed.epistemic[0], opposed.aleatoric[0]) == (pytest.approx(math.log(2)), 0)
    alike = members(0)[:1].repeat(5, axis=0)
    np.testing.assert_allclose(m.mutual_information(alike), 0, atol=1e-15)


def test_mutual_information_keeps_its_digits_between_close_members() -> None:
    """For p +- d the divergence is d^2/2 sum 1/p to leading order, far below the entropies' eps."""
    p, d = np.array([0.3, 0.7]), np.array([1e-7, -1e-7])
    expected = 0.5 * (d**2 / p).sum()
    found = m.mutual_information([[p + d], [p - d]])[0]
    assert found == pytest.approx(expected, rel=0.05)


def test_the_correction_undoes_the_bias_of_few_members() -> None:
    """For I draws from a posterior, E[MI_I] is about (I-1)/I of the posterior's."""
    rng = np.random.default_rng(0)
    draws = rng.dirichlet(np.full(5, 20.0), size=(5, 20_000))
    many = rng.dirichlet(np.full(5, 20.0), size=(2_000, 20))
    truth = m.mutual_information(many).mean()
    plain = m.mutual_information(draws).mean()
    assert plain == pytest.approx(0.8 * truth, rel=0.02)
    assert m.mutual_information(draws, corrected=True).mean() == pytest.approx(truth, rel=0.02)
    with pytest.raises(UncertaintyInputError, match="2 members"):
        m.mutual_information(draws[:1], corrected=True)


def test_variation_ratio_counts_votes_for_the_mode_members_first() -> None:
    """Votes {0, 0, 1}: 1 - 2/3. torch-uncertainty says .667 (arg-max of the mean)."""
    p = np.array([[[0.5, 0.3, 0.2]], [[0.5, 0.3, 0.2]], [[0.0, 1.0, 0.0]]])
    assert p.mean(axis=0).argmax() == 1  # so the mode and the arg-max of the mean differ
    assert m.variation_ratio(m.votes(p))[0] == pytest.approx(1 / 3)


def test_variation_ratio_reads_members_first_where_axes_could_be_mistaken() -> None:
    """Two members, three inputs: one value an input."""
    found = m.variation_ratio([[0, 1, 2], [0, 2, 2]])
    np.testing.assert_allclose(found, [0, 0.5, 0])


@given(st.integers(0, 10**6), st.integers(1, 7))
def test_votes_agree_with_counting_by_hand(seed: int, count: int) -> None:
    """Variation ratio and disagreement against plain loops."""
    predicted = np.random.default_rng(seed).integers(0, 4, size=(count, 5))
    for n in range(5):
        column = list(predicted[:, n])
        modal = max(column.count(k) for k in range(4))
        assert m.variation_ratio(predicted)[n] == pytest.approx(1 - modal / count)
        pairs = [(a, b) for i, a in enumerate(column) for b in column[i + 1 :]]
        share = sum(a != b for a, b in pairs) / len(pairs) if pairs else 0
        assert m.disagreement(predicted)[n] == pytest.approx(share)


def test_softmax_variance_of_two_opposed_members() -> None:
    """p in {0, 1} has variance 1/4 for each class."""
    np.testing.assert_allclose(m.softmax_variance([[[1, 0]], [[0, 1]]]), [0.25])
    np.testing.assert_allclose(m.class_variance([[[1, 0]], [[0, 1]]]), [[0.25, 0.25]])


def test_the_pooled_prediction_is_the_mean_probability_not_the_mean_logit() -> None:
    """Also where every probability of a class underflows."""
    z = np.array([[[5.0, 0.0]], [[0.0, 1.0]]])
    expected = (m.softmax(z[0]) + m.softmax(z[1])) / 2
    np.testing.assert_allclose(np.exp(m.pooled_log_probabilities(z)), expected, rtol=1e-14)
    far = m.pooled_log_probabilities([[[0.0, -2000.0]], [[0.0, -2000.0]]])
    assert far[0, 1] == pytest.approx(-2000)


def test_law_of_total_variance_against_samples_of_the_mixture() -> None:
    """10^6 draws of the mixture have its variance within five standard errors."""
    mu, var = np.array([0.0, 1.0, 4.0]), np.array([1.0, 0.25, 2.0])
    rng = np.random.default_rng(1)
    who = rng.integers(0, 3, 10**6)
    y = rng.normal(mu[who], np.sqrt(var[who]))
    found = m.variance_decomposition(mu[:, None], var[:, None])
    assert found.total[0] == pytest.approx(y.var(), rel=0.01)
    assert found.aleatoric[0] == pytest.approx(var.mean())
    assert found.epistemic[0] == pytest.approx(mu.var())


def test_gaussian_entropy_shifts_by_the_logarithm_of_the_unit() -> None:
    """A unit variance has 1/2 log(2 pi e); sigma a thousand times as large adds log 1000."""
    found = m.gaussian_entropy([1.0, 1e6])
    np.testing.assert_allclose(found, [1.4189385332046727, 1.4189385332046727 + math.log(1000)])


def test_every_kind_of_array_gives_the_same_float64_array() -> None:
    """Lists, tensors with gradients, bfloat16, integers, booleans."""
    p = [[1.0, 0.0], [0.5, 0.5]]
    expected = m.entropy(np.array(p))
    for given_as in (p, torch.tensor(p, requires_grad=True), torch.tensor(p).bfloat16()):
        found = m.entropy(given_as)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, expected)
    assert m.entropy(np.eye(2, dtype=int)).tolist() == m.entropy(np.eye(2, dtype=bool)).tolist()


def test_no_inputs_give_no_values() -> None:
    """An empty batch is no mistake here."""
    for measure in (m.predictive_entropy, m.mutual_information, m.softmax_variance):
        assert measure(np.zeros((2, 0, 3))).shape == (0,)
    assert m.variation_ratio(np.zeros((2, 0), dtype=int)).shape == (0,)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: m.entropy([[2.0, 1.0]]), "apply softmax"),
        (lambda: m.entropy([[np.nan, 1.0]]), r"nan at \(0, 0\)"),
        (lambda: m.entropy([0.5, 0.5]), r"shape \(2,\)"),
        (lambda: m.entropy(np.zeros((2, 0))), "no classes"),
        (lambda: m.entropy([["a", "b"]]), "real numbers"),
        (lambda: m.entropy([[1.0], [0.5, 0.5]]), "one shape"),
        (lambda: m.entropy(np.array([[1j]])), "real numbers"),
        (lambda: m.mutual_information(np.zeros((0, 2, 3))), "no members"),
        (lambda: m.mutual_information([[0.5, 0.5]]), "members, inputs, classes"),
        (lambda: m.variation_ratio([[0.5, 0.2]]), "whole numbers"),
        (lambda: m.variation_ratio([0, 1]), "predictions, inputs"),
        (lambda: m.variation_ratio([[-1]]), "reach from -1"),
        (lambda: m.variance_decomposition([[1.0]], [[-1.0]]), ">= 0"),
        (lambda: m.variance_decomposition([[1.0]], [[1.0, 2.0]]), "expected one"),
        (lambda: m.gaussian_entropy([0.0]), "> 0"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(call, complaint: str) -> None:
    """One error class, and the message says what is wrong."""
    with pytest.raises(UncertaintyInputError, match=complaint):
        call()
