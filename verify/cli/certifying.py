"""`--certificate DIR`: for each verified input two files, its property and its certificate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch

from verify.certificates.diary import Diary
from verify.certificates.labels import certify_label
from verify.certificates.proving import NoCertificate
from verify.cli.running import Job
from verify.cli.session import Session
from verify.cli.working import CertifyWork, result_of
from verify.errors import SettingError
from verify.network import Network, NormalisedJudge
from verify.report.writers import write_whole
from verify.runs.answers import Answer, Blob
from verify.runs.engine import Solver
from verify.values.budget import Budget
from verify.values.question import Question
from verify.values.result import Result, Verdict

SECONDS = 120.0
"""For one certificate; what has none by then is said to have none."""


REASON = "no certificate"
"""Beside a result: why it has none."""


class Shelf(Protocol):
    """Where certificates are kept from one call of the command to the next."""

    def get(self, row: int) -> tuple[bytes, bytes] | None:
        """Property and certificate of an input, by its row; None if there are none."""
        ...

    def put(self, row: int, prop: bytes, proof: bytes) -> None:
        """Keep them."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class CertifiedWork(CertifyWork):
    """`verify certify --certificate`: each proof is written down where it was found.

    Attributes:
        file: bytes of the model's file.
    """

    file: bytes = b""

    def on(self, network: Network) -> Solver:
        """With a network that is read already."""

        def solve(positions: Sequence[int]) -> list[Answer]:
            few, diary = self.asked.take(positions), Diary(network.graph)
            indices = [self.indices[p] for p in positions]
            results = self.kept(network, few, indices, diary)
            found = []
            for i, (position, result) in enumerate(zip(positions, results, strict=True)):
                answer = self.answer(position, result)
                one = few.take(torch.tensor([i]))
                more = blobs_of(network, self.file, one, result, diary)
                found.append(replace(answer, blobs={**answer.blobs, **more}))
            return found

        return solve


def blobs_of(
    network: Network, model: bytes, asked: Question, result: Result, diary: Diary
) -> dict[str, Blob]:
    """Property and certificate of a result, or why there is none; nothing if not verified."""
    if result.verdict is not Verdict.VERIFIED:
        return {}
    try:
        prop, proof = certificate_of(network, model, asked, result, diary)
    except NoCertificate as reason:
        return {REASON: Blob(str(reason).encode())}
    return {"property": Blob(prop), "certificate": Blob(proof)}


def certificate_of(
    network: Network, model: bytes, asked: Question, result: Result, diary: Diary | None
) -> tuple[bytes, bytes]:
    """Property and certificate of one verified input; raises NoCertificate."""
    about = f"input {result.index} keeps class {result.label} within {result.eps:g}"
    budget = Budget().within(SECONDS)
    found = certify_label(network.graph, model, asked, budget, about, diary)
    return found.prop.encode(), found.proof


@dataclass(eq=False)
class Certifying:
    """A job whose answers bring their certificates, until these are asked for.

    Attributes:
        blobs: by row, what came with an answer.
    """

    blobs: dict[int, dict[str, Blob]] = field(default_factory=dict)

    def job(self, job: Job[Result], session: Session) -> Job[Result]:
        """The job with certificates, where a file can have any."""
        network, work = session.network, job.work
        if isinstance(network.judge, NormalisedJudge) or network.path is None:
            return job
        assert isinstance(work, CertifyWork)
        known = {one.name: getattr(work, one.name) for one in fields(work)}
        certified = CertifiedWork(**known, file=Path(network.path).read_bytes())
        return replace(job, work=certified, here=partial(certified.on, network), back=self.back)

    def back(self, answer: Answer) -> Result:
        """The result of an answer, what came with it kept."""
        names = ("property", "certificate", REASON)
        found = {name: answer.blobs[name] for name in names if name in answer.blobs}
        if found:
            self.blobs[answer.position] = found
        return result_of(answer)

    def get(self, row: int) -> tuple[bytes, bytes] | None:
        """Property and certificate of an input; raises NoCertificate where that was found out."""
        found = self.blobs.pop(row, {})
        if REASON in found:
            raise NoCertificate(found[REASON].data.decode())
        return (found["property"].data, found["certificate"].data) if found else None


