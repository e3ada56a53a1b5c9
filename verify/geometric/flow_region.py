"""Flowing: the images that a set of fields makes of one image, as a region for every bounder.

A row over the pixels is least over the fields; three bounds of that, the best of which counts:
each pixel's range; all channels of a pixel together, which look at one place (exact, as bilinear
functions are least at corners); and planes in the displacements, whose least value over smooth
fields is a linear program, bounded by duality.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from verify.geometric.flows import Flow, FlowForms
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.region import Box, flat_rows, settle
from verify.values.rounding import SPARE

FEW = 32
"""Rows for which the dual is ascended, where a proof is at stake; of more, and in searches, blocks
alone are looked at."""
STEPS = 150
"""Of the ascent; measured on digits and MNIST: more change the bound by less than a percent."""


@dataclass(frozen=True, slots=True, eq=False)
class Flowing:
    """All images that fields of a set make.

    Attributes:
        forms: of the pixels.
        flow: the set of fields.
    """

    forms: FlowForms
    flow: Flow

    @property
    def is_box(self) -> bool:
        """Channels move together, and so do neighbours of smooth fields."""
        return False

    def bounds(self) -> Bounds:
        """The pixels' range."""
        return self.forms.bounds

    def minimise(self, form: LinearForm) -> Tensor:
        """The best of the three bounds."""
        shape = tuple(self.forms.bounds.lower.shape[1:])
        if form.window is not None:
            laid = form.window.scatter(form.coeff, shape)
            return self.minimise(LinearForm(laid, form.const, form.error))
        flat = flat_rows(form, shape)
        found = Box(self.forms.bounds.lower, self.forms.bounds.upper).minimise(form)
        if shape[0] > 1:
            found = torch.maximum(found, self.together(flat, form))
        if self.flow.smooth is not None and self.flow.smooth < 2 * self.flow.delta:
            found = torch.maximum(found, self.coupled(flat, form))
        return found

    def together(self, flat: Tensor, form: LinearForm) -> Tensor:
        """Per pixel, the least over corners of the sum over channels."""
        rows = flat.unflatten(2, tuple(self.forms.slack.shape[1:]))
        least: Tensor | None = None
        for k in range(self.forms.corners.shape[1]):
            value = (rows * self.forms.corners[:, k, None]).sum(dim=2)
            least = value if least is None else torch.minimum(least, value)
        assert least is not None
        slack = (rows.abs() * self.forms.slack[:, None]).flatten(2).sum(dim=2)
        value = least.flatten(2).sum(dim=2) + form.const - slack * SPARE[flat.dtype]
        size = self.forms.bounds.magnitude() + self.forms.slack
        mass = torch.matmul(flat.abs(), size.flatten(1)[:, :, None])[:, :, 0]
        return settle(value, form, 2 * mass, flat.shape[2] + 16)

    def coupled(self, flat: Tensor, form: LinearForm) -> Tensor:
        """Planes in place of pixels, then the least over smooth fields, axis by axis."""
        shape = self.forms.slack.shape[1:]
        positive = flat.clamp(min=0).unflatten(2, tuple(shape))
        negative = flat.unflatten(2, tuple(shape)) - positive

        def part(i: int) -> Tensor:
            low, high = self.forms.lower[:, i, None], self.forms.upper[:, i, None]
            return torch.sum(positive * low + negative * high, dim=2)

        value = part(0).flatten(2).sum(dim=2) + form.const
        ratio = (self.flow.smooth or 0.0) / self.flow.delta * (1 + 2.0**-50)
        size = torch.maximum(self.forms.lower.abs().sum(dim=1), self.forms.upper.abs().sum(dim=1))
        mass = 2 * torch.matmul(flat.abs(), size.flatten(1)[:, :, None])[:, :, 0]
        for i in (1, 2):
            slopes = part(i)
            best = by_blocks(slopes, ratio)
            if flat.shape[1] <= FEW and form.error is not None:
                found, moved = by_ascent(slopes, ratio)
                best = torch.maximum(best, found)
                mass = mass + moved
            value = value + best
        return settle(value, form, mass * SPARE[flat.dtype], 4 * flat.shape[2] + 64)

    def minimiser(self, coeff: Tensor) -> Tensor:
        """The pixels' own ends: where the box is least."""
        bounds = self.forms.bounds
        return torch.where(coeff > 0, bounds.lower[:, None], bounds.upper[:, None])

    def take(self, rows: Tensor) -> Flowing:
        """Some of the batch."""
        return Flowing(self.forms.take(rows), self.flow)

    def to(self, dtype: torch.dtype) -> Flowing:
        """The same region in another dtype: for searches, not for proofs."""
        return Flowing(self.forms.to(dtype), self.flow)


