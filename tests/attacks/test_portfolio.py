"""The portfolio: the least of its members, each candidate accepted by whoever judges."""

import math

import pytest
import torch
from torch import Tensor

from attacks import AttackInputError, Ball, minimal_radius
from attacks.deepfool import DeepFool
from attacks.hyperplane import least_move
from attacks.minimal import Minimiser
from attacks.nearest import Nearest
from attacks.portfolio import MEMBERS, portfolio_radius, relinearise
from attacks.sparse import SparseBall
from tests.attacks.digits import digits
from tests.attacks.test_bisection import LABELS, X, grid_radius, net
from tests.attacks.test_linear import INPUTS, WEIGHTS, binary, exact_radius, linear

PS = [math.inf, 2.0, 1.0]


@pytest.mark.parametrize("p", PS)
def test_it_agrees_with_brute_force_in_two_dimensions(p: float) -> None:
    """Found where the grid finds, no farther than its point by more than 1 %, never nearer."""
    grid = grid_radius(p)
    result = portfolio_radius(net, X, LABELS, Ball(math.inf, p, 0.0, 1.0))
    assert torch.equal(result.found, grid.isfinite())
    found = result.found
    assert bool((result.radius[found] <= 1.01 * grid[found]).all())
    assert bool((result.radius[found] >= grid[found] - 2 / 400).all())


@pytest.mark.parametrize("p", PS)
def test_it_is_exact_on_linear_models(p: float) -> None:
    """Within a thousandth, and never below."""
    exact = exact_radius(linear(INPUTS), WEIGHTS, p)
    result = portfolio_radius(linear, INPUTS, linear(INPUTS).argmax(dim=1), Ball(math.inf, p))
    assert bool((result.radius >= exact * (1 - 1e-12)).all())
    assert bool((result.radius <= exact * 1.001).all())


@pytest.mark.parametrize("p", [*PS, 0.0])
def test_it_is_no_worse_than_any_member_and_says_who_won(p: float) -> None:
    """Nor than the bisection by PGD alone, by more than the tolerance of both."""
    case = digits()
    x, labels = case.x[:6], case.labels[:6]
    ball = SparseBall(lower=0.0, upper=1.0) if p == 0 else Ball(math.inf, p, 0.0, 1.0)
    result = portfolio_radius(case.net, x, labels, ball)
    assert bool(result.found.all())
    for member in MEMBERS[p].values():
        assert bool((result.radius <= member(case.net, x, labels, ball).radius * 1.0001).all())
    if p:
        assert bool(
            (result.radius <= 1.01 * minimal_radius(case.net, x, labels, ball).radius).all()
        )
    assert set(result.attack) <= {"line", "afar", "scout", "pgd", *MEMBERS[p]}
    assert bool((case.net(result.candidate).argmax(dim=1) != labels).all())
    assert torch.equal(result.radius, ball.distance(result.candidate, x))


def test_the_judge_has_the_last_word() -> None:
    """One that wants a margin of 0.01 gets it; one that never agrees leaves nothing."""
    ball = Ball(math.inf, 2.0, 0.0, 1.0)

    def strict(points: Tensor, rows: Tensor) -> Tensor:
        z = net(points)
        return z.amax(dim=1) - z.gather(1, LABELS[rows][:, None]).squeeze(1) > 0.01

    free = portfolio_radius(net, X, LABELS, ball)
    judged = portfolio_radius(net, X, LABELS, ball, judge=strict)
    held = judged.found
    assert int(held.sum()) >= int(free.found.sum()) - 1
    assert bool((judged.margin[held] < -0.01).all())
    assert bool((judged.radius[held] <= 1.05 * free.radius[held] + 0.003).all())
    refused = portfolio_radius(net, X, LABELS, ball, judge=lambda points, rows: rows < 0)
    assert not bool(refused.found.any())
    assert set(refused.attack) == {""}


def test_queries_are_counted_and_stay_in_the_range() -> None:
    """The members' too."""
    seen = []

    def counting(x: Tensor) -> Tensor:
        assert bool(((x >= 0) & (x <= 1)).all())
        seen.append(len(x))
        return net(x)

    result = portfolio_radius(counting, X, LABELS, Ball(math.inf, 2.0, 0.0, 1.0))
    assert int(result.forward.sum()) == sum(seen)


def test_radii_do_not_depend_on_batch_order_or_size() -> None:
    """Each sample's search is its own."""
    ball = Ball(math.inf, 1.0, 0.0, 1.0)
    whole = portfolio_radius(net, X, LABELS, ball, effort="quick")
    for i in (0, 9):
        alone = portfolio_radius(net, X[i : i + 1], LABELS[i : i + 1], ball, effort="quick")
        assert alone.radius[0] == whole.radius[i]
        assert alone.forward[0] == whole.forward[i]
        assert alone.attack[0] == whole.attack[i]


