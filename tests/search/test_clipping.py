"""Clipping: it never cuts off a point where the row may fail, and it does cut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from verify.search.clipping import clipped, down, hull, up


def boxes(seed: int, count: int, inputs: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random boxes with float32 ends, and planes through or near them."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(count, inputs, generator=generator, dtype=torch.float64)
    radius = torch.rand(count, inputs, generator=generator, dtype=torch.float64)
    radius = radius * 10.0 ** torch.randint(-6, 2, (count, inputs), generator=generator)
    lower, upper = down(centre - radius), up(centre + radius)
    coeff = torch.randn(count, inputs, generator=generator, dtype=torch.float64)
    coeff = torch.where(torch.rand(coeff.shape, generator=generator) < 0.2, 0.0, coeff)
    shift = torch.randn(count, generator=generator, dtype=torch.float64)
    reach = (coeff.abs() * (upper - lower)).sum(dim=1) / 2
    middle = (coeff * (lower + upper) / 2).sum(dim=1)
    return lower, upper, coeff, -middle + shift * reach


def cut_off(low: Tensor, high: Tensor, planes: tuple[Tensor, ...], points: Tensor) -> int:
    """How many points of (batch, count, inputs) the planes allow and the new boxes leave out."""
    coeff, const = planes
    allowed = (points * coeff[:, None]).sum(dim=2) + const[:, None] <= 0
    inside = ((points >= low[:, None]) & (points <= high[:, None])).all(dim=2)
    return int((allowed & ~inside).sum())


@pytest.mark.parametrize("inputs", [1, 2, 5, 30])
def test_no_point_is_cut_off_where_the_row_may_fail(inputs: int) -> None:
    """Samples, corners, and points moved onto the plane itself."""
    lower, upper, coeff, const = boxes(inputs, 200, inputs)
    low, high = clipped(lower, upper, coeff, const)
    generator = torch.Generator().manual_seed(1)
    share = torch.rand(200, 300, inputs, generator=generator, dtype=torch.float64)
    share[:, :150] = share[:, :150].round()
    points = lower[:, None] + share * (upper - lower)[:, None]
    points = torch.minimum(torch.maximum(points, lower[:, None]), upper[:, None])
    # Just inside the plane: along its normal, back into the box.
    gap = (points * coeff[:, None]).sum(dim=2) + const[:, None]
    size = coeff.square().sum(dim=1)[:, None].clamp(min=1e-30)
    onto = points - (gap / size * (1 + 1e-9))[:, :, None] * coeff[:, None]
    onto = torch.minimum(torch.maximum(onto, lower[:, None]), upper[:, None])
    assert cut_off(low, high, (coeff, const), torch.cat((points, onto), dim=1)) == 0
    # A clipping that goes a little too far is noticed.
    inwards = (high - low).clamp(min=0) * 1e-3
    assert cut_off(low + inwards, high - inwards, (coeff, const), onto) > 0


def test_a_clipped_box_is_the_smallest_around_the_rest() -> None:
    """x + y <= 1 in the square from 0 to 2 leaves the square from 0 to 1, one float32 more."""
    lower = torch.zeros(1, 2, dtype=torch.float64)
    coeff, const = torch.ones(1, 2, dtype=torch.float64), torch.tensor([-1.0]).double()
    low, high = clipped(lower, lower + 2, coeff, const)
    assert low.tolist() == [[0.0, 0.0]]
    assert (high >= 1).all()
    assert (high <= 1 + 2**-22).all()


def test_a_row_that_is_positive_everywhere_leaves_nothing() -> None:
    """Also where no input matters; and NaN removes nothing."""
    lower, upper = torch.zeros(3, 2).double(), torch.ones(3, 2).double()
    coeff = torch.tensor([[1.0, 1.0], [0.0, 0.0], [float("nan"), 0.0]]).double()
    const = torch.tensor([0.5, 0.1, 1.0]).double()
    low, high = clipped(lower, upper, coeff, const)
    assert (low > high).any(dim=1).tolist() == [True, True, False]


def test_clauses_clip_together_and_alternatives_join() -> None:
    """A clause is the intersection of its rows, the box must hold every clause's part."""
    lower, upper = torch.zeros(1, 2).double(), torch.ones(1, 2).double()
    # Clause 0: x <= 0.25 and y <= 0.25. Clause 1: x >= 0.75. Clause 2: x <= 0.4 and x >= 0.6.
    coeff = torch.tensor([[[1, 0], [0, 1], [-1, 0], [1, 0], [-1, 0]]]).double()
    const = torch.tensor([[-0.25, -0.25, 0.75, -0.4, 0.6]]).double()
    clauses = [[0, 1], [2], [3, 4]]
    every = torch.ones(1, 3, dtype=torch.bool)
    low, high, still = hull(lower, upper, coeff, const, clauses, every)
    assert still.tolist() == [[True, True, False]]
    assert (low.tolist(), high.tolist()) == ([[0.0, 0.0]], [[1.0, 1.0]])
    first = torch.tensor([[True, False, False]])
    low, high, still = hull(lower, upper, coeff, const, clauses, first)
    assert float(high.max()) < 0.2501
    assert still.tolist() == [[True, False, False]]


def test_rounding_to_float32_goes_outward() -> None:
    """down(x) <= x <= up(x), both float32, neighbours or equal."""
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.cat((values, values.float().double(), torch.tensor([0.0, 1e-46, -1e-46, 1e39])))
    assert (down(values) <= values).all()
    assert (up(values) >= values).all()
    exact = values.float().double() == values
    assert (down(values)[exact] == values[exact]).all()
    assert (up(values)[exact] == values[exact]).all()
