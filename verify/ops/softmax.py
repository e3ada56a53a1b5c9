"""Softmax over the last axis: p_i = 1 / S_i with S_i = sum_j exp(x_j - x_i).

Differences are linear, exp is convex, and the reciprocal is convex and falls: so chords of exp and
a tangent of the reciprocal bound p_i from below, tangents of exp and the reciprocal's chord from
above. Slopes are arbitrary at every step; offsets follow from them.

Source:
    The decomposition is that of Wei et al. 2023, Convex Bounds on the Softmax Function
    (arXiv:2303.01713), section 4, with offsets computed from rounded slopes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from verify.errors import InternalError
from verify.graph.ir import Node
from verify.ops.elementwise import rows_times
from verify.ops.registry import Op, register
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding, gamma, unit

NARROW = 1e-6
"""Intervals narrower than this get no rows."""
EXPONENTIAL = 2.0**-20
"""Relative deviation of the exp inside deployed softmax kernels: above twice what
`benchmarks/kernel_sweep.py` found of ONNX Runtime's."""
LARGEST_EXPONENT = {torch.float32: 40.0, torch.float64: 300.0}
"""Differences beyond this would overflow when squared: lines are then flat."""
ROUNDINGS = 32
"""Roundings of the few operations between a slope and its offset, with room."""


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """Lower and upper planes of every output: matrices (batch, *lead, n, n) and offsets.

    Attributes:
        lower, upper: coefficient of output i (last axis but one) on input j (last axis).
        low, high: offsets, shape (batch, *lead, n).
        reach: the largest sum of magnitudes that either plane adds up, same shape as offsets.
    """

    lower: Tensor
    low: Tensor
    upper: Tensor
    high: Tensor
    reach: Tensor


