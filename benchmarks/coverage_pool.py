"""What the coverage study draws its test sets from: inputs, their footprints, their outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import verify
from attacks import PGD, Ball
from benchmarks.coverage_tau import Array
from examples.train import conv_net, dense_net, load_splits, train
from verify.coverage import MaskRecord, TopPatternRecord, layers_of
from verify.coverage.generating import Mutations
from verify.coverage.importance import ImportanceRecord
from verify.coverage.layers import observed
from verify.coverage.records import CoverageRecord, overall
from verify.coverage.reference import Reference
from verify.coverage.registry import CRITERIA, CoverageSettings
from verify.coverage.surprise import SurpriseRecord
from verify.network import Network
from verify.traverse import run

TICKED = ("nc", "kmnc", "nbc", "snac", "tknc", "tknp", "lsc", "dsc", "idc")
"""Criteria whose coverage of a set is the union of what its inputs cover."""
JOINT = ("nlc", "ssc", "vsc")
"""Criteria that look at inputs together."""
ONE_LAYER = ("lsc", "dsc")
"""Kim et al. take one layer's traces; a density of hundreds of neurons cannot be fitted."""
EPS = 0.05
LARGEST = 0.5
"""Beyond this radius nothing is searched; no digit comes near."""
KINDS = {
    "clean": Mutations(0.0, 0.0),
    "noise": Mutations(0.25, 0.0),
    "bright": Mutations(0.0, 0.4),
    "shift": Mutations(0.0, 0.0, shift=1.0),
    "turn": Mutations(0.0, 0.0, rotation=25.0),
}


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """One net and all inputs that its test sets may hold.

    Attributes:
        kind: per input, its place in `KINDS`.
        labels, predicted: per input.
        wrong: per input, whether it is misclassified.
        attacked: per input, whether PGD at `EPS` flips it; False where it is wrong anyway.
        radius: per input, the certified radius (CROWN, L-infinity, in [0, 1]); 0 where it is wrong.
        footprints: by criterion of `TICKED`, what each input covers; bool, (inputs, obligations).
        values: by criterion of `JOINT`, the layers' values.
        reference: for the records of `JOINT`.
    """

    kind: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    wrong: NDArray[np.bool_]
    attacked: NDArray[np.bool_]
    radius: Array
    footprints: Mapping[str, NDArray[np.bool_]]
    values: Mapping[str, Tensor]
    reference: Reference

    def covered(self, criterion: str, chosen: NDArray[np.int64]) -> float:
        """How much a test set covers."""
        if criterion in self.footprints:
            return float(self.footprints[criterion][chosen].any(axis=0).sum())
        record = CRITERIA[criterion].make(self.reference, CoverageSettings())
        record.update({name: value[chosen] for name, value in self.values.items()})
        return overall(record.shares()).covered

    def outcomes(self, chosen: NDArray[np.int64]) -> dict[str, float]:
        """What a test set brings to light; larger is more of it."""
        faulty = chosen[self.wrong[chosen]]
        right = chosen[~self.wrong[chosen]]
        pairs = {(self.labels[i], self.predicted[i]) for i in faulty.tolist()}
        return {
            "faults": float(len(faulty)),
            "kinds": float(len(pairs)),
            "attacked": float(self.attacked[right].mean()) if len(right) else 0.0,
            "fragility": -float(self.radius[right].mean()) if len(right) else 0.0,
        }


