"""BetaCrown: linear bounds of many domains at once, with multipliers for their splits.

For a split s·z >= 0 of a pre-activation z, every beta >= 0 gives min g >= min (g - beta·s·z). The
search is float32 and without autograd: for fixed slopes and multipliers the bound is the value of a
linear form at its minimiser x*, and one forward walk from x* gives every z(x*), hence

    d bound / d alpha = A+·z(x*),   d bound / d beta = -s·z(x*),   d bound / d weight = row(x*).

What is found here is proposed to `verify.bounders.beta_proof`, and proves nothing itself.

Source:
    Wang et al. 2021 (beta-CROWN), arXiv:2103.06624.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from verify.bounders.domain_walk import Chords, Walk, settled
from verify.bounders.domains import Domains, Frame
from verify.bounders.slopes import SMALLEST_STEP
from verify.graph.ir import Node


@dataclass(frozen=True, slots=True, eq=False)
class Clauses:
    """The clauses' rows, padded to one number of rows.

    Attributes:
        coeff: (clause, row, out).
        const: (clause, row).
        real: whether a row is one of the clause's, (clause, row).
    """

    coeff: Tensor
    const: Tensor
    real: Tensor

    def to(self, dtype: torch.dtype) -> Clauses:
        """The same in another dtype."""
        return Clauses(self.coeff.to(dtype), self.const.to(dtype), self.real)


@dataclass(frozen=True, slots=True)
class Climb:
    """Projected Adam on slopes, multipliers of splits and weights of rows.

    Attributes:
        iterations: backward walks; the first evaluates what was inherited.
        alpha_rate: step size of slopes.
        beta_rate: step size of multipliers, times each one's scale.
        weight_rate: step size of the rows' weights.
        decay: factor on the rates per iteration.
        momentum, memory: Adam's beta1 and beta2.
        leave: share of the batch that must be proved before the rest goes on alone.
        cutting: whether multipliers of cuts are moved too; without, a cut only rules out.
    """

    iterations: int = 10
    alpha_rate: float = 0.1
    beta_rate: float = 0.3
    weight_rate: float = 0.1
    decay: float = 0.96
    momentum: float = 0.6
    memory: float = 0.95
    leave: float = 0.2
    cutting: bool = True


@dataclass(eq=False)
class Moments:
    """Adam's state of one parameter."""

    first: Tensor
    second: Tensor

    def step(self, gradient: Tensor, climb: Climb, number: int) -> Tensor:
        """The step in units of the rate."""
        self.first.mul_(climb.momentum).add_(gradient, alpha=1 - climb.momentum)
        self.second.mul_(climb.memory).addcmul_(gradient, gradient, value=1 - climb.memory)
        scale = (1 - climb.memory**number) ** 0.5 / (1 - climb.momentum**number)
        return torch.div(self.first, self.second.sqrt().add_(SMALLEST_STEP)).mul_(scale)

    def take(self, rows: Tensor) -> Moments:
        """Some of the batch."""
        return Moments(self.first[rows], self.second[rows])


def moments(like: Tensor) -> Moments:
    """A fresh state."""
    return Moments(torch.zeros_like(like), torch.zeros_like(like))


@dataclass(frozen=True, slots=True, eq=False)
class Climbed:
    """What `climb` found.

    Attributes:
        domains: with the best slopes, multipliers and values met.
        coeff: coefficients at the relus' outputs in the last walk, (batch, columns).
        reached: pre-activations at its minimiser, (batch, columns).
        point: the minimiser, (batch, *input).
        chords: of the domains.
    """

    domains: Domains
    coeff: Tensor
    reached: Tensor
    point: Tensor
    chords: Chords


