"""Models outside torch: a callable around a real ONNX Runtime session, without any gradient."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from attacks import ATTACKS, MINIMISERS, Ball, HopSkipJump, Square, portfolio_radius
from attacks.boundary import Boundary
from attacks.minimal import Minimiser
from attacks.spsa import SPSA

EXAMPLES = Path(__file__).parents[2] / "examples"
WITHOUT_GRADIENT: dict[str, Minimiser] = {
    "hopskipjump": HopSkipJump(steps=4),
    "boundary": Boundary(steps=100),
    "spsa": SPSA(steps=8, pairs=32),
}


@cache
def session() -> Callable[[Tensor], Tensor]:
    runtime = pytest.importorskip("onnxruntime")
    running = runtime.InferenceSession(
        str(EXAMPLES / "digits_dense.onnx"), providers=["CPUExecutionProvider"]
    )
    name, shape = running.get_inputs()[0].name, running.get_inputs()[0].shape[1:]

    def model(x: Tensor) -> Tensor:
        points = x.detach().numpy().reshape(len(x), *shape)
        return torch.from_numpy(running.run(None, {name: points})[0])

    return model


def inputs(count: int) -> tuple[Tensor, Tensor]:
    """Digits that the model gets right, and their labels."""
    data = np.load(EXAMPLES / "digits.npz")
    x, labels = (torch.from_numpy(data[key]) for key in list(data.keys())[:2])
    x, labels = x.float().flatten(1), labels.long()
    right = (session()(x).argmax(dim=1) == labels).nonzero().flatten()[:count]
    return x[right], labels[right]


@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
def test_minimisers_without_gradient_run_on_onnx_runtime(name: str) -> None:
    """Each finds a misclassified point of the range for each sample, and says how far it is."""
    x, labels = inputs(3)
    ball = Ball(math.inf, 2.0, 0.0, 1.0)
    result = WITHOUT_GRADIENT[name](session(), x, labels, ball)
    assert bool(result.found.all())
    assert result.backward.tolist() == [0] * 3
    assert bool((session()(result.candidate).argmax(dim=1) != labels).all())
    assert bool((result.radius < 5.0).all())
    assert torch.equal(result.radius, ball.distance(result.candidate, x))


def test_square_runs_on_onnx_runtime() -> None:
    """In a ball that is large enough for it."""
    x, labels = inputs(3)
    result = Square(queries=200)(session(), x, labels, Ball(0.4, math.inf, 0.0, 1.0))
    assert bool(result.found.all())
    assert result.backward.tolist() == [0] * 3


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd-ce", "fab-t"])
def test_gradient_attacks_see_slope_zero_there(name: str) -> None:
    """They do not raise, and what they find counts as little as a random try; they find little."""
    x, labels = inputs(3)
    result = ATTACKS[name].make()(session(), x, labels, Ball(0.02, math.inf, 0.0, 1.0))
    assert not bool(result.found.any())


@pytest.mark.parametrize(
    "name", [n for n, e in MINIMISERS.items() if e.gradient and 2.0 in e.norms]
)
def test_gradient_minimisers_do_not_raise_there(name: str) -> None:
    """Whatever they report as found is misclassified."""
    x, labels = inputs(2)
    result = MINIMISERS[name].make(steps=5)(session(), x, labels, Ball(math.inf, 2.0, 0.0, 1.0))
    wrong = session()(result.candidate).argmax(dim=1) != labels
    assert torch.equal(wrong, result.found)


def test_a_portfolio_of_members_without_gradient_does_there_what_it_can() -> None:
    """Lines, segments and pieces ask no harm of a model without slope."""
    x, labels = inputs(2)
    members: dict[str, Minimiser] = {"hopskipjump": HopSkipJump(steps=4)}
    ball = Ball(math.inf, 2.0, 0.0, 1.0)
    result = portfolio_radius(session(), x, labels, ball, members=members, steps=1)
    assert bool(result.found.all())
    alone = HopSkipJump(steps=4)(session(), x, labels, ball)
    assert bool((result.radius <= alone.radius).all())
