"""What a search by linear programs leaves behind, as a certificate's trees and proofs.

The dual values of a program over the triangle relaxation are a row with slopes and multipliers
(Salman et al. 2019, arXiv:1902.08722; Wang et al. 2021, arXiv:2103.06624). Let a row arrive at a
Relu with coefficient A, and let the program's row over its input z have coefficient v. Then
v = A·slope - push, with a slope between 0 and 1 where A > 0, and that of the chord where A < 0. A
ray that shows a node to be empty is such a row with no clause weighed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.bounders.lp import Layer, Vector
from verify.bounders.safe_lp import Prover
from verify.bounders.simplex import Domain
from verify.certificates.recording import below
from verify.certificates.tree import Branch, Entries, Proof, ReluSplit, Slopes

NOTHING = 1e-7
"""Multipliers below this share of the row's coefficient are rounding."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Dual values of some nodes as rows.

    Attributes:
        weight: of the clause's rows, (node, row).
        slopes: by Relu, (node, neuron), NaN where the sign of z was known from the start.
        push: of every open neuron, (node, open neuron).
    """

    weight: NDArray[np.float64]
    slopes: Slopes
    push: NDArray[np.float64]


class ProgramTrees:
    """What `Milp(recorder=...)` tells of; one tree for each clause.

    Attributes:
        trees: by the number of the clause in the case.
    """

    def __init__(self) -> None:
        """Begin with nothing proved."""
        self.trees: dict[int, Branch] = {}
        self.clause = 0

    def begin(self, prover: Prover, clause: int) -> None:
        """Another clause, and its program's names of neurons."""
        self.prover, self.clause = prover, clause
        self.layers = prover.program.layers
        self.relus = tuple(layer.name for layer in self.layers)
        self.neurons = np.concatenate([layer.kept[layer.open_] for layer in self.layers])
        counts = [len(layer.open_) for layer in self.layers]
        self.relu = np.repeat(np.arange(len(counts)), counts)
        self.trees[clause] = Branch()

    def closed(self, domains: Sequence[Domain], duals: Sequence[Vector], weights: Tensor) -> None:
        """Leaves, by a row each."""
        rows = self.rows(domains, duals, weights)
        for i, domain in enumerate(domains):
            one = slice(i, i + 1)
            slopes = {name: alpha[one] for name, alpha in rows.slopes.items()}
            proof = Proof(
                self.clause, rows.weight[one], slopes, self.entries(rows.push[one]), fine=True
            )
            self.branch(domain).proofs.append(proof)

    def clipped(self, domain: Domain, duals: Vector, place: Tensor, times: Tensor) -> None:
        """Rows that bound the inputs of neurons where the clause's rows are <= 0."""
        if not len(place):
            return
        weights = self.prover.weights(torch.from_numpy(duals)[None])
        rows, branch = self.rows([domain], [duals], weights), self.branch(domain)
        where = place.numpy()
        for relu in np.unique(self.relu[where]).tolist():
            for side, sign in zip(times.numpy(), (1, -1), strict=True):
                mine = (~np.isnan(side) & (self.relu[where] == relu)).nonzero()[0]
                if not len(mine):
                    continue
                factor = side[mine, None]
                slopes = {n: a.repeat(len(mine), 0) for n, a in rows.slopes.items()}
                branch.proofs.append(
                    Proof(
                        self.clause,
                        factor * rows.weight,
                        slopes,
                        self.entries(factor * rows.push),
                        self.relus[relu],
                        self.neurons[where[mine]],
                        sign,
                        fine=True,
                    )
                )

    def branch(self, domain: Domain) -> Branch:
        """The branch of a node, made where it is not there yet."""
        branch = self.trees[self.clause]
        for place, side in domain.splits:
            split = ReluSplit(self.relus[self.relu[place]], int(self.neurons[place]))
            branch = below(branch, split, side > 0)
        return branch

    def entries(self, push: NDArray[np.float64]) -> Entries:
        """Multipliers that are not 0."""
        row, place = push.nonzero()
        return Entries(self.relus, row, self.relu[place], self.neurons[place], push[row, place])

    def rows(self, domains: Sequence[Domain], duals: Sequence[Vector], weights: Tensor) -> Rows:
        """Dual values as slopes and multipliers."""
        arrived: dict[str, Tensor] = {}
        self.prover.plane(domains, duals, weights, arrived)
        nu = self.prover.multipliers(torch.from_numpy(np.stack(duals)))
        low = np.stack([domain.lower for domain in domains])
        high = np.stack([domain.upper for domain in domains])
        slopes: Slopes = {}
        push, first = [np.zeros((len(domains), 0))], 0
        for layer in self.layers:
            last = first + len(layer.open_)
            size = self.prover.ledger.graph.node(layer.name).size
            whole = np.full((len(domains), size), np.nan, np.float32)
            slope, own = of_layer(layer, arrived, nu, low[:, first:last], high[:, first:last])
            whole[:, layer.kept[layer.open_]] = slope
            slopes[layer.name] = whole
            push.append(own)
            first = last
        return Rows(weights.numpy(), slopes, np.concatenate(push, axis=1))


def of_layer(
    layer: Layer, arrived: dict[str, Tensor], nu: dict[str, Tensor], low: Vector, high: Vector
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower slopes and multipliers of a layer's open neurons, (node, neuron) each."""
    chosen = layer.kept[layer.open_]
    if layer.name not in arrived:
        return np.zeros(low.shape), np.zeros(low.shape)
    coeff = arrived[layer.name].flatten(2)[:, 0].numpy()[:, chosen]
    given = nu[layer.name].flatten(2)[:, 0].numpy()[:, chosen]
    positive = coeff > 0
    slope = np.clip(np.where(positive, given / np.where(positive, coeff, 1.0), 0.0), 0.0, 1.0)
    # Where a side is known, by a hair perhaps, the function's own slope; the checker may see none.
    slope = np.where(low >= 0, 1.0, np.where(high <= 0, 0.0, slope))
    slope = slope.astype(np.float32).astype(np.float64)
    width = np.where(high > low, high - low, 1.0)
    chord = np.where(high > low, high / width, 0.0)
    used = np.where(positive | (low >= 0) | (high <= 0), slope, chord)
    push = coeff * used - given
    push[np.abs(push) <= NOTHING * np.abs(coeff)] = 0.0
    return slope, push
