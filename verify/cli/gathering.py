"""Coverage through the engine of runs: what each batch shows, and all of them joined in order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.cli.running import Job
from verify.cli.session import Session, stamp
from verify.coverage.layers import Layer, batch_for, observed
from verify.coverage.measuring import Measured, gathered, steps
from verify.coverage.records import CoverageRecord, Evidence
from verify.graph.ir import Graph
from verify.report.records import plain_row
from verify.runs.answers import Answer, Blob
from verify.runs.engine import Solver
from verify.runs.identity import Instance

BETWEEN = "/"
"""In a blob's name, after the criterion; the names of layers may hold anything."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive inputs of one set.

    Attributes:
        set: "tested" or "against".
        first, count: which of its inputs.
    """

    set: str
    first: int
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """What one batch shows.

    Attributes:
        index: of the batch in the run.
        batch: which inputs.
        evidence: by criterion.
    """

    index: int
    batch: Batch
    evidence: Mapping[str, Evidence]

    def to_record(self) -> Mapping[str, object]:
        """The fields of the record schema, of a run that is not complete."""
        return row_of(self.index, self.batch)


@dataclass(frozen=True, slots=True, eq=False)
class GatherWork:
    """`verify coverage`, batch by batch; a `verify.runs.engine.Work`.

    The records travel empty, with all that they know of training data, so that every worker
    compares with the very same numbers.

    Attributes:
        graph: the network, in float32.
        layers: to watch.
        records: by criterion, empty.
        sets: all inputs by the name of their set.
        batches: in order.
    """

    graph: Graph
    layers: tuple[Layer, ...]
    records: Mapping[str, CoverageRecord]
    sets: Mapping[str, NDArray[np.float32]]
    batches: tuple[Batch, ...]

    def open(self) -> Solver:
        """Everything is there."""
        return self.solve

    def solve(self, positions: Sequence[int]) -> list[Answer]:
        """What each batch shows, whatever the others do."""
        found = []
        for position in positions:
            batch = self.batches[position]
            part = self.sets[batch.set][batch.first : batch.first + batch.count]
            values = observed(self.graph, torch.from_numpy(part), self.layers)
            blobs = {
                f"{name}{BETWEEN}{key}": Blob(array.tobytes(), array.dtype.str, array.shape)
                for name, record in self.records.items()
                for key, array in record.evidence(values).items()
            }
            found.append(Answer(position, plain_row(row_of(position, batch)), blobs))
        return found

    def back(self, answer: Answer) -> Gathered:
        """The evidence of an answer."""
        evidence: dict[str, dict[str, NDArray[np.generic]]] = {name: {} for name in self.records}
        for label, blob in answer.blobs.items():
            name, _, key = label.partition(BETWEEN)
            flat = np.frombuffer(blob.data, dtype=blob.dtype)
            # A copy: what came out of a file cannot be written to, which torch wants.
            evidence[name][key] = flat.reshape(blob.shape or (0,)).copy()
        return Gathered(answer.position, self.batches[answer.position], evidence)

    def instances(self) -> list[Instance]:
        """The batches, as a run tells them apart."""
        return [
            Instance(i, None, None, self.sets[b.set][b.first : b.first + b.count].tobytes())
            for i, b in enumerate(self.batches)
        ]


def row_of(index: int, batch: Batch) -> dict[str, object]:
    """A batch as a result."""
    return {"index": index, "set": batch.set, "first": batch.first, "inputs": batch.count}


def gather_job(
    session: Session,
    settings: dict[str, object],
    graph: Graph,
    layers: Sequence[Layer],
    records: Mapping[str, CoverageRecord],
    sets: Mapping[str, Tensor],
) -> Job[Gathered]:
    """That of `verify coverage`."""
    most = batch_for(graph)
    batches = []
    for name, x in sets.items():
        first = 0
        for count in steps(len(x), most):
            batches.append(Batch(name, first, count))
            first += count
    arrays = {name: x.to(torch.float32).contiguous().numpy() for name, x in sets.items()}
    work = GatherWork(graph, tuple(layers), records, arrays, tuple(batches))
    return Job(
        command="coverage",
        settings=settings,
        stamp=stamp(session),
        work=work,
        here=work.open,
        instances=work.instances,
        indices=range(len(batches)),
        size=1,
        back=work.back,
    )


def joined(
    found: Sequence[Gathered], records: Mapping[str, CoverageRecord], which: str
) -> dict[str, Measured]:
    """One set's batches, in the order of its inputs whatever order they came in.

    Args:
        records: empty; they are filled.
    """
    own = sorted((one for one in found if one.batch.set == which), key=lambda one: one.batch.first)
    return gathered(records, ((one.batch.count, one.evidence) for one in own))


def digest(x: Tensor) -> str:
    """SHA-256 of inputs, for the record: two profiles are the same or are not."""
    return hashlib.sha256(x.to(torch.float32).contiguous().numpy().tobytes()).hexdigest()
