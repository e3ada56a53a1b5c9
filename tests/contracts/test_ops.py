"""Every registered operator keeps the contract of `verify.ops.registry.Op`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.contracts.samples import EVERY, POSITIVE, SAMPLES
from verify.graph.ir import Node
from verify.ops.registry import REGISTRY, lookup
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm

AFFINE = [(op, i) for op, i in EVERY if REGISTRY[op].relax is None]


def around(node: Node, seed: int, batch: int = 2, width: float = 1.0) -> tuple[Bounds, ...]:
    """Random bounds of a node's inputs; a quarter of the entries are points."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for shape in node.input_shapes:
        centre = torch.randn(batch, *shape, generator=generator, dtype=torch.float64)
        size = width * torch.rand(batch, *shape, generator=generator, dtype=torch.float64)
        size = size * (torch.rand(batch, *shape, generator=generator) > 0.25)
        if node.op in POSITIVE:
            centre = centre.abs() + size + 1e-3
        found.append(Bounds(centre - size, centre + size))
    return tuple(found)


def inside(bounds: Bounds, count: int, seed: int) -> Tensor:
    """Points of a box, many of them at its ends; shape (count, batch, *node)."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(count, *bounds.lower.shape, generator=generator, dtype=torch.float64)
    share = (1.5 * share - 0.25).clamp(0, 1)
    share[0], share[1] = 0.0, 1.0
    return torch.lerp(bounds.lower.expand_as(share), bounds.upper.expand_as(share), share)


def forward(node: Node, points: tuple[Tensor, ...]) -> Tensor:
    """The node at points of shape (count, batch, *input)."""
    count, batch = points[0].shape[:2]
    value = lookup(node).forward(node, *(p.flatten(0, 1) for p in points))
    return value.unflatten(0, (count, batch))


def test_every_operator_has_a_sample() -> None:
    """An operator without a sample would be in no contract: write one in samples.py."""
    assert set(SAMPLES) == set(REGISTRY)
    assert all(SAMPLES.values())


@pytest.mark.parametrize(("op", "i"), EVERY)
def test_interval_encloses_sampled_values(op: str, i: int) -> None:
    """1,000 points of a random box, ends included, stay in the interval rule's box."""
    node = SAMPLES[op][i]
    if op == "Input":
        return
    boxes = around(node, i)
    found = lookup(node).interval(node, *boxes)
    values = forward(node, tuple(inside(box, 1000, k) for k, box in enumerate(boxes)))
    slack = 1e-13 * (1 + values.abs().amax())  # the rule is plain arithmetic; noise is apart
    assert bool((values >= found.lower - slack).all())
    assert bool((values <= found.upper + slack).all())


@pytest.mark.parametrize(("op", "i"), EVERY)
def test_interval_of_a_point_is_its_value(op: str, i: int) -> None:
    """No rule is loose on a box without width."""
    node = SAMPLES[op][i]
    if op == "Input":
        return
    points = tuple(box.lower for box in around(node, i))
    found = lookup(node).interval(node, *(Bounds(p, p) for p in points))
    value = lookup(node).forward(node, *points)
    torch.testing.assert_close(found.lower, value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.upper, value, rtol=1e-12, atol=1e-12)


def adjoint_gap(node: Node, seed: int) -> float:
    """The largest difference of A·f(x) + c and the pulled-back forms at x."""
    generator = torch.Generator().manual_seed(seed)
    xs = [torch.randn(2, *s, generator=generator, dtype=torch.float64) for s in node.input_shapes]
    coeff = torch.randn(2, 5, *node.shape, generator=generator, dtype=torch.float64)
    const = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    pieces = lookup(node).pull_back(node, LinearForm(coeff, const), None)
    assert len(pieces) == len(xs)
    y = lookup(node).forward(node, *xs)
    expected = torch.einsum("brn,bn->br", coeff.flatten(2), y.flatten(1)) + const
    found = torch.zeros_like(expected)
    for piece, x in zip(pieces, xs, strict=True):
        assert piece.coeff.shape == (2, 5, *x.shape[1:])
        found = found + torch.einsum("brn,bn->br", piece.coeff.flatten(2), x.flatten(1))
        found = found + piece.const
    return float((found - expected).abs().max())


@pytest.mark.parametrize(("op", "i"), [case for case in AFFINE if case[0] != "Input"])
def test_pull_back_of_an_affine_operator_is_its_adjoint(op: str, i: int) -> None:
    """A·f(x) + c is the sum of the pulled-back forms at x, for random A, c and x."""
    assert adjoint_gap(SAMPLES[op][i], i) < 1e-11


def test_the_adjoint_test_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transposition that is not undone is noticed."""

    def forgotten(_node: Node, form: LinearForm, _lines: None) -> tuple[LinearForm]:
        return (LinearForm(form.coeff.reshape(2, 5, 2, 3, 4), form.const),)

    monkeypatch.setitem(REGISTRY, "Transpose", replace(REGISTRY["Transpose"], pull_back=forgotten))
    assert adjoint_gap(SAMPLES["Transpose"][0], 0) > 0.1


@pytest.mark.parametrize(("op", "i"), [case for case in EVERY if REGISTRY[case[0]].rows])
def test_rows_are_pulled_back_one_hot_rows(op: str, i: int) -> None:
    """The short cut lays out what the adjoint of a one-hot row gives."""
    node = SAMPLES[op][i]
    if op == "Gemm" and len(node.shape) > 1:
        pytest.skip("rows of a Gemm are of single matrices only, as documented")
    rule = lookup(node).rows
    assert rule is not None
    every = torch.eye(node.size, dtype=torch.float64).view(1, node.size, *node.shape)
    (pulled,) = lookup(node).pull_back(
        node, LinearForm(every, torch.zeros(1, node.size).double()), None
    )
    torch.testing.assert_close(rule(node, torch.arange(node.size)), pulled.coeff[0])
    index = torch.tensor([[node.size - 1, 0], [0, node.size // 2]])
    torch.testing.assert_close(rule(node, index), pulled.coeff[0][index])


@pytest.mark.parametrize(("op", "i"), EVERY)
def test_rules_accept_every_batch_size(op: str, i: int) -> None:
    """A batch of three is three times a batch of one."""
    node = SAMPLES[op][i]
    if op == "Input":
        return
    boxes = around(node, i, batch=3)
    together = lookup(node).interval(node, *boxes)
    for k in range(3):
        alone = lookup(node).interval(node, *(box.take(torch.tensor([k])) for box in boxes))
        torch.testing.assert_close(alone.lower[0], together.lower[k])
        torch.testing.assert_close(alone.upper[0], together.upper[k])
