"""Transform: a composition of one-parameter image transformations, with one exact meaning.

The meaning is that of `torch.nn.functional.affine_grid` and `grid_sample` (bilinear, zero padding),
in pixel units about the centre ((width - 1) / 2, (height - 1) / 2), x to the right and y downward;
stated so, it does not depend on align_corners. Steps act on the image from left to right, so the
sampled point of an output pixel p is M_1·M_2·...·M_k·p with M_i the inverse of step i. Contrast and
brightness act on the sampled values, in the order written among themselves; then the values are
clamped to 0..1. `attacks.transforms` means the same by the same text.

    rotation(a,b)        degrees, counter-clockwise as seen    M = [[cos, -sin], [sin, cos]]
    translation_x(a,b)   pixels to the right                   x - t
    translation_y(a,b)   pixels downward                       y - t
    translation(a,b)     both, each over a..b; (a,b,c,d): x over a..b, y over c..d
    scale(a,b)           factor > 0, above 1 enlarges          p / s
    scale_x, scale_y     one axis; scale(a,b,c,d): x over a..b, y over c..d
    shear_x(a,b)         pixels to the right per pixel down    x - m·y
    shear_y(a,b)         pixels down per pixel to the right    y - m·x
    shear(a,b)           shear_x; (a,b,c,d): x over a..b, y over c..d
    contrast(a,b)        factor > 0
    brightness(a,b)      added, in units of the pixels
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from verify.errors import SettingError, ShapeError

SPATIAL = (
    "rotation",
    "translation_x",
    "translation_y",
    "scale",
    "scale_x",
    "scale_y",
    "shear_x",
    "shear_y",
)
PHOTOMETRIC = ("contrast", "brightness")
FACTORS = ("scale", "scale_x", "scale_y", "contrast")
PAIRS = {
    "translation": ("translation_x", "translation_y"),
    "scale": ("scale_x", "scale_y"),
    "shear": ("shear_x", "shear_y"),
}
MOST_DEGREES = 360.0
"""Largest angle: the rounding of degrees to radians is charged up to there."""
MOST_STEPS = 8
"""Most parameters: the rounding of a product of matrices is charged up to there, and no search
gets through more anyway."""
CALL = re.compile(r"\s*([a-z_]+)\s*\(([^()]*)\)\s*[;,]?")


@dataclass(frozen=True, slots=True)
class Step:
    """One parameter: what it does, and its range.

    Attributes:
        kind: one of `SPATIAL` or `PHOTOMETRIC`.
        low, high: ends of the range, in the units of the kind.

    Raises:
        SettingError: if the range is empty, not finite, or not possible for this kind.
    """

    kind: str
    low: float
    high: float

    def __post_init__(self) -> None:
        """Check kind and range."""
        text = f"{self.kind}({self.low:g},{self.high:g})"
        if self.kind not in (*SPATIAL, *PHOTOMETRIC):
            raise SettingError(
                f"transformation {self.kind!r} is not known; known are "
                f"{', '.join((*SPATIAL, *PHOTOMETRIC, 'translation', 'shear'))}"
            )
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise SettingError(f"{text} is no range; give finite numbers, the smaller one first")
        if self.kind in FACTORS and not 0.01 <= self.low <= self.high <= 100:
            raise SettingError(f"{text}: a factor lies between 0.01 and 100; 1 changes nothing")
        if self.kind == "rotation" and max(-self.low, self.high) > MOST_DEGREES:
            raise SettingError(f"{text}: angles lie between -360 and 360 degrees")
        if max(abs(self.low), abs(self.high)) > 10_000:
            raise SettingError(f"{text}: more than 10000 either way is not supported")

    @property
    def identity(self) -> float:
        """The value that changes nothing."""
        return 1.0 if self.kind in FACTORS else 0.0


@dataclass(frozen=True, slots=True)
class Transform:
    """Steps, applied to the image from left to right.

    Raises:
        SettingError: if there is no step, or too many.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        """Check the steps together."""
        if not 1 <= len(self.steps) <= MOST_STEPS:
            raise SettingError(
                f"{len(self.steps)} parameters were given, expected 1 to {MOST_STEPS}; "
                "for example 'rotation(-5,5)'"
            )

    @property
    def spatial(self) -> tuple[int, ...]:
        """Numbers of the parameters that move the sampled points."""
        return tuple(i for i, step in enumerate(self.steps) if step.kind in SPATIAL)

    @property
    def photometric(self) -> tuple[int, ...]:
        """Numbers of the parameters that change the sampled values."""
        return tuple(i for i, step in enumerate(self.steps) if step.kind in PHOTOMETRIC)

    @property
    def low(self) -> Tensor:
        """Lower ends, float64, shape (parameter,)."""
        return torch.tensor([step.low for step in self.steps], dtype=torch.float64)

    @property
    def high(self) -> Tensor:
        """Upper ends, float64, shape (parameter,)."""
        return torch.tensor([step.high for step in self.steps], dtype=torch.float64)

    @property
    def origin(self) -> Tensor:
        """The point of the range nearest to changing nothing, float64, shape (parameter,)."""
        rest = torch.tensor([step.identity for step in self.steps], dtype=torch.float64)
        return torch.minimum(torch.maximum(rest, self.low), self.high)

    def share(self, parameters: Tensor) -> Tensor:
        """How much of the range, shrunk towards its origin, reaches the parameters; in [0, 1].

        Args:
            parameters: in the range, shape (any, parameter).

        Returns:
            The least s with parameters in origin + s·(range - origin), shape (any,), rounded up.
        """
        moved = parameters - self.origin
        room = torch.where(moved >= 0, self.high - self.origin, self.origin - self.low)
        far = torch.where(moved == 0, 0.0, moved.abs() / torch.where(room > 0, room, 1.0))
        return (far.amax(dim=1) * (1 + 2.0**-50)).clamp(max=1.0)

    def matrices(self, parameters: Tensor) -> Tensor:
        """The maps from output pixels to sampled points, shape (any, 3, 3), float64."""
        whole = torch.eye(3, dtype=torch.float64).expand(len(parameters), 3, 3)
        for i in self.spatial:
            whole = whole @ step_matrix(self.steps[i].kind, parameters[:, i])
        return whole

    def __call__(self, x: Tensor, parameters: Tensor) -> Tensor:
        """The transformed images, in the arithmetic of x.

        Args:
            x: shape (any, channel, height, width), one image per row of parameters.
            parameters: float64, shape (any, parameter), in the units of the steps.

        Raises:
            ShapeError: if x holds no images of at least 2 x 2 pixels.
        """
        check_image_shape(tuple(x.shape[1:]))
        moved = x
        if self.spatial:
            height, width = x.shape[2:]
            unit = torch.tensor([(width - 1) / 2, (height - 1) / 2, 1.0], dtype=torch.float64)
            theta = self.matrices(parameters.to(torch.float64)) * unit / unit[:, None]
            grid = functional.affine_grid(
                theta[:, :2].to(x.dtype), list(x.shape), align_corners=True
            )
            moved = functional.grid_sample(
                x, grid, mode="bilinear", padding_mode="zeros", align_corners=True
            )
        if not self.photometric:
            return moved
        for i in self.photometric:
            value = parameters[:, i].to(x.dtype)[:, None, None, None]
            moved = moved * value if self.steps[i].kind == "contrast" else moved + value
        return moved.clamp(0.0, 1.0)