KNOWN: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Planes, kept as long as the bounds they belong to."""


def forward(_node: Node, x: Tensor) -> Tensor:
    """The softmax of the last axis."""
    return x.softmax(dim=-1)


def sums(x: Bounds) -> tuple[Tensor, Tensor]:
    """The least and the largest S_i, before rounding; shape (batch, *lead, n)."""
    own = torch.eye(x.lower.shape[-1], dtype=torch.bool, device=x.lower.device)
    down = (x.lower[..., None, :] - x.upper[..., :, None]).masked_fill(own, 0.0)
    up = (x.upper[..., None, :] - x.lower[..., :, None]).masked_fill(own, 0.0)
    return down.exp().sum(dim=-1), up.exp().sum(dim=-1)


def interval(_node: Node, x: Bounds) -> Bounds:
    """1 / S_i falls in S_i; the ends are attained, each by its own corner."""
    least, most = sums(x)
    return Bounds(1 / most, 1 / least)


def planes(x: Bounds) -> Planes:
    """The planes of a box, computed once."""
    found = KNOWN.get(x.lower)
    if found is None or found[0] is not x.upper:
        found = (x.upper, compute(x))
        KNOWN[x.lower] = found
    known: Planes = found[1]
    return known


def compute(x: Bounds) -> Planes:
    """The planes of a box."""
    n, dtype = x.lower.shape[-1], x.lower.dtype
    tiny = ROUNDINGS * unit(dtype) if dtype == torch.float64 else 0.0
    own = torch.eye(n, dtype=torch.bool, device=x.lower.device)
    down = (x.lower[..., None, :] - x.upper[..., :, None]).masked_fill(own, 0.0)
    up = (x.upper[..., None, :] - x.lower[..., :, None]).masked_fill(own, 0.0)
    # The differences themselves are rounded; a little more on either side pays for it.
    spare = (x.magnitude()[..., None, :] + x.magnitude()[..., :, None]) * tiny
    down, up = down - spare, up + spare
    fits = up.amax(dim=-1) < LARGEST_EXPONENT[dtype]
    up = up.clamp(max=LARGEST_EXPONENT[dtype])
    down = torch.minimum(down, up)
    width = up - down
    low, high = down.exp(), up.exp()
    middle = (down + up) / 2
    tangent = middle.exp()
    chord = torch.where(width > NARROW, (high - low) / width.clamp(min=NARROW), tangent)
    # exp(d) <= chord·d + over,  exp(d) >= tangent·d + under  =  tangent·(d + 1 - middle).
    over = torch.maximum(low - chord * down, high - chord * up)
    size = high + chord * torch.maximum(down.abs(), up.abs())
    over = over + size * tiny
    under = tangent * (1 - middle) - tangent * (1 + middle.abs()) * tiny
    least, most = low.sum(dim=-1), high.sum(dim=-1)
    room = gamma(n + ROUNDINGS, unit(dtype)) if dtype == torch.float64 else 0.0
    least, most = least * (1 - room), most * (1 + room)
    # Below: 1/S >= 2·sqrt(w) - w·S for every w; tangent where the chords meet the box's middle.
    at = (chord * middle + over).sum(dim=-1).clamp(min=1.0)
    below = 1 / at.square()
    lower = -below[..., None] * chord
    low_offset = 2 * below.sqrt() - below * over.sum(dim=-1)
    # Above: the reciprocal's chord over [least, most].
    above = 1 / (least * most)
    upper = -above[..., None] * tangent
    top = torch.maximum(1 / least + above * least, 1 / most + above * most)
    high_offset = top - above * under.sum(dim=-1)
    reach = x.magnitude()
    pair = reach[..., None, :] + reach[..., :, None]
    lower_size = below * (chord * pair + over.abs()).sum(dim=-1) + 2 * below.sqrt()
    upper_size = above * (tangent * pair + under.abs()).sum(dim=-1) + top
    low_offset, high_offset = low_offset - lower_size * room, high_offset + upper_size * room
    # Flat where that is better in the middle of the box, or where lines would overflow.
    centre = (x.lower + x.upper) / 2
    lower, upper = about(lower, own), about(upper, own)
    flat_low, flat_high = (1 / most) * (1 - room), (1 / least) * (1 + room)
    flat_low = torch.where(fits, flat_low, 0.0)
    flat_high = torch.where(fits, flat_high, flat_high.clamp(max=1 + room))
    value_low = (lower * centre[..., None, :]).sum(dim=-1) + low_offset
    value_high = (upper * centre[..., None, :]).sum(dim=-1) + high_offset
    use_low, use_high = fits & (value_low > flat_low), fits & (value_high < flat_high)
    return Planes(
        torch.where(use_low[..., None], lower, 0.0),
        torch.where(use_low, low_offset, flat_low),
        torch.where(use_high[..., None], upper, 0.0),
        torch.where(use_high, high_offset, flat_high),
        torch.maximum(
            torch.where(use_low, lower_size, 1.0), torch.where(use_high, upper_size, 1.0)
        ),
    )


def about(weights: Tensor, own: Tensor) -> Tensor:
    """Coefficients on x of sum_j weights_ij·(x_j - x_i): each row sums to zero."""
    others = weights.masked_fill(own, 0.0)
    return others - torch.diag_embed(others.sum(dim=-1))


def relax(node: Node, x: Bounds, alpha: Tensor | None) -> Relaxation:
    """A plane below and a plane above every output."""
    found = planes(x)
    return Relaxation(
        found.lower[:, None],
        found.low[:, None],
        found.upper[:, None],
        found.high[:, None],
        mixed=True,
    )


def undecided(node: Node, x: Bounds) -> Tensor:
    """Entries whose interval is wider than rounding."""
    return x.upper - x.lower > NARROW * (1 + x.magnitude())


def pull_back(node: Node, form: LinearForm, lines: Relaxation | None) -> tuple[LinearForm]:
    """A+·lower + A-·upper, by matrices."""
    if lines is None or lines.lower_offset is None or lines.upper_offset is None:
        raise InternalError(f"node {node.name!r} (Softmax) was pulled back without planes")
    negative = form.coeff.clamp(max=0)
    positive = form.coeff - negative
    const = form.const + rows_times(negative, lines.upper_offset)
    const = const + rows_times(positive, lines.lower_offset)
    coeff = by_row(positive, lines.lower_slope) + by_row(negative, lines.upper_slope)
    return (LinearForm(coeff, const, form.error),)


def by_row(vectors: Tensor, slopes: Tensor) -> Tensor:
    """v·M of every row; one product for all rows where they share their matrices.

    Args:
        vectors: shape (batch, row, *lead, n).
        slopes: shape (batch, row or 1, *lead, n, n).
    """
    if slopes.shape[1] > 1:
        return (vectors[..., None, :] @ slopes)[..., 0, :]
    # (batch, *lead, row, n): matrices instead of a vector per row.
    return (vectors.movedim(1, -2) @ slopes[:, 0]).movedim(-2, 1)


def along(node: Node, lines: Relaxation, coeff: Tensor, x: Tensor) -> Tensor:
    """Each row's own plane: the lower one where the coefficient is positive."""
    assert lines.lower_offset is not None
    assert lines.upper_offset is not None
    lower = by_row(x, lines.lower_slope.transpose(-1, -2)) + lines.lower_offset
    upper = by_row(x, lines.upper_slope.transpose(-1, -2)) + lines.upper_offset
    return torch.where(coeff > 0, lower, upper)


def noise(node: Node, rounding: Rounding, dtype: torch.dtype, x: Bounds) -> Tensor:
    """Our products and sums, and a deployed kernel's.

    An executed exp(x_j - max) is off by its kernel and by the rounding u·|x_j - max| of its
    argument. With p_j <= exp(-|x_j - max|), p_j·|x_j - max| is at most 1/e, and its sum over j at
    most log n (an entropy less log S). So p_i is off by at most
    p_i·(2·kernel + u·log n + gamma_{n+4}) + u/e, to first order; 2 % pay for the rest.
    """
    found = planes(x)
    n = x.lower.shape[-1]
    ours = 8 * gamma(node.size + 2 * n + 16, unit(dtype)) * (found.reach + 1)
    if not rounding.kernels:
        return ours
    u = rounding.execution
    most = found.high.clamp(max=1.0)
    relative = 2 * EXPONENTIAL + u * math.log(n) + gamma(n + 4, u)
    theirs = 1.02 * (most * relative + u / math.e) + 2 * n * rounding.smallest
    known = x.magnitude().flatten(1).amax(dim=1) < rounding.largest
    error = ours + theirs
    return torch.where(known.view(-1, *[1] * len(node.shape)), error, torch.inf)


register(
    Op(
        name="Softmax",
        forward=forward,
        interval=interval,
        pull_back=pull_back,
        noise=noise,
        rounds=True,
        relax=relax,
        undecided=undecided,
        along=along,
        mixes=True,
    )
)
