"""Measuring: one pass over the inputs for any number of criteria, with fixed memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from verify.coverage.layers import Layer, batch_for, observed
from verify.coverage.records import CoverageRecord, Evidence, LayerShare, overall
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
    progress: Callable[[int], None] | None = None,
) -> dict[str, Measured]:
    """What the inputs cover, under each criterion, beside what its record holds already.

    Args:
        graph: the network; float32 is what it is executed in.
        x: inputs of shape (batch, *input).
        layers: to watch.
        records: by criterion; they are filled, so a second call adds to the first.
        at_once: inputs run at once; by default few at first, where coverage grows fast, then as
            many as `batch_for` says. It changes memory, time and the curve, never the result.
        progress: called with the number of inputs done, after every batch.
    """
    curves: dict[str, list[tuple[int, float]]] = {name: [] for name in records}
    sizes = steps(len(x), batch_for(graph)) if at_once is None else at_once
    done = 0
    for part in x.split(sizes):
        if not len(part):
            continue
        values = observed(graph, part, layers)
        done += len(part)
        for name, record in records.items():
            record.update(values)
            curves[name].append((done, level(record)))
        if progress is not None:
            progress(done)
    return {
        name: Measured(record, record.shares(), tuple(curves[name]))
        for name, record in records.items()
    }


def gathered(
    records: Mapping[str, CoverageRecord],
    batches: Iterable[tuple[int, Mapping[str, Evidence]]],
) -> dict[str, Measured]:
    """What `measure` says, from evidence that was taken of each batch on its own.

    Args:
        records: by criterion; they are filled.
        batches: number of inputs and evidence by criterion, in the order of the inputs.
    """
    curves: dict[str, list[tuple[int, float]]] = {name: [] for name in records}
    done = 0
    for count, evidence in batches:
        done += count
        for name, record in records.items():
            record.admit(evidence[name])
            curves[name].append((done, level(record)))
    return {
        name: Measured(record, record.shares(), tuple(curves[name]))
        for name, record in records.items()
    }


def level(record: CoverageRecord) -> float:
    """The share that is covered or, where there is none, the count."""
    total = overall(record.shares())
    return total.covered if total.share is None else total.share


def steps(count: int, most: int) -> list[int]:
    """Batch sizes that double from 1/64 of all inputs to 1/16, never above `most`."""
    sizes: list[int] = []
    while (left := count - sum(sizes)) > 0:
        size = min(max(1, count // 64, sum(sizes)), max(1, count // 16), most, left)
        sizes.append(size)
    return sizes