def check_image_shape(shape: tuple[int, ...]) -> None:
    """Raise ShapeError unless this is (channel, height, width) with at least 2 x 2 pixels."""
    if len(shape) != 3 or min(shape[1:]) < 2 or shape[0] < 1:
        raise ShapeError(
            f"the model's input has shape {shape}, expected (channel, height, width) with at "
            "least 2 x 2 pixels; only images can be transformed"
        )


def step_matrix(kind: str, value: Tensor, order: int = 0) -> Tensor:
    """The matrix of one step's inverse, or a derivative of it; shape (any, 3, 3), float64.

    Args:
        kind: a spatial kind.
        value: the parameter, shape (any,).
        order: 0, 1 or 2: how often it is differentiated by the parameter.
    """
    zero, one = torch.zeros_like(value), torch.ones_like(value)
    constant = one if order == 0 else zero
    linear = (value, one, zero)[order]
    if kind == "rotation":
        rate = math.pi / 180
        phase = value * rate
        cos, sin = torch.cos(phase), torch.sin(phase)
        for _ in range(order):
            cos, sin = -sin * rate, cos * rate
        rows = (cos, -sin, zero, sin, cos, zero)
    elif kind in ("scale", "scale_x", "scale_y"):
        inverse = (1 / value, -1 / value.square(), 2 / value**3)[order]
        across = constant if kind == "scale_y" else inverse
        down = constant if kind == "scale_x" else inverse
        rows = (across, zero, zero, zero, down, zero)
    elif kind == "shear_x":
        rows = (constant, -linear, zero, zero, constant, zero)
    elif kind == "shear_y":
        rows = (constant, zero, zero, -linear, constant, zero)
    elif kind == "translation_x":
        rows = (constant, zero, -linear, zero, constant, zero)
    else:
        rows = (constant, zero, zero, zero, constant, -linear)
    return torch.stack((*rows, zero, zero, constant), dim=1).view(-1, 3, 3)


def parse_transform(text: str) -> Transform:
    """A transformation from its textual form, such as "scale(0.95,1.05) rotation(-2,2)".

    Raises:
        SettingError: if the text is not such a form.
    """
    steps: list[Step] = []
    place = 0
    while place < len(text.rstrip()):
        found = CALL.match(text, place)
        if found is None:
            raise SettingError(
                f"transformation {text!r} cannot be read from {text[place:].strip()!r} on; write "
                "for example 'rotation(-5,5)' or 'scale(0.95,1.05) rotation(-2,2)'"
            )
        steps.extend(steps_of(found.group(1), found.group(2)))
        place = found.end()
    return Transform(tuple(steps))


def steps_of(name: str, arguments: str) -> tuple[Step, ...]:
    """The steps that one call stands for."""
    try:
        values = [float(part) for part in arguments.split(",")]
    except ValueError:
        raise SettingError(
            f"{name}({arguments}): expected numbers with commas between, such as {name}(-5,5)"
        ) from None
    if len(values) == 4 and name in PAIRS:
        across, down = PAIRS[name]
        return Step(across, values[0], values[1]), Step(down, values[2], values[3])
    if len(values) != 2:
        raise SettingError(f"{name} has {len(values)} numbers, expected two: {name}(low,high)")
    kinds = PAIRS[name] if name == "translation" else ("shear_x" if name == "shear" else name,)
    return tuple(Step(kind, *values) for kind in kinds)
