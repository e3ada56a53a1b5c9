"""Rows pulled through convolutions in float32: what it costs stays within what it is charged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.bounders.test_cone import detector, problem
from tests.nets import convolution
from verify.bounders import backward
from verify.bounders.crown import Crown
from verify.graph.ir import Node
from verify.graph.passes import single_node
from verify.ops.affine import single_noise
from verify.ops.conv import forward, is_single, pulled_single
from verify.ops.registry import lookup, noise_of
from verify.readers.builder import GraphBuilder
from verify.traverse import propagate
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.rounding import FLOAT32, UNIT_FLOAT32, gamma


def node_of(channels: int, kernel: int, stride: int, seed: int) -> Node:
    """A convolution with weights that float32 does not hold."""
    builder = GraphBuilder("x", (channels, 8, 8))
    generator = torch.Generator().manual_seed(seed)
    settings = {"kernel": kernel, "stride": stride, "padding": kernel // 2}
    name = convolution(builder, "x", 5, "conv", generator, **settings)
    return builder.build(name).node(name)


def rows_of(node: Node, kind: str, seed: int) -> Tensor:
    """Rows of ordinary size, of entries 80 orders of magnitude apart, or tiny ones, or zeros."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(6, *node.shape, generator=generator, dtype=torch.float64)
    if kind == "spread":
        rows *= 10.0 ** torch.randint(-80, 1, rows.shape, generator=generator)
    if kind == "tiny":
        rows *= 1e-200
    if kind == "huge":
        rows *= 1e200
    rows[0] = 0
    return rows


@pytest.mark.parametrize("kind", ["plain", "spread", "tiny", "huge"])
@pytest.mark.parametrize(("channels", "kernel", "stride"), [(3, 3, 1), (1, 1, 1), (4, 3, 2)])
def test_float32_rows_are_off_by_less_than_their_noise(
    kind: str, channels: int, kernel: int, stride: int
) -> None:
    """The worst x with |x| <= X: what rows lose there is at most |A| · noise."""
    for seed in range(5):
        node = node_of(channels, kernel, stride, seed)
        rows = rows_of(node, kind, seed)
        size = torch.rand(1, *node.input_shapes[0], generator=torch.Generator().manual_seed(seed))
        bounds = Bounds(-size.double() * 7, size.double() * 7)
        exact, off = lost(node, rows, bounds)
        quick = noise_of(single_node(node), FLOAT32, torch.float64, (bounds,))
        usual = noise_of(node, FLOAT32, torch.float64, (bounds,))
        assert quick is not None
        assert usual is not None
        charged = (rows.abs() * (quick - usual)).flatten(1).sum(dim=1)
        assert bool((off <= charged).all())
        assert bool((exact[1:] > 0).all())


def lost(node: Node, rows: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """|A·W|·X and |A·W - computed|·X of every row."""
    (exact,) = lookup(node).pull_back(node, form(rows), None)
    settings = {key: node.settings[key] for key in ("stride", "padding")}
    reached = [
        (out - 1) * s - 2 * p + k
        for out, s, p, k in zip(
            node.shape[1:],
            settings["stride"],
            settings["padding"],
            node.tensors["weight"].shape[2:],
            strict=True,
        )
    ]
    more = tuple(n - r for n, r in zip(node.input_shapes[0][1:], reached, strict=True))
    found = pulled_single(rows, node, output_padding=more, **settings)
    size = bounds.magnitude()
    off = ((exact.coeff[:, 0] - found).abs() * size).flatten(1).sum(dim=1)
    return (exact.coeff[:, 0].abs() * size).flatten(1).sum(dim=1), off


def form(rows: Tensor):  # type: ignore[no-untyped-def]
    """The rows as a linear form, one batch entry each."""
    from verify.values.linear_form import LinearForm

    return LinearForm(rows[:, None], torch.zeros(len(rows), 1, dtype=torch.float64))


def test_the_charge_is_not_idle() -> None:
    """The mutant that charges underflow alone is caught: rows do lose more than that."""
    node = node_of(3, 3, 1, 0)
    rows = rows_of(node, "plain", 0)
    bounds = Bounds(-torch.ones(1, *node.input_shapes[0]).double(), torch.ones(1, 3, 8, 8).double())
    _, off = lost(node, rows, bounds)
    zero = torch.zeros(1, *node.shape, dtype=torch.float64)
    mutant = single_noise(node, zero, torch.ones(1, dtype=torch.float64), 45)
    assert bool((off[1:] > (rows.abs() * mutant).flatten(1).sum(dim=1)[1:]).all())


def test_the_charge_is_that_of_n_products() -> None:
    """gamma_{n + 10} of what reaches the node."""
    node = node_of(1, 1, 1, 0)
    reach = torch.ones(1, *node.shape, dtype=torch.float64)
    found = single_noise(node, reach, torch.ones(1, dtype=torch.float64), 5)
    assert float(found.min()) >= gamma(15, UNIT_FLOAT32)
    assert float(found.max()) < gamma(15, UNIT_FLOAT32) * (1 + 1e-9)


def test_nodes_that_are_not_finite_prove_nothing() -> None:
    """NaN and infinity in a row come out as such."""
    node = node_of(3, 3, 1, 0)
    rows = rows_of(node, "plain", 0)
    rows[1, 0, 4, 4], rows[2, 0, 4, 4] = torch.nan, torch.inf
    found = pulled_single(rows, node, stride=(1, 1), padding=(1, 1))
    assert not bool(torch.isfinite(found[1]).all())
    assert not bool(torch.isfinite(found[2]).all())


def test_neurons_bounded_in_float32_hold_for_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crown with and without float32: bounds hold, and margins differ by rounding alone."""
    asked = problem(detector(4), (0, 9))
    usual = Crown(rounding=FLOAT32)(asked, Budget())
    monkeypatch.setattr(backward, "WORTH_SINGLE", 0)
    quick = Crown(rounding=FLOAT32)(asked, Budget())
    assert not torch.equal(quick.margin, usual.margin)
    torch.testing.assert_close(quick.margin, usual.margin, rtol=1e-4, atol=1e-4)
    generator = torch.Generator().manual_seed(0)
    box = asked.region.bounds()
    spots = torch.rand(200, *box.lower.shape[1:], generator=generator, dtype=torch.float64)
    x = box.lower + (box.upper - box.lower) * spots
    for name, values in propagate(asked.graph, Bounds(x, x)).items():
        assert bool((values.upper >= quick.bounds[name].lower).all()), name
        assert bool((values.lower <= quick.bounds[name].upper).all()), name


def test_forward_is_not_touched() -> None:
    """A node marked so computes what it did."""
    node = node_of(3, 3, 1, 1)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    assert torch.equal(forward(node, x), forward(single_node(node), x))


def test_no_rows_in_float32_where_it_may_be_something_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch may use bfloat16 for float32, rows stay in float64."""
    node = single_node(node_of(3, 3, 1, 0))
    rows = rows_of(node, "plain", 0)
    assert is_single(node, rows)
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    assert not is_single(node, rows)
    monkeypatch.delenv("ONEDNN_DEFAULT_FPMATH_MODE")
    setting = getattr(torch.backends.mkldnn, "conv")  # noqa: B009
    before = setting.fp32_precision
    try:
        setting.fp32_precision = "bf16"
        assert not is_single(node, rows)
    finally:
        setting.fp32_precision = before
    assert is_single(node, rows)
