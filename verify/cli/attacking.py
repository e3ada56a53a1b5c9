"""The work of `verify attack`: propose, replay, and keep what was found."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from verify.cli.falsifiers import AttackFalsifier
from verify.cli.session import Session
from verify.errors import SettingError
from verify.network import Network
from verify.report.writers import write_whole
from verify.search.strategy import problem_of, refute
from verify.values.question import Question
from verify.values.result import Result, StopReason, Verdict

AT_ONCE = 64
NOTHING_FOUND = "the attack found nothing, which proves nothing; verify certify can"


def attack_some(
    network: Network, asked: Question, indices: Sequence[int], falsifier: AttackFalsifier
) -> list[Result]:
    """Falsified where a counterexample was replayed, else unknown.

    Args:
        asked: one batch.
        indices: the inputs' numbers in their source.
    """
    started = time.monotonic()
    graph, judge = network.graph, network.judge
    found = refute(graph, asked, falsifier, judge)
    predicted = judge.predict(asked.x)
    distance = asked.distance(found.witness)
    margins = problem_of(graph, asked).margins(found.witness.to(graph.dtype)).amin(dim=1)
    share = (time.monotonic() - started) / len(indices)
    return [
        Result(
            index=index,
            label=int(asked.labels[i]),
            predicted=int(predicted[i]),
            verdict=Verdict.FALSIFIED if hit else Verdict.UNKNOWN,
            margin=float(margins[i]) if hit else math.nan,
            eps=float(asked.eps[i]),
            p=asked.p,
            method=found.attack[i] if hit else "",
            seconds=share,
            reason="" if hit else reason(bool(found.doubtful[i])),
            witness=found.witness[i] if hit else None,
            distance=float(distance[i]) if hit else math.nan,
        )
        for i, (index, hit) in enumerate(zip(indices, found.confirmed.tolist(), strict=True))
    ]


def reason(doubtful: bool) -> str:
    """Why an input is unknown."""
    return StopReason.NOT_REPLAYED.value if doubtful else NOTHING_FOUND


@dataclass(frozen=True, slots=True)
class AttackedAccuracy:
    """Shares of the inputs, between 0 and 1; NaN without inputs.

    Attributes:
        clean: classified as labelled.
        attacked: no misclassified input was found within the radius: an upper bound of the share
            that is robust.
    """

    clean: float
    attacked: float

    def text(self) -> str:
        """One line for people."""
        return f"clean accuracy {self.clean:.2%}, attacked accuracy {self.attacked:.2%}"


def attacked_accuracy(results: Sequence[Result]) -> AttackedAccuracy:
    """Counted over these results."""
    count = len(results) or math.nan
    right = sum(result.label == result.predicted for result in results)
    standing = sum(result.verdict is not Verdict.FALSIFIED for result in results)
    return AttackedAccuracy(right / count, standing / count)


def writable(path: Path) -> None:
    """Refuse a place for counterexamples before the work is done.

    Raises:
        SettingError: if it is no .npz file in a folder that is there.
    """
    if path.suffix.lower() != ".npz" or not path.parent.is_dir():
        raise SettingError(
            f"--save is {path}, expected a .npz file in a folder that is there; name another"
        )


def save_witnesses(path: Path, found: Sequence[Result], session: Session) -> None:
    """Write x (n, *input) and the inputs they are near, float32, with label and index, int64."""
    place = {index: row for row, index in enumerate(session.data.indices)}
    rows = [place[result.index] for result in found]
    shape = (0, *session.network.input_shape)
    witnesses = [result.witness for result in found if result.witness is not None]
    arrays = {
        "x": torch.stack(witnesses) if witnesses else torch.zeros(shape),
        "original": session.asked.x[rows],
        "label": session.asked.labels[rows],
        "index": torch.tensor([result.index for result in found], dtype=torch.int64),
    }
    stream = io.BytesIO()
    np.savez_compressed(stream, **{key: value.numpy() for key, value in arrays.items()})  # type: ignore[arg-type]  # numpy's stub takes ** for allow_pickle
    write_whole(path, stream.getvalue())
