"""UnsafeSearch: finds what is there, nothing outside the box, nothing that is not confirmed."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import Tensor

from attacks.errors import AttackInputError
from attacks.unsafe import LEAST_LANES, MOST_LANES, Goal, Hunt, UnsafeSearch


def goal(coeff: list[list[float]], const: list[float], clause: list[int]) -> Goal:
    return Goal(torch.tensor(coeff), torch.tensor(const), torch.tensor(clause))


def box(inputs: int, boxes: int = 1) -> tuple[Tensor, Tensor]:
    return torch.full((boxes, inputs), -1.0), torch.ones(boxes, inputs)


def first(points: Tensor) -> Tensor | None:
    return points[0]


def narrow(x: Tensor) -> Tensor:
    """A pit that random points miss: |x - 0.77|, summed over 20 inputs."""
    return (x - 0.77).abs().sum(dim=1, keepdim=True)


def test_descent_reaches_what_samples_miss() -> None:
    """Sum of distances <= 0.5 in 20 dimensions: no sample comes near, descent does."""
    low, high = box(20)
    aim = goal([[1.0]], [-0.5], [0])
    found = UnsafeSearch()(narrow, low, high, aim, first)
    assert found is not None
    assert float(narrow(found[None])) <= 0.5
    assert UnsafeSearch(restarts=0)(narrow, low, high, aim, first) is None


def test_all_rows_of_one_clause_have_to_be_met() -> None:
    """Clause 0 is contradictory, clause 1 needs x0 >= 0.9 and x1 <= -0.9."""
    low, high = box(2)
    aim = goal(
        [[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], [0.5, 0.5, 0.9, 0.9], [0, 0, 1, 1]
    )
    found = UnsafeSearch()(lambda x: x, low, high, aim, first)
    assert found is not None
    assert float(found[0]) >= 0.9
    assert float(found[1]) <= -0.9


def test_flat_models_are_searched_by_mutation() -> None:
    """Signs have no gradient: 12 of 14 entries must be positive."""
    low, high = box(14)
    model = lambda x: torch.sign(x - 0.5).sum(dim=1, keepdim=True)  # noqa: E731
    search = UnsafeSearch(samples=16)
    found = search(model, low, high, goal([[-1.0]], [10.0], [0]), first)
    assert found is not None
    assert int((found > 0.5).sum()) >= 12


def test_what_is_not_confirmed_is_not_returned() -> None:
    """A confirmation that always declines is asked a bounded number of times."""
    low, high = box(3)
    asked: list[int] = []

    def never(points: Tensor) -> None:
        asked.append(len(points))

    aim = goal([[1.0, 0.0, 0.0]], [0.0], [0])
    assert UnsafeSearch()(lambda x: x, low, high, aim, never) is None
    assert 0 < sum(asked) < 100


def test_candidates_stay_in_their_boxes() -> None:
    """Of two boxes the second holds what is looked for, at its corner."""
    low = torch.tensor([[-1.0, -1.0], [0.25, 0.25]])
    high = torch.tensor([[0.0, 0.0], [0.3, 0.3]])
    aim = goal([[-1.0, -1.0]], [0.6], [0])  # x0 + x1 >= 0.6
    found = UnsafeSearch()(lambda x: x, low, high, aim, first)
    assert found is not None
    assert found.tolist() == high[1].tolist()


def test_nan_is_no_counterexample() -> None:
    """A model that gives NaN meets nothing."""
    low, high = box(2)
    model = lambda x: x * math.nan  # noqa: E731
    assert UnsafeSearch()(model, low, high, goal([[1.0, 0.0]], [0.0], [0]), first) is None


def test_the_same_seed_finds_the_same_point() -> None:
    """And another seed another."""
    low, high = box(20)
    aim = goal([[1.0]], [-0.5], [0])
    runs = [UnsafeSearch(seed=s)(narrow, low, high, aim, first) for s in (3, 3, 4)]
    a, b, c = (run if run is not None else torch.empty(0) for run in runs)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_misfits_are_refused() -> None:
    """Boxes upside down, goals without rows."""
    low, high = box(2)
    with pytest.raises(AttackInputError, match="lower <= upper"):
        UnsafeSearch()(lambda x: x, high, low, goal([[1.0, 0.0]], [0.0], [0]), first)
    with pytest.raises(AttackInputError, match="needs rows"):
        Goal(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def hunt(clauses: int, left: float) -> Hunt:
    """A hunt over 20 inputs with so many clauses and so much time left."""
    low, high = box(20)
    coeff = torch.eye(clauses)
    aim = Goal(coeff, torch.full((clauses,), -0.5), torch.arange(clauses))
    deadline = time.monotonic() + left
    return Hunt(lambda x: x, low, high, aim, first, deadline, torch.Generator().manual_seed(0))


def test_as_many_descents_as_can_end() -> None:
    """All of them where a step is cheap or unlimited, a few where none would get far."""
    search = hunt(3, 10.0)
    assert search.room(100) == MOST_LANES
    search.pace = 1e-3  # 0.3 s a lane, 5 s for all
    assert LEAST_LANES <= search.room(100) <= 17
    assert 45 <= search.room(33) <= 51
    search.pace = 1.0
    assert search.room(100) == LEAST_LANES
    search.deadline = math.inf
    assert search.room(100) == MOST_LANES


def test_the_likeliest_clauses_are_tried_first() -> None:
    """Clause k needs a sum of distances below -k: clause 0 is the nearest, whatever its place."""
    low, high = box(20)
    far = torch.arange(40.0).flip(0)
    aim = Goal(torch.ones(40, 1), far, torch.arange(40))
    search = Hunt(narrow, low, high, aim, first, math.inf, torch.Generator().manual_seed(0))
    assert search.sample(64) is None
    assert search.order is not None
    assert search.order.tolist() == list(range(39, -1, -1))
    lanes = search.lanes(5)
    assert lanes.clause.tolist() == [39, 38, 37, 36, 35]
    mutant = torch.arange(5)
    assert lanes.clause.tolist() != mutant.tolist()
