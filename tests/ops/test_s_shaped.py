"""Offsets of lines over Sigmoid and Tanh: valid for any slope, not only for chosen ones."""

from __future__ import annotations

import pytest
import torch

from tests.contracts.samples import SAMPLES
from tests.contracts.test_lines import excess, intervals
from verify.ops.s_shaped import CURVES, rigorous_offset
from verify.values.relaxation import Relaxation


@pytest.mark.parametrize("op", CURVES)
@pytest.mark.parametrize("seed", range(3))
def test_any_slope_gets_an_offset_that_lifts_it_over_the_curve(op: str, seed: int) -> None:
    """Random slopes, negative and steep ones among them, and random points to touch at."""
    node, curve = SAMPLES[op][0], CURVES[op]
    x = intervals(node, seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (len(x.lower), 4, *node.shape)
    slope = 1.5 * torch.rand(shape, generator=generator, dtype=torch.float64) - 0.25
    share = torch.rand(shape, generator=generator, dtype=torch.float64)
    point = torch.lerp(x.lower[:, None].expand(shape), x.upper[:, None].expand(shape), share)
    upper = rigorous_offset(curve, x, slope, point)
    # A lower line far below, so that only the upper one is looked at.
    far = Relaxation(slope * 0, slope * 0 - 10.0, slope, upper)
    assert excess(node, x, far, 300) <= 0
    # And it is no looser than it has to be by more than the bend allows: it holds at some point
    # with a chord's slope.
    width = (x.upper - x.lower).clamp(min=1e-300)
    chord = ((curve.value(x.upper) - curve.value(x.lower)) / width)[:, None]
    convex = (x.upper <= 0) & (x.upper - x.lower > 1e-3)
    tight = rigorous_offset(curve, x, chord, x.upper[:, None])[:, 0]
    gap = chord[:, 0] * x.upper + tight - curve.value(x.upper)
    assert bool((gap[convex] <= 1e-13 * (1 + x.magnitude()[convex])).all())
