"""Trees of searches, recorded while they run, as branches of a certificate."""

from __future__ import annotations

from verify.certificates.tree import Branch, InputSplit
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
