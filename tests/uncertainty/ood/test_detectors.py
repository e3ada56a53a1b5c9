"""Detectors against their formulas written out, and against finite differences and autograd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import entropy as scipy_entropy
from torch import nn

from tests.readers.onnx_models import model
from uncertainty.errors import UncertaintyError, UncertaintyInputError
from uncertainty.ood import (
    ASH,
    DETECTORS,
    MSP,
    Activations,
    Energy,
    GradNorm,
    Head,
    Mahalanobis,
    MaxLogit,
    Nearest,
    OnnxActivations,
    ReAct,
    TorchActivations,
    ViM,
    detector_named,
    odin,
)
from uncertainty.ood.detectors import detectors

RNG = np.random.default_rng(0)
HEAD = Head(RNG.normal(size=(3, 8)), RNG.normal(size=3))


def made(count: int, shift: float = 0.0) -> Activations:
    features = np.maximum(RNG.normal(size=(count, 8)) + shift, 0)
    return Activations(HEAD(features), features, RNG.normal(size=(count, 4)), HEAD)


SEEN, NEW = made(200, 0.5), made(20)
PROBS = np.exp(NEW.logits) / np.exp(NEW.logits).sum(1, keepdims=True)


def test_scores_of_logits() -> None:
    """1 - max p, -max z, -log sum exp z, entropy: each by its formula."""
    assert np.allclose(MSP().score(NEW), 1 - PROBS.max(1), atol=1e-12)
    assert np.allclose(MaxLogit().score(NEW), -NEW.logits.max(1))
    assert np.allclose(Energy().score(NEW), -np.log(np.exp(NEW.logits).sum(1)))
    assert np.allclose(Energy(2.0).score(NEW), -2 * np.log(np.exp(NEW.logits / 2).sum(1)))
    assert np.allclose(detector_named("entropy").score(NEW), scipy_entropy(PROBS, axis=1))


def test_msp_tells_saturated_inputs_apart() -> None:
    """Where float64 rounds the probability to 1 the order of the margins is kept."""
    logits = np.array([[100.0, 0.0], [60.0, 0.0], [40.0, 0.0], [1e6, 0.0]])
    found = MSP().score(Activations(logits))
    assert found[0] < found[1] < found[2]
    assert found[0] == pytest.approx(np.exp(-100), rel=1e-9)


@pytest.mark.parametrize("name", ["max-logit", "energy"])
def test_scores_of_raw_logits_move_with_a_shift(name: str) -> None:
    """Softmax scores do not, these do: documented, hence tested."""
    shifted = Activations(NEW.logits + 5)
    found = detector_named(name)
    assert np.allclose(found.score(shifted), found.score(NEW) - 5)
    assert np.allclose(MSP().score(shifted), MSP().score(NEW))


def test_mahalanobis_is_the_distance_to_the_nearest_mean() -> None:
    """By matrix inversion and a loop; relative subtracts the distance to all data."""
    labels = np.arange(200) % 3
    found = Mahalanobis(jitter=0).fit(SEEN, labels).score(NEW)
    means = [SEEN.features[labels == k].mean(0) for k in range(3)]
    centred = SEEN.features - np.stack(means)[labels]
    precision = np.linalg.inv(centred.T @ centred / 200)
    distances = [[(f - m) @ precision @ (f - m) for m in means] for f in NEW.features]
    assert np.allclose(found, np.min(distances, axis=1))
    whole = SEEN.features - SEEN.features.mean(0)
    precision = np.linalg.inv(whole.T @ whole / 200)
    away = NEW.features - SEEN.features.mean(0)
    relative = Mahalanobis(relative=True, jitter=0).fit(SEEN, labels).score(NEW)
    assert np.allclose(relative, found - ((away @ precision) * away).sum(1))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_mahalanobis_does_not_depend_on_the_features_units(scale: float) -> None:
    """Also with a feature that is never active, whose covariance is singular."""
    dead = [np.c_[a.features, np.zeros(len(a))] for a in (SEEN, NEW)]
    plain, scaled = (
        Mahalanobis()
        .fit(Activations(SEEN.logits, s * dead[0]))
        .score(Activations(NEW.logits, s * dead[1]))
        for s in (1.0, scale)
    )
    assert np.allclose(plain, scaled, rtol=1e-6)


def test_nearest_neighbours_are_those_of_scipy() -> None:
    """The k-th smallest distance, of unit vectors and of raw inputs."""
    unit = [a.features / np.linalg.norm(a.features, axis=1, keepdims=True) for a in (SEEN, NEW)]
    exact = np.sort(cdist(unit[1], unit[0]), axis=1)
    assert np.allclose(Nearest(k=3).fit(SEEN).score(NEW), exact[:, 2])
    raw = np.sort(cdist(NEW.inputs, SEEN.inputs), axis=1)
    assert np.allclose(Nearest(5, normalise=False, of="inputs").fit(SEEN).score(NEW), raw[:, 4])
    assert Nearest(k=1, normalise=False).fit(SEEN).score(SEEN).max() == 0
    with pytest.raises(UncertaintyInputError, match="k is 500"):
        Nearest(k=500).fit(SEEN)


def test_vim_is_its_formula() -> None:
    """Residual by projecting the principal space away; alpha by the two means."""
    origin = -np.linalg.pinv(HEAD.weight) @ HEAD.bias
    _, _, rows = np.linalg.svd(SEEN.features - origin)
    principal = rows[:3].T

    def residual(features: np.ndarray) -> np.ndarray:
        moved = features - origin
        return np.linalg.norm(moved - moved @ principal @ principal.T, axis=1)

    alpha = SEEN.logits.max(1).mean() / residual(SEEN.features).mean()
    expected = alpha * residual(NEW.features) - np.log(np.exp(NEW.logits).sum(1))
    assert np.allclose(ViM(dims=3).fit(SEEN).score(NEW), expected)


def test_react_and_ash_shape_the_features() -> None:
    """ReAct cuts at the percentile; ASH's three variants keep the largest."""
    limit = np.percentile(SEEN.features, 90)
    expected = Energy().score(Activations(HEAD(np.minimum(NEW.features, limit))))
    assert np.allclose(ReAct().fit(SEEN).score(NEW), expected)
    one = np.array([[4.0, 0.0, 1.0, 3.0, 0.5, 0.2, 0.1, 2.0]])
    seen = Activations(HEAD(one), one, None, HEAD)
    kept = np.array([[4.0, 0, 0, 3.0, 0, 0, 0, 0]])
    total = one.sum()
    for variant, shaped in (
        ("p", kept),
        ("b", (kept > 0) * total / 2),
        ("s", kept * np.exp(total / 7.0)),
    ):
        found = ASH(percentile=75, variant=variant).score(seen)
        assert np.allclose(found, Energy().score(Activations(HEAD(shaped))))
    with pytest.raises(UncertaintyInputError, match="features >= 0"):
        ASH().score(Activations(HEAD(-one), -one, None, HEAD))


