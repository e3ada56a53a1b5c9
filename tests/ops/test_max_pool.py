"""Max pooling of all settings: values against torch, lines against sampled windows."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.contracts.samples import SAMPLES, node
from verify.graph.ir import Node
from verify.ops.registry import lookup
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation

POOL = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


@st.composite
def poolings(draw: st.DrawFn) -> Node:
    """One to three dimensions; pads on either side smaller than the kernel, as ONNX has them."""
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    kernel = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    dilation = tuple(draw(st.sampled_from([1, 1, 2])) for _ in range(rank))
    pads = tuple(draw(st.integers(0, k - 1)) for k in (*kernel, *kernel))
    spatial = tuple(
        d * (k - 1) + 1 + draw(st.integers(0, 3)) for k, d in zip(kernel, dilation, strict=True)
    )
    stride = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    given_settings = {"kernel": kernel, "stride": stride, "pads": pads, "dilation": dilation}
    return node("MaxPool", (draw(st.integers(1, 2)), *spatial), settings=given_settings)


def boxes(sample: Node, seed: int) -> Bounds:
    """Bounds with points, nested and apart intervals, and ties, whole numbers among them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (6, *sample.input_shapes[0])
    centre = torch.randn(shape, generator=generator, dtype=torch.float64)
    width = torch.rand(shape, generator=generator, dtype=torch.float64)
    width[0], width[1], width[2] = 0.0, width[1] * 1e-9, width[2] * 1e6
    centre[3], width[3] = centre[3].round(), width[3].round()
    return Bounds(centre - width, centre + width)


def values(sample: Node, x: Tensor) -> Tensor:
    """Pooling by torch, with -inf for padding."""
    rank = len(sample.shape) - 1
    pads = sample.settings["pads"]
    order = [pads[axis + rank * side] for axis in reversed(range(rank)) for side in (0, 1)]
    padded = functional.pad(x, order, value=float("-inf"))
    kernel, stride = sample.settings["kernel"], sample.settings["stride"]
    found: Tensor = POOL[rank](padded, kernel, stride, dilation=sample.settings["dilation"])
    return found


def line_gaps(sample: Node, x: Bounds, lines: Relaxation, z: Tensor) -> tuple[Tensor, Tensor]:
    """value - lower line and upper line - value, at points (count, batch, *input)."""
    assert lines.lower_source is not None
    assert lines.upper_source is not None
    assert lines.upper_offset is not None
    value = values(sample, z.flatten(0, 1)).unflatten(0, z.shape[:2]).flatten(2)
    flat = z.flatten(2)
    low = flat.gather(2, lines.lower_source.expand(len(z), -1, -1))
    high = flat.gather(2, lines.upper_source.expand(len(z), -1, -1))
    upper = lines.upper_slope.flatten(1) * high + lines.upper_offset.flatten(1)
    return value - lines.lower_slope.flatten(1) * low, upper - value


@given(poolings(), st.integers(0, 9))
@settings(max_examples=80)
def test_values_intervals_and_lines_are_those_of_the_windows(sample: Node, seed: int) -> None:
    """Against torch at 100 points of each box, corners among them."""
    x = boxes(sample, seed)
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(100, *x.lower.shape, generator=generator, dtype=torch.float64)
    share = torch.where(torch.rand(share.shape, generator=generator) < 0.5, share.round(), share)
    z = torch.lerp(x.lower.expand_as(share), x.upper.expand_as(share), share)
    z = torch.minimum(torch.maximum(z, x.lower), x.upper)
    rules = lookup(sample)
    value = values(sample, z[0])
    torch.testing.assert_close(rules.forward(sample, z[0]), value, rtol=0, atol=0)
    found = rules.interval(sample, x)
    torch.testing.assert_close(found.lower, values(sample, x.lower), rtol=0, atol=0)
    torch.testing.assert_close(found.upper, values(sample, x.upper), rtol=0, atol=0)
    assert rules.relax is not None
    lines = rules.relax(sample, x, None)
    below, above = line_gaps(sample, x, lines, z)
    assert bool((below >= 0).all())
    # Evaluating slope·z + offset in float64 loses two roundings.
    size = 1e-15 * x.magnitude().flatten(1).amax(dim=1)[:, None]
    assert bool((above >= -size).all())


def test_lines_are_what_is_pulled_back() -> None:
    """A·pool(x) is at least the pulled-back form at x, for random A."""
    for i, sample in enumerate(SAMPLES["MaxPool"]):
        x = boxes(sample, i)
        rules = lookup(sample)
        assert rules.relax is not None
        lines = rules.relax(sample, x, None)
        generator = torch.Generator().manual_seed(i)
        coeff = torch.randn(6, 4, *sample.shape, generator=generator, dtype=torch.float64)
        (form,) = rules.pull_back(sample, LinearForm(coeff, torch.zeros(6, 4).double()), lines)
        for _ in range(50):
            share = torch.rand(x.lower.shape, generator=generator, dtype=torch.float64)
            z = torch.lerp(x.lower, x.upper, share)
            exact = torch.einsum("brn,bn->br", coeff.flatten(2), values(sample, z).flatten(1))
            least = torch.einsum("brn,bn->br", form.coeff.flatten(2), z.flatten(1)) + form.const
            assert bool((least <= exact + 1e-9).all())


def test_a_window_without_undecided_entries_has_one_line() -> None:
    """If no entry of a window is worth a row, its two lines are the same function."""
    for i, sample in enumerate(SAMPLES["MaxPool"]):
        x = boxes(sample, i)
        rules = lookup(sample)
        assert rules.relax is not None
        assert rules.undecided is not None
        wanted = rules.undecided(sample, x).to(torch.float64)
        touched = values(sample, wanted).flatten(1) > 0
        lines = rules.relax(sample, x, None)
        z = torch.lerp(x.lower, x.upper, 0.3)[None]
        below, above = line_gaps(sample, x, lines, z)
        gap = (below + above)[0]
        assert bool((gap[~touched] <= 1e-9).all())
