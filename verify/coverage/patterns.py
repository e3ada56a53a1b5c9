"""TKNP: how many different combinations of top neurons a test set shows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from verify.coverage.criteria import TopNeuronCoverage
from verify.coverage.layers import Layer
from verify.coverage.records import Evidence, LayerShare

DIGEST = 16
"""Bytes kept of a pattern: two of 10^9 different ones collide with a chance below 10^-20."""


class TopPatternRecord:
    """TKNP: the number of distinct patterns; a pattern says for all layers who is at the top.

    Memory grows by 16 bytes and their place in a set with every new pattern.

    Attributes:
        k: how many of each layer are the top; see `TopNeuronCoverage` for ties.

    Source:
        Ma et al. 2018 (DeepGauge), arXiv:1803.07519, section 3.2.
    """

    def __init__(self, layers: Sequence[Layer], k: int = 3) -> None:
        """No pattern yet."""
        self.layers, self.criterion = tuple(layers), TopNeuronCoverage(k)
        self.patterns: set[bytes] = set()

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Add the patterns of a batch."""
        self.patterns.update(self._of(values))

    def evidence(self, values: Mapping[str, Tensor]) -> Evidence:
        """The distinct patterns, shape (patterns, 16), in ascending order."""
        found = b"".join(sorted(set(self._of(values))))
        return {"patterns": np.frombuffer(found, dtype=np.uint8).reshape(-1, DIGEST)}

    def admit(self, evidence: Evidence) -> None:
        """Add the patterns of a batch."""
        self.patterns.update(row.tobytes() for row in evidence["patterns"])

    def _of(self, values: Mapping[str, Tensor]) -> list[bytes]:
        top = [self.criterion.top(values[layer.name]) for layer in self.layers]
        return digests(torch.cat(top, dim=1))

    def union(self, other: TopPatternRecord) -> TopPatternRecord:
        """The patterns of either test set."""
        joined = TopPatternRecord(self.layers, self.criterion.k)
        joined.patterns = self.patterns | other.patterns
        return joined

    def shares(self) -> tuple[LayerShare, ...]:
        """The count, over all layers together; there is no sensible total."""
        return (LayerShare("", len(self.patterns), None),)


def digests(mask: Tensor) -> list[bytes]:
    """A short hash of each row of a bool tensor."""
    packed = np.packbits(mask.cpu().numpy(), axis=1)
    return [hashlib.blake2b(row.tobytes(), digest_size=DIGEST).digest() for row in packed]
