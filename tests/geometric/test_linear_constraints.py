"""Constraints hold for what torch executes, everywhere in the box; and they are tight."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.geometric.linear_constraints import PixelForms, pixel_forms
from verify.geometric.transforms import Transform, parse_transform

TEXTS = (
    "rotation(-4,3)",
    "translation_x(-1,1)",
    "shear(-.2,.3)",
    "scale(.8,1.1)",
    "translation(-1,1)",
    "rotation(80,95)",
    "translation_y(5,12)",
    "rotation(-30,30) scale(.7,1.3)",
    "contrast(.8,1.3) brightness(-.2,.1)",
    "rotation(-2,2) brightness(-.1,.1) contrast(.9,1.1)",
    "scale(.95,1.05) rotation(-5,5) contrast(.95,1.05) brightness(-.01,.01)",
    "shear(-.02,.02,-.1,.1) rotation(-2,2) scale(.9,1.1,1,1.2) translation(-.5,.5)",
)


def images(kind: str, *shape: int) -> torch.Tensor:
    """Smooth, noisy, striped, single pixels: what has tripped other tools."""
    noise = torch.rand(*shape, generator=torch.Generator().manual_seed(5))
    column = torch.arange(shape[2]).expand(shape)
    row = torch.arange(shape[1])[:, None].expand(shape)
    return {
        "noise": noise,
        "columns": (column % 2).float(),
        "rows": (row % 2).float(),
        "border": ((column == 0) | (row == shape[1] - 1)).float(),
        "ramp": (column + 2 * row).float() / (shape[1] * 2 + shape[2]),
    }[kind]


def adversarial(transform: Transform, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Ends, centre, +-0, whole and half numbers, and random points of a box."""
    rows = torch.rand(60, len(low), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    special = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0]).double()[:, None]
    grid = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None].expand(-1, len(low))
    corners = (torch.arange(2 ** len(low))[:, None] >> torch.arange(len(low))) & 1
    unit = torch.cat((rows, grid, corners.double()))
    inside = torch.minimum(torch.maximum(special.expand(-1, len(low)), low), high)
    return torch.cat((low + unit * (high - low), inside))


def at(forms: PixelForms, low: torch.Tensor, high: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Lower and upper forms of the first box at parameters, shape (2, sample, *input)."""
    t = ((x - (low + high) / 2) / ((high - low) / 2).clamp(min=1e-300)).clamp(-1, 1)
    ones = torch.cat((torch.ones(len(x), 1, dtype=torch.float64), t), dim=1)
    both = torch.stack((forms.lower[0], forms.upper[0]))
    return torch.einsum("sk,bkchw->bschw", ones, both)


def violation(
    forms: PixelForms,
    transform: Transform,
    image: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    points: torch.Tensor,
) -> float:
    """How far executions leave the forms or the bounds at most; <= 0 is sound."""
    worst = -1.0
    lower, upper = at(forms, low, high, points)
    for dtype in (torch.float32, torch.float64):
        many = image.to(dtype).expand(len(points), -1, -1, -1)
        seen = transform(many, points).double()
        for under, over in ((lower, upper), (forms.bounds.lower, forms.bounds.upper)):
            worst = max(worst, float((under - seen).max()), float((seen - over).max()))
    return worst


@pytest.mark.parametrize("kind", ["noise", "columns", "rows", "border", "ramp"])
@pytest.mark.parametrize("text", TEXTS)
def test_no_execution_leaves_the_constraints(text: str, kind: str) -> None:
    """At ends, cell borders and random points, in float32 and float64, on hostile images."""
    transform, image = parse_transform(text), images(kind, 2, 6, 9)
    low, high = transform.low, transform.high
    forms = pixel_forms(transform, image, low[None], high[None])
    assert violation(forms, transform, image, low, high, adversarial(transform, low, high)) <= 0


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(TEXTS), st.integers(0, 10**6), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_any_part_of_the_range_is_bounded(text: str, seed: int, a: float, b: float) -> None:
    """Boxes inside the range, narrow and empty ones too."""
    transform = parse_transform(text)
    image = torch.rand(1, 7, 5, generator=torch.Generator().manual_seed(seed)) * 2 - 0.5
    room = transform.high - transform.low
    low, high = transform.low + min(a, b) * room, transform.low + max(a, b) * room
    forms = pixel_forms(transform, image, low[None], high[None], segments=2 + 2 * (seed % 3))
    assert violation(forms, transform, image, low, high, adversarial(transform, low, high)) <= 0


def test_boxes_do_not_depend_on_each_other() -> None:
    """A box among others gets the constraints it gets alone."""
    transform, image = parse_transform("rotation(-9,9) scale(.9,1.1)"), images("noise", 1, 6, 6)
    low = torch.tensor([[-9.0, 0.9], [1.0, 1.0], [3.0, 0.95]], dtype=torch.float64)
    high = torch.tensor([[9.0, 1.1], [1.5, 1.0], [4.0, 1.0]], dtype=torch.float64)
    alone = pixel_forms(transform, image, low[1:2], high[1:2])
    among = pixel_forms(transform, image, low, high)
    torch.testing.assert_close(among.lower[1], alone.lower[0], atol=1e-12, rtol=0)
    torch.testing.assert_close(among.upper[1], alone.upper[0], atol=1e-12, rtol=0)


def test_a_translation_along_one_axis_within_a_cell_is_exact() -> None:
    """There the pixels are affine in the parameter: the gap is rounding alone."""
    transform, image = parse_transform("translation_x(0.25,0.75)"), images("noise", 1, 8, 8)
    forms = pixel_forms(transform, image, transform.low[None], transform.high[None])
    assert float((forms.upper - forms.lower)[:, 0].max()) < 5e-5
    torch.testing.assert_close(forms.upper[:, 1], forms.lower[:, 1], atol=1e-4, rtol=0)


def test_brightness_and_contrast_are_exact_where_nothing_clamps() -> None:
    """They are affine in their parameters on a fixed image, up to their product."""
    transform = parse_transform("contrast(.9,1.1) brightness(-.05,.05)")
    image = images("noise", 1, 5, 5) * 0.5 + 0.2
    forms = pixel_forms(transform, image, transform.low[None], transform.high[None])
    assert float((forms.upper - forms.lower)[:, 0].max()) < 5e-6


def test_forms_tighten_with_the_square_of_the_width() -> None:
    """On a smooth image the gap of a box falls fourfold as it is halved."""
    transform, image = parse_transform("rotation(-20,20) scale(.5,1.5)"), images("noise", 1, 12, 12)
    gaps = []
    for width in (0.02, 0.01):
        half = torch.tensor([[20 * width, 0.2 * width]], dtype=torch.float64)
        centre = torch.tensor([[3.3, 1.07]], dtype=torch.float64)
        forms = pixel_forms(transform, image, centre - half, centre + half)
        gaps.append(float((forms.upper - forms.lower)[:, 0].median()))
    assert gaps[1] < gaps[0] / 2.5


def test_pixel_noise_widens_everything_by_as_much() -> None:
    """On top of the transformation, after the clamp."""
    transform, image = parse_transform("rotation(-1,1) brightness(0,.1)"), images("noise", 1, 6, 6)
    plain = pixel_forms(transform, image, transform.low[None], transform.high[None])
    noisy = pixel_forms(transform, image, transform.low[None], transform.high[None], noise=0.03)
    assert np.allclose(noisy.upper[:, 0], plain.upper[:, 0] + 0.03)
    assert np.allclose(noisy.bounds.lower, plain.bounds.lower - 0.03)