@dataclass(frozen=True, slots=True)
class Recipe:
    """A net to train.

    Attributes:
        kind: "dense" or "conv".
        eps: how far half of the training images are moved, by gradient sign steps.
        seed: of the weights and the order of the images.
    """

    kind: str
    eps: float
    seed: int

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.kind}-{'robust' if self.eps else 'plain'}-{self.seed}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an input."""
        return (64,) if self.kind == "dense" else (1, 8, 8)

    def trained(self) -> Network:
        """The net."""
        training, _ = load_splits()
        torch.manual_seed(self.seed)
        net = dense_net() if self.kind == "dense" else conv_net()
        train(net, training, self.shape, self.eps, 25)
        return verify.load(net, input_shape=self.shape)


def recipes(seeds: int) -> list[Recipe]:
    """Dense and convolutional nets, trained with and without moved images, from several seeds."""
    kinds = [(kind, eps) for kind in ("conv", "dense") for eps in (0.0, EPS)]
    return [Recipe(kind, eps, seed) for seed in range(seeds) for kind, eps in kinds]


def pool_of(network: Network, shape: tuple[int, ...], seed: int, images: int) -> Pool:
    """`images` held-out digits under each kind of change, with all that the study asks of each."""
    _, held = load_splits()
    clean = torch.from_numpy(held.x[:images]).reshape(-1, 1, 8, 8)
    generator = torch.Generator().manual_seed(seed)
    changed = [change.apply(clean, generator).clamp(0, 1) for change in KINDS.values()]
    x = torch.cat(changed).reshape(-1, *shape)
    labels = torch.from_numpy(held.y[:images]).repeat(len(KINDS))
    graph = network.graph.to(torch.float32)
    with torch.no_grad():
        predicted = run(graph, x).argmax(dim=1)
    wrong = predicted != labels
    attack = PGD(steps=10, restarts=1, targeted=None)
    flipped = attack(lambda at: run(graph, at), x, labels, Ball(EPS, lower=0.0, upper=1.0)).found
    brackets = verify.radius(
        network, x, labels, input_range=(0, 1), method="crown", largest=LARGEST, tolerance=0.1
    )
    footprints, values, reference = watched(network, x, shape)
    return Pool(
        np.arange(len(KINDS)).repeat(len(clean)),
        labels.numpy(),
        predicted.numpy(),
        wrong.numpy(),
        (flipped & ~wrong).numpy(),
        np.array([bracket.certified for bracket in brackets]),
        footprints,
        values,
        reference,
    )


def watched(
    network: Network, x: Tensor, shape: tuple[int, ...]
) -> tuple[dict[str, NDArray[np.bool_]], dict[str, Tensor], Reference]:
    """Footprints, values and reference, over all activations, every position a neuron."""
    graph = network.graph.to(torch.float32)
    split, _ = load_splits()
    training = torch.from_numpy(split.x).reshape(-1, *shape)
    layers = layers_of(graph, channels=False)
    last = layers_of(graph, [layers[-1].name], channels=True)
    reference, narrow = Reference(graph, training, layers), Reference(graph, training, last)
    with torch.no_grad():
        values = observed(graph, x, layers)
        few = observed(graph, x, (*last, narrow.output))
    footprints = {}
    for name in TICKED:
        seen, shown = (narrow, few) if name in ONE_LAYER else (reference, values)
        footprints[name] = footprint(CRITERIA[name].make(seen, CoverageSettings()), shown)
    return footprints, values, reference


def footprint(record: CoverageRecord, values: Mapping[str, Tensor]) -> NDArray[np.bool_]:
    """What each input alone covers; bool, (inputs, obligations)."""
    found: list[object] = []
    for row in range(len(next(iter(values.values())))):
        one = {name: value[row : row + 1] for name, value in values.items()}
        if isinstance(record, MaskRecord):
            hits = [record.criterion.hits(layer, one[layer.name]) for layer in record.layers]
            meant = [record.criterion.meant(layer) for layer in record.layers]
            kept = [(hit & real).flatten() for hit, real in zip(hits, meant, strict=True)]
            found.append(torch.cat(kept).numpy())
        elif isinstance(record, SurpriseRecord):
            record.covered.zero_()
            record.update(one)
            found.append(record.covered.numpy().copy())
        else:
            assert isinstance(record, TopPatternRecord | ImportanceRecord)
            shown = record.patterns if isinstance(record, TopPatternRecord) else record.seen
            shown.clear()
            record.update(one)
            found.append(next(iter(shown)))
    if isinstance(record, MaskRecord | SurpriseRecord):
        return np.stack(found)  # type: ignore[arg-type]
    distinct = {pattern: i for i, pattern in enumerate(dict.fromkeys(found))}
    return np.array([[distinct[pattern] == i for i in range(len(distinct))] for pattern in found])
