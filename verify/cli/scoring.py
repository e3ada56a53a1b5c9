"""The work of `verify ood` on single inputs: activations and the score of each detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from uncertainty.ood import Activations, OnnxActivations, detector_named, odin
from uncertainty.ood.detectors import Detector
from verify.cli.working import FLOAT64, SentModel
from verify.errors import SettingError
from verify.graph.ir import Graph
from verify.report.records import plain_row
from verify.runs.answers import Answer, Blob
from verify.runs.engine import Solver
from verify.runs.identity import Instance
from verify.traverse import run

AT_ONCE = 256
"""Inputs that are scored together."""
ODIN = "odin"
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What detectors learn from.

    Attributes:
        x: in-distribution inputs, shape (n, *input), as the model gets them.
        labels: their classes; None takes the predicted ones.
    """

    x: NDArray[np.float32]
    labels: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Scored:
    """One input's scores.

    Attributes:
        index: of the input in the run.
        row: its fields as a run stores it.
        scores: one of each method, in their order; higher is more out of distribution.
    """

    index: int
    row: Mapping[str, object]
    scores: tuple[float, ...]

    def to_record(self) -> Mapping[str, object]:
        """The fields of the record schema, of a run that is not complete."""
        return self.row


@dataclass(frozen=True, slots=True, eq=False)
class ScoreWork:
    """Scores to find; a `verify.runs.engine.Work`.

    Attributes:
        path: of the model, for messages.
        data: the serialised model.
        layer: whose output is the feature; None for the usual one.
        methods: names of the detectors.
        fit: what they learn from.
        sets: all inputs by the name of their set, in order.
    """

    path: str
    data: bytes
    layer: str | None
    methods: tuple[str, ...]
    fit: Fit
    sets: Mapping[str, NDArray[np.float32]]

    @property
    def places(self) -> list[tuple[str, int]]:
        """Set and row of each position."""
        return [(name, row) for name, x in self.sets.items() for row in range(len(x))]

    def activations(self) -> OnnxActivations:
        """The network.

        Raises:
            SettingError: if it has no such layer.
        """
        try:
            return OnnxActivations(self.data, self.layer)
        except ValueError as error:
            raise SettingError(f"{self.path}: {error}") from error

    def open(self) -> Solver:
        """Read the model and fit the detectors."""
        return self.on(self.activations())

    def on(self, network: OnnxActivations) -> Solver:
        """With a model that is read already."""
        detectors = self.fitted(network)
        graph = None
        if ODIN in self.methods:
            graph = SentModel(Path(self.path).name, self.data, None, None).network().graph
        places = self.places

        def solve(positions: Sequence[int]) -> list[Answer]:
            rows = [places[p] for p in positions]
            x = np.stack([self.sets[name][row] for name, row in rows])
            scores = self.scores(network(torch.from_numpy(x)), x, detectors, graph)
            return [
                self.answer(p, *place, own)
                for p, place, own in zip(positions, rows, scores, strict=True)
            ]

        return solve

    def fitted(self, network: OnnxActivations) -> dict[str, Detector]:
        """The detectors by name; ODIN learns nothing and is none."""
        seen = network(torch.from_numpy(self.fit.x))
        labels = self.fit.labels
        if labels is not None and (labels.min() < 0 or labels.max() >= seen.logits.shape[1]):
            labels = None
        found = {name: detector_named(name) for name in self.methods if name != ODIN}
        for detector in found.values():
            detector.fit(seen, labels)
        return found

    def scores(
        self,
        seen: Activations,
        x: NDArray[np.float32],
        detectors: Mapping[str, Detector],
        graph: Graph | None,
    ) -> Array:
        """Shape (inputs, methods)."""
        columns = []
        for name in self.methods:
            if name != ODIN:
                columns.append(detectors[name].score(seen))
                continue
            assert graph is not None
            columns.append(odin_of(graph, x))
        return np.stack(columns, axis=1)

    def answer(self, position: int, name: str, row: int, scores: Array) -> Answer:
        """One input as a run stores it."""
        told = dict(zip(self.methods, scores.tolist(), strict=True))
        record = plain_row({"index": position, "set": name, "row": row, "scores": told})
        array = scores.astype(FLOAT64)
        return Answer(position, record, {"scores": Blob(array.tobytes(), FLOAT64, array.shape)})

    def back(self, answer: Answer) -> Scored:
        """The scores of an answer, bit by bit."""
        scores = np.frombuffer(answer.blobs["scores"].data, dtype=FLOAT64)
        return Scored(answer.position, answer.record, tuple(scores.tolist()))

    def instances(self) -> list[Instance]:
        """The inputs, as a run tells them apart."""
        return [
            Instance(i, None, None, name.encode() + b"\0" + self.sets[name][row].tobytes())
            for i, (name, row) in enumerate(self.places)
        ]


def odin_of(graph: Graph, x: NDArray[np.float32]) -> Array:
    """ODIN's scores, by the network's own gradients in float64."""
    points = torch.from_numpy(x).double().reshape(-1, *graph.input.shape)
    return odin(lambda v: run(graph, v).flatten(1), points)
