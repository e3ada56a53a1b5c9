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
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verify.bounders.domains import Domains, Frame, Layer
from verify.bounders.slopes import SMALLEST_STEP, along_lines
from verify.ops.registry import lookup
from verify.traverse import merged
from verify.values.linear_form import LinearForm


@dataclass(frozen=True, slots=True, eq=False)
class Chords:
    """The upper lines of a batch of domains, and which neurons are still open.

    Attributes:
        open: 1 where the sign is open, else 0; (batch, columns).
        slope, offset: of the upper line, same shape; slope is 1 or 0 where the sign is known.
    """

    open: Tensor
    slope: Tensor
    offset: Tensor

    def take(self, rows: Tensor) -> Chords:
        """Some of the batch."""
        return Chords(self.open[rows], self.slope[rows], self.offset[rows])


def chords_of(frame: Frame, domains: Domains) -> Chords:
    """The chords over each domain's bounds: the frame's, cut by the splits."""
    blank = frame.columns
    lower = split_ends(frame.lower, domains, blank, 1.0)
    upper = split_ends(frame.upper, domains, blank, -1.0)
    open_ = ((lower < 0) & (upper > 0)).to(lower.dtype)
    lower, upper = lower.clamp(max=0), upper.clamp(min=0)
    slope = upper / torch.where(upper > lower, upper - lower, 1.0)
    return Chords(open_, slope, -slope * lower * open_)


def settled(frame: Frame, domains: Domains) -> tuple[Domains, Chords]:
    """The domains with the slopes of decided neurons set to 1 or 0, and their chords."""
    chords = chords_of(frame, domains)
    return replace(domains, alpha=torch.where(chords.open > 0, domains.alpha, chords.slope)), chords


def split_ends(ends: Tensor, domains: Domains, blank: int, side: float) -> Tensor:
    """Bounds over the columns, (batch, columns), set to 0 where a split says so."""
    wide = torch.cat((ends, ends.new_zeros(1))).expand(len(domains), -1).clone()
    slots = torch.where(domains.sign == side, domains.slots, blank)
    wide.scatter_(1, slots, 0.0)
    return wide[:, :-1]


@dataclass(eq=False)
class Walk:
    """One backward walk of a batch, and the forward walk from its minimiser.

    Attributes:
        frame: what the domains share.
        chords: upper lines.
        alpha: slopes of the lower lines, (batch, columns); those of decided neurons are 0 or 1.
        pushed: coefficients to add at the pre-activations, (batch, columns), or None.
        start: node that the rows start at, and their coefficients there, (batch, 1, *node).
        const: constants of the rows, (batch,).
        coeff: per layer, coefficients met at its output, (batch, columns of the layer).
        slope, offset: per layer, of the line each coefficient read, same shape.
        others: coefficients met at the outputs of other nonlinear nodes.
        value: lower bound, (batch,).
        point: where it is attained, (batch, *input).
    """

    frame: Frame
    chords: Chords
    alpha: Tensor
    pushed: Tensor | None
    start: str
    rows: Tensor
    const: Tensor
    coeff: dict[str, Tensor] = field(default_factory=dict)
    slope: dict[str, Tensor] = field(default_factory=dict)
    offset: dict[str, Tensor] = field(default_factory=dict)
    others: dict[str, Tensor] = field(default_factory=dict)
    value: Tensor = field(init=False)
    point: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Walk back at once."""
        frame = self.frame
        layers = {layer.name: layer for layer in frame.layers}
        sources = {layer.source: layer for layer in frame.layers}
        pending = {self.start: LinearForm(self.rows, self.const[:, None])}
        for node in reversed(frame.graph.nodes[1:]):
            if node.name not in pending:
                continue
            here = pending.pop(node.name)
            if node.name in sources:
                here = self.push(sources[node.name], here)
            if node.name in layers:
                pieces: tuple[LinearForm, ...] = (self.through(layers[node.name], here),)
            else:
                op = lookup(node)
                if op.relax is not None:
                    self.others[node.name] = here.coeff
                pieces = op.pull_back(node, here, frame.lines.get(node.name))
            for name, shape, piece in zip(node.inputs, node.input_shapes, pieces, strict=True):
                old = pending.get(name)
                pending[name] = piece if old is None else merged(old, piece, shape, None)
        form = pending[frame.graph.input.name]
        coeff = form.coeff[:, 0]
        self.point = torch.where(coeff > 0, frame.region.lower, frame.region.upper)
        self.value = (coeff * self.point).flatten(1).sum(dim=1) + form.const[:, 0]

    def push(self, layer: Layer, here: LinearForm) -> LinearForm:
        """The form with this layer's share of `pushed` added."""
        if self.pushed is None:
            return here
        added = layer.laid(layer.of(self.pushed)).view(here.coeff.shape)
        return replace(here, coeff=here.coeff + added)

    def through(self, layer: Layer, here: LinearForm) -> LinearForm:
        """A relu: slope alpha where A > 0, the chord where A < 0."""
        flat = here.coeff.flatten(1)
        coeff = layer.pick(here.coeff)
        negative = coeff < 0
        slope = torch.where(negative, layer.of(self.chords.slope), layer.of(self.alpha))
        offset = layer.of(self.chords.offset) * negative
        self.coeff[layer.name], self.slope[layer.name] = coeff, slope
        self.offset[layer.name] = offset
        const = here.const + (coeff * offset).sum(dim=1, keepdim=True)
        passed = coeff * slope
        if layer.columns is not None:
            passed = (flat * layer.fixed).index_copy_(1, layer.columns, passed)
        return LinearForm(passed.view(here.coeff.shape), const)

    def forward(self) -> tuple[Tensor, Tensor | None]:
        """Pre-activations and output at the minimiser, along each domain's own lines.

        Returns:
            z over the columns, (batch, columns), and the output, (batch, *output), or None if the
            rows did not start there.
        """
        frame = self.frame
        layers = {layer.name: layer for layer in frame.layers}
        sources = {layer.source: layer for layer in frame.layers}
        found = torch.zeros_like(self.alpha)
        values = {frame.graph.input.name: self.point}
        for node in frame.graph.nodes[1:]:
            if any(name not in values for name in node.inputs):
                continue
            if node.name in layers:
                layer = layers[node.name]
                if layer.name not in self.coeff:
                    continue
                values[node.name] = self.along(layer, values[node.inputs[0]], layer.of(found))
            elif lookup(node).relax is None:
                op = lookup(node)
                values[node.name] = op.forward(node, *(values[name] for name in node.inputs))
            elif node.name in self.others:
                value = values[node.inputs[0]][:, None]
                along = along_lines(frame.lines[node.name], self.others[node.name], value)
                values[node.name] = along[:, 0]
            if node.name in sources:
                layer = sources[node.name]
                layer.of(found).copy_(layer.pick(values[node.name]))
            if node.name == self.start:
                break
        return found, values.get(self.start)

    def along(self, layer: Layer, value: Tensor, columns: Tensor) -> Tensor:
        """A relu's output along the lines that were read."""
        read = torch.addcmul(self.offset[layer.name], self.slope[layer.name], columns)
        if layer.columns is not None:
            read = (value.flatten(1) * layer.fixed).index_copy_(1, layer.columns, read)
        return read.view(value.shape)


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
    """

    iterations: int = 10
    alpha_rate: float = 0.1
    beta_rate: float = 0.3
    weight_rate: float = 0.1
    decay: float = 0.96
    momentum: float = 0.6
    memory: float = 0.95
    leave: float = 0.2


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


def walk_of(frame: Frame, clauses: Clauses, domains: Domains, chords: Chords) -> Walk:
    """The backward walk of each domain's weighted rows."""
    weight = domains.weight[:, None]
    rows = torch.bmm(weight, clauses.coeff[domains.clause])
    const = torch.bmm(weight, clauses.const[domains.clause][:, :, None])[:, 0, 0]
    output = frame.graph.output
    pushed = None
    if domains.slots.shape[1]:
        wide = rows.new_zeros(len(domains), frame.columns + 1)
        pushed = wide.scatter_add_(1, domains.slots, -domains.beta * domains.sign)[:, :-1]
    rows = rows.view(len(domains), 1, *output.shape)
    return Walk(frame, chords, domains.alpha, pushed, output.name, rows, const)


