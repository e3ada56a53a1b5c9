"""`--certificate DIR`: for each verified input two files, its property and its certificate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch

from verify.certificates.labels import certify_label
from verify.certificates.proving import NoCertificate
from verify.cli.session import Session
from verify.errors import SettingError
from verify.network import NormalisedJudge
from verify.report.writers import write_whole
from verify.values.budget import Budget
from verify.values.result import Result, Verdict

SECONDS = 120.0
"""For one certificate; what has none by then is said to have none."""


class Shelf(Protocol):
    """Where certificates are kept from one call of the command to the next."""

    def get(self, row: int) -> tuple[bytes, bytes] | None:
        """Property and certificate of an input, by its row; None if there are none."""
        ...

    def put(self, row: int, prop: bytes, proof: bytes) -> None:
        """Keep them."""
        ...


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
    folder: Path | None, session: Session, shelf: Shelf | None
) -> CertificateFolder | NoFolder:
    """What follows the results."""
    return NoFolder() if folder is None else CertificateFolder(folder, session, shelf)


class CertificateFolder:
    """Where certificates go, and what became of them.

    Attributes:
        folder: made when the first file is written.
        session: the model and the inputs.
        shelf: what a stored run keeps of them, so that none is found twice; or None.
        written, bytes: how many certificates, and their size together.
        without: index and reason of each verified input without one.
    """

    def __init__(self, folder: Path, session: Session, shelf: Shelf | None = None) -> None:
        """Refuse a folder that is a file."""
        if folder.exists() and not folder.is_dir():
            raise SettingError(f"--certificate {folder} is a file; name a folder")
        self.folder, self.session, self.shelf = folder, session, shelf
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
        found = None if self.shelf is None else self.shelf.get(row)
        if found is None:
            try:
                found = self.found(result, row)
            except NoCertificate as reason:
                self.without.append((result.index, str(reason)))
                return
            if self.shelf is not None:
                self.shelf.put(row, *found)
        prop, proof = found
        write_whole(self.path(f"input_{result.index}.vnnlib"), prop)
        write_whole(self.path(f"input_{result.index}.cert"), proof)
        self.written += 1
        self.bytes += len(proof)

    def found(self, result: Result, row: int) -> tuple[bytes, bytes]:
        """Property and certificate."""
        network = self.session.network
        if isinstance(network.judge, NormalisedJudge):
            raise NoCertificate("--mean and --std stand outside the file; put them into it")
        if network.path is None:
            raise NoCertificate("the model is in no file")
        found = certify_label(
            network.graph,
            Path(network.path).read_bytes(),
            self.session.asked.take(torch.tensor([row])),
            Budget().within(SECONDS),
            f"input {result.index} keeps class {result.label} within {result.eps:g}",
        )
        return found.prop.encode(), found.proof

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
