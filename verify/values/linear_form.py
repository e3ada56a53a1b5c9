"""LinearForm: rows of A·x + b over one node, with the rounding error charged so far."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from verify.values.window import Phases, Window


@dataclass(frozen=True, slots=True, eq=False)
class LinearForm:
    """One linear function per (batch, row): `coeff`·x + `const`, less at most `error`.

    Attributes:
        coeff: A, shape (batch, row, *node); or, with a window, only the patch of the node's map
            that can be non-zero, shape (batch, row, channels, *patch).
        const: b, shape (batch, row).
        error: shape (batch, row), >= 0, or None where rounding is not accounted for. What the form
            stands for is at least A·x + b - error, with A and b read as exact numbers.
        window: where the patches lie; None where `coeff` is over the whole node.
        phases: if given, maps or patches are split into interleaved sub-maps; only ever at the
            input of a network, for the region to minimise.
    """

    coeff: Tensor
    const: Tensor
    error: Tensor | None = None
    window: Window | None = None
    phases: Phases | None = None

    def take(self, rows: Tensor) -> LinearForm:
        """Some of the rows, by index; a window must not have blocks of rows."""
        window = self.window
        if window is not None:
            window = replace(window, place=window.place[:, rows])
        error = None if self.error is None else self.error[:, rows]
        return LinearForm(self.coeff[:, rows], self.const[:, rows], error, window, self.phases)
