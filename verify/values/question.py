"""Question: does each input keep its label within its radius? What bounders and attacks share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.errors import DataError, SettingError, ShapeError
from verify.values.region import Box, LpBall, ball
from verify.values.rounding import UNIT_FLOAT64


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One neighbourhood and one label per batch entry.

    Attributes:
        x: shape (batch, *input), float32, in model input units.
        labels: int64, shape (batch,).
        eps: radii, float64, shape (batch,).
        p: infinity, 2 or 1.
        lower, upper: input range, broadcastable to the input; infinite for none.
    """

    x: Tensor
    labels: Tensor
    eps: Tensor
    p: float
    lower: Tensor
    upper: Tensor

    def region(self) -> Box | LpBall:
        """The neighbourhoods, rounded outward."""
        return ball(self.x, self.eps, self.p, lower=self.lower, upper=self.upper)

    def take(self, rows: Tensor) -> Question:
        """Some of the batch, by indices (which may repeat) or a mask."""
        return replace(self, x=self.x[rows], labels=self.labels[rows], eps=self.eps[rows])

    def at(self, eps: Tensor) -> Question:
        """The same inputs with other radii."""
        return replace(self, eps=eps.to(torch.float64))

    def distance(self, candidate: Tensor) -> Tensor:
        """The p-norm of candidate - x, rounded up; float64, shape (batch,)."""
        moved = (candidate.to(torch.float64) - self.x.to(torch.float64)).flatten(1)
        size = torch.linalg.vector_norm(moved, ord=self.p, dim=1)
        terms = 1 if math.isinf(self.p) else moved.shape[1]
        rounded: Tensor = size * (1 + 2 * (terms + 4) * UNIT_FLOAT64)
        return rounded

    def holds(self, candidate: Tensor) -> Tensor:
        """Which candidates are finite, inside their ball and in the range; bool, (batch,)."""
        wide = candidate.to(torch.float64)
        inside = (wide >= self.lower) & (wide <= self.upper)
        # An L-inf distance of float32 numbers is exact up to one rounding, which `distance` adds;
        # a candidate on the sphere must not be lost to it.
        slack = 1 + 4 * UNIT_FLOAT64 if math.isinf(self.p) else 1.0
        near = self.distance(candidate) <= self.eps * slack * (1 + 8 * UNIT_FLOAT64)
        return inside.flatten(1).all(dim=1) & near


def question(
    x: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    p: float = math.inf,
    *,
    input_range: tuple[float, float] | None = None,
) -> Question:
    """A question after a check of its parts.

    Args:
        x: shape (batch, *input), finite, in model input units.
        labels: integers, shape (batch,).
        eps: radius, >= 0; one for all or shape (batch,).
        p: infinity, 2 or 1.
        input_range: (low, high) that inputs never leave; None for no limits.

    Raises:
        DataError: if x holds NaN or infinity, or leaves the input range.
        SettingError: if eps, p or the range make no sense.
        ShapeError: if x and labels differ in length.
    """
    if x.ndim < 2 or labels.shape != x.shape[:1]:
        raise ShapeError(
            f"x has shape {tuple(x.shape)} and labels {tuple(labels.shape)}; expected "
            "(batch, *input) and (batch,); give one label per input"
        )
    if not bool(torch.isfinite(x).all()):
        where = (~torch.isfinite(x)).nonzero()[0].tolist()
        raise DataError(
            f"input {where[0]} holds NaN or infinity at {tuple(where[1:])}; clean the data first"
        )
    if p not in (1, 2, math.inf):
        raise SettingError(f"norm {p!r} is not supported; choose inf, 2 or 1")
    radius = torch.as_tensor(eps, dtype=torch.float64).expand(len(x))
    if not bool(torch.isfinite(radius).all()) or bool((radius < 0).any()):
        raise SettingError(
            f"eps is {float(radius.min())!r}, but a radius is a finite number >= 0; "
            "give it in model input units, for example --eps 0.03"
        )
    low, high = (-math.inf, math.inf) if input_range is None else input_range
    if not low < high:
        raise SettingError(f"the input range {low:g} to {high:g} is empty; give LOW < HIGH")
    if bool((x < low).any()) or bool((x > high).any()):
        raise DataError(
            f"inputs reach from {float(x.min()):g} to {float(x.max()):g}, outside the input range "
            f"{low:g} to {high:g}; give the true one with --input-range LOW HIGH, or 'none'"
        )
    # Inputs are float32 numbers: one on a limit such as 0.1 may have been rounded past it.
    bounds = torch.tensor([low, high], dtype=torch.float64)
    held = bounds.to(torch.float32).to(torch.float64)
    lower, upper = torch.minimum(bounds[0], held[0]), torch.maximum(bounds[1], held[1])
    return Question(x.to(torch.float32), labels.long(), radius, float(p), lower, upper)
