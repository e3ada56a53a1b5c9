"""Region: the set of inputs a claim is about; a box, or an L1 or L2 ball cut by a box.

The L-inf ball is a box, so `ball` returns one. Minima of linear forms over each region are exact up
to rounding, which is charged where the form carries an error term.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from verify.errors import SettingError, ShapeError
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.rounding import SPARE, gamma, unit
from verify.values.window import Window

OUTWARD = 2.0**-50
"""Relative widening that pays for centre +- eps in float64 (three roundings)."""


class Region(Protocol):
    """What every set of inputs can do; tensors have a batch axis in front."""

    def bounds(self) -> Bounds:
        """The smallest box around the region, shape (batch, *input)."""
        ...

    def minimise(self, form: LinearForm) -> Tensor:
        """Largest known lower bound of each form over the region, shape (batch, row)."""
        ...

    def minimiser(self, coeff: Tensor) -> Tensor:
        """A point of the region where coeff·x is least, shape of coeff (batch, row, *input)."""
        ...

    def take(self, rows: Tensor) -> Region:
        """The regions of the batch rows named by indices or a mask."""
        ...

    def to(self, dtype: torch.dtype) -> Region:
        """The same region in another dtype: for searches, not for proofs."""
        ...

    @property
    def is_box(self) -> bool:
        """Whether the region equals its box."""
        ...


def flat_rows(form: LinearForm, shape: tuple[int, ...]) -> Tensor:
    """Coefficients as (batch, row, inputs), after a check that they are over this input."""
    if tuple(form.coeff.shape[2:]) != shape:
        raise ShapeError(
            f"a form over shape {tuple(form.coeff.shape[2:])} was minimised over a region of "
            f"inputs of shape {shape}; pull the form back to the input first "
            "(verify.traverse.pull_back)"
        )
    return form.coeff.flatten(2)


def at_point(flat: Tensor, point: Tensor) -> Tensor:
    """A·x for one point per batch entry: (batch, row, n) and (batch, *input) -> (batch, row)."""
    return torch.matmul(flat, point.flatten(1)[:, :, None])[:, :, 0]


def settle(value: Tensor, form: LinearForm, size: Tensor, terms: int) -> Tensor:
    """A minimum lowered by the form's error and by the rounding of the minimum itself.

    Args:
        value: the computed minimum, shape (batch, row).
        form: the form; if its error is None, the value is returned as it is.
        size: |A|·X, a bound of all terms summed, shape (batch, row).
        terms: how many terms were summed.
    """
    if form.error is None:
        return value
    own = gamma(2 * terms + 16, unit(value.dtype)) * (size + form.const.abs())
    return value - (form.error + own) * SPARE[value.dtype]


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """All x with lower <= x <= upper, in model input units.

    Attributes:
        lower, upper: shape (batch, *input).
    """

    lower: Tensor
    upper: Tensor

    @property
    def is_box(self) -> bool:
        """A box is its own box."""
        return True

    def bounds(self) -> Bounds:
        """The box itself."""
        return Bounds(self.lower, self.upper)

    def minimise(self, form: LinearForm) -> Tensor:
        """min A·x + b = A·c + b - |A|·r with centre c and half width r."""
        centre = (self.lower + self.upper) / 2
        radius = torch.maximum(self.upper - centre, centre - self.lower)
        if form.window is not None:
            return self.minimise_patches(form, form.window, centre, radius)
        if form.phases is not None:
            # Phases only arise in searches, so there is no error to settle.
            centre, radius = (
                form.phases.split(values, *form.coeff.shape[3:]) for values in (centre, radius)
            )
            rows = form.coeff.flatten(2)
            return at_point(rows, centre) + form.const - at_point(rows.abs(), radius)
        flat = flat_rows(form, tuple(self.lower.shape[1:]))
        spread = at_point(flat.abs(), radius)
        value = at_point(flat, centre) + form.const - spread
        if form.error is None:
            return value
        # |A|·X; the widths above are rounded too, by at most one unit of X.
        size = at_point(flat.abs(), self.bounds().magnitude())
        return settle(value, form, size, flat.shape[2])

    def minimise_patches(
        self, form: LinearForm, window: Window, centre: Tensor, radius: Tensor
    ) -> Tensor:
        """`minimise` for a form kept as patches; overhanging cells meet centre and radius 0."""
        kernel = (form.coeff.shape[3], form.coeff.shape[4])
        split = form.coeff.unflatten(1, (window.repeats, window.place.shape[1])).flatten(3)

        phases = form.phases
        if phases is not None:
            kernel = (kernel[0] * phases.step, kernel[1] * phases.step)

        def dotted(rows: Tensor, values: Tensor) -> Tensor:
            if phases is None:
                patches = window.gather(values, kernel)[:, 0].flatten(2)
            else:
                patches = window.gather(values, kernel, phases.step)[:, 0].flatten(2)
            return torch.einsum("bkpn,bpn->bkp", rows, patches).flatten(1)

        sizes = split.abs()
        value = dotted(split, centre) + form.const - dotted(sizes, radius)
        if form.error is None:
            return value
        return settle(value, form, dotted(sizes, self.bounds().magnitude()), split.shape[3])

    def minimiser(self, coeff: Tensor) -> Tensor:
        """The corner that each row points away from."""
        return torch.where(coeff > 0, self.lower[:, None], self.upper[:, None])

    def take(self, rows: Tensor) -> Box:
        """Some of the batch."""
        return Box(self.lower[rows], self.upper[rows])

    def to(self, dtype: torch.dtype) -> Box:
        """The box in another dtype, rounded to nearest."""
        return Box(self.lower.to(dtype), self.upper.to(dtype))


@dataclass(frozen=True, slots=True, eq=False)
class LpBall:
    """All x with |x - centre|_p <= eps and lower <= x <= upper, for p = 1 or 2.

    Attributes:
        centre: shape (batch, *input), inside the limits.
        eps: radius in model input units, shape (batch,), >= 0.
        p: 1.0 or 2.0.
        lower, upper: limits of the input range, shape (batch, *input), possibly infinite.
    """

    centre: Tensor
    eps: Tensor
    p: float
    lower: Tensor
    upper: Tensor

    @property
    def is_box(self) -> bool:
        """A ball in this norm is not."""
        return False

    def bounds(self) -> Bounds:
        """centre +- eps, cut by the limits, rounded outward."""
        eps = self.eps.view(-1, *[1] * (self.centre.ndim - 1)) * (1 + OUTWARD)
        slack = (self.centre.abs() + eps) * OUTWARD
        return Bounds(
            torch.maximum(self.lower, self.centre - eps - slack),
            torch.minimum(self.upper, self.centre + eps + slack),
        )

    def room(self, flat: Tensor) -> Tensor:
        """How far each entry can move against its coefficient's sign; shape of flat."""
        down = (self.centre - self.lower).flatten(1)[:, None]
        up = (self.upper - self.centre).flatten(1)[:, None]
        eps = self.eps[:, None, None]
        return torch.minimum(torch.where(flat > 0, down, up), eps).clamp(min=0)

    def steps(self, flat: Tensor) -> Tensor:
        """The optimal step lengths d >= 0: x = centre - sign(A)·d; shape (batch, row, n).

        p = 1: a fractional knapsack, the largest |A| first. p = 2: d = min(room, |A| / mu) with mu
        such that |d|_2 = eps, found exactly after sorting by |A| / room.
        """
        size, room = flat.abs(), self.room(flat)
        eps = self.eps[:, None, None]
        if self.p == 1:
            order = size.argsort(dim=2, descending=True)
            held = room.gather(2, order)
            before = held.cumsum(dim=2) - held
            spent = torch.minimum(held, (eps - before).clamp(min=0))
            return torch.zeros_like(size).scatter(2, order, spent)
        ratio = torch.where(room > 0, size / torch.where(room > 0, room, 1.0), math.inf)
        order = ratio.argsort(dim=2, descending=True)
        full = room.gather(2, order).square().cumsum(dim=2)
        squares = size.gather(2, order).square()
        total = squares.sum(dim=2, keepdim=True)
        # Summed from the end: beside a large first square the others would be lost in a difference.
        tails = squares.flip(2).cumsum(dim=2).flip(2)
        rest = torch.cat((tails[..., 1:], torch.zeros_like(total)), dim=2)
        # With the first k entries at their room: mu_k² = rest_k / (eps² - full_k).
        left = eps.square() - full
        first = total / eps.square().clamp(min=torch.finfo(flat.dtype).tiny)
        mu_squared = torch.where(left > 0, rest / torch.where(left > 0, left, 1.0), math.inf)
        # An entry at its room has |A| / mu >= room; without this, a prefix that fills the radius
        # exactly, so that nothing is left, would get mu = infinity and no steps at all.
        sorted_ratio = ratio.gather(2, order).square()
        mu_squared = torch.minimum(mu_squared, sorted_ratio)
        mu_squared = torch.cat((first, mu_squared), dim=2)
        # The step |d(mu)| falls in mu, so the right k is the one whose mu lets the k-th entry reach
        # its room and the next one not; that is the least mu_k of a valid prefix.
        pad = torch.zeros_like(first)
        valid = torch.cat((sorted_ratio, pad), dim=2) <= mu_squared
        index = valid.to(torch.uint8).argmax(dim=2, keepdim=True)
        mu = mu_squared.gather(2, index).sqrt()
        steps = torch.where(mu > 0, size / torch.where(mu > 0, mu, 1.0), math.inf)
        return torch.minimum(steps, room)

    def minimise(self, form: LinearForm) -> Tensor:
        """A lower bound of the minimum by duality, at the multiplier of the computed minimiser.

        p = 1: sum |A|·d <= lam·eps + sum (|A| - lam)+·room       for every lam >= 0
        p = 2: sum |A|·d <= (mu·eps² + sum max_{d <= room} (2|A|d - mu·d²)) / 2   for every mu > 0

        Any multiplier bounds from above what the steps can gain, so rounding in the search for it
        costs tightness only.
        """
        if form.window is not None:
            laid = form.window.scatter(form.coeff, tuple(self.centre.shape[1:]))
            return self.minimise(LinearForm(laid, form.const, form.error))
        flat = flat_rows(form, tuple(self.centre.shape[1:]))
        size, room = flat.abs(), self.room(flat)
        steps = self.steps(flat)
        eps = self.eps[:, None]
        if self.p == 1:
            partial = (steps < room) & (room > 0)
            level = torch.where(partial, size, 0.0).amax(dim=2, keepdim=True)
            gain = level[..., 0] * eps + ((size - level).clamp(min=0) * room).sum(dim=2)
        else:
            free = (steps < room) & (steps > 0)
            mu = torch.where(free, size / torch.where(free, steps, 1.0), 0.0)
            mu = mu.amax(dim=2, keepdim=True)
            # If no entry is free, all are at their room (mu = 0) or the radius is zero.
            best = torch.where(
                mu > 0, torch.minimum(size / torch.where(mu > 0, mu, 1.0), room), room
            )
            gain = (mu[..., 0] * eps.square() + (best * (2 * size - mu * best)).sum(dim=2)) / 2
            # Hölder alone: never worse than |A|_2·eps, whatever the search for mu did.
            gain = torch.minimum(gain, torch.linalg.vector_norm(flat, dim=2) * eps)
        gain = torch.minimum(gain, (size * room).sum(dim=2))
        value = at_point(flat, self.centre) + form.const - gain
        if form.error is None:
            return value
        reach = at_point(size, self.centre.abs()) + (size * room).sum(dim=2)
        mass = reach + torch.linalg.vector_norm(flat, dim=2) * eps + size.amax(dim=2) * eps
        return settle(value, form, 4 * mass, flat.shape[2])

    def minimiser(self, coeff: Tensor) -> Tensor:
        """The point of the ball that each row points away from."""
        flat = coeff.flatten(2)
        moved = self.centre.flatten(1)[:, None] - flat.sign() * self.steps(flat)
        return moved.view_as(coeff)

    def take(self, rows: Tensor) -> LpBall:
        """Some of the batch."""
        return LpBall(self.centre[rows], self.eps[rows], self.p, self.lower[rows], self.upper[rows])

    def to(self, dtype: torch.dtype) -> LpBall:
        """The ball in another dtype, rounded to nearest."""
        return LpBall(
            self.centre.to(dtype),
            self.eps.to(dtype),
            self.p,
            self.lower.to(dtype),
            self.upper.to(dtype),
        )


