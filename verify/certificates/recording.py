"""What searches leave behind, as a certificate's trees and slopes."""

from __future__ import annotations

import numpy as np
import torch

from verify.bounders.domains import Domains
from verify.bounders.memo import Kept, flat_rows
from verify.certificates.tree import Branch, InputSplit, Proof, ReluSplit, Slopes, Tightening
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


def tightened(relu: str, part: Kept) -> list[Tightening]:
    """A memo's rows of one node, by sign."""
    entries, signs = part.rows.index[0].numpy(), part.rows.sign[0].numpy()
    slopes = slopes_of(part)
    found = []
    for sign in (1, -1):
        mine = np.flatnonzero(signs == sign)
        if len(mine):
            own = {name: alpha[mine] for name, alpha in slopes.items()}
            found.append(Tightening(relu, entries[mine], sign, own))
    return found


class ReluTrees:
    """Give its `record` to `ActivationSplit(on_leaf=..., refining=None)`; one tree for each clause.

    Attributes:
        trees: by the number of the clause in the case.
        combined: whether some leaf weighs several rows of its clause, which no certificate states.
    """

    def __init__(self) -> None:
        """Begin with nothing proved."""
        self.trees: dict[int, Branch] = {}
        self.combined = False

    def record(self, root: Root, leaves: Domains, searched: Domains) -> None:
        """Take over closed leaves: what proves each, and the way to it."""
        layers = root.frame.layers
        names: list[tuple[str, int]] = []
        for layer in layers:
            entries = torch.arange(layer.size) if layer.columns is None else layer.columns
            kept = root.proof.kept.get(layer.name)
            names += [(layer.name, int(n)) for n in (entries if kept is None else kept[entries])]
        for i in range(len(leaves)):
            leaf = leaves.take(torch.tensor([i]))
            weight = leaf.weight[0]
            self.combined |= int((weight > 0).sum()) != 1
            slopes: Slopes = {}
            for layer in layers:
                whole = layer.laid(layer.of(leaf.alpha))[0]
                kept = root.proof.kept.get(layer.name)
                if kept is not None:
                    width = root.proof.whole[layer.name].lower.shape[1]
                    whole = whole.new_full((width,), float("nan")).index_copy_(0, kept, whole)
                slopes[layer.name] = whole[None].to(torch.float32).numpy()
            used = (searched.sign[i] != 0).nonzero().flatten().tolist()
            path = [(int(searched.slots[i, k]), float(searched.sign[i, k]) > 0) for k in used]
            known = dict(zip(leaf.slots[0].tolist(), leaf.beta[0].tolist(), strict=True))
            betas = tuple(known[column] for column, _ in path)
            clause, row = int(leaf.clause), int(weight.argmax())
            branch = self.trees.setdefault(clause, Branch())
            for column, positive in path:
                branch = below(branch, ReluSplit(*names[column]), positive)
            branch.proofs.append(Proof(clause, row, slopes, betas))


def below(branch: Branch, split: ReluSplit, positive: bool) -> Branch:
    """The child of a branch on one side of a split, which the branch has or is given."""
    if branch.split is None:
        branch.cut(split)
    if branch.split != split:
        raise InternalError("two leaves of a search tell of different splits of their parent")
    child = branch.second if positive else branch.first
    assert child is not None
    return child