def walk_of(
    frame: Frame, clauses: Clauses, domains: Domains, chords: Chords, cutting: bool = False
) -> Walk:
    """The backward walk of each domain's weighted rows.

    Args:
        frame: what the domains share.
        clauses: of the case.
        domains: settled.
        chords: of the domains.
        cutting: whether to see what cuts would bring whose multipliers are 0.
    """
    weight = domains.weight[:, None]
    rows = torch.bmm(weight, clauses.coeff[domains.clause])
    const = torch.bmm(weight, clauses.const[domains.clause][:, :, None])[:, 0, 0]
    output = frame.graph.output
    pushed = None
    targeted = bool(domains.push.any())
    if domains.slots.shape[1] or targeted:
        wide = rows.new_zeros(len(domains), frame.columns + 1)
        wide.scatter_add_(1, domains.slots, -domains.beta * domains.sign)
        if targeted:
            wide.scatter_add_(1, domains.target[:, None], domains.push[:, None])
        pushed = wide[:, :-1]
    start = start_of(frame, domains)
    shape = (len(domains), 1, *start.shape)
    rows = rows.view(shape) if start is output else rows.new_zeros(shape)
    step, cuts = None, frame.cuts
    if cuts is not None and start is output and (cutting or bool(domains.cut.any())):
        count = domains.cut.shape[1]
        step = domains.cut @ cuts.sign[:count]
        const = const + domains.cut @ cuts.room[:count]
    return Walk(frame, chords, domains.alpha, pushed, start.name, rows, const, step)


def start_of(frame: Frame, domains: Domains) -> Node:
    """The node to walk from: the output, or the targets' own if no clause is weighed."""
    if not bool(domains.weight.any()):
        for layer in frame.layers:
            if bool(((domains.target >= layer.first) & (domains.target < layer.last)).all()):
                return frame.graph.node(layer.source)
    return frame.graph.output


def climb(frame: Frame, clauses: Clauses, start: Domains, goal: float, how: Climb) -> Climbed:
    """Raise every domain's bound; what exceeds the goal early is left as it is then.

    Args:
        frame: what the domains share.
        clauses: of the case.
        start: with slopes and multipliers to begin from.
        goal: bounds above it are enough.
        how: the settings.
    """
    cuts = frame.cuts
    if cuts is not None:
        start = replace(start, cut=cuts.widened(start.cut))
    domains, chords = settled(frame, start)
    best = replace(domains, value=start.value.new_full((len(start),), -torch.inf))
    parts: list[tuple[Tensor, Climbed]] = []
    where = torch.arange(len(start))
    states = {name: moments(getattr(domains, name)) for name in ("alpha", "beta", "weight", "cut")}
    several = clauses.coeff.shape[1] > 1 or bool(start.push.any())
    blank = frame.columns
    for number in range(1, how.iterations + 1):
        walk = walk_of(frame, clauses, domains, chords, how.cutting)
        better = walk.value > best.value
        best = keep(best, domains, walk.value, better)
        last = number == how.iterations
        done = best.value > goal
        every = bool(done.all())
        reached, output = walk.forward()
        seen = Climbed(best, gathered(walk), reached, walk.point, chords)
        if last or every:
            parts.append((where, seen))
            break
        parameters = steps(walk, clauses, domains, states, how, number, reached, output, blank)
        domains = (
            replace(domains, **parameters)
            if several
            else replace(domains, alpha=parameters["alpha"], beta=parameters["beta"])
        )
        if walk.step is not None:
            domains = replace(
                domains, cut=cut_step(walk, domains, states["cut"], how, number, reached)
            )
        if float(done.sum()) >= how.leave * len(done):
            leaving, staying = done.nonzero().flatten(), (~done).nonzero().flatten()
            parts.append((where[leaving], taken(seen, leaving)))
            where, best, domains = where[staying], best.take(staying), domains.take(staying)
            chords = chords.take(staying)
            states = {name: state.take(staying) for name, state in states.items()}
    return assembled(parts)


def keep(best: Domains, now: Domains, value: Tensor, better: Tensor) -> Domains:
    """The best met so far, with what was better now taken over."""
    wide = better[:, None]
    return replace(
        best,
        value=torch.where(better, value, best.value),
        alpha=torch.where(wide, now.alpha, best.alpha),
        beta=torch.where(wide, now.beta, best.beta),
        weight=torch.where(wide, now.weight, best.weight),
        cut=torch.where(wide, now.cut, best.cut),
    )


def gathered(walk: Walk) -> Tensor:
    """Coefficients at all layers' outputs, (batch, columns); 0 where no row passed."""
    parts = [
        walk.coeff.get(layer.name, walk.alpha.new_zeros(len(walk.alpha), layer.last - layer.first))
        for layer in walk.frame.layers
    ]
    return torch.cat(parts, dim=1) if parts else torch.zeros_like(walk.alpha)


