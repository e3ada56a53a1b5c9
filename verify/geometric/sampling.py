"""Where output pixels sample from, over boxes of parameters: an affine model and its error.

    q(parameters) = q(centre) + sum_i J_i·(parameters_i - centre_i) + e,   |e| <= error

The error is Taylor's second-order remainder, plus the rounding of our own arithmetic and of the
float32 execution of `affine_grid` and `grid_sample`. Both coordinates keep their dependence on the
parameters, so a rotation's cosine and sine are never taken apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.geometric.transforms import Transform, step_matrix
from verify.values.rounding import UNIT_FLOAT32

OWN_ROUNDING = 2.0**-42
"""Relative to |M|·|p|: products of at most eight 3 x 3 matrices, sine and cosine of angles up to
2·pi, and the radians themselves, all in float64, need less than 2000 units of 2**-53."""
EXECUTED_ROUNDING = 16 * UNIT_FLOAT32
"""Relative to |M|·|corner| + size, in pixels: theta, the base grid and their product are rounded (5
units), then (g + 1) / 2 · (n - 1) or ((g + 1) · n - 1) / 2 (4 units). The base grid's error is that
of numbers up to 1 even in its middle, where a pixel is at 0: so the corner stands for every one."""
UPWARD = 1.0 + 2.0**-40
"""Pays for the rounding of the nonnegative sums that error terms are."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Boxes of parameters.

    Attributes:
        centre: shape (box, parameter), float64, in the units of the steps.
        radius: half widths, rounded up, same shape.
    """

    centre: Tensor
    radius: Tensor

    @classmethod
    def between(cls, low: Tensor, high: Tensor) -> Cells:
        """The boxes from low to high, shape (box, parameter)."""
        centre = (low + high) / 2
        radius = torch.maximum(high - centre, centre - low)
        return cls(centre, radius * (1 + 2.0**-50))

    def pieces(self, axis: int, count: int) -> Cells:
        """Each box cut into `count` along one parameter; shape (box · count, parameter)."""
        step = torch.arange(count, dtype=torch.float64)
        place = (2 * step + 1 - count) / count
        centre = self.centre[:, None].repeat(1, count, 1)
        radius = self.radius[:, None].repeat(1, count, 1)
        centre[:, :, axis] += place * self.radius[:, None, axis]
        # The centre was rounded: the pieces must still cover the box.
        radius[:, :, axis] = radius[:, :, axis] / count + centre[:, :, axis].abs() * 2.0**-50
        return Cells(centre.flatten(0, 1), radius.flatten(0, 1))


@dataclass(frozen=True, slots=True, eq=False)
class Sampling:
    """The affine model of all sampled points over boxes, in pixels from the centre of the image.

    Attributes:
        middle: q at the boxes' centres, shape (box, 2, pixel); x first, then y.
        slope: J_i·radius_i of each spatial parameter, shape (box, spatial, 2, pixel).
        bend: bounds |J_i(any) - J_i(centre)|·radius_i, same shape.
        error: bound of |e|, shape (box, 2, pixel).
    """

    middle: Tensor
    slope: Tensor
    bend: Tensor
    error: Tensor

    @property
    def reach(self) -> Tensor:
        """How far q moves from the middle at most, shape (box, 2, pixel)."""
        return (self.slope.abs().sum(dim=1) + self.error) * UPWARD


def pixels(height: int, width: int) -> Tensor:
    """Homogeneous coordinates of the output pixels about the centre, shape (3, pixel)."""
    y = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid_x.flatten(), grid_y.flatten(), torch.ones(height * width).double()))


def supremum(kind: str, cells: Cells, i: int, order: int) -> Tensor:
    """Entrywise bound of |M| or |d^order M| over the boxes, shape (box, 3, 3)."""
    centre, radius = cells.centre[:, i], cells.radius[:, i]
    if kind == "rotation":
        rate = math.pi / 180
        at_centre = step_matrix(kind, centre, order).abs()
        # Entries of the turning part have a Lipschitz constant of rate^(order + 1).
        turned = torch.zeros(3, 3, dtype=torch.float64)
        turned[:2, :2] = rate ** (order + 1)
        return (at_centre + turned * radius[:, None, None]) * UPWARD
    ends = [step_matrix(kind, end, order).abs() for end in (centre - radius, centre + radius)]
    # Entries of the others are monotone: linear, or a power of a positive factor.
    return torch.maximum(*ends) * UPWARD


def product(matrices: list[Tensor]) -> Tensor:
    """The product of matrices of shape (box, 3, 3)."""
    whole = matrices[0]
    for matrix in matrices[1:]:
        whole = whole @ matrix
    return whole


def sampled(transform: Transform, cells: Cells, height: int, width: int) -> Sampling:
    """The affine model of the sampled points over boxes of parameters."""
    numbers = transform.spatial
    kinds = [transform.steps[i].kind for i in numbers]
    place, size = pixels(height, width), len(numbers)
    centre = {
        o: [step_matrix(k, cells.centre[:, i], o) for k, i in zip(kinds, numbers, strict=True)]
        for o in (0, 1)
    }
    most = {
        o: [supremum(k, cells, i, o) for k, i in zip(kinds, numbers, strict=True)]
        for o in (0, 1, 2)
    }
    radius = cells.radius[:, list(numbers), None, None]
    middle = (product(centre[0]) @ place)[:, :2]
    far = place.abs()
    slopes, bends = [], []
    for i in range(size):
        factors = [centre[int(k == i)][k] for k in range(size)]
        slopes.append((product(factors) @ place)[:, :2] * radius[:, i])
        bend = torch.zeros_like(middle)
        for j in range(size):
            factors = [most[int(k == i) + int(k == j)][k] for k in range(size)]
            bend = bend + (product(factors) @ far)[:, :2] * (radius[:, i] * radius[:, j])
        bends.append(bend * UPWARD)
    bend = torch.stack(bends, dim=1)
    # Taylor: |e| <= 1/2 sum_ij sup |d_i d_j q|·r_i·r_j, and rounding, ours and the executed one.
    corner = far.amax(dim=1, keepdim=True).expand_as(far)
    moved = (product(most[0]) @ corner)[:, :2]
    limits = torch.tensor([width, height], dtype=torch.float64)[:, None]
    rounding = moved * OWN_ROUNDING + (moved + limits) * (EXECUTED_ROUNDING + OWN_ROUNDING)
    error = (bend.sum(dim=1) / 2 + rounding) * UPWARD
    return Sampling(middle, torch.stack(slopes, dim=1), bend, error)
