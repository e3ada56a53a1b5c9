"""Numbers as they are: what tests of the last bits share."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor


def drawn(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    """Normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def exact(values: Tensor) -> list[Fraction]:
    """The numbers as they are."""
    return [Fraction(v) for v in values.flatten().tolist()]


def dotted(a: list[Fraction], b: list[Fraction]) -> Fraction:
    """Their product."""
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))