def by_blocks(slopes: Tensor, ratio: float) -> Tensor:
    """Lower bound of min sum g·t over |t| <= 1, |t_p - t_q| <= ratio for neighbours.

    In a square of pixels about c, t_p is t_c up to min(2, ratio·|p - c|_1), so that

        min >= -|sum g_p| - sum |g_p|·min(2, ratio·|p - c|_1)

    and a square may be taken whole or as its four quarters, whichever is better. Fields continue
    beyond the border with the same constants, so squares may stick out.

    Args:
        slopes: g, shape (batch, row, height, width).
        ratio: not negative.
    """
    height, width = slopes.shape[2:]
    side = 1
    while side < max(height, width):
        side *= 2
    whole = functional.pad(slopes, (0, side - width, 0, side - height))
    size = whole.abs()
    best, step = -size, 2
    while step <= side:
        place = torch.arange(side, dtype=slopes.dtype) % step - (step - 1) / 2
        away = ((place.abs()[:, None] + place.abs()) * ratio).clamp(max=2.0)
        own = -summed(whole, step).abs() - summed(size * away, step)
        best = torch.maximum(own, summed(best, 2))
        step *= 2
    return torch.sum(best.flatten(2), dim=2)


def summed(values: Tensor, step: int) -> Tensor:
    """Sums over squares of that side, which divides the map's."""
    parts = values.unflatten(3, (-1, step)).unflatten(2, (-1, step))
    return torch.sum(parts, dim=(3, 5))


def by_ascent(slopes: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """The same minimum's dual, ascended: for any f on the edges between neighbours,

        min >= -sum |g - div f| - ratio·sum |f|

    Returns:
        The bound of each row, and the mass of its terms in f, by which rounding is measured.

    Source:
        The primal-dual steps of Chambolle and Pock 2011; any f they end with is sound.
    """
    step = 8.0**-0.5  # 1 over the norm of the difference operator
    t = torch.zeros_like(slopes)
    flows = [torch.zeros_like(t.diff(dim=2)), torch.zeros_like(t.diff(dim=3))]
    ahead = flows
    scale = slopes.abs().amax(dim=(2, 3), keepdim=True).clamp(min=1e-300)
    g = slopes / scale
    for _ in range(STEPS):
        # t goes down the slope g - div f; f follows the differences of t that exceed the ratio.
        t = (t - step * (g - divergence(ahead))).clamp(-1, 1)
        pulled = [f - step * t.diff(dim=axis) for f, axis in zip(flows, (2, 3), strict=True)]
        new = [p - p.clamp(-step * ratio, step * ratio) for p in pulled]
        ahead = [2 * a - b for a, b in zip(new, flows, strict=True)]
        flows = new
    flows = [f * scale for f in flows]
    rest = (slopes - divergence(flows)).abs().flatten(2).sum(dim=2)
    moved = torch.zeros_like(rest)
    for f in flows:
        moved = moved + f.abs().flatten(2).sum(dim=2)
    return -rest - ratio * moved, (8 + 2 * ratio) * moved


def divergence(flows: list[Tensor]) -> Tensor:
    """The adjoint of both differences: sum f·(t_next - t) = sum t·div f."""
    down, right = flows
    first = functional.pad(down, (0, 0, 1, 0)) - functional.pad(down, (0, 0, 0, 1))
    second = functional.pad(right, (1, 0)) - functional.pad(right, (0, 1))
    return first + second
