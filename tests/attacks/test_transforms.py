"""Transformations mean what they say: against turned arrays, brute force, and torch's own grid."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from attacks import AttackInputError, TransformBox
from attacks.transforms import KINDS, Parameter

IMAGE = torch.rand(1, 2, 5, 7, generator=torch.Generator().manual_seed(0))
EVERYTHING = TransformBox.parse(
    "rotation(-40,40) translation(-2,2) scale(0.5,2) shear(-0.5,0.5) shear_y(-0.5,0.5) "
    "scale_x(0.5,2) scale_y(0.5,2) contrast(0.5,2) brightness(-0.5,0.5)"
)


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def moved(text: str, *values: float, image: Tensor = IMAGE) -> Tensor:
    return TransformBox.parse(text, clip=None).apply(image, row(*values))


def forward_map(kind: str, value: float) -> np.ndarray:
    """Where a point of the content goes, about the centre, y downwards: written the other way."""
    c, s = math.cos(math.radians(value)), math.sin(math.radians(value))
    return {
        # Counter-clockwise as seen: what lies to the right goes up, to negative y.
        "rotation": np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]),
        "translation_x": np.array([[1, 0, value], [0, 1, 0], [0, 0, 1]]),
        "translation_y": np.array([[1, 0, 0], [0, 1, value], [0, 0, 1]]),
        "scale": np.diag([value, value, 1]),
        "scale_x": np.diag([value, 1, 1]),
        "scale_y": np.diag([1, value, 1]),
        "shear_x": np.array([[1, value, 0], [0, 1, 0], [0, 0, 1]]),
        "shear_y": np.array([[1, 0, 0], [value, 1, 0], [0, 0, 1]]),
    }.get(kind, np.eye(3))


def brute_force(box: TransformBox, image: np.ndarray, values: list[float]) -> np.ndarray:
    """Pixel by pixel: undo the content's motion, and sum the tents of the pixels around."""
    motion = np.eye(3)
    for parameter, value in zip(box.parameters, values, strict=True):
        motion = forward_map(parameter.kind, value) @ motion
    back = np.linalg.inv(motion)
    channels, height, width = image.shape
    out = np.zeros_like(image)
    for r in range(height):
        for c in range(width):
            x, y, _ = back @ np.array([c - (width - 1) / 2, r - (height - 1) / 2, 1])
            x, y = x + (width - 1) / 2, y + (height - 1) / 2
            for i in range(height):
                for j in range(width):
                    weight = max(0.0, 1 - abs(x - j)) * max(0.0, 1 - abs(y - i))
                    out[:, r, c] += weight * image[:, i, j]
    for parameter, value in zip(box.parameters, values, strict=True):
        if parameter.kind == "contrast":
            out = value * out
        elif parameter.kind == "brightness":
            out = out + value
    return out if box.clip is None or not box.acts_on_values else np.clip(out, *box.clip)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.permutations(EVERYTHING.parameters), st.integers(1, 9))
def test_any_composition_is_what_brute_force_makes(
    seed: int, order: list[Parameter], count: int
) -> None:
    """Each kind, in any order: one interpolation about the centre, zero outside, clipped once."""
    box = TransformBox(tuple(order[:count]))
    values = np.random.default_rng(seed).uniform(box.low, box.high)
    got = box.apply(IMAGE.double(), torch.tensor(values)[None])[0].numpy()
    expected = brute_force(box, IMAGE[0].double().numpy(), values.tolist())
    assert np.abs(got - expected).max() < 1e-12


@pytest.mark.parametrize("shape", [(4, 4), (5, 5), (28, 28)])
@pytest.mark.parametrize("quarter", [-1, 1, 2])
def test_quarter_turns_turn_the_array(shape: tuple[int, int], quarter: int) -> None:
    """About (n-1)/2 for even and odd sides: the usual error is half a pixel off."""
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(1))
    got = moved("rotation(-180,180)", 90.0 * quarter, image=image)
    assert torch.allclose(got, torch.rot90(image, quarter, (2, 3)), atol=1e-6)


def test_whole_pixels_shift_the_array() -> None:
    """Right and down are positive, units are real pixels, zero comes in."""
    right, up = moved("translation_x(0,2)", 1), moved("translation_y(-2,0)", -2)
    assert torch.allclose(right[..., 1:], IMAGE[..., :-1], atol=1e-7)
    assert torch.allclose(up[..., :-2, :], IMAGE[..., 2:, :], atol=1e-7)
    assert float(right[..., 0].abs().max()) < 1e-14


def test_a_composition_acts_in_the_order_written() -> None:
    """Shift then quarter turn is not quarter turn then shift."""
    image = torch.zeros(1, 1, 5, 5)
    image[..., 2, 2] = 1
    first = moved("translation_x(0,1) rotation(0,90)", 1, 90, image=image)
    then = moved("rotation(0,90) translation_x(0,1)", 90, 1, image=image)
    assert first[0, 0, 1, 2] == pytest.approx(1)  # to the right, and that turned: up
    assert then[0, 0, 2, 3] == pytest.approx(1)


