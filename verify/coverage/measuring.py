"""Measuring: one pass over the inputs for any number of criteria, with fixed memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from verify.coverage.layers import AT_ONCE, Layer, activations
from verify.coverage.records import CoverageRecord, LayerShare, overall
from verify.graph.ir import Graph


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What one criterion says of a test set.

    Attributes:
        record: all that it knows; `MaskRecord`s can be joined and compared.
        layers: covered and total, layer by layer.
        curve: (inputs seen, share or count covered) after every batch, in the order of the inputs.
    """

    record: CoverageRecord
    layers: tuple[LayerShare, ...]
    curve: tuple[tuple[int, float], ...]

    @property
    def total(self) -> LayerShare:
        """Over all layers."""
        return overall(self.layers)


def measure(
    graph: Graph,
    x: Tensor,
    layers: Sequence[Layer],
    records: Mapping[str, CoverageRecord],
    *,
    at_once: int | None = None,
    points: int = 50,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Measured]:
    """What the inputs cover, under each criterion, beside what its record holds already.

    Args:
        graph: the network; float32 is what it is executed in.
        x: inputs of shape (batch, *input).
        layers: to watch.
        records: by criterion; they are filled, so a second call adds to the first.
        at_once: inputs run at once, by default few enough for a curve; it changes memory and
            time, never the result.
        points: of the curve, at most about; each costs one count per criterion.
        progress: called with the number of inputs done, after every batch.
    """
    curves: dict[str, list[tuple[int, float]]] = {name: [] for name in records}
    if at_once is None:
        at_once = max(1, min(AT_ONCE, len(x) // points))
    done, every = 0, max(1, len(x) // (points * at_once))
    batches = activations(graph, x, layers, at_once=at_once)
    for number, values in enumerate(batches, start=1):
        done += len(next(iter(values.values())))
        for record in records.values():
            record.update(values)
        if number % every == 0 or done == len(x):
            for name, record in records.items():
                total = overall(record.shares())
                share = total.share
                curves[name].append((done, total.covered if share is None else share))
        if progress is not None:
            progress(done)
    return {
        name: Measured(record, record.shares(), tuple(curves[name]))
        for name, record in records.items()
    }
