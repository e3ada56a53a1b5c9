"""Transformations mean what affine_grid and grid_sample do, and what the attacks take them for."""

import math

import pytest
import torch
from torch.nn import functional

from verify.errors import SettingError, ShapeError
from verify.geometric.transforms import Step, Transform, parse_transform


def image(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(1, *shape, generator=generator)


def values(*numbers: float) -> torch.Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


@pytest.mark.parametrize("align", [True, False])
def test_a_rotation_is_grid_sample_of_the_plain_rotation_matrix(align: bool) -> None:
    """On square images, theta is the textbook matrix, whatever align_corners is."""
    x = image(2, 9, 9)
    angle = math.radians(17.0)
    cos, sin = math.cos(angle), math.sin(angle)
    theta = torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]])
    grid = functional.affine_grid(theta, [1, 2, 9, 9], align_corners=align)
    expected = functional.grid_sample(x, grid, align_corners=align)
    found = parse_transform("rotation(-30,30)")(x, values(17.0))
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_a_quarter_turn_moves_pixels_counter_clockwise() -> None:
    """The top right pixel goes to the top left, on images that are not square too."""
    x = torch.zeros(1, 1, 3, 5)
    x[0, 0, 0, 3] = 1.0
    found = parse_transform("rotation(0,90)")(x, values(90.0))
    assert found[0, 0, 0, 1] == pytest.approx(1.0, abs=1e-5)
    assert found.sum() == pytest.approx(1.0, abs=1e-5)


def test_a_translation_moves_by_whole_pixels_and_fills_with_zeros() -> None:
    """x to the right, y downward."""
    x = image(1, 4, 5)
    found = parse_transform("translation(-2,2,-1,1)")(x, values(2.0, -1.0))
    expected = torch.zeros_like(x)
    expected[..., :3, 2:] = x[..., 1:, :3]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_steps_act_from_left_to_right() -> None:
    """First to the right by one, then a quarter turn: up, in the end."""
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1.0
    found = parse_transform("translation_x(0,1) rotation(0,90)")(x, values(1.0, 90.0))
    assert found[0, 0, 1, 2] == pytest.approx(1.0, abs=1e-5)


def test_contrast_and_brightness_act_as_written_and_are_clamped() -> None:
    """contrast·value + brightness, or contrast·(value + brightness)."""
    x = torch.tensor([[[[0.2, 0.9], [0.5, 0.0]]]])
    late = parse_transform("contrast(1,2);brightness(-.5,.5)")(x, values(2.0, -0.3))
    torch.testing.assert_close(late, (2 * x - 0.3).clamp(0, 1))
    early = parse_transform("brightness(-.5,.5), contrast(1,2)")(x, values(-0.3, 2.0))
    torch.testing.assert_close(early, (2 * (x - 0.3)).clamp(0, 1))


@pytest.mark.parametrize(
    "text",
    [
        "rotation(-30,30)",
        "scale(0.8,1.2) rotation(-9,9) translation(-2,2)",
        "shear(-.2,.2,-.1,.1) contrast(.9,1.1) brightness(-.1,.1)",
        "translation_x(-3,3) scale_y(.5,2) shear_y(-.3,.1) scale(.7,1.1,.9,1.4)",
    ],
)
def test_the_attacks_mean_the_same(text: str) -> None:
    """The upper end of the bracket is about the same images."""
    transforms = pytest.importorskip("attacks.transforms")
    mine, box = parse_transform(text), transforms.TransformBox.parse(text)
    assert [step.kind for step in mine.steps] == [p.kind for p in box.parameters]
    share = torch.rand(6, len(mine.steps), generator=torch.Generator().manual_seed(1))
    parameters = mine.low + share.double() * (mine.high - mine.low)
    x = image(3, 6, 8).expand(6, -1, -1, -1)
    torch.testing.assert_close(mine(x, parameters), box.apply(x, parameters), atol=2e-5, rtol=0)


def test_share_is_measured_from_what_changes_nothing() -> None:
    """The range shrinks towards the identity, or towards the point nearest to it."""
    both = parse_transform("rotation(-10,30) scale(1.1,1.3)")
    found = both.share(torch.tensor([[-5.0, 1.1], [15.0, 1.3], [0.0, 1.1]], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.5, 1.0, 0.0])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "0 parameters"),
        ("rotation", "cannot be read"),
        ("rotation(5)", "expected two"),
        ("rotation(a,b)", "expected numbers"),
        ("rotation(5,-5)", "smaller one first"),
        ("rotation(nan,5)", "finite"),
        ("rotation(0,1e9)", "360"),
        ("scale(0,1)", "factor"),
        ("wobble(0,1)", "not known"),
        ("rotation(1,2) nonsense", "nonsense"),
    ],
)
def test_nonsense_is_refused_in_words(text: str, complaint: str) -> None:
    """What is wrong, and what to write."""
    with pytest.raises(SettingError, match=complaint):
        parse_transform(text)


def test_what_is_no_image_is_refused() -> None:
    """A flat input has no pixels to move."""
    with pytest.raises(ShapeError, match="only images"):
        Transform((Step("rotation", 0.0, 1.0),))(torch.zeros(1, 64), values(0.5))