@pytest.mark.parametrize("align", [False, True])
def test_torchs_own_operators_do_the_same_with_either_align_corners(align: bool) -> None:
    """The meaning is in pixels; `theta` says it in either of torch's coordinates."""
    box = TransformBox.parse("scale(0.5,2) rotation(-30,30) translation(-2,2) shear(-0.2,0.2)")
    values = row(1.3, 17.0, 0.7, -1.1, 0.1)
    image = IMAGE.double()
    theta = box.theta(values, 5, 7, align_corners=align)
    grid = functional.affine_grid(theta, [1, 2, 5, 7], align_corners=align)
    own = functional.grid_sample(image, grid, align_corners=align)
    assert torch.allclose(own, box.apply(image, values), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_identity_changes_nothing_to_the_bit(dtype: torch.dtype) -> None:
    image = torch.rand(3, 1, 28, 27, dtype=dtype, generator=torch.Generator().manual_seed(2))
    image[0, 0, 5, 5] = 1e-30
    values = EVERYTHING.identity.expand(3, -1)
    assert torch.equal(EVERYTHING.apply(image, values), image)


def test_slopes_are_those_of_finite_differences_also_at_the_identity() -> None:
    """Where interpolation has a kink, of one side; here the image is smooth: linear."""
    x = torch.arange(9, dtype=torch.float64)
    image = (0.3 + 0.02 * x[None, :] + 0.01 * x[:, None])[None, None]
    for values in (EVERYTHING.identity, EVERYTHING.identity + 0.03):
        leaf = values[None].clone().requires_grad_()

        def middle(v: Tensor) -> Tensor:
            return EVERYTHING.apply(image, v)[0, 0, 3:6, 2:6].square().sum()

        (slope,) = torch.autograd.grad(middle(leaf), leaf)
        for i in range(len(values)):
            step = torch.zeros_like(leaf)
            step[0, i] = 1e-6
            with torch.no_grad():
                up, down = middle(leaf + step), middle(leaf - step)
            assert float((up - down) / 2e-6) == pytest.approx(float(slope[0, i]), abs=1e-5)


def test_values_are_clipped_once_at_the_end() -> None:
    """Down and up again leaves no trace, unless it ends outside the range."""
    image = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    box = TransformBox.parse("brightness(-1,1) contrast(0.1,3) brightness(-1,1)")
    assert box.names == ("brightness", "contrast", "brightness_2")
    assert float(box.apply(image, row(-0.9, 1, 0.9)).max()) == pytest.approx(0.5)
    assert float(box.apply(image, row(0.1, 2, 0.5)).max()) == 1
    wide = TransformBox(box.parameters, clip=None)
    assert float(wide.apply(image, row(0.1, 2, 0.5)).max()) == pytest.approx(1.7)


def test_a_share_is_the_least_scaling_that_holds_the_values() -> None:
    box = TransformBox.parse("rotation(-10,30) scale(0.5,2)")
    values = torch.tensor([[15, 1], [-5, 1], [0, 1.5], [0, 0.75], [3, 0.5], [0, 1]])
    shares = box.share(values.double())
    assert shares.tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5, 1, 0], rel=1e-14)
    assert bool((shares >= torch.tensor([0.5, 0.5, 0.5, 0.5, 1, 0])).all())


def test_the_text_reads_back() -> None:
    again = TransformBox.parse(str(EVERYTHING))
    assert again == EVERYTHING
    assert [p.kind for p in TransformBox.parse("translation(-1,1,0,2)").parameters] == [
        "translation_x",
        "translation_y",
    ]
    assert TransformBox.parse("Rotation( -5 , 5 ); shear(0,0.1),scale(1,1,1,2)").names == (
        "rotation",
        "shear_x",
        "scale_x",
        "scale_y",
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        ("rotation", "cannot be read from 'rotation'"),
        ("rotation(-5,5", "cannot be read"),
        ("rotation(-5,5) and scale", "cannot be read from 'and scale'"),
        ("rotatoin(-5,5)", "did you mean rotation"),
        ("rotation(5)", "1 numbers; expected two"),
        ("rotation(1,2,3,4)", "4 numbers; expected two"),
        ("translation(1,2,3)", "or four"),
        ("rotation(a,b)", "no numbers"),
        ("rotation(5,-5)", "lower first"),
        ("rotation(nan,5)", "finite"),
        ("rotation(-inf,5)", "finite"),
        ("scale(0,1)", "not positive"),
        ("contrast(-1,1)", "not positive"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(AttackInputError, match=complaint) as caught:
        TransformBox.parse(text)
    assert "\n" not in str(caught.value)


def test_empty_boxes_ranges_and_unknown_kinds_are_refused() -> None:
    with pytest.raises(AttackInputError, match="at least one"):
        TransformBox(())
    with pytest.raises(AttackInputError, match="lower end first"):
        TransformBox((Parameter("contrast", 0.5, 2),), clip=(1.0, 0.0))
    with pytest.raises(AttackInputError, match=r"expected one of .*rotation"):
        Parameter("blur", 0, 1)
    assert {kind.unit for kind in KINDS.values()}
