"""What searches leave behind, as a certificate's trees and proofs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from verify.bounders.domains import Domains
from verify.bounders.memo import Kept, flat_rows
from verify.bounders.refining import Bounded
from verify.certificates.tree import (
    Branch,
    Entries,
    InputSplit,
    Proof,
    ReluSplit,
    Slopes,
    tightening,
)
from verify.errors import InternalError
from verify.search.input_split import Step
from verify.search.root import Root


class InputTree:
    """Give its `record` to `InputSplit(on_step=...)`; `root` is the tree when the search is done.

    Clipping is not recorded: a part that the search closed because its rest was clipped away may
    have to be split further before plain bounds prove it.
    """

    def __init__(self) -> None:
        """Begin with the whole box, which the search numbers 0."""
        self.root = Branch()
        self.waiting = {0: self.root}

    def record(self, step: Step) -> None:
        """Take over what became of a batch of boxes."""
        closed = step.closed
        for number in step.boxes.number[closed].tolist():
            del self.waiting[number]
        cuts = zip(
            step.boxes.number[~closed].tolist(),
            step.axis.tolist(),
            step.value.tolist(),
            step.children.tolist(),
            strict=True,
        )
        for number, axis, value, (first, second) in cuts:
            branch = self.waiting.pop(number)
            if axis >= 0:
                below, above = branch.cut(InputSplit(axis, value))
                self.waiting[first], self.waiting[second] = below, above


def slopes_of(part: Kept) -> Slopes:
    """A memo's slopes over all neurons, NaN where a neuron had left; shape (row, neuron)."""
    return {
        name: flat_rows(part, name, None)[0].flatten(1).to(torch.float32).numpy()
        for name in part.alpha
    }


def tightened(relu: str, part: Kept) -> list[Proof]:
    """A memo's rows of one node, by sign."""
    entries, signs = part.rows.index[0].numpy(), part.rows.sign[0].numpy()
    slopes = slopes_of(part)
    found = []
    for sign in (1, -1):
        mine = np.flatnonzero(signs == sign)
        if len(mine):
            own = {name: alpha[mine] for name, alpha in slopes.items()}
            found.append(tightening(relu, entries[mine], sign, own))
    return found


class ReluTrees:
    """What `ActivationSplit(recorder=...)` tells of; one tree for each clause.

    Attributes:
        trees: by the number of the clause in the case.
        shared: rows that bound neurons over the whole box.
    """

    def __init__(self) -> None:
        """Begin with nothing proved."""
        self.trees: dict[int, Branch] = {}
        self.shared: list[Proof] = []

    def closed(self, base: Root, leaves: Domains, by: Root, proofs: Domains) -> None:
        """Closed domains of a base, and how the bounds of a root prove each of them."""
        written = Written(by, proofs)
        for i, branch in enumerate(self.branches(base, leaves)):
            branch.proofs.append(written.proof(slice(i, i + 1)))

    def bounded(self, base: Root, domain: Domains, found: Bounded) -> None:
        """Rows that bound neurons of one layer, below one domain of a base.

        What neither splits a neuron nor weighs a clause holds for all clauses.
        """
        leaves, above = found.leaves, (domain.sign != 0).sum()
        general = not above and not bool(leaves.weight.any())
        into = self.shared if general else self.branches(base, domain)[0].proofs
        for sign in (1, -1):
            # Leaves of one tree have to stand together.
            mine = (leaves.push * sign > 0).nonzero().flatten()
            mine = mine[found.tree[mine].argsort(stable=True)]
            if len(mine):
                into.append(Written(base, leaves.take(mine)).proof(slice(None), int(above)))

    def divided(self, base: Root, top: Domains) -> None:
        """The search begins again below these domains of a base."""
        for branch in self.branches(base, top):
            branch.split = branch.first = branch.second = None

    def branches(self, base: Root, domains: Domains) -> list[Branch]:
        """The branch of each domain, made where it is not there yet."""
        relu, neuron = neurons_of(base)
        found = []
        for i in range(len(domains)):
            branch = self.trees.setdefault(int(domains.clause[i]), Branch())
            for k in (domains.sign[i] != 0).nonzero().flatten().tolist():
                column, positive = int(domains.slots[i, k]), float(domains.sign[i, k]) > 0
                branch = below(branch, ReluSplit(relu[column], int(neuron[column])), positive)
            found.append(branch)
        return found


def neurons_of(root: Root) -> tuple[list[str], NDArray[np.int64]]:
    """The Relu and the neuron, as the file numbers them, of each column of a frame."""
    relus: list[str] = []
    neurons = [np.zeros(0, np.int64)]
    for layer in root.frame.layers:
        entries = torch.arange(layer.size) if layer.columns is None else layer.columns
        kept = root.proof.kept.get(layer.name)
        neurons.append((entries if kept is None else kept[entries]).numpy())
        relus += [layer.name] * len(entries)
    return relus, np.concatenate(neurons)


class Written:
    """Domains over a root's bounds as proofs, in the names of the file."""

    def __init__(self, root: Root, domains: Domains) -> None:
        """Take what all rows share apart."""
        self.domains, self.frame = domains, root.frame
        self.relus, self.neurons = neurons_of(root)
        self.slopes: Slopes = {}
        for layer in self.frame.layers:
            kept = root.proof.kept.get(layer.name)
            width = layer.size if kept is None else root.proof.whole[layer.name].lower.shape[1]
            whole = np.full((len(domains), width), np.nan, np.float32)
            whole[:, self.neurons[layer.first : layer.last]] = layer.of(domains.alpha).numpy()
            self.slopes[layer.name] = whole

    def proof(self, rows: slice, above: int = 0) -> Proof:
        """Some of the rows, all about one clause and, if they bound neurons, one layer and side.

        Args:
            rows: which.
            above: how many splits lead to the branch that a row bounds neurons of; the others are
                those of its tree.
        """
        some = self.domains.take(torch.arange(len(self.domains))[rows])
        slopes = {name: alpha[rows] for name, alpha in self.slopes.items()}
        push = some.push.double()
        scale = torch.where(push == 0, 1.0, push.abs())[:, None]
        weight, clause = (some.weight / scale).numpy(), int(some.clause[0])
        pushes = self.at(some.slots, some.sign * some.beta / scale)
        if not bool(push.any()):
            return Proof(clause, weight, slopes, pushes)
        target = some.target.numpy()
        relu, sign = self.relus[target[0]], int(push[0].sign())
        path = self.at(some.slots[:, above:], some.sign[:, above:])
        return Proof(clause, weight, slopes, pushes, relu, self.neurons[target], sign, path)

    def at(self, slots: torch.Tensor, value: torch.Tensor) -> Entries:
        """Values that are not 0, with their row and neuron, row after row."""
        row, slot = (value != 0).nonzero(as_tuple=True)
        column = slots[row, slot].numpy()
        relus = tuple(layer.name for layer in self.frame.layers)
        firsts = np.array([layer.first for layer in self.frame.layers])
        relu = np.searchsorted(firsts, column, side="right") - 1
        return Entries(relus, row.numpy(), relu, self.neurons[column], value[row, slot].numpy())


def below(branch: Branch, split: ReluSplit, positive: bool) -> Branch:
    """The child of a branch on one side of a split, which the branch has or is given."""
    if branch.split is None:
        branch.cut(split)
    if branch.split != split:
        raise InternalError("two leaves of a search tell of different splits of their parent")
    child = branch.second if positive else branch.first
    assert child is not None
    return child
