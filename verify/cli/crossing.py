"""The work of `verify transfer` on single inputs: whom each example fools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attacks import Attack, Transfer, transfer_matrix
from attacks.protocol import Model
from attacks.transfer import NOISE, OTHERS, Cell, Misclassified, transfer_of
from verify.cli.falsifiers import ball_of
from verify.cli.working import SentModel, SentQuestion
from verify.network import Network
from verify.report.records import plain_row
from verify.runs.answers import Answer, Blob
from verify.runs.engine import Solver
from verify.runs.identity import Instance
from verify.traverse import run

AT_ONCE = 64
"""Inputs that are attacked together."""
FLAGS = "|u1"


@dataclass(frozen=True, slots=True, eq=False)
class Crossed:
    """One input's examples of one attack.

    Attributes:
        index: of the pair of input and attack in the run.
        row: its fields as a run stores it.
        attack: by name.
        cells: counted, found, fooled; uint8, shape (3, sources, targets).
    """

    index: int
    row: Mapping[str, object]
    attack: str
    cells: NDArray[np.uint8]

    def to_record(self) -> Mapping[str, object]:
        """The fields of the record schema, of a run that is not complete."""
        return self.row


@dataclass(frozen=True, slots=True, eq=False)
class CrossWork:
    """Examples to make and to show; a `verify.runs.engine.Work`.

    Attributes:
        models: by name, in order.
        asked: the inputs, their labels and radius.
        indices: of the inputs in their source.
        attacks: by name, in order.
        seed: of the noise and of the intervals.
    """

    models: Mapping[str, SentModel]
    asked: SentQuestion
    indices: tuple[int, ...]
    attacks: Mapping[str, Attack]
    seed: int

    @property
    def sources(self) -> tuple[str, ...]:
        """The rows of a matrix."""
        others = (OTHERS,) if len(self.models) > 2 else ()
        return (*self.models, *others, NOISE)

    @property
    def count(self) -> int:
        """Of positions: every attack on every input, attack by attack."""
        return len(self.attacks) * len(self.indices)

    def place(self, position: int) -> tuple[str, int]:
        """Attack and row of the input."""
        which, row = divmod(position, len(self.indices))
        return tuple(self.attacks)[which], row

    def open(self) -> Solver:
        """Read the models."""
        return self.on({name: model.network() for name, model in self.models.items()})

    def on(self, networks: Mapping[str, Network]) -> Solver:
        """With models that are read already."""
        models = {name: model_of(network) for name, network in networks.items()}
        judges = {name: judge_of(network) for name, network in networks.items()}

        def solve(positions: Sequence[int]) -> list[Answer]:
            answers = []
            for attack, group in groupby(positions, key=lambda p: self.place(p)[0]):
                own = list(group)
                few = self.asked.take([self.place(p)[1] for p in own])
                (found,) = transfer_matrix(
                    models,
                    few.x.to(torch.float32),
                    few.labels,
                    ball_of(few),
                    {attack: self.attacks[attack]},
                    judges=judges,
                    seed=self.seed,
                    resamples=1,
                )
                cells = torch.stack((found.counted, found.found, found.fooled)).numpy()
                answers += [self.answer(p, cells[..., i]) for i, p in enumerate(own)]
            return answers

        return solve

    def answer(self, position: int, cells: NDArray[np.bool_]) -> Answer:
        """One input and attack as a run stores it."""
        attack, row = self.place(position)
        told = {"index": position, "input": self.indices[row], "attack": attack}
        told["fooled"] = int(cells[2].sum())
        array = cells.astype(FLAGS)
        return Answer(
            position, plain_row(told), {"cells": Blob(array.tobytes(), FLAGS, array.shape)}
        )

    def back(self, answer: Answer) -> Crossed:
        """The cells of an answer."""
        blob = answer.blobs["cells"]
        cells = np.frombuffer(blob.data, dtype=np.uint8).reshape(blob.shape or (0,))
        return Crossed(answer.position, answer.record, self.place(answer.position)[0], cells)

    def instances(self) -> list[Instance]:
        """Inputs and attacks, as a run tells them apart."""
        asked, places = self.asked, map(self.place, range(self.count))
        return [
            Instance(
                position,
                int(asked.labels[row]),
                float(asked.eps[row]),
                attack.encode() + b"\0" + asked.x[row].tobytes(),
            )
            for position, (attack, row) in enumerate(places)
        ]

    def matrices(self, found: Sequence[Crossed]) -> list[Transfer]:
        """One matrix for each attack of which anything came."""
        matrices = []
        names = self.sources, tuple(self.models)
        for attack in self.attacks:
            own = [one.cells for one in found if one.attack == attack]
            if own:
                stacked = torch.from_numpy(np.stack(own, axis=-1)).bool()
                matrices.append(transfer_of(attack, *names, Cell(*stacked), seed=self.seed))
        return matrices


def model_of(network: Network) -> Model:
    """The network in float32, taking the inputs in whatever shape they come."""
    single, shape = network.graph.to(torch.float32), network.input_shape

    def model(x: Tensor) -> Tensor:
        return run(single, x.reshape(len(x), *shape))

    return model


def judge_of(network: Network) -> Misclassified:
    """The network's own runtime, likewise."""

    def misclassified(points: Tensor, labels: Tensor) -> Tensor:
        return network.judge.misclassified(
            points.to(torch.float32).reshape(len(points), *network.input_shape), labels
        )

    return misclassified
