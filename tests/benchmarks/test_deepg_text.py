"""DeepG's words and ours sample the same points."""

import math

import pytest
import torch

from benchmarks.deepg_text import from_deepg
from verify.geometric.transforms import parse_transform


def turned(x: float, y: float, degrees: float) -> tuple[float, float]:
    phi = math.radians(degrees)
    return x * math.cos(phi) - y * math.sin(phi), x * math.sin(phi) + y * math.cos(phi)


# Text, a value of DeepG's parameters, ours, and where DeepG samples for the lattice point (6, -2).
ALONE = [
    ("Rotation(-10,20)", 20.0, (20.0,), turned(6, -2, 20)),
    ("Scale(0.8,1.25)", 1.25, (0.8,), (7.5, -2.5)),
    ("Shear(-0.1,0.5)", 0.5, (-0.5,), (6 - 2 * 0.5, -2.0)),
    ("Translation(-2,4,0,1)", 4.0, (-2.0, -0.5), (10.0, -1.0)),
]


@pytest.mark.parametrize(("text", "value", "ours", "expected"), ALONE)
def test_one_transformation_is_applied_as_it_stands(
    text: str, value: float, ours: tuple[float, ...], expected: tuple[float, float]
) -> None:
    """In lattice units, which are half pixels: x + value, s·x, x + value·y."""
    transform = parse_transform(from_deepg(text))
    parameters = torch.tensor([ours], dtype=torch.float64)
    assert bool(((parameters >= transform.low) & (parameters <= transform.high)).all())
    point = torch.tensor([3.0, -1.0, 1.0], dtype=torch.float64)
    found = 2 * (transform.matrices(parameters)[0] @ point)[:2]
    assert found.tolist() == pytest.approx(expected)


def test_a_composition_is_inverted() -> None:
    """p is taken back through the last first: here 1/1.25, then the turn back by 20 degrees."""
    transform = parse_transform(from_deepg("Rotation(-10,20);Scale(1,1.25)"))
    assert transform.low.tolist() == [-20.0, 1.0]
    parameters = torch.tensor([[-20.0, 1.25]], dtype=torch.float64)
    point = torch.tensor([3.0, -1.0, 1.0], dtype=torch.float64)
    found = 2 * (transform.matrices(parameters)[0] @ point)[:2]
    assert found.tolist() == pytest.approx(turned(6 / 1.25, -2 / 1.25, -20))


def test_brightness_is_contrast_and_brightness() -> None:
    """And what has no counterpart is refused."""
    text = from_deepg("", "Brightness(0.9,1.1,-0.01,0.02)")
    assert text == "contrast(0.9,1.1) brightness(-0.01,0.02)"
    with pytest.raises(ValueError, match="Translation1d"):
        from_deepg("Translation1d(-1,1)")
