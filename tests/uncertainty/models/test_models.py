"""Epistemic models: seeds, dropout's traps, BatchNorm, and what every posterior promises."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from tests.readers.onnx_models import model
from uncertainty.errors import UncertaintyInputError
from uncertainty.models import (
    HMC,
    MAP,
    SGLD,
    SWAG,
    DeepEnsemble,
    HeteroscedasticGaussian,
    Laplace,
    MCDropout,
    MeanField,
    NotFitted,
    OnnxDropout,
    OnnxEnsemble,
    Posterior,
    Training,
)
from uncertainty.models.swag import WeightMoments
from uncertainty.onnx_network import OnnxNetwork

X = torch.linspace(-1, 1, 48).reshape(24, 2)
Y = (X[:, 0] > 0).long()
FAST = Training(epochs=3, batch=8, rate=1e-2)


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))


def build_dropout() -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 3)
    )


class Trained(Laplace):
    """Laplace around a network that is always the same."""

    def __init__(self) -> None:
        super().__init__(DeepEnsemble(build, members=1).fit(X, Y).networks_[0])


MODELS = {
    "ensemble": lambda: DeepEnsemble(build, members=3, training=FAST),
    "dropout": lambda: MCDropout(
        DeepEnsemble(build_dropout, members=1, training=FAST).fit(X, Y).networks_[0],
        passes=6,
        training=FAST,
    ),
    "mean field": lambda: MeanField(build, draws=6, training=FAST),
    "swag": lambda: SWAG(
        build, draws=6, training=FAST, collect=Training(epochs=4, rate=1e-3, optimiser="sgd")
    ),
    "swag with batchnorm": lambda: SWAG(
        build_dropout,
        draws=3,
        training=FAST,
        collect=Training(epochs=4, rate=1e-3, optimiser="sgd"),
    ),
    "laplace": Trained,
    "hmc": lambda: HMC(build, chains=2, draws=6, warm_up=6, leapfrogs=4),
    "sgld": lambda: SGLD(build, warm_up=5, thin=2, keep=6, batch=8),
    "map": lambda: MAP(build, iterations=20),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_posterior_keeps_its_promises(name: str) -> None:
    """Same seed, same answer; no batch dependence; the global generator is left alone."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = MODELS[name]().fit(X, Y), MODELS[name]().fit(X, Y)
    whole = first.member_outputs(X)
    assert torch.equal(whole, second.member_outputs(X))
    order = torch.arange(len(X)).flip(0)
    assert torch.allclose(first.member_outputs(X[order])[:, order], whole, atol=1e-5)
    assert torch.allclose(first.member_outputs(X[3:4]), whole[:, 3:4], atol=1e-5)
    assert torch.equal(torch.get_rng_state(), before)
    probs = first.predict_proba(X)
    assert probs.shape == (24, 3)
    assert np.allclose(probs.sum(axis=1), 1)
    assert first.predict(X).tolist() == probs.argmax(axis=1).tolist()


@pytest.mark.parametrize("name", [n for n in MODELS if n != "dropout"])
def test_an_unfitted_model_says_so(name: str) -> None:
    """Before fit there is nothing to predict with."""
    with pytest.raises(NotFitted, match="call fit"):
        MODELS[name]().predict(X)


@pytest.mark.parametrize("name", MODELS)
def test_data_that_do_not_fit_are_refused(name: str) -> None:
    """A label too many, a target too few, NaN, no samples."""
    for x, y, what in (
        (X, Y + 2, "outside 0 to 2"),
        (X, Y[:-1], "samples"),
        (X * float("nan"), Y, "NaN"),
        (X[:0], Y[:0], "no samples"),
        (X, Y + 0.5, "not whole"),
    ):
        with pytest.raises(UncertaintyInputError, match=what):
            MODELS[name]().fit(x, y)


def test_a_larger_ensemble_begins_with_the_smaller_one() -> None:
    """Member i depends on (seed, i) only."""
    small = DeepEnsemble(build, members=1, training=FAST).fit(X, Y).member_outputs(X)
    large = DeepEnsemble(build, members=2, training=FAST).fit(X, Y).member_outputs(X)
    assert torch.equal(large[:1], small)
    assert not torch.equal(large[1:], small)


def test_an_ensemble_of_one_module_is_refused() -> None:
    """`lambda: net` would train one network again and again."""
    network = build()
    with pytest.raises(UncertaintyInputError, match="same module twice"):
        DeepEnsemble(lambda: network, members=2, training=FAST).fit(X, Y)


