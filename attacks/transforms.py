"""Transformations of images with one exact meaning, and boxes of their parameters.

A pixel at p = (x - (width - 1) / 2, y - (height - 1) / 2), x to the right and y downwards, in
pixels from the image's centre, shows the old image at q = A p + b: interpolated bilinearly, zero
outside. That is `torch.nn.functional.grid_sample` (bilinear, padding "zeros") on the grid of
`affine_grid`. Stated in pixels it does not depend on `align_corners`, and images that are not
square are turned, not sheared.

Each transformation acts on what the image shows, in the order in which they are written; q goes
through their inverses. There is one interpolation whatever their number. Contrast and brightness
act on the interpolated values, in the order written among themselves, wherever they are written;
then the values are clipped once.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from attacks.errors import AttackInputError

# Of the range of values: what images hold if nothing else is said.
UNIT_RANGE = (0.0, 1.0)
# Relative, above the rounding of one subtraction and one division of float64.
ROUNDING = 2.0**-50

# Values of one parameter, shape (n,), float64 -> the entries of A, then b, that are not the unit's.
Entries = Callable[[Tensor], Mapping[tuple[int, int], Tensor]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of transformation with one parameter.

    Attributes:
        unit: of the parameter, in words.
        identity: the parameter's value that changes nothing.
        least: values must be above it.
        entries: of the matrix [A | b] that differ from [1 | 0]; None for one that acts on values.
    """

    unit: str
    identity: float
    least: float = -math.inf
    entries: Entries | None = None


def _turned(degrees: Tensor) -> Mapping[tuple[int, int], Tensor]:
    angle = torch.deg2rad(degrees)
    return {
        (0, 0): angle.cos(),
        (0, 1): -angle.sin(),
        (1, 0): angle.sin(),
        (1, 1): angle.cos(),
    }


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "rotation": Kind("degrees, counter-clockwise", 0.0, entries=_turned),
        "translation_x": Kind("pixels to the right", 0.0, entries=lambda t: {(0, 2): -t}),
        "translation_y": Kind("pixels downwards", 0.0, entries=lambda t: {(1, 2): -t}),
        "scale": Kind("factor", 1.0, 0.0, lambda s: {(0, 0): 1 / s, (1, 1): 1 / s}),
        "scale_x": Kind("factor of the width", 1.0, 0.0, lambda s: {(0, 0): 1 / s}),
        "scale_y": Kind("factor of the height", 1.0, 0.0, lambda s: {(1, 1): 1 / s}),
        "shear_x": Kind("pixels to the right per pixel down", 0.0, entries=lambda m: {(0, 1): -m}),
        "shear_y": Kind("pixels down per pixel to the right", 0.0, entries=lambda m: {(1, 0): -m}),
        "contrast": Kind("factor of the values", 1.0, 0.0),
        "brightness": Kind("added to the values, in model input units", 0.0),
    }
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """The range of one transformation's parameter.

    Attributes:
        kind: a name of `KINDS`.
        low, high: ends of the range, in the kind's unit; may be equal.

    Raises:
        AttackInputError: if there is no such kind, or no value in the range, or one not allowed.
    """

    kind: str
    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.kind not in KINDS:
            raise AttackInputError(
                f"There is no transformation {self.kind!r}; expected one of {', '.join(KINDS)}."
            )
        written = f"{self.kind}({self.low:g},{self.high:g})"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise AttackInputError(
                f"{written} has no values; expected two finite numbers, the lower first."
            )
        if not self.low > KINDS[self.kind].least:
            raise AttackInputError(
                f"{written} holds factors that are not positive; expected a range above "
                f"{KINDS[self.kind].least:g}, around {KINDS[self.kind].identity:g}."
            )

    @property
    def identity(self) -> float:
        """The value that changes nothing."""
        return KINDS[self.kind].identity


