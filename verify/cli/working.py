"""Work that worker processes can do: what each command asks of a few inputs, ready to be sent."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.api import certify_each, radius_each
from verify.cli.attacking import attack_some
from verify.cli.falsifiers import falsifier_of
from verify.cli.options import AttackOptions
from verify.cli.refuting import refuters
from verify.cli.session import BoundArguments, Session
from verify.errors import ModelError
from verify.geometric.outcome import GeometricResult
from verify.network import Network, NormalisedJudge, load, with_normalisation
from verify.report.records import plain_row
from verify.runs.answers import Answer, Blob
from verify.runs.engine import Solver
from verify.runtime import Runtime
from verify.search.outcome import Diary
from verify.values.question import Question
from verify.values.result import Bracket, Result

Found = TypeVar("Found")
Witnessed = TypeVar("Witnessed", Result, Bracket, GeometricResult)
FLOAT32, FLOAT64 = "<f4", "<f8"


@dataclass(frozen=True, slots=True, eq=False)
class SentModel:
    """A model that can travel: its bytes, and what stands in front of it.

    Attributes:
        name: of the file, for messages.
        data: the serialised model, external data brought in.
        mean, std: of the normalisation, or None.
    """

    name: str
    data: bytes
    mean: NDArray[np.float32] | None
    std: NDArray[np.float32] | None

    @classmethod
    def of(cls, network: Network) -> SentModel:
        """What a loaded network consists of.

        Raises:
            ModelError: if it comes from no file.
        """
        judge, mean, std = network.judge, None, None
        if isinstance(judge, NormalisedJudge):
            mean, std, judge = judge.mean.numpy(), judge.std.numpy(), judge.judge
        if not isinstance(judge, Runtime):
            raise ModelError("a model in memory cannot be sent to workers; write it as ONNX first")
        return cls(Path(network.path or "model.onnx").name, judge.model.data, mean, std)

    def network(self) -> Network:
        """Read and checked again, as the file was."""
        with tempfile.TemporaryDirectory(prefix="tashika-") as folder:
            path = Path(folder) / f"{self.name.removesuffix('.gz').removesuffix('.onnx')}.onnx"
            path.write_bytes(self.data)
            network = load(path)
        if self.mean is None or self.std is None:
            return network
        return with_normalisation(network, torch.from_numpy(self.mean), torch.from_numpy(self.std))


@dataclass(frozen=True, slots=True, eq=False)
class SentQuestion:
    """A question as arrays, which pickle as their bytes and nothing else."""

    x: NDArray[np.float32]
    labels: NDArray[np.int64]
    eps: NDArray[np.float64]
    p: float
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]

    @classmethod
    def of(cls, asked: Question) -> SentQuestion:
        """The same question."""
        arrays = (asked.x, asked.labels, asked.eps.contiguous())
        x, labels, eps = (tensor.numpy() for tensor in arrays)
        return cls(x, labels, eps, asked.p, asked.lower.numpy(), asked.upper.numpy())

    def take(self, positions: Sequence[int]) -> Question:
        """Some of it, as the library knows it."""
        rows = list(positions)
        chosen = (self.x[rows], self.labels[rows], self.eps[rows])
        x, labels, eps = (torch.from_numpy(array) for array in chosen)
        lower, upper = torch.from_numpy(self.lower), torch.from_numpy(self.upper)
        return Question(x, labels, eps, self.p, lower, upper)


@dataclass(frozen=True, slots=True, eq=False)
class InputWork(ABC, Generic[Found]):
    """Something asked of each input of a session; a `verify.runs.engine.Work`.

    Attributes:
        model, asked: of the session.
        indices: number of each input in its source.
    """

    model: SentModel
    asked: SentQuestion
    indices: tuple[int, ...]

    @abstractmethod
    def results(self, network: Network, few: Question, indices: list[int]) -> list[Found]:
        """Decide some inputs, all in one batch."""

    @abstractmethod
    def answer(self, position: int, result: Found) -> Answer:
        """A result as a run stores it."""

    @abstractmethod
    def result(self, answer: Answer) -> Found:
        """The result that an answer was made from."""

    def open(self) -> Solver:
        """Read the model in a worker."""
        return self.on(self.model.network())

    def on(self, network: Network) -> Solver:
        """With a network that is read already."""

        def solve(positions: Sequence[int]) -> list[Answer]:
            few = self.asked.take(positions)
            results = self.results(network, few, [self.indices[p] for p in positions])
            return [self.answer(*pair) for pair in zip(positions, results, strict=True)]

        return solve


@dataclass(frozen=True, slots=True, eq=False)
class WitnessWork(InputWork[Witnessed]):
    """Work whose results may hold a counterexample."""

    def answer(self, position: int, result: Witnessed) -> Answer:
        """See `answer_of`."""
        return answer_of(position, result)


@dataclass(frozen=True, slots=True, eq=False)
class CertifyWork(WitnessWork[Result]):
    """`verify certify`."""

    attacks: AttackOptions
    arguments: BoundArguments
    complete: bool
    semantics: str = "float32"

    def results(self, network: Network, few: Question, indices: list[int]) -> list[Result]:
        """One batch of `certify_each`."""
        return self.kept(network, few, indices, None)

    def kept(
        self, network: Network, few: Question, indices: list[int], diary: Diary | None
    ) -> list[Result]:
        """The same, with a diary of what proves the results."""
        parts = certify_each(
            network,
            few,
            method=self.arguments.method,
            falsifier=falsifier_of(self.attacks, network.judge),
            timeout=self.arguments.timeout,
            memory=self.arguments.memory,
            batch=len(indices),
            iterations=self.arguments.iterations,
            indices=indices,
            complete=self.complete,
            refuters=refuters(self.attacks.seed),
            semantics=self.semantics,
            diary=diary,
        )
        return [result for part in parts for result in part]

    def result(self, answer: Answer) -> Result:
        """See `result_of`."""
        return result_of(answer)


@dataclass(frozen=True, slots=True, eq=False)
class RadiusWork(WitnessWork[Bracket]):
    """`verify radius` and `verify compare`."""

    attacks: AttackOptions
    arguments: BoundArguments
    tolerance: float
    exact: bool
    semantics: str = "float32"

    def results(self, network: Network, few: Question, indices: list[int]) -> list[Bracket]:
        """One batch of `radius_each`."""
        parts = radius_each(
            network,
            few,
            method=self.arguments.method,
            falsifier=falsifier_of(self.attacks, network.judge),
            timeout=self.arguments.timeout,
            memory=self.arguments.memory,
            batch=len(indices),
            iterations=self.arguments.iterations,
            tolerance=self.tolerance,
            indices=indices,
            exact=self.exact,
            refuters=refuters(self.attacks.seed),
            semantics=self.semantics,
        )
        return [found for part in parts for found in part]

    def result(self, answer: Answer) -> Bracket:
        """See `bracket_of`."""
        return bracket_of(answer)


@dataclass(frozen=True, slots=True, eq=False)
class AttackWork(WitnessWork[Result]):
    """`verify attack`."""

    attacks: AttackOptions

    def results(self, network: Network, few: Question, indices: list[int]) -> list[Result]:
        """One batch of attacks."""
        falsifier = falsifier_of(self.attacks, network.judge)
        assert falsifier is not None
        return attack_some(network, few, indices, falsifier)

    def result(self, answer: Answer) -> Result:
        """See `result_of`."""
        return result_of(answer)


def sent(session: Session) -> tuple[SentModel, SentQuestion, tuple[int, ...]]:
    """The parts of a session that travel."""
    return (
        SentModel.of(session.network),
        SentQuestion.of(session.asked),
        tuple(session.data.indices),
    )


def answer_of(position: int, result: Result | Bracket | GeometricResult) -> Answer:
    """A result as a run stores it."""
    blobs = {} if result.witness is None else {"witness": array_blob(result.witness)}
    if isinstance(result, GeometricResult):
        spans = result.spans.to(torch.float64).numpy().astype(FLOAT64)
        blobs["spans"] = Blob(spans.tobytes(), FLOAT64, spans.shape)
    return Answer(position, plain_row(result), blobs)


def result_of(answer: Answer) -> Result:
    """The result that `answer_of` was given."""
    return Result.from_record(answer.record, witness_of(answer))


def bracket_of(answer: Answer) -> Bracket:
    """The bracket that `answer_of` was given."""
    return Bracket.from_record(answer.record, witness_of(answer))


def geometric_of(answer: Answer) -> GeometricResult:
    """The result that `answer_of` was given."""
    blob = answer.blobs["spans"]
    spans = np.frombuffer(blob.data, dtype=FLOAT64).reshape(blob.shape or (0,))
    kept = torch.from_numpy(spans.astype(np.float64))
    return GeometricResult.from_record(answer.record, witness_of(answer), kept)


def array_blob(values: Tensor) -> Blob:
    """A tensor as float32, little-endian."""
    array = values.detach().to(torch.float32).numpy().astype(FLOAT32)
    return Blob(array.tobytes(), FLOAT32, array.shape)


def array_of(blob: Blob) -> Tensor:
    """The tensor that `array_blob` was given."""
    array = np.frombuffer(blob.data, dtype=FLOAT32).reshape(blob.shape or ())
    return torch.from_numpy(array.astype(np.float32))


def witness_of(answer: Answer) -> Tensor | None:
    """The counterexample, if there is one."""
    blob = answer.blobs.get("witness")
    return None if blob is None else array_of(blob)
