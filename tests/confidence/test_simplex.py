"""Entropy and Brier score over box and simplex: against samples, a solver, and closed forms."""

from __future__ import annotations

import math

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.confidence import simplex
from verify.values.bounds import Bounds


def boxes(seed: int, batch: int, classes: int, width: float) -> tuple[Bounds, torch.Tensor]:
    """Boxes of probabilities, and a point of box and simplex for each."""
    generator = torch.Generator().manual_seed(seed)
    sharp = torch.randn(batch, classes, generator=generator, dtype=torch.float64) * 3
    p = sharp.softmax(dim=1)
    down, up = torch.rand(2, batch, classes, generator=generator, dtype=torch.float64) * width
    return Bounds((p - down).clamp(min=0), (p + up).clamp(max=1)), p


def entropy(p: torch.Tensor) -> torch.Tensor:
    return torch.special.entr(p).sum(dim=-1)


@given(st.integers(0, 10**6), st.integers(2, 7), st.sampled_from([0.0, 1e-9, 0.03, 0.3, 1.0]))
@settings(max_examples=60, deadline=None)
def test_every_point_of_box_and_simplex_is_enclosed(seed: int, classes: int, width: float) -> None:
    """The planted point, and mixtures of vertices that a greedy fill in random order reaches."""
    box, p = boxes(seed, 5, classes, width)
    labels = torch.arange(5) % classes
    aim = torch.nn.functional.one_hot(labels, classes)
    found, brier = simplex.entropy(box), simplex.brier(box, labels)
    rng = np.random.default_rng(seed)
    vertices = []
    for _ in range(20):
        point = box.lower.clone()
        for k in rng.permutation(classes):
            room = (1 - point.sum(dim=1)).clamp(min=0)
            point[:, k] += torch.minimum(room, box.upper[:, k] - box.lower[:, k])
        vertices.append(point)
    tried = [p, *vertices, *((p + v) / 2 for v in vertices), sum(vertices) / len(vertices)]
    for point in tried:
        inside = (point.sum(dim=1) - 1).abs() < 1e-15
        for bound, value in (
            (found, entropy(point)),
            (brier, (point - aim).square().sum(dim=1)),
        ):
            assert (bound.lower <= value + 1e-14)[inside].all()
            assert (bound.upper >= value - 1e-14)[inside].all()


@pytest.mark.parametrize("seed", range(4))
def test_the_concave_maximum_and_the_convex_minimum_are_those_of_a_solver(seed: int) -> None:
    """cvxpy on the same box and simplex."""
    box, _ = boxes(seed, 1, 5, 0.2)
    p = cvxpy.Variable(5)
    inside = [p >= box.lower[0].numpy(), p <= box.upper[0].numpy(), cvxpy.sum(p) == 1]
    most = cvxpy.Problem(cvxpy.Maximize(cvxpy.sum(cvxpy.entr(p))), inside).solve()
    assert float(simplex.entropy(box).upper) == pytest.approx(most, abs=1e-6)
    aim = np.eye(5)[2]
    least = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(p - aim)), inside).solve()
    found = simplex.brier(box, torch.tensor([2]))
    assert float(found.lower) == pytest.approx(least, abs=1e-6)


def test_with_two_classes_the_bounds_are_exact() -> None:
    """The box and simplex are an interval of p, and both functions are monotone to either side."""
    box = Bounds(torch.tensor([[0.6, 0.1]]).double(), torch.tensor([[0.9, 0.4]]).double())
    found = simplex.entropy(box)
    for value, p in ((found.lower, 0.9), (found.upper, 0.6)):
        assert float(value) == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    brier = simplex.brier(box, torch.tensor([0]))
    assert float(brier.lower) == pytest.approx(2 * 0.1**2)
    assert float(brier.upper) == pytest.approx(2 * 0.4**2)


def test_where_nothing_is_known_the_bounds_are_those_of_the_simplex() -> None:
    """Entropy in [0, log K], Brier score in [0, 2]."""
    box = Bounds(torch.zeros(1, 4).double(), torch.ones(1, 4).double())
    found, brier = simplex.entropy(box), simplex.brier(box, torch.tensor([1]))
    assert float(found.lower) == 0
    assert math.log(4) <= float(found.upper) <= math.log(4) * (1 + 1e-12)
    assert float(brier.lower) == pytest.approx(0, abs=1e-12)
    assert float(brier.upper) == pytest.approx(2)