@dataclass(frozen=True, slots=True)
class TransformBox:
    """All compositions of some transformations with parameters in given ranges.

        box = TransformBox.parse("scale(0.95,1.05) rotation(-2,2) brightness(-0.1,0.1)")

    Parameter values have shape (n, parameters), float64, in the order of `parameters`.

    Attributes:
        parameters: at least one; in the order in which they act.
        clip: the range that values are clipped to after contrast and brightness; None for no
            clipping. Without contrast and brightness it has no effect.
    """

    parameters: tuple[Parameter, ...]
    clip: tuple[float, float] | None = UNIT_RANGE

    def __post_init__(self) -> None:
        """Refuse an empty composition and an empty range."""
        if not self.parameters:
            raise AttackInputError(
                "A TransformBox needs at least one transformation, such as rotation(-5,5)."
            )
        if self.clip is not None and not self.clip[0] < self.clip[1]:
            raise AttackInputError(
                f"TransformBox got clip = {self.clip}; expected the lower end first, or None."
            )

    @staticmethod
    def parse(text: str, *, clip: tuple[float, float] | None = UNIT_RANGE) -> "TransformBox":
        """The box that a text such as "rotation(-5,5) scale(0.9,1.1)" describes.

        Raises:
            AttackInputError: if it cannot be read; see `attacks.transform_text`.
        """
        from attacks.transform_text import parameters_of  # it makes parameters, so it imports this

        return TransformBox(parameters_of(text), clip)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return " ".join(f"{p.kind}({p.low!r},{p.high!r})" for p in self.parameters)

    @property
    def names(self) -> tuple[str, ...]:
        """One name per parameter; repeated kinds are numbered."""
        kinds = [parameter.kind for parameter in self.parameters]
        counts = [kinds[:i].count(kind) for i, kind in enumerate(kinds)]
        return tuple(
            f"{kind}_{count + 1}" if count else kind
            for kind, count in zip(kinds, counts, strict=True)
        )

    @property
    def low(self) -> Tensor:
        """Lower ends, shape (parameters,), float64."""
        return torch.tensor([parameter.low for parameter in self.parameters], dtype=torch.float64)

    @property
    def high(self) -> Tensor:
        """Upper ends, likewise."""
        return torch.tensor([parameter.high for parameter in self.parameters], dtype=torch.float64)

    @property
    def identity(self) -> Tensor:
        """The values that change nothing, likewise; they need not lie in the box."""
        values = [parameter.identity for parameter in self.parameters]
        return torch.tensor(values, dtype=torch.float64)

    @property
    def around_identity(self) -> bool:
        """Whether the box holds the transformation that changes nothing."""
        return bool(((self.low <= self.identity) & (self.identity <= self.high)).all())

    @property
    def acts_on_values(self) -> bool:
        """Whether contrast or brightness is part of it."""
        return any(KINDS[parameter.kind].entries is None for parameter in self.parameters)

    def contains(self, values: Tensor) -> Tensor:
        """Whether parameters lie in the box; shape (n,), bool. NaN is outside."""
        low, high = self.low.to(values.device), self.high.to(values.device)
        return ((values >= low) & (values <= high)).all(dim=1)

    def share(self, values: Tensor) -> Tensor:
        """How far the box must be scaled, about the identity, to hold parameters; rounded up.

        0 at the identity, 1 at the box's ends. For one parameter with a symmetric range it is the
        angle (factor, shift) relative to the largest. Needs a box around the identity.

            share = max_i (values_i - identity_i) / (end_i - identity_i)

        Returns:
            Shape (n,), float64; inf where a parameter without a range is not the identity.
        """
        identity = self.identity.to(values.device)
        moved = values - identity
        ends = torch.where(
            moved > 0, self.high.to(values.device) - identity, identity - self.low.to(values.device)
        )
        ratio = torch.where(moved == 0, 0.0, moved.abs() / ends)
        return ratio.amax(dim=1) * (1 + ROUNDING)

    def matrices(self, values: Tensor) -> Tensor:
        """[A | b] from an output pixel to where it looks, in pixels from the centre.

        Args:
            values: shape (n, parameters), float64.

        Returns:
            Shape (n, 2, 3), float64, differentiable.
        """
        unit = torch.eye(3, dtype=torch.float64, device=values.device).expand(len(values), 3, 3)
        whole = unit
        for column, parameter in enumerate(self.parameters):
            entries = KINDS[parameter.kind].entries
            if entries is None:
                continue
            cells = entries(values[:, column])
            rows = [
                torch.stack([cells.get((i, j), unit[:, i, j]) for j in range(3)], dim=1)
                for i in range(3)
            ]
            # q = M_1 M_2 ... p: the last that acted on the image is undone first.
            whole = whole @ torch.stack(rows, dim=1)
        return whole[:, :2]

    def theta(
        self, values: Tensor, height: int, width: int, *, align_corners: bool = False
    ) -> Tensor:
        """What `affine_grid` takes for images of this size; shape (n, 2, 3), float64.

        With align_corners=True, height and width must be at least 2.
        """
        size = torch.tensor([width, height], dtype=torch.float64, device=values.device)
        half = (size - 1 if align_corners else size) / 2
        matrix = self.matrices(values)
        linear = matrix[:, :, :2] * (half[None, :] / half[:, None])
        return torch.cat([linear, matrix[:, :, 2:] / half[:, None]], dim=2)

    def apply(self, images: Tensor, values: Tensor) -> Tensor:
        """Images transformed, each by its own parameters; differentiable in both.

        Computed in float64 and rounded once to the images' dtype, so that the result hardly depends
        on the machine. Where the transformation is the identity, the image itself, to the bit.

        Args:
            images: shape (n, channels, height, width).
            values: shape (n, parameters), float64.
        """
        if not len(images):
            return images
        seen = images.double()
        matrices = self.matrices(values)
        if any(KINDS[parameter.kind].entries is not None for parameter in self.parameters):
            theta = self.theta(values, images.shape[2], images.shape[3])
            grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
            moved = functional.grid_sample(seen, grid, align_corners=False)
            unit = torch.eye(2, 3, dtype=torch.float64, device=values.device)
            still = (matrices == unit).all(dim=2).all(dim=1)[:, None, None, None]
            # The slope of the moved image at the value of the image itself.
            seen = torch.where(still, seen + (moved - moved.detach()), moved)
        for column, parameter in enumerate(self.parameters):
            value = values[:, column, None, None, None]
            if parameter.kind == "contrast":
                seen = value * seen
            elif parameter.kind == "brightness":
                seen = seen + value
        if self.clip is not None and self.acts_on_values:
            seen = seen.clamp(*self.clip)
        return seen.to(images.dtype)