def test_dropout_leaves_everything_as_it_was() -> None:
    """Modes of all modules, BatchNorm's statistics, hooks: in train mode or not."""
    network = build_dropout()
    network[1].eval()
    modes = [m.training for m in network.modules()]
    state = copy.deepcopy(network.state_dict())
    MCDropout(network, passes=4).member_outputs(X[Y == 1])
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in state.items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_dropout_drops_at_its_rate_and_keeps_the_mean() -> None:
    """Over 4000 passes: the share of zeros is p and the mean is the eval output."""
    network = nn.Sequential(nn.Dropout(0.3), nn.Identity())
    found = MCDropout(network, passes=4000).member_outputs(torch.ones(1, 5))[:, 0]
    assert float((found == 0).double().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(found.mean()) == pytest.approx(1.0, abs=0.02)


def test_channels_are_dropped_whole() -> None:
    """Dropout2d's mask does not depend on the place."""
    network = nn.Sequential(nn.Dropout2d(0.5), nn.Flatten())
    found = MCDropout(network, passes=5).member_outputs(torch.ones(2, 4, 3, 3))
    images = found.reshape(5, 2, 4, 9)
    assert torch.equal(images, images[..., :1].expand_as(images))


class Functional(nn.Module):
    """Drops where no hook can see it, and holds a Dropout that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.unused, self.layer = nn.Dropout(0.5), nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(nn.functional.dropout(x, 0.5, self.training))


def test_dropout_that_cannot_be_switched_on_is_refused() -> None:
    """No layer, a rate of 0, functional dropout: never a silent zero."""
    for network in (build(), nn.Sequential(nn.Dropout(0.0)), nn.Sequential(nn.AlphaDropout(0.5))):
        with pytest.raises(UncertaintyInputError, match="Dropout"):
            MCDropout(network)
    with pytest.raises(UncertaintyInputError, match="all passes gave the same"):
        MCDropout(Functional()).predict(X)


def test_swag_draws_have_the_stated_covariance() -> None:
    """Empirical covariance of 20 000 draws against diag/2 + D D^T / (2 (K - 1))."""
    moments = WeightMoments(3, rank=4)
    for vector in torch.randn((9, 3), generator=torch.Generator().manual_seed(0)):
        moments.add(vector * torch.tensor([1.0, 5.0, 0.1]) + 100)
    numbers = torch.Generator().manual_seed(1)
    drawn = torch.stack([moments.draw(numbers) for _ in range(20_000)])
    scale = moments.covariance().diagonal().sqrt()
    expected = moments.covariance() / scale[:, None] / scale
    assert torch.allclose(drawn.mean(0), moments.mean, atol=5 * float(scale.max()) / 141)
    assert torch.allclose(drawn.T.cov() / scale[:, None] / scale, expected, atol=0.04)


def test_a_heteroscedastic_network_gives_a_gaussian_mixture() -> None:
    """Targets of shape (N,); two outputs are mean and log-variance; classes are refused."""
    made = DeepEnsemble(
        lambda: nn.Linear(2, 2), members=2, likelihood=HeteroscedasticGaussian(0.5), training=FAST
    ).fit(X, X[:, 0])
    assert made.predict(X).shape == (24,)
    assert made.predict_distribution(X).variances.shape == (2, 24)
    with pytest.raises(UncertaintyInputError, match="no class probabilities"):
        made.predict_proba(X)


def write(folder: Path, weight: np.ndarray, dropout: float | None = None) -> str:
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["h"], name="dense")]
    arrays = {"w": weight.astype(np.float32)}
    if dropout is not None:
        nodes.append(onnx.helper.make_node("Dropout", ["h", "rate"], ["d"]))
        arrays["rate"] = np.array(dropout, dtype=np.float32)
    last = "h" if dropout is None else "d"
    nodes.append(onnx.helper.make_node("Identity", [last], ["y"]))
    path = f"{folder}/model{len(list(folder.iterdir()))}.onnx"
    onnx.save(model(nodes, ["batch", 2], arrays), path)
    return path


def test_onnx_files_are_members_and_inner_values_come_out(tmp_path: Path) -> None:
    """Outputs are x W for each file; the file is not touched by asking for an inner value."""
    weights = [np.arange(6.0).reshape(2, 3), -np.ones((2, 3))]
    paths = [write(tmp_path, weight) for weight in weights]
    found = OnnxEnsemble(paths).member_outputs(X)
    assert np.allclose(found.numpy(), np.stack([X.numpy() @ w for w in weights]), atol=1e-6)
    before = Path(paths[0]).read_bytes()
    for node in ("h", "dense"):
        out, inner = OnnxNetwork(paths[0], node=node).run(X)
        assert np.array_equal(out, inner)
    assert Path(paths[0]).read_bytes() == before
    with pytest.raises(UncertaintyInputError, match="has no value or node 'none'"):
        OnnxNetwork(paths[0], node="none")


def test_onnx_dropout_drops_in_a_copy(tmp_path: Path) -> None:
    """Passes are W's columns dropped at the rate, the same for all inputs; else a clear refusal."""
    path = write(tmp_path, np.ones((2, 3)), dropout=0.25)
    found = OnnxDropout(path, passes=2000).member_outputs(torch.ones(2, 2))
    assert torch.equal(found[:, 0], found[:, 1])
    assert float((found == 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(found.mean()) == pytest.approx(2.0, abs=0.08)
    with pytest.raises(UncertaintyInputError, match="no Dropout node"):
        OnnxDropout(write(tmp_path, np.ones((2, 3))))


def test_every_model_is_a_posterior() -> None:
    """One interface for all."""
    assert all(isinstance(make(), Posterior) for make in MODELS.values())