def ball(
    centre: Tensor,
    eps: float | Tensor,
    p: float = math.inf,
    *,
    lower: float | Tensor = -math.inf,
    upper: float | Tensor = math.inf,
) -> Box | LpBall:
    """The inputs within eps of each centre in the p-norm, cut by the input range.

    Args:
        centre: shape (batch, *input), in model input units.
        eps: radius in the same units, >= 0; one for all or shape (batch,).
        p: 1, 2 or infinity.
        lower, upper: input range, broadcastable to the centre.

    Returns:
        A float64 Box for p = infinity, else a float64 LpBall, each rounded outward.

    Raises:
        SettingError: if eps is negative or not finite, p is another norm, or a centre lies outside
            the input range.
    """
    centre = centre.to(torch.float64)
    radius = torch.as_tensor(eps, dtype=torch.float64, device=centre.device).expand(len(centre))
    if not bool(torch.isfinite(radius).all()) or bool((radius < 0).any()):
        raise SettingError(
            f"eps is {float(radius.min())!r}, but a radius is a finite number >= 0; "
            "give it in model input units, for example --eps 0.03"
        )
    low = torch.as_tensor(lower, dtype=torch.float64, device=centre.device).expand_as(centre)
    high = torch.as_tensor(upper, dtype=torch.float64, device=centre.device).expand_as(centre)
    if bool(((centre < low) | (centre > high)).any()):
        raise SettingError(
            f"an input lies outside the input range: it reaches from {float(centre.min()):g} to "
            f"{float(centre.max()):g}, the range is {float(low.min()):g} to {float(high.max()):g}; "
            "give the range with --input-range LOW HIGH, or 'none'"
        )
    if p not in (1, 2, math.inf):
        raise SettingError(f"norm {p!r} is not supported; choose inf, 2 or 1")
    whole = LpBall(centre, radius, float(p), low, high)
    if p == math.inf:
        enclosure = whole.bounds()
        return Box(enclosure.lower, enclosure.upper)
    return whole
