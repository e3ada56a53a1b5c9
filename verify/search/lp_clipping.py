"""Clipping: what an unsafe input of a domain must satisfy tightens the neurons next to the input.

A node's dual values give one plane with a·x + c <= margin(x) all over its domain. Where the margin
is to be at most `aim`, so is the plane; and over the part of the box below the plane, each z next
to the input has tighter bounds,

    min z = max over t >= 0 of  min over the box of  (w + t·a)·x + b + t·(c - aim),

a concave function of t with its kinks at -w_i / a_i, whose best kink is found by sorting. Any t is
sound, so t comes from plain arithmetic and the bound is evaluated once with rounding charged.
Closing a leaf then means that it has no unsafe input, not that its margin is positive throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from verify.bounders.lp import Index, Layer, Vector
from verify.bounders.multipliers import KINKED
from verify.bounders.safe_lp import Prover
from verify.bounders.simplex import Domain
from verify.graph.ir import Graph
from verify.search.recorder import ProgramRecorder
from verify.values.linear_form import LinearForm
from verify.values.rounding import SPARE, UNIT_FLOAT64, gamma

MOST_INPUTS = 128
"""With more inputs one plane cuts little off each, and sorting costs more than a program."""


@dataclass(frozen=True, slots=True, eq=False)
class Clipper:
    """The neurons next to the input, and their rows.

    Attributes:
        prover: turns dual values into planes.
        place: of the neurons among all open ones, (neuron,).
        coeff, const, error: of z and then of -z over the flat input: what is executed lies at most
            `error` below coeff·x + const; shapes (2·neuron, input), (2·neuron,), (2·neuron,).
        recorder: is told what moved, or None.
    """

    prover: Prover
    place: Tensor
    coeff: Tensor
    const: Tensor
    error: Tensor
    recorder: ProgramRecorder | None = None

    def __call__(
        self, domains: Sequence[Domain], duals: Sequence[Vector], aim: float
    ) -> list[Domain | None]:
        """The domains with tighter bounds, and known signs fixed; None for one proved empty."""
        plane = self.prover.plane(domains, duals)
        assert plane.error is not None
        a, shift = plane.coeff.flatten(2), plane.const[:, 0] - plane.error[:, 0] - aim
        ledger = self.prover.ledger
        box = ledger.bounds[ledger.graph.input.name]
        lower, upper = box.lower.flatten(), box.upper.flatten()
        middle = (lower + upper) / 2
        radius = torch.maximum(upper - middle, middle - lower)
        t = self.best(a, shift, middle, radius)
        both = self.coeff + t[:, :, None] * a
        value = both @ middle - both.abs() @ radius + self.const + t * shift[:, None]
        size = torch.maximum(lower.abs(), upper.abs())
        moved = (self.coeff.abs() + t[:, :, None] * a.abs()) @ size
        moved = moved + self.const.abs() + t * (shift.abs() + plane.error[:, 0])[:, None]
        charge = gamma(2 * len(size) + 32, UNIT_FLOAT64) * moved
        least = value - (charge + self.error) * SPARE[torch.float64]
        known = torch.where(torch.isfinite(least), least, -torch.inf).numpy()
        count = len(self.place)
        place = self.place.numpy()
        if self.recorder is not None:
            for i, (domain, values) in enumerate(zip(domains, duals, strict=True)):
                before = np.stack([domain.lower[place], -domain.upper[place]])
                moved = torch.from_numpy(known[i].reshape(2, count) > before)
                some = moved.any(dim=0)
                times = torch.where(moved, t[i].view(2, count), torch.nan)
                self.recorder.clipped(domain, values, self.place[some], times[:, some])
        return [
            narrowed(domain, place, row[:count], -row[count:])
            for domain, row in zip(domains, known, strict=True)
        ]

    def best(self, a: Tensor, shift: Tensor, middle: Tensor, radius: Tensor) -> Tensor:
        """The best multiplier of the plane for every row, (domain, 2·neuron), >= 0."""
        kinks = -self.coeff / a
        kinks = torch.where(torch.isfinite(kinks) & (kinks > 0), kinks, torch.inf)
        sign = torch.where(self.coeff == 0, a.sign(), self.coeff.sign().expand_as(kinks))
        start = ((a[:, 0] @ middle) + shift)[:, None] - (sign * a) @ radius
        order = kinks.sort(dim=2)
        drop = (2 * a.abs() * radius).expand_as(kinks).gather(2, order.indices)
        after = start[:, :, None] - drop.cumsum(dim=2)
        # The first kink behind which the function falls; the last finite one if it never does.
        finite = torch.isfinite(order.values)
        rising = ((after > 0) & finite).sum(dim=2)
        rising = torch.minimum(rising, (finite.sum(dim=2) - 1).clamp(min=0))
        found = order.values.gather(2, rising[:, :, None])[:, :, 0]
        return torch.where((start > 0) & torch.isfinite(found), found, 0.0)


def narrowed(domain: Domain, place: Index, low: Vector, high: Vector) -> Domain | None:
    """The domain cut to further bounds; None if nothing is left of it."""
    lower, upper, side = domain.lower.copy(), domain.upper.copy(), domain.side.copy()
    lower[place] = np.maximum(lower[place], low)
    upper[place] = np.minimum(upper[place], high)
    if bool((lower > upper).any()):
        return None
    side = np.where(side != 0, side, np.where(lower >= 0, 1, np.where(upper <= 0, -1, 0)))
    return replace(domain, side=side.astype(np.int8), lower=lower, upper=upper)


def clipper(prover: Prover, recorder: ProgramRecorder | None = None) -> Clipper | None:
    """What clips a program's domains, or None where it would not pay."""
    graph = prover.ledger.graph
    if graph.input.size > MOST_INPUTS:
        return None
    first, places, rows = 0, [], []
    for layer in prover.program.layers:
        if len(layer.open_) and next_to_input(graph, layer.source):
            places.append(torch.arange(first, first + len(layer.open_)))
            rows.append(rows_of(prover, layer))
        first += len(layer.open_)
    if not rows:
        return None
    coeff = torch.cat([form.coeff[0].flatten(1) for form in rows])
    const = torch.cat([form.const[0] for form in rows])
    error = torch.cat([form.error[0] for form in rows if form.error is not None])
    return Clipper(
        prover,
        torch.cat(places),
        torch.cat([coeff, -coeff]),
        torch.cat([const, -const]),
        torch.cat([error, error]),
        recorder,
    )


def next_to_input(graph: Graph, name: str) -> bool:
    """Whether only affine nodes lie between a node and the input."""
    waiting = [name]
    while waiting:
        node = graph.node(waiting.pop())
        if node.op in KINKED:
            return False
        waiting.extend(node.inputs)
    return True


def rows_of(prover: Prover, layer: Layer) -> LinearForm:
    """z of a layer's open neurons over the input, with what executing them may be off by."""
    graph = prover.ledger.graph
    shape = graph.node(layer.source).shape
    chosen = torch.from_numpy(layer.kept[layer.open_])
    one_hot = torch.zeros(len(chosen), int(np.prod(shape)), dtype=torch.float64)
    one_hot[torch.arange(len(chosen)), chosen] = 1.0
    zero = torch.zeros(1, len(chosen), dtype=torch.float64)
    form = LinearForm(one_hot.view(1, len(chosen), *shape), zero, zero)
    return prover.ledger.pull(layer.source, form, {}, {})
