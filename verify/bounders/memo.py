"""Memo: optimised slopes of some inputs, kept from one radius to the next.

Slopes are good for a neighbouring radius, and any slopes are sound for any radius. So a search over
radii starts each optimisation from the slopes that the last one of the same input ended with.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from verify.bounders.rows import Rows

SPEC = "the spec"
"""Name under which the spec's rows are kept; node names come from files and are never this."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Slopes of some rows of one node.

    Attributes:
        owner: which input each batch entry belongs to, shape (batch,).
        rows: the rows, shape (batch, row).
        alpha: per nonlinear node, shape (free, batch, row, *node).
        columns: which neurons of a node `alpha` is over, for nodes that dead neurons left.
        widths: how many neurons those nodes had.
    """

    owner: Tensor
    rows: Rows
    alpha: dict[str, Tensor]
    columns: dict[str, Tensor]
    widths: dict[str, int]

    def entry(self, i: int) -> Kept:
        """Those of one entry of the batch, whose rows are not copied."""
        rows = Rows(self.rows.index[i : i + 1], self.rows.sign[i : i + 1])
        alpha = {name: a[:, i : i + 1] for name, a in self.alpha.items()}
        return Kept(torch.zeros(1, dtype=torch.long), rows, alpha, self.columns, self.widths)


@dataclass(eq=False)
class Memo:
    """What is known of a batch of inputs.

    Attributes:
        inputs: how many inputs there are.
        room: bytes that the slopes of one batch may take; beyond them nothing more is kept.
        owner: which input each entry of the present batch belongs to, shape (batch,).
        old: slopes of the last batch, by node.
        new: slopes found since `turn`.
        used: bytes that `new` takes.
    """

    inputs: int
    room: int
    owner: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    old: dict[str, list[Kept]] = field(default_factory=dict)
    new: dict[str, list[Kept]] = field(default_factory=dict)
    used: int = 0

    def turn(self, owner: Tensor) -> None:
        """Begin a batch: what was stored since the last one is now what is recalled.

        Args:
            owner: which input each entry of the batch belongs to.
        """
        if self.new:
            self.old, self.new, self.used = self.new, {}, 0
        self.owner = owner

    def narrow(self, entries: Tensor) -> None:
        """Go on with some entries of the present batch only."""
        self.owner = self.owner[entries]

    def entry(self, i: int) -> Memo:
        """What was found since `turn` of one entry of the batch, as of a batch of its own."""
        found = Memo(1, self.room, torch.zeros(1, dtype=torch.long))
        for name, parts in self.new.items():
            found.new[name] = [part.entry(i) for part in parts]
        return found

    def store(
        self,
        name: str,
        rows: Rows,
        alpha: dict[str, Tensor],
        columns: dict[str, Tensor],
        widths: dict[str, int],
    ) -> None:
        """Keep the slopes of rows of a node, if there is room."""
        size = sum(a.numel() * a.element_size() for a in alpha.values())
        if self.used + size > self.room:
            return
        self.used += size
        kept = Kept(self.owner, rows, alpha, dict(columns), dict(widths))
        self.new.setdefault(name, []).append(kept)

    def recall(self, name: str, rows: Rows, columns: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """Slopes to start rows of a node from, NaN where none are known; None if there are none."""
        parts = self.old.get(name)
        if not parts:
            return None
        width = 1 + int(max(rows.index.max(), *(part.rows.index.max() for part in parts)))
        number = torch.full((self.inputs, width, 2), -1, dtype=torch.long)
        start = 0
        for part in parts:
            count = part.rows.index.numel()
            mine = torch.arange(start, start + count).view(part.rows.index.shape)
            side = (part.rows.sign > 0).long()
            number[part.owner[:, None], part.rows.index, side] = mine
            start += count
        found = number[self.owner[:, None], rows.index, (rows.sign > 0).long()]
        if bool((found < 0).all()):
            return None
        recalled = {}
        for node in parts[0].alpha:
            if any(node not in part.alpha for part in parts):
                continue
            stacked = torch.cat([flat_rows(part, node, columns.get(node)) for part in parts], dim=1)
            picked = stacked[:, found.clamp(min=0).flatten()].unflatten(1, found.shape)
            missing = (found < 0).view(1, *found.shape, *[1] * (picked.ndim - 3))
            recalled[node] = picked.masked_fill(missing, float("nan"))
        return recalled


def flat_rows(part: Kept, node: str, wanted: Tensor | None) -> Tensor:
    """Slopes of a node as (free, batch * row, *node) over the wanted neurons, NaN where unknown."""
    alpha = part.alpha[node].flatten(1, 2)
    had = part.columns.get(node)
    if had is None:
        return alpha if wanted is None else alpha[:, :, wanted]
    if wanted is None:
        wanted = torch.arange(part.widths[node])
    place = torch.searchsorted(had, wanted).clamp(max=max(0, len(had) - 1))
    known = had[place] == wanted
    return alpha[:, :, place].masked_fill(~known, float("nan"))
