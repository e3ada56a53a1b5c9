"""Windows and phases against loops over cells."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from verify.values.window import Phases, Window


@dataclass(frozen=True)
class Laid:
    """A window over a map, and the size of its patches."""

    window: Window
    shape: tuple[int, int, int]
    kernel: tuple[int, int]


@st.composite
def windows(draw: st.DrawFn) -> Laid:
    """Places that differ between batch entries; patches that overhang on any side."""
    grid = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    batch, places = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    flat = st.lists(st.integers(0, grid[0] * grid[1] - 1), min_size=places, max_size=places)
    place = torch.tensor([draw(flat) for _ in range(batch)])
    window = Window(
        place,
        draw(st.integers(1, 2)),
        grid,
        (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        (draw(st.integers(-3, 2)), draw(st.integers(-3, 2))),
    )
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    return Laid(window, shape, (draw(st.integers(1, 4)), draw(st.integers(1, 4))))


def patch(laid: Laid, values: Tensor, place: int) -> Tensor:
    """One patch of one map, cell by cell; 0 outside."""
    window, (height, width) = laid.window, laid.kernel
    top = (place // window.grid[1]) * window.stride[0] + window.offset[0]
    left = (place % window.grid[1]) * window.stride[1] + window.offset[1]
    found = values.new_zeros(values.shape[0], height, width)
    for i in range(height):
        for j in range(width):
            y, x = top + i, left + j
            if 0 <= y < values.shape[1] and 0 <= x < values.shape[2]:
                found[:, i, j] = values[:, y, x]
    return found


def maps(laid: Laid, batch: int) -> Tensor:
    """Random maps."""
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *laid.shape, generator=generator, dtype=torch.float64)


@given(windows(), st.booleans())
@settings(max_examples=100)
def test_gather_reads_each_entrys_own_places(laid: Laid, shared: bool) -> None:
    """One map per batch entry, or one for all of them, as constants of a network are."""
    place = laid.window.place
    values = maps(laid, 1 if shared else len(place))
    found = laid.window.gather(values, laid.kernel)
    assert found.shape == (len(place), 1, place.shape[1], laid.shape[0], *laid.kernel)
    for b in range(len(place)):
        for p in range(place.shape[1]):
            expected = patch(laid, values[0 if shared else b], int(place[b, p]))
            torch.testing.assert_close(found[b, 0, p], expected, rtol=0, atol=0)


def test_places_of_entry_0_for_all_are_caught() -> None:
    """The mutant that was once in `gather`: one shared map read at the first entry's places."""
    laid = Laid(Window(torch.tensor([[0], [3]]), 1, (2, 2), (1, 1), (0, 0)), (1, 2, 2), (1, 1))
    values = maps(laid, 1)
    found = laid.window.gather(values, laid.kernel)
    mutant = values.flatten(2)[0, 0, laid.window.place[0]]
    assert found.flatten().tolist() == [float(values[0, 0, 0, 0]), float(values[0, 0, 1, 1])]
    assert found[1].flatten().tolist() != mutant.tolist()


@given(windows())
@settings(max_examples=100)
def test_scatter_is_the_adjoint_of_gather(laid: Laid) -> None:
    """<scatter(A), v> = <A, gather(v)> for every map v: overhanging cells count for nothing."""
    window = laid.window
    batch, places = window.place.shape
    generator = torch.Generator().manual_seed(places)
    shape = (batch, window.repeats * places, laid.shape[0], *laid.kernel)
    coeff = torch.randn(shape, generator=generator, dtype=torch.float64)
    values = maps(laid, batch)
    dense = window.scatter(coeff, laid.shape)
    assert dense.shape == (batch, window.repeats * places, *laid.shape)
    left = torch.einsum("brn,bn->br", dense.flatten(2), values.flatten(1))
    blocks = coeff.unflatten(1, (window.repeats, places))
    right = (blocks * window.gather(values, laid.kernel)).flatten(3).sum(dim=3).flatten(1)
    torch.testing.assert_close(left, right)


@given(windows())
@settings(max_examples=60)
def test_inside_marks_the_cells_of_the_map(laid: Laid) -> None:
    """1 on the map and 0 beside it; `overhangs` is true whenever a grid position leaves the map."""
    window = laid.window
    found = window.inside(laid.shape, laid.kernel, torch.zeros(0, dtype=torch.float64))
    ones = torch.ones(laid.shape, dtype=torch.float64)
    for b in range(len(window.place)):
        for p in range(window.place.shape[1]):
            expected = patch(laid, ones, int(window.place[b, p]))[:1]
            torch.testing.assert_close(found[b, 0, p], expected)
    complete = all(
        bool((patch(laid, ones, k) == 1).all()) for k in range(window.grid[0] * window.grid[1])
    )
    assert window.overhangs(laid.shape, laid.kernel) == (not complete)


@given(windows(), st.integers(-2, 2), st.integers(-2, 2), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=100)
def test_the_union_of_two_windows_holds_both(
    laid: Laid, down: int, right: int, height: int, width: int
) -> None:
    """Grown coefficients lie on the union window where the plain ones lay on their own."""
    first = laid.window
    second = Window(first.place, first.repeats, first.grid, first.stride,
                    (first.offset[0] + down, first.offset[1] + right))  # fmt: skip
    generator = torch.Generator().manual_seed(height)
    rows = (len(first.place), first.repeats * first.place.shape[1], laid.shape[0])
    a = torch.randn(*rows, *laid.kernel, generator=generator, dtype=torch.float64)
    b = torch.randn(*rows, height, width, generator=generator, dtype=torch.float64)
    grown = first.grown(a, second, (height, width)) + second.grown(b, first, laid.kernel)
    found = first.union(second).scatter(grown, laid.shape)
    expected = first.scatter(a, laid.shape) + second.scatter(b, laid.shape)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("step", [2, 3])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (1, 0), (2, 1)])
def test_splitting_a_map_matches_joining_coefficients(step: int, top: int, left: int) -> None:
    """<joined(A), v> = <A, split(v)>: phases say the same of the map as its own cells."""
    generator = torch.Generator().manual_seed(step)
    shape, height, width = (2, 7, 5), 4, 4
    phases = Phases(step, top, left)
    coeff = torch.randn(2, 3, shape[0] * step * step, height, width, generator=generator).double()
    values = torch.randn(2, *shape, generator=generator).double()
    joined = phases.joined(coeff, shape)
    split = phases.split(values, height, width)
    found = torch.einsum("brn,bn->br", joined.flatten(2), values.flatten(1))
    expected = torch.einsum("brn,bn->br", coeff.flatten(2), split.flatten(1))
    torch.testing.assert_close(found, expected)
