"""Elementary functions rounded outward: what is said to be an upper bound is one, in float64.

torch's float64 exp and log are within one unit in the last place (Sleef's u10 kernels; glibc's and
MKL's are no worse), but no standard promises it. Charged is `ELEMENTARY`, 32 units; a test compares
both functions with multi-precision arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from verify.values.rounding import SMALLEST_FLOAT64, UNIT_FLOAT64

ELEMENTARY = 32 * 2 * UNIT_FLOAT64
"""Relative error charged for one exp or log in float64; see the module's docstring."""


def exp_up(x: Tensor) -> Tensor:
    """At least e^x; NaN where x is."""
    return x.exp() * (1 + ELEMENTARY) + SMALLEST_FLOAT64


def exp_down(x: Tensor) -> Tensor:
    """At most e^x, and never negative."""
    return (x.exp() * (1 - ELEMENTARY) - SMALLEST_FLOAT64).clamp(min=0)


def log_up(x: Tensor) -> Tensor:
    """At least log x for x >= 0; -inf at 0."""
    value = x.log()
    return torch.where(torch.isinf(value), value, value + value.abs() * ELEMENTARY)


def log_down(x: Tensor) -> Tensor:
    """At most log x for x >= 0; -inf at 0."""
    value = x.log()
    return torch.where(torch.isinf(value), value, value - value.abs() * ELEMENTARY)


def added_up(x: Tensor, y: Tensor | float) -> Tensor:
    """At least x + y."""
    return _raised(x + y)


def added_down(x: Tensor, y: Tensor | float) -> Tensor:
    """At most x + y."""
    return -_raised(-(x + y))


def sum_up(x: Tensor, dim: int) -> Tensor:
    """At least the sum of the entries along an axis, whatever their signs."""
    total: Tensor = x.sum(dim=dim)
    return total + _slack(x, dim)


def sum_down(x: Tensor, dim: int) -> Tensor:
    """At most the sum of the entries along an axis, whatever their signs."""
    total: Tensor = x.sum(dim=dim)
    return total - _slack(x, dim)


def scaled_up(x: Tensor, by: Tensor | float) -> Tensor:
    """At least x·by."""
    return _raised(x * by)


def scaled_down(x: Tensor, by: Tensor | float) -> Tensor:
    """At most x·by."""
    return -_raised(-(x * by))


def over_up(x: Tensor, by: float) -> Tensor:
    """At least x/by."""
    return _raised(x / by)


def over_down(x: Tensor, by: float) -> Tensor:
    """At most x/by."""
    return -_raised(-(x / by))


def logsumexp_up(x: Tensor, dim: int) -> Tensor:
    """At least log sum_k e^(x_k); +inf where an entry is +inf."""
    top = _top(x, dim)
    value = added_up(top, log_up(sum_up(exp_up(added_up(x, -top.unsqueeze(dim))), dim)))
    return torch.where(torch.isposinf(x).any(dim=dim), torch.inf, value)


def logsumexp_down(x: Tensor, dim: int) -> Tensor:
    """At most log sum_k e^(x_k); entries of -inf, which say nothing, count as 0."""
    top = _top(x, dim)
    value = added_down(top, log_down(sum_down(exp_down(added_down(x, -top.unsqueeze(dim))), dim)))
    return torch.where(torch.isposinf(x).any(dim=dim), torch.inf, value)


def entropy_term_up(p: Tensor) -> Tensor:
    """At least -p log p for 0 <= p <= 1."""
    value: Tensor = torch.special.entr(p)
    return value + value.abs() * (2 * ELEMENTARY) + SMALLEST_FLOAT64


def entropy_term_down(p: Tensor) -> Tensor:
    """At most -p log p for 0 <= p <= 1."""
    value: Tensor = torch.special.entr(p)
    return value - value.abs() * (2 * ELEMENTARY) - SMALLEST_FLOAT64


def _top(x: Tensor, dim: int) -> Tensor:
    """The largest finite entry, 0 where there is none."""
    top = torch.where(torch.isfinite(x), x, -torch.inf).amax(dim=dim)
    return torch.where(torch.isfinite(top), top, 0.0)


def _slack(x: Tensor, dim: int) -> Tensor:
    """What the rounding of a sum can be: n·u times the sum of sizes, doubled; 0 if infinite."""
    size: Tensor = x.abs().sum(dim=dim)
    slack = size * (2 * (x.shape[dim] + 2) * UNIT_FLOAT64) + SMALLEST_FLOAT64
    bounded: Tensor = torch.where(torch.isfinite(slack), slack, 0.0)
    return bounded


def _raised(value: Tensor) -> Tensor:
    """A rounded result, raised by more than its rounding."""
    slack = value.abs() * (2 * UNIT_FLOAT64) + SMALLEST_FLOAT64
    raised: Tensor = torch.where(torch.isfinite(value), value + slack, value)
    return raised