def climb(frame: Frame, clauses: Clauses, start: Domains, goal: float, how: Climb) -> Climbed:
    """Raise every domain's bound; what exceeds the goal early is left as it is then.

    Args:
        frame: what the domains share.
        clauses: of the case.
        start: with slopes and multipliers to begin from.
        goal: bounds above it are enough.
        how: the settings.
    """
    domains, chords = settled(frame, start)
    best = replace(domains, value=start.value.new_full((len(start),), -torch.inf))
    parts: list[tuple[Tensor, Climbed]] = []
    where = torch.arange(len(start))
    states = {name: moments(getattr(domains, name)) for name in ("alpha", "beta", "weight")}
    several = clauses.coeff.shape[1] > 1
    blank = frame.columns
    for number in range(1, how.iterations + 1):
        walk = walk_of(frame, clauses, domains, chords)
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
    )


def gathered(walk: Walk) -> Tensor:
    """Coefficients at all layers' outputs, (batch, columns); 0 where no row passed."""
    parts = [
        walk.coeff.get(layer.name, walk.alpha.new_zeros(len(walk.alpha), layer.last - layer.first))
        for layer in walk.frame.layers
    ]
    return torch.cat(parts, dim=1) if parts else torch.zeros_like(walk.alpha)


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
    slope = gathered(walk).clamp_(min=0).mul_(reached).mul_(walk.chords.open)
    moved = states["alpha"].step(slope, how, number)
    alpha = torch.add(domains.alpha, moved, alpha=decay * how.alpha_rate).clamp_(0, 1)
    found = {"alpha": alpha, "beta": domains.beta, "weight": domains.weight}
    if domains.slots.shape[1]:
        at = reached.gather(1, domains.slots.clamp(max=blank - 1))
        moved = states["beta"].step(-domains.sign * at, how, number) * domains.scale
        found["beta"] = torch.add(domains.beta, moved, alpha=decay * how.beta_rate).clamp_(min=0)
    if clauses.coeff.shape[1] > 1 and output is not None:
        real = clauses.real[domains.clause]
        rows = torch.bmm(clauses.coeff[domains.clause], output.flatten(1)[:, :, None])[:, :, 0]
        rows = (rows + clauses.const[domains.clause]) * real
        # Weights are on a simplex: only how far a row is above the mean matters.
        mean = (rows * domains.weight).sum(dim=1, keepdim=True)
        moved = states["weight"].step((rows - mean) * real, how, number)
        weight = torch.add(domains.weight, moved, alpha=decay * how.weight_rate).clamp_(min=0)
        total = (weight * real).sum(dim=1, keepdim=True)
        found["weight"] = torch.where(total > 0, weight * real / total, domains.weight)
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
