"""Parameters of transformations at which bilinear interpolation has its kinks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from verify.geometric.transforms import Transform


def crossings(
    transform: Transform, shape: Sequence[int], count: int = 200, seed: int = 11
) -> Tensor:
    """Parameters at which a sampled point has a whole coordinate, and their float64 neighbours.

    Between two random parameters, the coordinate of a random pixel passes the whole numbers
    between; bisection finds one of them to the last bit.

    Args:
        transform: with at least one spatial step.
        shape: of the image, (channel, height, width).
        count: pixels that are tried.
        seed: of the choices.

    Returns:
        Parameters inside the range, float64, shape (six for each pixel that crosses, parameter).
    """
    generator = torch.Generator().manual_seed(seed)
    low, high, size = transform.low, transform.high, len(transform.steps)
    height, width = shape[1:]
    unit = torch.rand(2, count, size, generator=generator, dtype=torch.float64)
    near, far = low + unit[0] * (high - low), low + unit[1] * (high - low)
    axis = torch.randint(2, (count,), generator=generator)
    place = torch.rand(2, count, generator=generator, dtype=torch.float64)
    x = (place[0] * width).floor() - (width - 1) / 2
    y = (place[1] * height).floor() - (height - 1) / 2
    pixel = torch.stack((x, y, torch.ones_like(x)), dim=1)[:, :, None]
    middle = torch.where(axis == 0, (width - 1) / 2, (height - 1) / 2)

    def coordinate(parameters: Tensor) -> Tensor:
        points = (transform.matrices(parameters) @ pixel)[:, :2, 0]
        return points.gather(1, axis[:, None])[:, 0] + middle

    start, end = coordinate(near), coordinate(far)
    whole = torch.maximum(start, end).floor()
    passed = whole >= torch.minimum(start, end)
    for _ in range(60):
        half = (near + far) / 2
        before = (coordinate(half) < whole) == (start < whole)
        near = torch.where(before[:, None], half, near)
        far = torch.where(before[:, None], far, half)
    found = torch.cat((near[passed], far[passed]))
    away = found.sign() * torch.inf
    everything = torch.cat((found, torch.nextafter(found, away), torch.nextafter(found, -away)))
    return torch.minimum(torch.maximum(everything, low), high)