def test_gradnorm_is_the_norm_of_autograds_gradient() -> None:
    """L1 norm of the last layer's weight gradient of the cross-entropy to the uniform."""
    found = GradNorm().score(NEW)
    for i in range(5):
        weight = torch.tensor(HEAD.weight, requires_grad=True)
        logits = torch.tensor(NEW.features[i]) @ weight.T + torch.tensor(HEAD.bias)
        loss = -torch.log_softmax(logits, 0).mean()
        (slope,) = torch.autograd.grad(loss, weight)
        assert found[i] == pytest.approx(-float(slope.abs().sum()))


def test_odin_moves_against_the_gradient() -> None:
    """With a linear model by hand; at step 0 and temperature 1 it is MSP."""
    weight = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    x = torch.tensor([[0.3, 0.4], [-1.0, 0.2]], dtype=torch.float64)
    plain = odin(lambda v: v @ weight.T, x, eps=0, temperature=1)
    assert np.allclose(plain, MSP().score(Activations((x @ weight.T).numpy())))
    found = odin(lambda v: v @ weight.T, x, eps=0.1, temperature=10)
    for i in range(2):
        winner = int((weight @ x[i]).argmax())
        rise = (weight[winner] - weight[1 - winner]).sign()  # of the margin, hence of max p
        margin = float((weight[winner] - weight[1 - winner]) @ (x[i] + 0.1 * rise)) / 10
        assert found[i] == pytest.approx(1 - 1 / (1 + np.exp(-margin)), rel=1e-9)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_scores_each_input_for_itself(name: str) -> None:
    """Finite, one number an input, whatever stands beside it; the list is complete."""
    found = detector_named(name).fit(SEEN)
    scores = found.score(NEW)
    assert scores.shape == (20,)
    assert np.isfinite(scores).all()
    assert np.allclose(found.score(NEW.rows(np.array([7, 3]))), scores[[7, 3]], rtol=1e-9)
    assert tuple(detectors()) == DETECTORS


