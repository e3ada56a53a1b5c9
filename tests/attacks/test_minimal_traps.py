"""Particulars of minimal-norm attacks, many of them errors once made elsewhere."""

import math

import pytest
import torch
from torch import Tensor

from attacks import DDN, FMN, SPSA, AttackInputError, Ball, CarliniWagner, SparseBall
from attacks.nearest import Nearest, unit
from attacks.weights import WeightSearch
from attacks.wrong_starts import wrong_starts
from tests.attacks.test_linear import INPUTS, WEIGHTS, binary, exact_radius

LABELS = binary(INPUTS).argmax(dim=1)


def second_query(attack: FMN | DDN, p: float) -> Tensor:
    """The first point that the attack moves to, relative to the inputs; shape (batch, n)."""
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        if x.requires_grad:
            seen.append(x.detach().clone())
        return binary(x)

    attack(watched, INPUTS, LABELS, Ball(math.inf, p))
    moved = [points - INPUTS for points in seen if not torch.equal(points, INPUTS)]
    return moved[0]


@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
def test_fmn_projects_a_step_that_leaves_the_ball(p: float) -> None:
    """Trap b1: a step fifty times too long ends on the ball around the linearised boundary."""
    exact = exact_radius(binary(INPUTS), WEIGHTS[:2], p)
    first = second_query(FMN(steps=2, step_size=50.0, gamma=0.05, halvings=0), p)
    length = torch.linalg.vector_norm(first, ord=p, dim=1)
    assert torch.allclose(length, 1.05 * exact, rtol=1e-9)


def test_fmn_leaves_a_step_within_the_ball_alone() -> None:
    """Trap b2: a short step is not stretched onto the sphere."""
    exact = exact_radius(binary(INPUTS), WEIGHTS[:2], 2.0)
    first = second_query(FMN(steps=2, step_size=1e-3, gamma=0.05, halvings=0), 2.0)
    length = torch.linalg.vector_norm(first, dim=1)
    assert torch.allclose(length, 1e-3 * 1.05 * exact, rtol=1e-6)


def test_ddn_moves_on_the_sphere() -> None:
    """The first point lies at the radius where the linearised margin flips."""
    exact = exact_radius(binary(INPUTS), WEIGHTS[:2], 2.0)
    length = torch.linalg.vector_norm(second_query(DDN(steps=3), 2.0), dim=1)
    assert torch.allclose(length, exact, rtol=1e-9)


def test_a_gradient_of_zero_gives_a_random_unit_vector() -> None:
    """One of each sample's own; a tiny gradient keeps its direction."""
    slope = torch.zeros(3, 4, dtype=torch.float64)
    slope[2, 1] = -1e-200
    directions = unit(slope, torch.tensor([1, 2, 3]))
    assert torch.allclose(torch.linalg.vector_norm(directions, dim=1), torch.ones(3).double())
    assert not torch.allclose(directions[0], directions[1])
    assert directions[2].tolist() == [0.0, -1.0, 0.0, 0.0]


@pytest.mark.parametrize("directions", ["signs", "gaussian"])
def test_estimated_gradients_approach_the_true_one(directions: str) -> None:
    """On a linear model the estimate's mean is the gradient; 2000 pairs of ten entries."""
    spsa = SPSA(pairs=2000, directions=directions)
    oracle = Nearest(binary, INPUTS, LABELS, Ball(math.inf, 2.0))
    rows = torch.arange(4)
    width = torch.full((4,), 0.01, dtype=torch.float64)
    view = spsa.estimate(oracle, rows, INPUTS[rows], torch.arange(4), width)
    sign = 1 - 2 * LABELS[rows, None].double()
    true = sign * (WEIGHTS[0] - WEIGHTS[1])
    assert bool((torch.cosine_similarity(view.slope, true) > 0.98).all())
    if directions == "signs":
        assert torch.allclose(view.slope, true, atol=0.4)


