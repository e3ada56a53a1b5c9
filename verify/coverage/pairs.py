"""Sign-sign and value-sign coverage: does a neuron alone decide a neuron of the next layer?

MC/DC for networks. The conditions are the signs of one layer's activations (on or off), the
decisions those of the next. The pair (i, j) is covered by two inputs under which j changes its sign
and, of the layer before,

    sign-sign: i changes its sign and no other neuron does;
    value-sign: no neuron changes its sign, and the value of i changes by a given ratio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from verify.coverage.layers import Layer
from verify.coverage.records import Evidence, LayerShare
from verify.errors import SettingError


@dataclass(eq=False)
class Seen:
    """What was seen under one pattern of signs of a layer.

    Attributes:
        decisions: the distinct patterns of the next layer that came with it, bool each.
        values: the layer's values, kept for value-sign only, with the decision's place.
    """

    decisions: dict[bytes, np.ndarray] = field(default_factory=dict)
    values: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)


class PairRecord:
    """Sign-sign (or value-sign) coverage between consecutive layers.

    Memory grows with the number of distinct sign patterns (value-sign: of inputs), and few natural
    pairs of inputs differ in one sign only, so this criterion stays near 0 without inputs that are
    made for it.

    Attributes:
        covered: bool, (conditions, decisions), by the pair of layers.

    Source:
        Sun, Huang, Kroening, Sharp, Hill, Ashmore 2019 (Structural Test Coverage Criteria for Deep
        Neural Networks), arXiv:1803.04792, definitions 5 and 6.
    """

    def __init__(self, layers: Sequence[Layer], *, ratio: float | None = None) -> None:
        """No pair yet.

        Args:
            layers: in order; each and its next make a pair.
            ratio: None for sign-sign; else value-sign, where max(|a|, |b|) must be at least
                `ratio` times min(|a|, |b|), and they must differ.

        Raises:
            SettingError: if there are fewer than two layers, or the ratio is below 1.
        """
        if len(layers) < 2:
            raise SettingError("sign-sign coverage needs two layers or more; name them in --layers")
        if ratio is not None and not ratio >= 1:
            raise SettingError(f"the ratio is {ratio}, expected at least 1")
        self.ratio = ratio
        self.pairs = list(zip(layers[:-1], layers[1:], strict=True))
        self.covered = {
            (one.name, two.name): np.zeros((one.neurons, two.neurons), dtype=bool)
            for one, two in self.pairs
        }
        self.seen: dict[tuple[str, str], dict[int, Seen]] = {pair: {} for pair in self.covered}

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Compare every input of a batch with all that came before."""
        self.admit(self.evidence(values))

    def evidence(self, values: Mapping[str, Tensor]) -> Evidence:
        """All that is compared: the values of each layer, or for sign-sign their signs only."""
        layers = dict.fromkeys(layer.name for pair in self.pairs for layer in pair)
        found = {name: values[name].detach().cpu().numpy() for name in layers}
        if self.ratio is not None:
            return found
        return {name: (rows > 0).astype(np.uint8) for name, rows in found.items()}

    def admit(self, evidence: Evidence) -> None:
        """Compare every input of a batch with all that came before."""
        for one, two in self.pairs:
            decisions = np.greater(evidence[two.name], 0)
            for row, decided in zip(evidence[one.name], decisions, strict=True):
                self._take((one.name, two.name), row, decided)

    def shares(self) -> tuple[LayerShare, ...]:
        """Pairs covered, under the name of the later layer."""
        return tuple(
            LayerShare(
                two.name, int(self.covered[one.name, two.name].sum()), one.neurons * two.neurons
            )
            for one, two in self.pairs
        )

    def _take(self, pair: tuple[str, str], row: np.ndarray, decided: np.ndarray) -> None:
        table, covered = self.seen[pair], self.covered[pair]
        signs = row > 0
        pattern = int.from_bytes(np.packbits(signs, bitorder="little").tobytes(), "little")
        here = table.setdefault(pattern, Seen())
        if self.ratio is not None:
            for other, theirs in here.values:
                changed = np.flatnonzero(theirs != decided)
                if len(changed):
                    moved = np.flatnonzero(far_apart(row, other, self.ratio))
                    covered[np.ix_(moved, changed)] = True
            here.values.append((row.copy(), decided.copy()))
            return
        key = decided.tobytes()
        if key in here.decisions:
            return  # nothing that it could add
        here.decisions[key] = decided.copy()
        for i in range(len(row)):
            beside = table.get(pattern ^ (1 << i))
            if beside is not None:
                for theirs in beside.decisions.values():
                    covered[i] |= theirs != decided


def far_apart(one: np.ndarray, other: np.ndarray, ratio: float) -> np.ndarray:
    """Where two values differ by the ratio at least; bool, like them."""
    large = np.maximum(np.abs(one), np.abs(other))
    small = np.minimum(np.abs(one), np.abs(other))
    apart: np.ndarray = (one != other) & (large >= ratio * small)
    return apart
