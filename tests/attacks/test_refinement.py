"""Linear pieces solved exactly: against all pieces of a tiny net, and from poor starts."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from attacks import Ball, DeepFool, portfolio_radius
from attacks.nearest import Nearest
from attacks.refinement import refine
from tests.attacks.digits import digits
from tests.attacks.test_portfolio_exact import X as WIDE_X
from tests.attacks.test_portfolio_exact import net as wide_net

RNG = np.random.default_rng(11)
INNER, SHIFT = RNG.normal(size=(6, 4)), 0.3 * RNG.normal(size=6)
OUTER, LEVEL = RNG.normal(size=(2, 6)), 0.3 * RNG.normal(size=2)
X = torch.tensor(RNG.uniform(0.2, 0.8, size=(6, 4)))


def net(x: Tensor) -> Tensor:
    hidden = (x @ torch.tensor(INNER).T + torch.tensor(SHIFT)).relu()
    return hidden @ torch.tensor(OUTER).T + torch.tensor(LEVEL)


def nearest_of_all_pieces(centre: np.ndarray, label: int) -> float:
    """The least L2 norm of a move to z_other >= z_label in [0, 1]^n: one program per pattern."""
    optimize = pytest.importorskip("scipy.optimize")
    gap, level = OUTER[1 - label] - OUTER[label], LEVEL[1 - label] - LEVEL[label]
    best = math.inf
    for pattern in itertools.product((0.0, 1.0), repeat=len(INNER)):
        on = np.array(pattern)
        slope = (gap * on) @ INNER
        rows = np.vstack((slope, (2 * on - 1)[:, None] * INNER))
        least = np.append(-level - (gap * on) @ SHIFT, -(2 * on - 1) * SHIFT)
        inside = optimize.linprog(
            np.zeros(4), A_ub=-rows, b_ub=-least, bounds=[(0, 1)] * 4, method="highs"
        )
        if not inside.success:
            continue
        found = optimize.minimize(
            lambda x: float(((x - centre) ** 2).sum()),
            inside.x,
            jac=lambda x: 2 * (x - centre),
            method="SLSQP",
            bounds=[(0, 1)] * 4,
            constraints={
                "type": "ineq",
                "fun": lambda x, rows=rows, least=least: rows @ x - least,
                "jac": lambda x, rows=rows: rows,
            },
            options={"ftol": 1e-12, "maxiter": 200},
        )
        best = min(best, math.sqrt(found.fun))
    return best


def test_the_l2_radius_is_that_of_the_best_of_all_pieces() -> None:
    """Within 0.01 % and never below; with quick effort within 1 %."""
    labels = net(X).argmax(dim=1)
    exact = torch.tensor(
        [nearest_of_all_pieces(x.numpy(), y) for x, y in zip(X, labels.tolist(), strict=True)]
    )
    assert int(exact.isfinite().sum()) >= 4
    for effort, within in (("full", 1.0001), ("quick", 1.01)):
        result = portfolio_radius(net, X, labels, Ball(math.inf, 2.0, 0.0, 1.0), effort=effort)
        assert torch.equal(result.found, exact.isfinite())
        held = result.found
        assert bool((result.radius[held] >= exact[held] * (1 - 1e-6)).all())
        assert bool((result.radius[held] <= exact[held] * within).all())


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
def test_refinement_improves_a_poor_start_and_never_harms(p: float) -> None:
    """From DeepFool's points, which lie beyond several kinks, on a digits net in float32."""
    case = digits()
    x, labels = case.x[:8], case.labels[:8]
    ball = Ball(math.inf, p, 0.0, 1.0)
    start = DeepFool()(case.net, x, labels, ball)
    oracle = Nearest(case.net, x, labels, ball)
    oracle.ask(oracle.rows(), start.candidate)
    refine(oracle, oracle.rows())
    assert bool((oracle.radius <= start.radius).all())
    assert int((oracle.radius < 0.999 * start.radius).sum()) >= 4
    assert bool((case.net(oracle.candidate).argmax(dim=1) != labels).all())
    assert torch.equal(oracle.radius, ball.distance(oracle.candidate, x))


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
def test_no_better_point_of_the_piece_is_left(p: float) -> None:
    """Where the portfolio ended, the pieces around hold nothing nearer."""
    labels = wide_net(WIDE_X).argmax(dim=1)
    ball = Ball(math.inf, p, 0.0, 1.0)
    oracle = Nearest(wide_net, WIDE_X, labels, ball)
    held = portfolio_radius(wide_net, WIDE_X, labels, ball)
    oracle.ask(oracle.rows(), held.candidate)
    refine(oracle, oracle.rows())
    assert int(held.found.sum()) >= 6
    assert bool((oracle.radius >= 0.9998 * held.radius)[held.found].all())


def test_targets_and_queries() -> None:
    """Only points of the target class count; each held trace is a query of its sample."""
    labels = wide_net(WIDE_X).argmax(dim=1)
    targets = torch.full_like(labels, 2)  # the net never answers 1
    ball = Ball(math.inf, 2.0, 0.0, 1.0)
    seen = []

    def counting(x: Tensor) -> Tensor:
        seen.append(len(x))
        return wide_net(x)

    start = DeepFool()(wide_net, WIDE_X, labels, ball, targets=targets)
    oracle = Nearest(counting, WIDE_X, labels, ball, targets=targets)
    oracle.ask(oracle.rows(), start.candidate)
    refine(oracle, oracle.rows())
    held = oracle.radius.isfinite()
    assert int(held.sum()) >= 4
    assert bool((wide_net(oracle.candidate).argmax(dim=1) == targets)[held].all())
    assert bool((oracle.radius <= start.radius)[held].all())
    assert int(oracle.forward.sum()) == sum(seen)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: torch.stack((x.sum(dim=1), 2.0 - x.sum(dim=1)), dim=1),
        lambda x: torch.stack((x.sum(dim=1).tanh(), 0.5 - x.sum(dim=1)), dim=1),
        lambda x: torch.stack((0 * x[:, 0], (x[:, 0] > 0.9).double() - 0.5), dim=1),
        lambda x: torch.from_numpy(np.stack((1 - x.numpy()[:, 0], x.numpy()[:, 0]), axis=1)),
    ],
    ids=["affine", "smooth", "step", "outside torch"],
)
def test_models_without_kinks_or_gradients_do_no_harm(model: object) -> None:
    """Nothing raises, and what is held stays at least as near."""
    x = torch.full((2, 4), 0.4, dtype=torch.float64)

    def detached(points: Tensor) -> Tensor:
        return model(points.detach())  # type: ignore[operator]

    labels = detached(x).argmax(dim=1)
    for p in (math.inf, 2.0, 1.0):
        oracle = Nearest(detached, x, labels, Ball(math.inf, p, 0.0, 1.0))
        oracle.ask(oracle.rows(), torch.ones_like(x))
        oracle.ask(oracle.rows(), torch.zeros_like(x))
        before = oracle.radius.clone()
        refine(oracle, oracle.rows())
        assert bool((oracle.radius <= before).all())
