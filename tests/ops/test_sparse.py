"""Picking few entries a column gives the product, also of NaN, and lets slopes through."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from verify.ops import sparse


def few(rows: int, columns: int, each: int, seed: int) -> Tensor:
    """A matrix with at most `each` entries a column and a row that are not 0, small integers."""
    make = torch.Generator().manual_seed(seed)
    weight = torch.zeros(rows, columns, dtype=torch.float64)
    for shift in range(each):
        entries = torch.randint(-4, 5, (columns,), generator=make).double()
        weight[(torch.arange(columns) * 7 + shift * 3) % rows, torch.arange(columns)] = entries
    return weight


@given(st.integers(128, 300), st.integers(128, 300), st.integers(1, 4), st.integers(0, 10**6))
def test_products_of_integers_are_the_dense_ones(
    rows: int, columns: int, each: int, seed: int
) -> None:
    """Integers are summed exactly in any order, so equality is to the bit."""
    weight = few(rows, columns, each, seed)
    make = torch.Generator().manual_seed(seed + 1)
    left = torch.randint(-9, 10, (2, 3, rows), generator=make).double()
    right = torch.randint(-9, 10, (2, 3, columns), generator=make).double()
    bias = torch.randint(-9, 10, (rows,), generator=make).double()
    assert torch.equal(sparse.times(left, weight), left @ weight)
    assert torch.equal(sparse.linear(right, weight, bias), functional.linear(right, weight, bias))
    assert torch.equal(sparse.linear(right, weight), right @ weight.T)


def test_a_sparse_matrix_is_picked_and_a_dense_one_is_not() -> None:
    """By columns: few entries in all of them but one are not few."""
    weight = few(256, 256, 2, 0)
    assert sparse.columns_of(weight) is not None
    weight[:, 100] = 1.0
    assert sparse.columns_of(weight) is None
    assert sparse.columns_of(torch.ones(256, 256)) is None


def test_a_column_of_zeros_gives_zero() -> None:
    """Whatever row it is said to read."""
    weight = torch.zeros(256, 256)
    weight[3, 5] = 2.0
    found = sparse.times(torch.ones(4, 256), weight)
    assert float(found[:, 5].min()) == 2.0
    assert float(found.abs().sum()) == 8.0


def test_nan_weights_stay_nan() -> None:
    """They count as entries."""
    weight = few(256, 256, 1, 0)
    weight[9, 30] = torch.nan
    assert bool(sparse.times(torch.ones(1, 256, dtype=torch.float64), weight)[0, 30].isnan())


def test_slopes_pass() -> None:
    """An attack descends through the product."""
    weight = few(256, 192, 3, 1)
    x = torch.randn(5, 192, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad((sparse.linear(x, weight) ** 2).sum(), x)
    (wanted,) = torch.autograd.grad(((x @ weight.T) ** 2).sum(), x)
    assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-12)
