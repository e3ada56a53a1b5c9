"""Criteria that look at training traces: surprise and importance, against direct computation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score

import verify
from verify.coverage.importance import ImportanceRecord, clustered, silhouette
from verify.coverage.layers import Layer, layers_of, observed
from verify.coverage.reference import Reference
from verify.coverage.surprise import Surprise, SurpriseRecord
from verify.errors import DataError, SettingError
from verify.readers.examples import example_path
from verify.traverse import evaluate

GRAPH = verify.load(example_path("digits_dense.onnx")).graph.to(torch.float64)


def inputs(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 64, generator=generator, dtype=torch.float64).pow(3)


def reference(count: int = 400) -> Reference:
    return Reference(GRAPH, inputs(count), [Layer("logits", (10,), False)])


def test_likelihood_is_a_gaussian_mixture_around_the_class() -> None:
    """-log of the mean of normal densities, written out, on the neurons that vary."""
    known = reference()
    surprise, x = Surprise(known), inputs(5, seed=1)
    traces = observed(GRAPH, x, known.layers)["logits"]
    predicted = traces.argmax(dim=1)
    found = surprise.likelihood(traces, predicted)
    for row in range(len(x)):
        own = known.traces[known.predicted == predicted[row]].numpy()
        n, d = own.shape
        covariance = np.cov(own.T) * n ** (-2 / (d + 4))
        away = own - traces[row].numpy()
        power = -0.5 * np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
        scale = math.log(n) + 0.5 * np.linalg.slogdet(2 * math.pi * covariance)[1]
        expected = scale - power.max() - math.log(np.exp(power - power.max()).sum())
        assert float(found[row]) == pytest.approx(expected, rel=1e-8)


def test_training_data_are_not_their_own_neighbours() -> None:
    """The density of all but one, with the bandwidth of all, written out for one class."""
    known = reference()
    found = Surprise(known).of_training("likelihood")
    label = int(known.predicted.mode().values)
    rows = (known.predicted == label).nonzero().flatten()
    own = known.traces[rows].numpy()
    n, d = own.shape
    covariance = np.cov(own.T) * n ** (-2 / (d + 4))
    away = own[1:] - own[0]
    power = -0.5 * np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
    scale = math.log(n - 1) + 0.5 * np.linalg.slogdet(2 * math.pi * covariance)[1]
    expected = scale - math.log(np.exp(power).sum())
    assert float(found[rows[0]]) == pytest.approx(expected, rel=1e-6)


def test_distance_by_brute_force() -> None:
    known = reference(120)
    surprise, x = Surprise(known), inputs(7, seed=2)
    traces = observed(GRAPH, x, known.layers)["logits"]
    found = surprise.distance(traces, traces.argmax(dim=1))
    for row in range(len(x)):
        same = known.predicted == traces[row].argmax()
        away = (known.traces - traces[row]).norm(dim=1)
        nearest = torch.where(same, away, math.inf).argmin()
        other = (known.traces - known.traces[nearest]).norm(dim=1)[~same].min()
        assert float(found[row]) == pytest.approx(float(away[nearest] / other), rel=1e-9)
    mine = surprise.of_training("distance")
    assert bool((mine[mine.isfinite()] > 0).all())  # none is its own neighbour


def test_noise_surprises_more_than_more_of_the_same() -> None:
    known = reference()
    surprise = Surprise(known)
    usual, noise = inputs(100, seed=3), torch.rand(100, 64, dtype=torch.float64) * 3
    for kind in (surprise.likelihood, surprise.distance):
        levels = []
        for x in (usual, noise):
            traces = observed(GRAPH, x, known.layers)["logits"]
            levels.append(kind(traces, traces.argmax(dim=1)).median())
        assert levels[1] > levels[0]


@pytest.mark.parametrize("kind", ["likelihood", "distance"])
def test_sections_of_surprise_in_any_batches(kind: str) -> None:
    known = reference()
    surprise, x = Surprise(known), inputs(60, seed=4)
    whole, parts = (SurpriseRecord(surprise, kind, buckets=20) for _ in range(2))  # type: ignore[arg-type]
    values = {"logits": observed(GRAPH, x, known.layers)["logits"]}
    whole.update(values)
    for rows in torch.randperm(60).split(7):
        parts.update({"logits": values["logits"][rows]})
    assert torch.equal(whole.covered, parts.covered)
    assert 0 < int(whole.covered.sum()) < 20
    own = SurpriseRecord(surprise, kind, buckets=1)  # type: ignore[arg-type]
    own.update({"logits": known.traces})
    assert own.shares()[0].share == 1


def test_too_little_training_data_is_one_line() -> None:
    with pytest.raises(DataError, match="too few for a density"):
        SurpriseRecord(Surprise(reference(20)), "likelihood")
    with pytest.raises(SettingError, match="sections"):
        SurpriseRecord(Surprise(reference(120)), "distance", buckets=0)
    with pytest.raises(DataError, match="at least one input"):
        assert Reference(GRAPH, inputs(0), reference().layers).traces is None


def test_relevance_sums_to_the_logit_without_biases() -> None:
    """Activation times gradient of the last hidden layer adds up to logit minus bias."""
    x = inputs(50)
    (layer,) = layers_of(GRAPH, ["v3"])
    known = Reference(GRAPH, x, [layer])
    logits = evaluate(GRAPH, x)["logits"]
    bias = GRAPH.node("logits").tensors["bias"]
    top = logits.argmax(dim=1)
    expected = (logits.amax(dim=1) - bias[top]).mean()
    assert float(known.relevance.sum()) == pytest.approx(float(expected), rel=1e-9)


def test_silhouette_equals_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    for count in (2, 3, 5):
        values = generator.normal(size=60)
        labels = generator.integers(0, count, 60)
        expected = silhouette_score(values[:, None], labels)
        assert silhouette(values, labels) == pytest.approx(expected, rel=1e-9)


def test_clusters_that_are_there_are_found() -> None:
    generator = np.random.default_rng(0)
    for centres in ([0.0, 5.0], [0.0, 5.0, 11.0], [0.0, 4.0, 9.0, 20.0]):
        values = np.concatenate([c + 0.1 * generator.normal(size=40) for c in centres])
        np.testing.assert_allclose(clustered(values), centres, atol=0.1)
    assert len(clustered(np.array([2.0, 2.0]))) == 1


def test_combinations_are_counted_once() -> None:
    known = Reference(GRAPH, inputs(200), layers_of(GRAPH, ["v3"]))
    record = ImportanceRecord(known, most=3)
    values = {"v3": observed(GRAPH, inputs(80, seed=5), known.layers)["v3"]}
    record.update(values)
    seen = set()
    for row in values["v3"]:
        seen.add(
            tuple(
                int((row[n] - centres).abs().argmin())
                for n, centres in zip(record.neurons.tolist(), record.centres, strict=True)
            )
        )
    (share,) = record.shares()
    assert share.covered == len(seen)
    assert share.total == len(list(itertools.product(*map(range, map(len, record.centres)))))
    record.update(values)
    assert record.shares()[0].covered == len(seen)
    with pytest.raises(SettingError):
        ImportanceRecord(known, most=0)