class NoFolder:
    """Nobody asked for certificates."""

    def following(self, parts: Iterable[Sequence[Result]]) -> Iterator[Sequence[Result]]:
        """The results as they come."""
        yield from parts

    def notes(self) -> list[str]:
        """Nothing to tell."""
        return []

    def summary(self) -> dict[str, object]:
        """Nothing for the record."""
        return {}


def folder_of(
    folder: Path | None, session: Session, shelf: Shelf | None, brought: Certifying
) -> CertificateFolder | NoFolder:
    """What follows the results."""
    return NoFolder() if folder is None else CertificateFolder(folder, session, shelf, brought)


class CertificateFolder:
    """Where certificates go, and what became of them.

    Attributes:
        folder: made when the first file is written.
        session: the model and the inputs.
        shelf: what a stored run keeps of them, so that none is found twice; or None.
        brought: what came with the results.
        written, bytes: how many certificates, and their size together.
        without: index and reason of each verified input without one.
    """

    def __init__(
        self, folder: Path, session: Session, shelf: Shelf | None, brought: Certifying
    ) -> None:
        """Refuse a folder that is a file."""
        if folder.exists() and not folder.is_dir():
            raise SettingError(f"--certificate {folder} is a file; name a folder")
        self.folder, self.session, self.shelf, self.brought = folder, session, shelf, brought
        self.written = self.bytes = 0
        self.without: list[tuple[int, str]] = []

    def following(self, parts: Iterable[Sequence[Result]]) -> Iterator[Sequence[Result]]:
        """The results as they come, each batch's certificates written before it is passed on."""
        numbers = {number: row for row, number in enumerate(self.session.data.indices)}
        for part in parts:
            for result in part:
                if result.verdict is Verdict.VERIFIED:
                    self.keep(result, numbers[result.index])
            yield part

    def keep(self, result: Result, row: int) -> None:
        """Find and write the certificate of one verified input."""
        try:
            found = self.brought.get(row) or (self.shelf and self.shelf.get(row))
            if not found:
                found = self.found(result, row)
                if self.shelf is not None:
                    self.shelf.put(row, *found)
        except NoCertificate as reason:
            self.without.append((result.index, str(reason)))
            return
        prop, proof = found
        write_whole(self.path(f"input_{result.index}.vnnlib"), prop)
        write_whole(self.path(f"input_{result.index}.cert"), proof)
        self.written += 1
        self.bytes += len(proof)

    def found(self, result: Result, row: int) -> tuple[bytes, bytes]:
        """Property and certificate of a result that a run had stored without: searched again."""
        network, asked = self.session.network, self.session.asked.take(torch.tensor([row]))
        if isinstance(network.judge, NormalisedJudge):
            raise NoCertificate("--mean and --std stand outside the file; put them into it")
        if network.path is None:
            raise NoCertificate("the model is in no file")
        return certificate_of(network, Path(network.path).read_bytes(), asked, result, None)

    def path(self, name: str) -> Path:
        """A file in the folder, which is made if it is not there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingError(
                f"--certificate {self.folder} cannot be made: {error.strerror}; name another folder"
            ) from error
        return self.folder / name

    def notes(self) -> list[str]:
        """What to tell people at the end."""
        lines = [
            f"certificates: {self.written} written to {self.folder}, {self.bytes} bytes, each "
            "accepted by verify.check"
        ]
        lines += [f"input {index} has no certificate: {why}" for index, why in self.without[:5]]
        if len(self.without) > 5:
            lines.append(f"... and {len(self.without) - 5} more without")
        return lines

    def summary(self) -> dict[str, object]:
        """For the record."""
        return {
            "certificates": self.written,
            "certificate_bytes": self.bytes,
            "without_certificate": [index for index, _ in self.without],
        }
