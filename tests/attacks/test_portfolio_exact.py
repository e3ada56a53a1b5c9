"""The portfolio against the exact radius of a small ReLU net, by mixed-integer programming."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from attacks import Ball, portfolio_radius

RNG = np.random.default_rng(5)
SIZES = (6, 10, 8, 3)
WEIGHTS = [
    RNG.normal(size=(m, n)) / math.sqrt(n / 3) for n, m in zip(SIZES, SIZES[1:], strict=False)
]
BIASES = [0.3 * RNG.normal(size=m) for m in SIZES[1:]]
X = torch.tensor(RNG.uniform(0.1, 0.9, size=(8, SIZES[0])))


def net(x: Tensor) -> Tensor:
    for layer, (weight, bias) in enumerate(zip(WEIGHTS, BIASES, strict=True)):
        x = (x if layer == 0 else x.relu()) @ torch.tensor(weight).T + torch.tensor(bias)
    return x


def exact_radius(centre: np.ndarray, label: int, rival: int, p: float) -> float:
    """The least |x - centre|_p over [0, 1]^n with z_rival >= z_label; big-M at each ReLU.

    Variables: x (n), how far each entry moves (n), then per hidden layer z, relu(z) and whether it
    is active; for L-inf the last one is the radius.
    """
    optimize = pytest.importorskip("scipy.optimize")
    n = SIZES[0]
    count = 2 * n + 3 * sum(SIZES[1:-1]) + 1
    rows: list[np.ndarray] = []
    least: list[float] = []

    def need(terms: dict[int, float], at_least: float) -> None:
        row = np.zeros(count)
        for index, factor in terms.items():
            row[index] += factor
        rows.append(row)
        least.append(at_least)

    low, high = np.full(count, -np.inf), np.full(count, np.inf)
    low[:n], high[:n] = 0.0, 1.0
    for i in range(n):
        need({n + i: 1, i: -1}, -centre[i])
        need({n + i: 1, i: 1}, centre[i])
        need({count - 1: 1, n + i: -1}, 0.0)
    integer, before, place = np.zeros(count), list(range(n)), 2 * n
    low_in, high_in = np.zeros(n), np.ones(n)
    for weight, bias in zip(WEIGHTS[:-1], BIASES[:-1], strict=True):
        up, down = weight.clip(min=0), weight.clip(max=0)
        bottom, top = up @ low_in + down @ high_in + bias, up @ high_in + down @ low_in + bias
        size = len(bias)
        after = []
        for k in range(size):
            z, y, active = place + k, place + size + k, place + 2 * size + k
            terms = dict(zip(before, weight[k], strict=True))
            need({z: 1, **{i: -w for i, w in terms.items()}}, bias[k])
            need({z: -1, **terms}, -bias[k])
            need({y: 1, z: -1}, 0.0)
            need({y: -1, z: 1, active: bottom[k]}, bottom[k])
            need({y: -1, active: max(top[k], 0.0)}, 0.0)
            low[y], low[active], high[active], integer[active] = 0.0, 0.0, 1.0, 1
            after.append(y)
        before, place = after, place + 3 * size
        low_in, high_in = bottom.clip(min=0), top.clip(min=0)
    gap, shift = WEIGHTS[-1][rival] - WEIGHTS[-1][label], BIASES[-1][label] - BIASES[-1][rival]
    need(dict(zip(before, gap, strict=True)), shift)
    cost = np.zeros(count)
    cost[slice(n, 2 * n) if p == 1 else -1] = 1.0
    constraints = optimize.LinearConstraint(np.array(rows), np.array(least), np.inf)
    done = optimize.milp(
        cost, constraints=constraints, integrality=integer, bounds=optimize.Bounds(low, high)
    )
    return float(done.fun) if done.success else math.inf


@pytest.mark.parametrize("p", [math.inf, 1.0])
def test_the_excess_over_the_exact_radius_is_nil_with_refinement_and_small_without(
    p: float,
) -> None:
    """0.01 % on average, else 1 %; none lies below. Published attacks exceed it by 2 to 5 %."""
    labels = net(X).argmax(dim=1)
    exact = [
        min(exact_radius(x.numpy(), y, j, p) for j in range(3) if j != y)
        for x, y in zip(X, labels.tolist(), strict=True)
    ]
    for refine, within in ((True, 1.0001), (False, 1.01)):
        result = portfolio_radius(net, X, labels, Ball(math.inf, p, 0.0, 1.0), refine=refine)
        assert result.found.tolist() == [math.isfinite(r) for r in exact]
        ratio = (result.radius / torch.tensor(exact))[result.found]
        assert len(ratio) >= 6
        assert bool((ratio >= 1 - 1e-6).all())  # HiGHS's own tolerance
        assert ratio.mean() <= within
