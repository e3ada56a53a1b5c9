"""ArgMax, Trunc, Level, Exceeds, Equal: whole numbers from comparisons, executed without rounding.

Their values jump, so their lines are flat: the interval rule is all that is known of them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from verify.errors import InternalError
from verify.graph.comparisons import FLUSHED
from verify.graph.ir import Node
from verify.ops.elementwise import rows_times
from verify.ops.registry import Op, register
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding, gamma, unit

LARGEST_WHOLE = 2.0**30
"""Beyond this a cast to an integer may not fit, and nothing is known of it."""

Interval = Callable[..., Bounds]


def flat(
    name: str,
    forward: Callable[..., Tensor],
    interval: Interval,
    undecided: Callable[..., Tensor | tuple[Tensor, ...]],
    *,
    mixes: bool = False,
    largest: float = float("inf"),
) -> Op:
    """Register an operator of which only bounds are known.

    Args:
        name: of the operator.
        forward: (node, *inputs) -> output.
        interval: (node, *bounds) -> bounds of the output.
        undecided: see `Op.undecided`.
        mixes: see `Op.mixes`.
        largest: what inputs must stay below for an execution to be known.
    """

    def relax(node: Node, x: Bounds, alpha: Tensor | None, *others: Bounds) -> Relaxation:
        found = interval(node, x, *others)
        zero = torch.zeros_like(found.lower)[:, None]
        low, high = found.lower[:, None], found.upper[:, None]
        return Relaxation(zero, low, zero, high, mixed=True)

    def pull_back(node: Node, form: LinearForm, lines: Relaxation | None) -> tuple[LinearForm, ...]:
        if lines is None or lines.lower_offset is None or lines.upper_offset is None:
            raise InternalError(f"node {node.name!r} ({name}) was pulled back without bounds")
        negative = form.coeff.clamp(max=0)
        const = form.const + rows_times(negative, lines.upper_offset)
        const = const + rows_times(form.coeff - negative, lines.lower_offset)
        zeros = [form.coeff.new_zeros(*const.shape, *shape) for shape in node.input_shapes]
        rest = [LinearForm(z, torch.zeros_like(const)) for z in zeros[1:]]
        return LinearForm(zeros[0], const, form.error), *rest

    def along(node: Node, lines: Relaxation, coeff: Tensor, *values: Tensor) -> Tensor:
        assert lines.lower_offset is not None
        assert lines.upper_offset is not None
        return torch.where(coeff > 0, lines.lower_offset, lines.upper_offset)

    def noise(node: Node, rounding: Rounding, dtype: torch.dtype, *inputs: Bounds) -> Tensor:
        size = interval(node, *inputs).magnitude()
        error = 2 * gamma(node.size + 8, unit(dtype)) * size
        biggest = torch.stack([x.magnitude().flatten(1).amax(dim=1) for x in inputs]).amax(dim=0)
        return torch.where((biggest < largest).view(-1, *[1] * len(node.shape)), error, torch.inf)

    return register(
        Op(
            name=name,
            forward=forward,
            interval=interval,
            pull_back=pull_back,
            noise=noise,
            rounds=largest < float("inf"),
            relax=relax,
            undecided=undecided,
            along=along,
            mixes=mixes,
        )
    )


def axis_of(node: Node) -> int:
    """The axis that ArgMax reduces, counted with the batch axis."""
    return node.scalar("axis") + 1


def argmax(node: Node, x: Tensor) -> Tensor:
    """The first place of the largest entry along the axis, which disappears."""
    axis = axis_of(node)
    best = x == x.amax(dim=axis, keepdim=True)
    # torch.argmax may return any of equals.
    return best.to(torch.uint8).argmax(dim=axis).to(x.dtype)


def contenders(node: Node, x: Bounds) -> Tensor:
    """Which entries may be the largest along the axis."""
    return x.upper >= x.lower.amax(dim=axis_of(node), keepdim=True) - FLUSHED


def interval_argmax(node: Node, x: Bounds) -> Bounds:
    """The first and the last place that may hold the largest entry."""
    axis = axis_of(node)
    shape = [1] * x.lower.ndim
    shape[axis] = x.lower.shape[axis]
    place = torch.arange(shape[axis], dtype=x.lower.dtype, device=x.lower.device).view(shape)
    may = contenders(node, x)
    least = torch.where(may, place, torch.inf).amin(dim=axis)
    most = torch.where(may, place, -torch.inf).amax(dim=axis)
    # Bounds that are NaN leave no contender: then any place is possible.
    known = may.any(dim=axis)
    return Bounds(torch.where(known, least, 0.0), torch.where(known, most, float(shape[axis] - 1)))


def undecided_argmax(node: Node, x: Bounds) -> Tensor:
    """Contenders for a place that is not settled."""
    may = contenders(node, x)
    return may & (may.sum(dim=axis_of(node), keepdim=True) > 1) & (x.upper > x.lower)


def interval_trunc(_node: Node, x: Bounds) -> Bounds:
    """Cutting off decimals is increasing."""
    return Bounds(x.lower.trunc(), x.upper.trunc())


def interval_level(node: Node, x: Bounds) -> Bounds:
    """1 where only the level is possible, 0 where it is not possible."""
    level = node.tensors["level"]
    certain = (x.lower == level) & (x.upper == level)
    excluded = (x.lower - FLUSHED > level) | (x.upper + FLUSHED < level)
    return Bounds(certain.to(x.lower.dtype), (~excluded).to(x.lower.dtype))


def interval_exceeds(node: Node, x: Bounds) -> Bounds:
    """1 where the difference of two is above the gap, 0 where it is below its negation.

    Nearer to 0 the two may come out as equal, or either way round: x is of executed values, whose
    difference nobody computes.
    """
    gap = node.tensors["gap"]
    # NaN settles nothing.
    return Bounds((x.lower > gap).to(x.lower.dtype), (~(x.upper < -gap)).to(x.lower.dtype))


def interval_equal(_node: Node, x: Bounds, y: Bounds) -> Bounds:
    """1 where both are one and the same point, 0 where they cannot meet."""
    points = (x.lower == x.upper) & (y.lower == y.upper) & (x.lower == y.lower)
    apart = (x.lower - FLUSHED > y.upper) | (x.upper + FLUSHED < y.lower)
    return Bounds(points.to(x.lower.dtype), (~apart).to(x.lower.dtype))


def undecided_equal(node: Node, x: Bounds, y: Bounds) -> tuple[Tensor, Tensor]:
    """Entries that move, of outputs that are not settled."""
    found = interval_equal(node, x, y)
    open_ = found.lower < found.upper
    return open_ & (x.lower < x.upper), open_ & (y.lower < y.upper)


def open_output(interval: Interval) -> Callable[[Node, Bounds], Tensor]:
    """Entries whose output is not settled."""

    def undecided(node: Node, x: Bounds) -> Tensor:
        found = interval(node, x)
        return found.lower < found.upper

    return undecided


flat("ArgMax", argmax, interval_argmax, undecided_argmax, mixes=True)
flat(
    "Trunc",
    lambda node, x: x.trunc(),
    interval_trunc,
    open_output(interval_trunc),
    largest=LARGEST_WHOLE,
)
flat(
    "Level",
    lambda node, x: (x == node.tensors["level"]).to(x.dtype),
    interval_level,
    open_output(interval_level),
)
flat(
    "Exceeds",
    lambda node, x: (x > 0).to(x.dtype),
    interval_exceeds,
    open_output(interval_exceeds),
)
flat("Equal", lambda node, x, y: (x == y).to(x.dtype), interval_equal, undecided_equal, mixes=True)
