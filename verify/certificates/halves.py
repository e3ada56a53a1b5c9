"""What halving leaves behind: a tree of boxes, at whose leaves neurons are split."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from verify.bounders.memo import Memo
from verify.certificates.recording import ReluTrees
from verify.certificates.tree import InputSplit
from verify.values.property import Case


@dataclass(eq=False)
class Half:
    """A box.

    Attributes:
        case: as it was searched: with the clauses that were open by then.
        trees, memo: what its search left behind; None where plain bounds have to do.
        split, first, second: of a box that was halved.
    """

    case: Case
    trees: ReluTrees | None = None
    memo: Memo | None = None
    split: InputSplit | None = None
    first: Half | None = None
    second: Half | None = None


class Halves:
    """A `verify.search.recorder.BoxRecorder`; `root` is the whole box.

    What is searched for each box is made by `verify.certificates.diary.Diary`.
    """

    def __init__(self, case: Case) -> None:
        """Begin with the whole box."""
        self.root = Half(case)
        self.boxes = {key(case): self.root}

    def of(self, case: Case) -> Half:
        """The node of a case's box, with the clauses that are open now."""
        half = self.boxes[key(case)]
        half.case = case
        return half

    def halved(self, case: Case, below: Case, above: Case) -> None:
        """A box was cut in two."""
        half = self.boxes[key(case)]
        axis = int((above.lower > case.lower).nonzero()[0])
        half.trees = half.memo = None
        half.split = InputSplit(axis, float(above.lower[axis]))
        half.first, half.second = Half(below), Half(above)
        self.boxes[key(below)], self.boxes[key(above)] = half.first, half.second


def key(case: Case) -> bytes:
    """A box as bytes."""
    return bytes(torch.stack([case.lower, case.upper]).numpy().tobytes())
