"""Flows: every pixel looks elsewhere, a little; not far, and not far from where its neighbours do.

An output pixel p shows the image at p + v(p), in pixels, x to the right and y downward, for a field
v with |v(p)| <= delta and, if asked for, |v(p) - v(q)| <= smooth for pixels p, q side by side; both
in the maximum norm, so that x and y part. The meaning is that of `grid_sample` (bilinear, zero
padding, align_corners) on the grid of `affine_grid` plus the field.

Source:
    Xiao et al. 2018, arXiv:1801.02612 (fields); Ruoss et al. 2021, arXiv:2009.09318 (their
    certification: exact ranges per pixel, planes, linear programs for smooth ones).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from verify.errors import SettingError, ShapeError
from verify.geometric.linear_constraints import executed, over_rectangle
from verify.geometric.pixel_bounds import Picture, patch
from verify.geometric.sampling import EXECUTED_ROUNDING, OWN_ROUNDING, UPWARD, Sampling, pixels
from verify.geometric.transforms import check_image_shape
from verify.values.bounds import Bounds

FARTHEST = 100.0
"""Pixels; beyond, nothing is certified anyway."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A set of fields.

    Attributes:
        delta: how far a pixel may look away, in pixels, per axis.
        smooth: by how much neighbours' displacements may differ, per axis; None for any.

    Raises:
        SettingError: if one of them is out of its range.
    """

    delta: float
    smooth: float | None = None

    def __post_init__(self) -> None:
        """Check both."""
        if not (math.isfinite(self.delta) and 0 <= self.delta <= FARTHEST):
            raise SettingError(
                f"flow is {self.delta!r}, expected pixels between 0 and {FARTHEST:g}"
            )
        if self.smooth is not None and not (math.isfinite(self.smooth) and self.smooth >= 0):
            raise SettingError(f"smooth is {self.smooth!r}, expected pixels, at least 0")

    def shrunk(self, share: float) -> Flow:
        """The fields of this set, times a share."""
        return Flow(self.delta * share, None if self.smooth is None else self.smooth * share)

    def share(self, fields: Tensor) -> Tensor:
        """The least share of the set that holds each field, rounded up; above 1 if none does.

        Args:
            fields: shape (any, 2, height, width).
        """
        v = fields.to(torch.float64)
        parts = [(v.flatten(1).abs().amax(dim=1), self.delta)]
        if self.smooth is not None:
            for axis in (2, 3):
                parts.append((v.diff(dim=axis).abs().flatten(1).amax(dim=1), self.smooth))
        shares = [
            torch.where(size > 0, size / limit if limit > 0 else math.inf, 0.0)
            for size, limit in parts
        ]
        return torch.stack(shares).amax(dim=0) * (1 + 2.0**-50)


def deformed(x: Tensor, fields: Tensor) -> Tensor:
    """The images that fields make, in the arithmetic of x.

    Args:
        x: shape (any, channel, height, width).
        fields: in pixels, shape (any, 2, height, width), x first.

    Raises:
        ShapeError: if they do not fit.
    """
    check_image_shape(tuple(x.shape[1:]))
    if fields.shape != (len(x), 2, *x.shape[2:]):
        raise ShapeError(
            f"a field of shape {tuple(fields.shape)} was given for images of shape "
            f"{tuple(x.shape)}; expected (any, 2, height, width)"
        )
    height, width = x.shape[2:]
    still = torch.eye(2, 3, dtype=x.dtype).expand(len(x), 2, 3)
    grid = functional.affine_grid(still, list(x.shape), align_corners=True)
    scale = torch.tensor([2 / (width - 1), 2 / (height - 1)], dtype=x.dtype)
    moved = grid + fields.to(x.dtype).movedim(1, 3) * scale
    return functional.grid_sample(
        x, moved, mode="bilinear", padding_mode="zeros", align_corners=True
    )


@dataclass(frozen=True, slots=True, eq=False)
class FlowForms:
    """What is known of each pixel in terms of its own displacement t = v / delta in [-1, 1]^2.

    Attributes:
        lower, upper: planes, shape (batch, 3, *input): the constant, then the slopes along x and y.
        bounds: exact ranges up to rounding, shape (batch, *input).
        corners: values among whose convex combinations the pixel's channels lie together, before
            rounding; shape (batch, corner, *input).
        slack: rounding of the executed values, shape (batch, *input).
    """

    lower: Tensor
    upper: Tensor
    bounds: Bounds
    corners: Tensor
    slack: Tensor

    def take(self, rows: Tensor) -> FlowForms:
        """Some of the batch."""
        return FlowForms(
            self.lower[rows],
            self.upper[rows],
            self.bounds.take(rows),
            self.corners[rows],
            self.slack[rows],
        )

    def to(self, dtype: torch.dtype) -> FlowForms:
        """The same in another dtype: for searches, not for proofs."""
        return FlowForms(
            self.lower.to(dtype),
            self.upper.to(dtype),
            self.bounds.to(dtype),
            self.corners.to(dtype),
            self.slack.to(dtype),
        )


def flow_forms(image: Tensor, flow: Flow) -> FlowForms:
    """Planes, ranges and corners of every pixel of an image of shape (channel, height, width)."""
    check_image_shape(tuple(image.shape))
    picture = Picture.of(image)
    channels, height, width = image.shape
    model = displaced(flow, height, width)
    found = over_rectangle(model, picture)
    planes = torch.stack((found.lower, found.upper))
    bounds = executed(found.bounds, planes, image)
    area = patch(picture, model.middle, model.reach)
    corners = torch.stack([value[:, 0] for line in area.values for value in line])

    def shaped(values: Tensor) -> Tensor:
        whole: Tensor = values.reshape(1, *values.shape[:-2], channels, height, width)
        return whole

    ranges = Bounds(*(shaped(end[:, 0]) for end in (bounds.lower, bounds.upper)))
    lower, upper = (shaped(form[:, :, 0]) for form in planes)
    slack = torch.maximum(found.bounds.lower - bounds.lower, bounds.upper - found.bounds.upper)
    # What was just subtracted is rounded by far less than this.
    slack = slack * UPWARD + picture.padded.abs().max() * 2.0**-48
    return FlowForms(lower, upper, ranges, shaped(corners), shaped(slack[:, 0]))


def displaced(flow: Flow, height: int, width: int) -> Sampling:
    """Where the pixels look: each its own two displacements, and the rounding of both."""
    middle = pixels(height, width)[None, :2]
    slope = torch.zeros(1, 2, 2, height * width, dtype=torch.float64)
    slope[0, 0, 0] = slope[0, 1, 1] = flow.delta
    limits = torch.tensor([width, height], dtype=torch.float64)[:, None]
    corner = middle.abs().amax(dim=2, keepdim=True).expand_as(middle)
    error = (corner + flow.delta + limits) * (EXECUTED_ROUNDING + OWN_ROUNDING) * UPWARD
    return Sampling(middle, slope, torch.zeros_like(slope), error)
