"""Reachable coverage: obligations that bounds prove out of reach, and inputs that reach others.

Test coverage below 100 % may be the test set's fault or the network's. Bounds over the input domain
tell part of the two apart: what no input of it can cover need not be covered. The bounds hold for
every float32 execution (docs/guarantees.md), so no test can ever tick off what is ruled out here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.crown import refine
from verify.bounders.rows import Rows
from verify.coverage.layers import Layer, observed
from verify.coverage.records import MaskRecord
from verify.graph.ir import Graph
from verify.ops.registry import lookup
from verify.traverse import evaluate
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.region import Region
from verify.values.rounding import FLOAT32

LEAK = 0.05
"""Slope of the guide below 0, beside 1 above it."""

ReadsBack = Callable[[Tensor], Mapping[str, Tensor]]
"""Inputs of shape (batch, *input) -> the watched neurons' values, shape (batch, neurons), as the
model's own runtime computes them."""


def layer_bounds(
    graph: Graph, region: Region, layers: Sequence[Layer], budget: Budget = Budget()
) -> dict[str, Bounds]:
    """Bounds of every watched neuron over each region of the batch, shape (batch, neurons).

    CROWN's rows are taken for every entry of a layer before an activation, not only for those of
    undecided sign: sections need the values, not the sign.

    Args:
        graph: the network, in float64.
        region: one set of inputs per batch entry.
        layers: to watch.
        budget: raises OutOfTime once its deadline has passed.
    """
    walk = BackwardPass(graph, region, FLOAT32, budget)
    watched = {layer.name for layer in layers}
    for name in walk.names():
        node = walk.graph.node(name)
        if lookup(node).relax is not None:
            refine(walk, name)
            if name in watched and len(node.inputs) == 1:
                tighten_all(walk, node.inputs[0])
        walk.visit(name)
        if name in watched and lookup(node).mixes and lookup(node).relax is None:
            tighten_all(walk, name)
    found = walk.all_bounds()
    return {layer.name: layer.bounds(found[layer.name]) for layer in layers}


def tighten_all(walk: BackwardPass, name: str) -> None:
    """Both sides of every entry of a node by rows, unless its bounds are attained anyway."""
    if name in walk.exact or name not in walk.names():
        return
    bounds = walk.bounds[name]
    batch, size = bounds.lower.flatten(1).shape
    every = torch.arange(size).expand(batch, -1)
    rows = Rows(every, torch.ones(every.shape, dtype=bounds.lower.dtype))
    for side in (rows, rows.opposite()):
        for part in walk.chunks(side):
            walk.tighten(name, part, walk.least(name, part))


def possible_masks(record: MaskRecord, bounds: Mapping[str, Bounds]) -> dict[str, Tensor]:
    """Which obligations are not proved out of reach; bool, (neurons, sections), by layer.

    An obligation that some region of the batch leaves possible is possible.
    """
    found = {}
    for layer in record.layers:
        here = bounds[layer.name]
        mask = torch.zeros_like(record.covered[layer.name])
        for row in range(len(here.lower)):
            one = Bounds(here.lower[row : row + 1], here.upper[row : row + 1])
            mask |= record.criterion.possible(layer, one)
        found[layer.name] = mask & record.criterion.meant(layer)
    return found


@dataclass(frozen=True, slots=True)
class NeuronKinds:
    """What bounds say of the neurons of one layer that end in a Relu or are read as such.

    Attributes:
        layer: its name.
        dead: never above 0.
        always_on: always above 0.
        neurons: how many there are.
    """

    layer: str
    dead: tuple[int, ...]
    always_on: tuple[int, ...]
    neurons: int


def kinds(layers: Sequence[Layer], bounds: Mapping[str, Bounds]) -> tuple[NeuronKinds, ...]:
    """Which neurons are proved dead, or always on, over every region of the batch."""
    found = []
    for layer in layers:
        here = bounds[layer.name]
        dead = (here.upper <= 0).all(dim=0).nonzero().flatten().tolist()
        on = (here.lower > 0).all(dim=0).nonzero().flatten().tolist()
        found.append(NeuronKinds(layer.name, tuple(dead), tuple(on), layer.neurons))
    return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """An input that covers an obligation which the test set does not.

    Attributes:
        layer, neuron, section: the obligation.
        x: shape (*input), float32.
    """

    layer: str
    neuron: int
    section: int
    x: Tensor