@pytest.mark.parametrize("name", ["mahalanobis", "knn", "vim", "react"])
def test_a_detector_that_learns_says_when_it_has_not(name: str) -> None:
    """An error of the package, not an AttributeError."""
    with pytest.raises(UncertaintyError, match="not been fitted"):
        detector_named(name).score(NEW)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


def test_torch_activations_leave_the_network_alone() -> None:
    """Features are what enters the last Linear; a named layer's maps are averaged over space."""
    net, x = network().train(), torch.rand(5, 1, 4, 4)
    seen = TorchActivations(net)(x)
    assert np.allclose(seen.head(seen.features), seen.logits, atol=1e-5)
    assert np.allclose(seen.logits, net(x).detach().numpy(), atol=1e-6)
    maps = TorchActivations(net, "1")(x)
    assert np.allclose(maps.features, net[:2](x).detach().mean((2, 3)).numpy(), atol=1e-6)
    assert maps.head is None
    assert net.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    with pytest.raises(UncertaintyInputError, match="vim needs the features that enter"):
        ViM().fit(maps)
    with pytest.raises(UncertaintyInputError, match="no layer 'x'"):
        TorchActivations(net, "x")


@pytest.mark.parametrize("gemm", [True, False])
def test_onnx_activations_find_features_and_head(tmp_path: Path, gemm: bool) -> None:
    """Relu(x A), then a dense layer as Gemm or as MatMul and Add; the file's bytes stay."""
    first, last, bias = RNG.normal(size=(4, 6)), RNG.normal(size=(6, 3)), RNG.normal(size=3)
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "a"], ["h"]),
        onnx.helper.make_node("Relu", ["h"], ["f"], name="relu"),
    ]
    if gemm:
        nodes.append(onnx.helper.make_node("Gemm", ["f", "w", "b"], ["y"]))
    else:
        nodes.append(onnx.helper.make_node("MatMul", ["f", "w"], ["m"]))
        nodes.append(onnx.helper.make_node("Add", ["m", "b"], ["y"]))
    weights = {k: v.astype(np.float32) for k, v in {"a": first, "w": last, "b": bias}.items()}
    path = tmp_path / "net.onnx"
    onnx.save(model(nodes, ["batch", 4], weights), path)
    before, x = path.read_bytes(), RNG.normal(size=(7, 4)).astype(np.float32)
    seen = OnnxActivations(path)(x)
    assert np.allclose(seen.features, np.maximum(x @ first, 0), atol=1e-5)
    assert np.allclose(seen.head(seen.features), seen.logits, atol=1e-4)
    assert np.array_equal(OnnxActivations(path, "relu")(x).features, seen.features)
    assert OnnxActivations(path, "h")(x).head is None
    assert path.read_bytes() == before
