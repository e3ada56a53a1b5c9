"""What searches leave behind, as a certificate's trees and slopes."""

from __future__ import annotations

import numpy as np
import torch

from verify.bounders.memo import Kept, flat_rows
from verify.certificates.tree import Branch, InputSplit, Slopes, Tightening
from verify.search.input_split import Step


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
