"""Figures as people read them."""

from __future__ import annotations

import math


def radius(value: float | None) -> str:
    """A radius with four digits."""
    if value is None:
        return "–"
    return "∞" if math.isinf(value) else f"{value:.4g}"


def time(value: float | None) -> str:
    """Seconds for people."""
    if value is None:
        return "–"
    if value < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"


def share(count: float | None, of: float = 1.0) -> str:
    """A share in per cent, rounded down, so that 100 % is all."""
    if count is None or of <= 0:
        return "–"
    return f"{math.floor(1000 * count / of + 1e-9) / 10:.1f} %"
