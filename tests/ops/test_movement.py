"""Data movement of all settings, against numpy; adjoints against the matrix of the movement."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contracts.samples import node, pad, select
from verify.graph.ir import Node
from verify.ops.registry import lookup
from verify.values.linear_form import LinearForm

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


def check(found: Node, expected: np.ndarray, x: torch.Tensor) -> None:
    """Forward is what numpy says; pulled-back one-hot rows read the same entries."""
    value = lookup(found).forward(found, x)
    np.testing.assert_array_equal(value.numpy(), expected)
    assert tuple(value.shape[1:]) == found.shape
    every = torch.eye(found.size, dtype=torch.float64).view(1, found.size, *found.shape)
    form = LinearForm(every, torch.zeros(1, found.size, dtype=torch.float64))
    (pulled,) = lookup(found).pull_back(found, form, None)
    read = x.flatten(1) @ pulled.coeff[0].flatten(1).T + pulled.const
    np.testing.assert_allclose(read.numpy(), value.flatten(1).numpy(), rtol=1e-14)


def inputs(shape: tuple[int, ...]) -> torch.Tensor:
    """Two samples."""
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(len(shape))).double()


@given(SHAPES, st.data())
@settings(max_examples=60)
def test_pad_agrees_with_numpy(shape: tuple[int, ...], data: st.DataObject) -> None:
    """Constant padding, and negative pads that crop."""
    pairs = [
        (data.draw(st.integers(-((n - 1) // 2), 2)), data.draw(st.integers(-((n - 1) // 2), 2)))
        for n in shape
    ]
    value = data.draw(st.sampled_from([0.0, -0.5, 3.0]))
    x = inputs(shape)
    widths = [(0, 0)] + [(max(0, a), max(0, b)) for a, b in pairs]
    expected = np.pad(x.numpy(), widths, constant_values=value)
    for axis, (a, b) in enumerate(pairs):
        stop = expected.shape[axis + 1] - max(0, -b)
        expected = expected.take(range(max(0, -a), stop), axis=axis + 1)
    check(pad(shape, (*(a for a, _ in pairs), *(b for _, b in pairs)), value), expected, x)


@given(SHAPES, st.data())
@settings(max_examples=60)
def test_select_agrees_with_numpy(shape: tuple[int, ...], data: st.DataObject) -> None:
    """Any entries in any order, also several times or not at all."""
    axis = data.draw(st.integers(0, len(shape) - 1))
    index = tuple(data.draw(st.lists(st.integers(0, shape[axis] - 1), min_size=1, max_size=5)))
    x = inputs(shape)
    check(select(shape, axis, index), np.take(x.numpy(), index, axis=axis + 1), x)


@given(SHAPES, st.data())
@settings(max_examples=40)
def test_transpose_agrees_with_numpy(shape: tuple[int, ...], data: st.DataObject) -> None:
    """Any permutation."""
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    x = inputs(shape)
    expected = np.transpose(x.numpy(), (0, *(axis + 1 for axis in perm)))
    check(node("Transpose", shape, settings={"perm": perm}), expected, x)