@dataclass(frozen=True, slots=True)
class Search:
    """Signed gradient descent on the gap to each uncovered obligation, inside a box.

    Attributes:
        steps: per obligation.
        starts: inputs each one begins from: those of the seeds whose gap is least.
        at_once: obligations searched at once.
        first_step: of the box's width; later ones fall linearly to a twentieth of it.
    """

    steps: int = 40
    starts: int = 3
    at_once: int = 128
    first_step: float = 0.1

    def __call__(
        self,
        graph: Graph,
        record: MaskRecord,
        possible: Mapping[str, Tensor],
        seeds: Tensor,
        lower: Tensor,
        upper: Tensor,
        runtime: ReadsBack | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Reached]:
        """Inputs for obligations that are uncovered and not proved out of reach.

        Args:
            graph: the network in float32.
            record: what the test set covers.
            possible: as from `possible_masks`.
            seeds: shape (seeds, *input), float32: where searches may begin; in the box.
            lower, upper: ends of the box, broadcastable to an input.
            runtime: reads the neurons back in the model's own runtime; what it does not confirm
                is not returned. None leaves it to torch.
            progress: called with the number of obligations done.
        """
        found: list[Reached] = []
        done = 0
        for layer in record.layers:
            wanted = possible[layer.name] & ~record.covered[layer.name]
            places = wanted.nonzero()
            if not len(places) or not len(seeds):
                continue
            at_seeds = observed(graph, seeds, [layer])[layer.name]
            for part in places.split(self.at_once):
                found += self._part(
                    graph, record, layer, part, (seeds, at_seeds), (lower, upper), runtime
                )
                done += len(part)
                if progress is not None:
                    progress(done)
        return found

    def _part(
        self,
        graph: Graph,
        record: MaskRecord,
        layer: Layer,
        places: Tensor,
        seeds: tuple[Tensor, Tensor],
        ends: tuple[Tensor, Tensor],
        runtime: ReadsBack | None,
    ) -> list[Reached]:
        neuron, section = places[:, 0], places[:, 1]
        x, at_seeds = seeds
        lower, upper = (end.expand(x.shape[1:]) for end in ends)
        gap_of = record.criterion.gap
        # (obligations, seeds): from which seeds each is nearest.
        gaps = torch.stack(
            [gap_of(layer, row.expand(len(places), -1), neuron, section) for row in at_seeds], dim=1
        )
        nearest = gaps.topk(min(self.starts, len(x)), dim=1, largest=False).indices
        lane = torch.arange(len(places)).repeat_interleave(nearest.shape[1])
        point = x[nearest.flatten()].clone()
        width = (upper - lower).clamp(max=1e6)
        best = torch.full((len(lane),), torch.inf)
        held = point.clone()
        for step in range(self.steps + 1):
            leaf = point.detach().requires_grad_()
            values, leaky = guided(graph, leaf, layer)
            gap = gap_of(layer, values.detach(), neuron[lane], section[lane])
            better = gap < best
            best = torch.where(better, gap, best)
            held[better] = point[better]
            open_ = best >= 0
            if step == self.steps or not bool(open_.any()):
                break
            pull = gap_of(layer, leaky, neuron[lane], section[lane])
            (slope,) = torch.autograd.grad(pull.sum(), leaf)
            share = self.first_step * (1 - 0.95 * step / self.steps)
            point = torch.clamp(point - share * width * slope.sign(), lower, upper)
        found: dict[int, Reached] = {}
        hit = (best < 0).nonzero().flatten()
        read = None if runtime is None or not len(hit) else runtime(held[hit])[layer.name]
        if read is None and len(hit):
            read = observed(graph, held[hit], [layer])[layer.name].detach()
        for row, k in enumerate(hit.tolist()):
            assert read is not None
            i = int(lane[k])
            covers = record.criterion.hits(layer, read[row : row + 1])
            if i not in found and bool(covers[neuron[i], section[i]]):
                found[i] = Reached(layer.name, int(neuron[i]), int(section[i]), held[k].clone())
        return list(found.values())


def guided(graph: Graph, x: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
    """The neurons' values, and the same with a slope below 0 where a Relu cut it off.

    A neuron that is off has no gradient of its own that could turn it on.
    """
    values = evaluate(graph, x)
    node, output = graph.node(layer.name), values[layer.name]
    leaky = output
    if node.op == "Relu":
        leaky = output + LEAK * (values[node.inputs[0]] - output)
    return layer.values(output), layer.values(leaky)
