"""Pool: open domains, last in first out by batches, so that memory stays small."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from verify.bounders.domains import Domains, joined


@dataclass(eq=False)
class Pool:
    """Open domains in blocks, each sorted by bound; the newest block is worked on first.

    Depth first: the open domains are never more than depth times batch. The whole tree must be
    closed anyway, and a proof visits the same domains in any order.

    Attributes:
        blank: what unused slots hold.
        blocks: the oldest first; within one, the greatest bound first.
    """

    blank: int = 0
    blocks: list[Domains] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(block) for block in self.blocks)

    def push(self, domains: Domains) -> None:
        """Add a block."""
        self.blocks.append(domains.take(domains.value.argsort(descending=True)))

    def draw(self, count: int) -> Domains:
        """Up to `count` domains from the newest blocks, those of least bound."""
        parts = []
        while self.blocks and count > 0:
            block = self.blocks.pop()
            if len(block) > count:
                cut = len(block) - count
                every = torch.arange(len(block))
                self.blocks.append(block.take(every[:cut]))
                block = block.take(every[cut:])
            parts.append(block)
            count -= len(block)
        return joined(parts, self.blank)

    def values(self) -> Tensor:
        """The bounds of all."""
        return torch.cat([block.value for block in self.blocks])

    def least(self) -> float:
        """The least bound among all."""
        return min((float(block.value.min()) for block in self.blocks), default=float("inf"))