def cut_step(
    walk: Walk, domains: Domains, state: Moments, how: Climb, number: int, reached: Tensor
) -> Tensor:
    """Multipliers of cuts after one step of Adam."""
    cuts = walk.frame.cuts
    assert cuts is not None
    signs = torch.cat([walk.seen[la.name][0] for la in walk.frame.layers], dim=1)
    per_z = torch.cat([walk.seen[la.name][1] for la in walk.frame.layers], dim=1)
    about = cuts.about(domains.clause)
    gradient = torch.addcmul(signs, per_z, reached) @ cuts.sign.T + cuts.room
    # A unit of a multiplier is worth what a neuron of the cut loses to its chord, in the mean.
    loss = gathered(walk).abs() * walk.chords.offset
    scale = loss @ cuts.sign.abs().T / cuts.literals.clamp(min=1)
    moved = state.step(gradient * about, how, number) * scale
    rate = how.decay ** (number - 1) * how.beta_rate
    return torch.add(domains.cut, moved, alpha=rate).clamp_(min=0) * about


def steps(
    walk: Walk,
    clauses: Clauses,
    domains: Domains,
    states: Mapping[str, Moments],
    how: Climb,
    number: int,
    reached: Tensor,
    output: Tensor | None,
    blank: int,
) -> dict[str, Tensor]:
    """Slopes, multipliers and weights after one step of Adam."""
    decay = how.decay ** (number - 1)
    if walk.step is None:
        slope = gathered(walk).clamp_(min=0).mul_(reached).mul_(walk.chords.open)
    else:
        slope = torch.cat([walk.lift[la.name] for la in walk.frame.layers], dim=1).mul_(reached)
    moved = states["alpha"].step(slope, how, number)
    alpha = torch.add(domains.alpha, moved, alpha=decay * how.alpha_rate).clamp_(0, 1)
    found = {"alpha": alpha, "beta": domains.beta, "weight": domains.weight}
    if domains.slots.shape[1]:
        at = reached.gather(1, domains.slots.clamp(max=blank - 1))
        moved = states["beta"].step(-domains.sign * at, how, number) * domains.scale
        found["beta"] = torch.add(domains.beta, moved, alpha=decay * how.beta_rate).clamp_(min=0)
    targeted = bool(domains.push.any())
    weighed = walk.start == walk.frame.graph.output.name and how.weight_rate > 0
    if weighed and output is not None and (clauses.coeff.shape[1] > 1 or targeted):
        real = clauses.real[domains.clause]
        rows = torch.bmm(clauses.coeff[domains.clause], output.flatten(1)[:, :, None])[:, :, 0]
        rows = (rows + clauses.const[domains.clause]) * real
        if not targeted:
            # Weights are on a simplex: only how far a row is above the mean matters.
            rows = (rows - (rows * domains.weight).sum(dim=1, keepdim=True)) * real
        moved = states["weight"].step(rows, how, number)
        weight = torch.add(domains.weight, moved, alpha=decay * how.weight_rate).clamp_(min=0)
        weight = weight * real
        if not targeted:
            total = weight.sum(dim=1, keepdim=True)
            weight = torch.where(total > 0, weight / total, domains.weight)
        found["weight"] = weight
    return found


def taken(climbed: Climbed, rows: Tensor) -> Climbed:
    """Some of the batch."""
    return Climbed(
        climbed.domains.take(rows),
        climbed.coeff[rows],
        climbed.reached[rows],
        climbed.point[rows],
        climbed.chords.take(rows),
    )


def assembled(parts: list[tuple[Tensor, Climbed]]) -> Climbed:
    """Parts put back in the order they came in."""
    if len(parts) == 1:
        return parts[0][1]
    order = torch.cat([where for where, _ in parts]).argsort()

    def whole(of: str, inner: str | None = None) -> Tensor:
        pieces = [
            getattr(p, of) if inner is None else getattr(getattr(p, of), inner) for _, p in parts
        ]
        return torch.cat(pieces)[order]

    domains = Domains(*(whole("domains", name) for name in Domains.__slots__))
    chords = Chords(*(whole("chords", name) for name in Chords.__slots__))
    return Climbed(domains, whole("coeff"), whole("reached"), whole("point"), chords)