def test_members_targets_and_eps_are_the_caller_s() -> None:
    """One member alone; one class alone; nothing beyond eps; misclassified inputs at once."""
    ball = Ball(math.inf, 2.0, 0.0, 1.0)
    chosen: dict[str, Minimiser] = {"mine": DeepFool()}
    alone = portfolio_radius(net, X, LABELS, ball, members=chosen, steps=0)
    assert set(alone.attack) <= {"mine", "line", "afar", "scout", ""}
    targets = (LABELS + 1) % 3
    aimed = portfolio_radius(net, X, LABELS, ball, targets=targets)
    assert bool((net(aimed.candidate).argmax(dim=1) == targets)[aimed.found].all())
    assert int(aimed.found.sum()) > 0
    capped = portfolio_radius(net, X, LABELS, ball.with_eps(0.1))
    assert bool((capped.radius[capped.found] <= 0.1).all())
    wrong = portfolio_radius(net, X, targets, ball)
    assert wrong.radius.tolist() == [0.0] * 10
    assert set(wrong.attack) == {"clean"}
    with pytest.raises(AttackInputError, match="steps = -1"):
        portfolio_radius(net, X, LABELS, ball, steps=-1)


def test_a_sample_is_left_alone_once_its_radius_meets_its_proven_one() -> None:
    """It spends fewer queries; the others spend and find what they would have."""
    ball = Ball(math.inf, 2.0, 0.0, 1.0)
    full = portfolio_radius(net, X, LABELS, ball)
    met = int(full.found.nonzero()[0])
    floor = torch.zeros(len(X), dtype=torch.float64)
    floor[met] = 0.9999 * full.radius[met]
    result = portfolio_radius(net, X, LABELS, ball, floor=floor)
    others = torch.arange(len(X)) != met
    assert torch.equal(result.forward[others], full.forward[others])
    assert torch.equal(result.radius[others], full.radius[others])
    assert int(result.forward[met]) < int(full.forward[met])
    assert full.radius[met] <= result.radius[met] <= 1.0011 * full.radius[met]
    for bad in (torch.zeros(3), torch.full((len(X),), math.nan)):
        with pytest.raises(AttackInputError, match="floor"):
            portfolio_radius(net, X, LABELS, ball, floor=bad)


@pytest.mark.parametrize("p", PS)
def test_quick_effort_asks_less_and_finds_nearly_as_much(p: float) -> None:
    """Under 60 % of the queries, and no more than 1 % farther on average."""
    case = digits()
    x, labels = case.x[:6], case.labels[:6]
    ball = Ball(math.inf, p, 0.0, 1.0)
    full = portfolio_radius(case.net, x, labels, ball)
    quick = portfolio_radius(case.net, x, labels, ball, effort="quick")
    assert quick.forward.sum() + quick.backward.sum() < 0.6 * (full.forward + full.backward).sum()
    assert quick.radius.mean() <= 1.01 * full.radius.mean()
    with pytest.raises(AttackInputError, match="effort = 'slow'"):
        portfolio_radius(case.net, x, labels, ball, effort="slow")


@pytest.mark.parametrize("p", [*PS, 0.0])
def test_one_linear_piece_is_solved_exactly_from_any_point_of_it(p: float) -> None:
    """Against the least move within the range, begun at the far side of the range."""
    x = INPUTS.clamp(-0.9, 0.9)
    z = binary(x)
    labels = z.argmax(dim=1)
    slope = (WEIGHTS[1] - WEIGHTS[0]) * (1 - 2 * labels[:, None])
    ball = SparseBall(lower=-1.0, upper=1.0) if p == 0 else Ball(math.inf, p, -1.0, 1.0)
    oracle = Nearest(binary, x, labels, ball)
    rows = torch.arange(len(x))
    corner = torch.where(slope > 0, 1.0, -1.0).double()
    possible = oracle.ask(rows, corner) < 0
    assert int(possible.sum()) >= 6
    relinearise(oracle, rows[possible])
    move = least_move(slope, (z[:, 0] - z[:, 1]).abs(), -1 - x, 1 - x, p)
    exact = torch.linalg.vector_norm(move, ord=p, dim=1)[possible]
    assert bool((oracle.radius[possible] <= exact * (1 + 1e-5)).all())
    assert bool((oracle.radius[possible] >= exact * (1 - 1e-9)).all())