def test_each_sample_has_random_directions_of_its_own() -> None:
    """Trap b11: equal inputs with different keys are probed at different points."""
    x = INPUTS[:1].repeat(2, 1)
    seen: list[Tensor] = []

    def watched(points: Tensor) -> Tensor:
        seen.append(points.clone())
        return binary(points)

    SPSA(steps=1, pairs=4)(
        watched, x, LABELS[:1].repeat(2), Ball(1.0, 2.0), sample_keys=torch.tensor([1, 2])
    )
    probes = next(points for points in seen if len(points) == 8)
    assert not torch.equal(probes[:4], probes[4:])


def test_weights_are_searched_per_sample() -> None:
    """Trap b9's kin: one grows while nothing works, one falls while nothing fails, one bisects."""
    search = WeightSearch.begin(torch.ones(3, dtype=torch.float64))
    search.note(torch.tensor([False, True, True]))
    assert torch.allclose(search.weight, torch.tensor([10.0, 0.1, 0.1]).double())
    search.note(torch.tensor([False, True, False]))
    assert torch.allclose(search.weight, torch.tensor([100.0, 0.01, 0.1**0.5]).double())


def test_a_wrong_start_is_looked_for_until_found() -> None:
    """Without a range in ever wider noise; the caller's start where it is good."""
    oracle = Nearest(binary, INPUTS, LABELS, Ball(math.inf, 2.0))
    rows = torch.arange(12)
    found = wrong_starts(oracle, rows, None, rows, tries=60)
    assert torch.equal(found.rows, rows)
    assert bool((binary(found.points).argmax(dim=1) != LABELS).all())
    given = wrong_starts(oracle, rows, found.points, rows, tries=1)
    assert torch.equal(given.points, found.points)


def test_the_oracle_keeps_the_nearest_and_hands_out_only_what_is_within_eps() -> None:
    """Not the lowest margin; points beyond eps are kept to be shortened, but never the outcome."""
    x = torch.zeros(1, 2, dtype=torch.float64)

    def model(points: Tensor) -> Tensor:
        return torch.stack((0.5 - points[:, 0], points[:, 0] - 0.5), dim=1)

    oracle = Nearest(model, x, torch.tensor([0]), Ball(0.8, math.inf))
    oracle.ask(torch.tensor([0]), torch.tensor([[0.9, 0.0]]).double())
    assert oracle.radius.item() == pytest.approx(0.9)
    missed = oracle.outcome()
    assert not bool(missed.found)
    assert missed.radius.isinf()
    assert torch.equal(missed.candidate, x)
    assert missed.margin.item() == 1.0
    for value in (0.7, 0.6, 0.8, 0.4):
        oracle.ask(torch.tensor([0]), torch.tensor([[value, 0.0]]).double())
    assert oracle.radius.item() == pytest.approx(0.6)
    assert oracle.forward.item() == 6
    many = torch.tensor([[0.58, 0.0], [0.55, 0.0], [0.57, 0.0]]).double()
    oracle.ask(torch.tensor([0, 0, 0]), many)
    assert oracle.radius.item() == pytest.approx(0.55)


@pytest.mark.parametrize(
    "build",
    [
        lambda: FMN(gamma=1.0),
        lambda: FMN(step_size=0.0),
        lambda: DDN(gamma=0.0),
        lambda: SPSA(pairs=0),
        lambda: SPSA(directions="some"),
        lambda: SPSA(gamma=0.0),
        lambda: CarliniWagner(step_size=0.0),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(build: object) -> None:
    """In the name of the attack, with what was expected."""
    with pytest.raises(AttackInputError, match=r"(FMN|DDN|SPSA|CarliniWagner) got .*expected"):
        build()  # type: ignore[operator]


def test_more_entries_than_there_are_change_nothing() -> None:
    """A count beyond the number of entries, or unbounded, is the whole range."""
    some = FMN(steps=30)(binary, INPUTS, LABELS, SparseBall(99.0))
    every = FMN(steps=30)(binary, INPUTS, LABELS, SparseBall())
    assert torch.equal(some.radius, every.radius)
