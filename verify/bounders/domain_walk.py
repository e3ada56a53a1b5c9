"""Walks over a frame for many domains at once: back along lines, and forward from the minimiser."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from verify.bounders.cuts import stepped
from verify.bounders.domains import Domains, Frame, Layer
from verify.bounders.slopes import along_lines
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
        step: coefficients of the signs of the columns, (batch, columns), or None.
        lift: per layer, d coefficient / d alpha where there is a step.
        seen: per layer, d bound / d step, as a constant and per unit of z.
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
    step: Tensor | None = None
    coeff: dict[str, Tensor] = field(default_factory=dict)
    slope: dict[str, Tensor] = field(default_factory=dict)
    offset: dict[str, Tensor] = field(default_factory=dict)
    others: dict[str, Tensor] = field(default_factory=dict)
    lift: dict[str, Tensor] = field(default_factory=dict)
    seen: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
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
        if self.step is not None:
            return self.bent(layer, here, coeff)
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

    def bent(self, layer: Layer, here: LinearForm, coeff: Tensor) -> LinearForm:
        """A relu whose neurons' signs have coefficients too."""
        assert self.step is not None
        open_, own = layer.of(self.chords.open) > 0, layer.of(self.chords.slope)
        step, alpha = layer.of(self.step), layer.of(self.alpha)
        lower = torch.where(open_, self.frame.lower[layer.first : layer.last], -1.0)
        upper = torch.where(open_, self.frame.upper[layer.first : layer.last], 1.0)
        line = stepped(coeff, step, alpha, lower, upper)
        self.coeff[layer.name] = coeff
        self.slope[layer.name] = torch.where(open_ & line.bent, alpha, own)
        self.offset[layer.name] = torch.where(line.bent, 0.0, layer.of(self.chords.offset))
        self.lift[layer.name] = torch.where(open_, line.lift, 0.0)
        self.seen[layer.name] = (
            torch.where(open_, line.kept, own),
            torch.where(open_, line.per_z, 0.0),
        )
        const = torch.where(open_, line.offset, step * own).sum(dim=1, keepdim=True)
        passed = torch.where(open_, line.nu, coeff * own)
        if layer.columns is not None:
            passed = (here.coeff.flatten(1) * layer.fixed).index_copy_(1, layer.columns, passed)
        return LinearForm(passed.view(here.coeff.shape), here.const + const)

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
                rule = lookup(node).along
                along = along_lines if rule is None else partial(rule, node)
                given = [values[name][:, None] for name in node.inputs]
                read = along(frame.lines[node.name], self.others[node.name], *given)
                values[node.name] = read[:, 0]
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
