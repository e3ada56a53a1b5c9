"""Errors that other certifiers have made: each is put in on purpose, and the tests notice it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.geometric_points import crossings
from tests.geometric.test_linear_constraints import adversarial, images, violation
from verify.geometric import linear_constraints, pixel_bounds
from verify.geometric.linear_constraints import pixel_forms
from verify.geometric.pixel_bounds import RINGS, Gradients, Picture, gradients
from verify.geometric.transforms import parse_transform
from verify.values.bounds import Bounds

Patch = pytest.MonkeyPatch


def worst(text: str, image: Tensor, segments: int = 2) -> float:
    """How far executions leave the constraints over a whole range, at adversarial parameters."""
    transform = parse_transform(text)
    low, high = transform.low, transform.high
    forms = pixel_forms(transform, image, low[None], high[None], segments=segments)
    points = torch.cat((adversarial(transform, low, high), crossings(transform, image.shape)))
    return violation(forms, transform, image, low, high, points)


@pytest.mark.parametrize(
    "text",
    [
        "rotation(-25,20)",
        "rotation(0,40)",
        "scale(.7,1.5)",
        "shear_y(-.3,.3)",
        "translation(-2,1)",
        "translation_x(-3,-1)",
        "rotation(-9,9) scale(.9,1.2)",
        "translation(-1,1) rotation(-4,4) contrast(.9,1.1)",
    ],
)
def test_cell_borders_are_within_the_constraints(text: str) -> None:
    """Where some pixel samples at a whole coordinate, or a bit beside it."""
    image = images("noise", 1, 8, 7)
    assert len(crossings(parse_transform(text), image.shape)) > 100
    assert worst(text, image) <= 0
    assert worst(text, image, segments=4) <= 0


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 7), (6, 9)])
def test_the_centre_is_that_of_the_pixels(height: int, width: int) -> None:
    """Half a turn is a flip, and no pixel falls off; about (n + 1) / 2 or n // 2 it is not."""
    transform, image = parse_transform("rotation(180,180)"), images("noise", 1, height, width)
    forms = pixel_forms(transform, image, transform.low[None], transform.high[None])
    flipped = image.flip(1, 2).double()
    assert bool((forms.bounds.lower[0] <= flipped).all())
    assert bool((flipped <= forms.bounds.upper[0]).all())
    # A point as exact as that: the mistaken flip, a pixel or half of one off, is excluded.
    beside = torch.roll(flipped, 1, dims=2)
    for wrong in (beside, (beside + flipped) / 2):
        assert bool((wrong > forms.bounds.upper[0]).any())


def test_swapped_axes_are_noticed(monkeypatch: Patch) -> None:
    """Differences along columns belong to movement along columns: stripes under a shear."""
    text, image = "shear_x(-.3,.3)", images("columns", 1, 8, 8)
    assert worst(text, image) <= 0

    def swapped(picture: Picture, middle: Tensor, reach: Tensor) -> Gradients:
        found = gradients(picture, middle, reach)
        return Gradients(found.down, found.across)

    monkeypatch.setattr(linear_constraints, "gradients", swapped)
    assert worst(text, image) > 0.01


def test_stripes_along_the_shear_do_not_move() -> None:
    """And nothing is charged for them inside the image: the axes are not merely joined."""
    transform, image = parse_transform("shear_x(-.3,.3)"), images("rows", 1, 8, 8)
    forms = pixel_forms(transform, image, transform.low[None], transform.high[None])
    inner = (forms.upper - forms.lower)[0, 0, 0, :, 3:5]
    assert float(inner.max()) < 1e-4


def test_cancelled_signs_are_noticed(monkeypatch: Patch) -> None:
    """|dv/dx|·dx/dt + |dv/dy|·dy/dt may vanish where the true rate does not."""
    text, image = "rotation(-20,20)", images("noise", 1, 9, 9)
    assert worst(text, image) <= 0

    def unsigned(picture: Picture, middle: Tensor, reach: Tensor) -> Gradients:
        found = gradients(picture, middle, reach)
        sizes = found.across.magnitude(), found.down.magnitude()
        return Gradients(*(Bounds(size, size) for size in sizes))

    monkeypatch.setattr(linear_constraints, "gradients", unsigned)
    assert worst(text, image) > 0.01


def test_a_missing_border_ring_is_noticed(monkeypatch: Patch) -> None:
    """A bright image falls to 0 within a pixel of its edge; its derivative there is not 0."""
    text, image = "translation_x(.2,1.7)", torch.ones(1, 6, 6)
    assert worst(text, image) <= 0

    def without(picture: Picture, middle: Tensor, reach: Tensor) -> Gradients:
        height, width = picture.height, picture.width
        padded = picture.padded.view(-1, height + 2 * RINGS, width + 2 * RINGS)
        inner = padded[:, RINGS:-RINGS, RINGS:-RINGS]
        filled = torch.nn.functional.pad(inner, (RINGS,) * 4, mode="replicate")
        return gradients(replace(picture, padded=filled.flatten(1)), middle, reach)

    monkeypatch.setattr(linear_constraints, "gradients", without)
    assert worst(text, image) > 0.01


def test_kinks_inside_a_rectangle_are_noticed(monkeypatch: Patch) -> None:
    """With several parameters: the corners of the rectangle alone do not bound what is between."""
    text, image = "translation(-1.4,1.4)", images("columns", 1, 7, 7)
    assert worst(text, image) <= 0
    monkeypatch.setattr(pixel_bounds, "cuts", lambda low, high, _size: [low, high])
    assert worst(text, image) > 0.01
