"""`verify coverage --reachable`: what no input can cover, and inputs that cover the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.cli import parsing
from verify.cli.coverage_tables import Row
from verify.cli.session import Session
from verify.coverage import Layer, MaskRecord
from verify.coverage.reachable import (
    NeuronKinds,
    Reached,
    ReadsBack,
    Search,
    kinds,
    layer_bounds,
    possible_masks,
)
from verify.coverage.records import CoverageRecord
from verify.errors import SettingError
from verify.graph.ir import Graph
from verify.network import NormalisedJudge
from verify.runtime import Runtime, Tap
from verify.values.region import Box

AT_ONCE_BOXES = 16


@dataclass(frozen=True, slots=True, eq=False)
class Beyond:
    """What was learnt of inputs that were not given.

    Attributes:
        possible: by criterion and layer, which obligations are not proved out of reach.
        reached: by criterion, inputs that cover what the test set does not.
        neurons: per layer, what is proved dead or always on.
    """

    possible: Mapping[str, Mapping[str, Tensor]]
    reached: Mapping[str, list[Reached]]
    neurons: tuple[NeuronKinds, ...]


def look_beyond(
    session: Session,
    layers: tuple[Layer, ...],
    records: Mapping[str, CoverageRecord],
    x: Tensor,
    reach: str,
) -> Beyond:
    """Bounds over the domain, and a search for what they leave possible."""
    exact = session.network.graph
    ends = session.input_range
    if reach == "range" and ends is None:
        raise SettingError(
            "--reachable range needs an input range; give --input-range, or a radius instead"
        )
    masks = {name: r for name, r in records.items() if isinstance(r, MaskRecord)}
    wide = x.to(torch.float64)
    low, high = (-torch.inf, torch.inf) if ends is None else ends
    if reach == "range":
        boxes = [Box(torch.full_like(wide[:1], low), torch.full_like(wide[:1], high))]
        width = None
    else:
        eps = parsing.radius(reach)
        width = eps
        outward = eps * (1 + 2**-50)
        boxes = [
            Box((part - outward).clamp(low, high), (part + outward).clamp(low, high))
            for part in wide.split(AT_ONCE_BOXES)
        ]
    possible = {
        name: {layer.name: torch.zeros_like(r.covered[layer.name]) for layer in layers}
        for name, r in masks.items()
    }
    neurons: tuple[NeuronKinds, ...] = ()
    for box in boxes:
        bounds = layer_bounds(exact, box, layers)
        for name, record in masks.items():
            for layer, mask in possible_masks(record, bounds).items():
                possible[name][layer] |= mask
        neurons = both(neurons, kinds(layers, bounds))
    runtime = reader(session, layers)
    single = exact.to(torch.float32)
    seeds = x[:64]
    found = {}
    for name, record in masks.items():
        if width is None:
            start, lower, upper = seeds, torch.tensor(float(low)), torch.tensor(float(high))
            found[name] = Search()(single, record, possible[name], start, lower, upper, runtime)
        else:
            found[name] = near(single, record, possible[name], seeds, width, (low, high), runtime)
    return Beyond(possible, found, neurons)


def near(
    graph: Graph,
    record: MaskRecord,
    possible: Mapping[str, Tensor],
    seeds: Tensor,
    eps: float,
    ends: tuple[float, float],
    runtime: ReadsBack | None,
) -> list[Reached]:
    """The search inside each seed's own ball; each obligation is returned once."""
    left = {name: mask.clone() for name, mask in possible.items()}
    found: list[Reached] = []
    for seed in seeds:
        lower, upper = (seed - eps).clamp(*ends), (seed + eps).clamp(*ends)
        new = Search(starts=1, steps=20)(
            graph,
            record,
            left,
            seed[None],
            lower,
            upper,
            runtime,
        )
        for reached in new:
            left[reached.layer][reached.neuron, reached.section] = False
        found += new
    return found


def both(one: tuple[NeuronKinds, ...], other: tuple[NeuronKinds, ...]) -> tuple[NeuronKinds, ...]:
    """What holds over both parts of the domain."""
    if not one:
        return other
    return tuple(
        NeuronKinds(
            a.layer,
            tuple(sorted(set(a.dead) & set(b.dead))),
            tuple(sorted(set(a.always_on) & set(b.always_on))),
            a.neurons,
        )
        for a, b in zip(one, other, strict=True)
    )


def reader(session: Session, layers: tuple[Layer, ...]) -> ReadsBack | None:
    """The neurons as ONNX Runtime computes them."""
    judge = session.network.judge
    shift = judge if isinstance(judge, NormalisedJudge) else None
    inner = shift.judge if shift is not None else judge
    if not isinstance(inner, Runtime):
        return None
    tap = Tap(inner.model, [layer.name for layer in layers])

    def read(x: Tensor) -> dict[str, Tensor]:
        nodes = tap(x if shift is None else shift.normalise(x))
        shaped = {layer.name: nodes[layer.name].reshape(len(x), *layer.shape) for layer in layers}
        return {layer.name: layer.values(shaped[layer.name]) for layer in layers}

    return read


def add_beyond(rows: list[Row], learnt: Beyond, summary: dict[str, object]) -> None:
    """What bounds and search say, beside each row."""
    for row in rows:
        masks = learnt.possible.get(str(row["criterion"]))
        if masks is None:
            continue
        possible = int(masks[str(row["layer"])].sum())
        reached = [
            hit for hit in learnt.reached[str(row["criterion"])] if hit.layer == row["layer"]
        ]
        row |= {"possible": possible, "reached": len(reached)}
        row["share_of_possible"] = float(row["covered"]) / possible if possible else None  # type: ignore[arg-type]
    summary["neurons"] = [dataclasses.asdict(kind) for kind in learnt.neurons]
    summary["uncovered_but_reachable"] = {
        name: [{"layer": hit.layer, "neuron": hit.neuron, "section": hit.section} for hit in found]
        for name, found in learnt.reached.items()
    }
