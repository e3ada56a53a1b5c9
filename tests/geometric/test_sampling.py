"""Points that torch samples at lie within the model's reach, float32 rounding included."""

import pytest
import torch
from torch.nn import functional

from verify.geometric.linear_constraints import pixel_forms
from verify.geometric.sampling import Cells, sampled
from verify.geometric.transforms import parse_transform


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("height", "width"), [(7, 8), (8, 9), (2, 15)])
@pytest.mark.parametrize("text", ["scale(.01,.01)", "shear(0,0,300,300)", "rotation(90,90)"])
def test_executed_points_are_within_reach(
    text: str, height: int, width: int, align_corners: bool
) -> None:
    """Pixels in the middle too, where the base grid is not exactly 0 but rounded."""
    transform = parse_transform(text)
    low = transform.low[None]
    model = sampled(transform, Cells.between(low, low), height, width)
    less = 1 if align_corners else 0
    unit = torch.tensor([(width - less) / 2, (height - less) / 2, 1.0], dtype=torch.float64)
    theta = (transform.matrices(low) * unit / unit[:, None])[:, :2].float()
    shape = [1, 1, height, width]
    grid = functional.affine_grid(theta, shape, align_corners=align_corners).double()
    points = grid[0].flatten(0, 1).T * unit[:2, None]
    assert bool(((points - model.middle[0]).abs() <= model.reach[0]).all())


@pytest.mark.parametrize("text", ["rotation(7,7)", "scale(.9,.9) rotation(11,11)"])
def test_the_rounding_of_interpolation_is_charged(text: str) -> None:
    """A flat image has no gradient: its values move by the rounding of weights and sums alone."""
    transform, image = parse_transform(text), torch.full((1, 12, 12), 0.7)
    low = transform.low[None]
    forms = pixel_forms(transform, image, low, low)
    seen = transform(image[None], low).double()[0]
    for lower, upper in (
        (forms.lower[0, 0], forms.upper[0, 0]),
        (forms.bounds.lower[0], forms.bounds.upper[0]),
    ):
        assert bool((lower <= seen).all())
        assert bool((seen <= upper).all())
