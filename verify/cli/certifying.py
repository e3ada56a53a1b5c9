"""`--certificate DIR`: for each verified input two files, its property and its certificate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

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


class CertificateFolder:
    """Where certificates go, and what became of them.

    Attributes:
        folder: made when the first file is written.
        session: the model and the inputs.
        written, bytes: how many certificates, and their size together.
        without: index and reason of each verified input without one.
    """

    def __init__(self, folder: Path, session: Session) -> None:
        """Refuse a folder that is a file."""
        if folder.exists() and not folder.is_dir():
            raise SettingError(f"--certificate {folder} is a file; name a folder")
        self.folder, self.session = folder, session
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
        network = self.session.network
        name = f"input_{result.index}"
        try:
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
        except NoCertificate as reason:
            self.without.append((result.index, str(reason)))
            return
        write_whole(self.path(f"{name}.vnnlib"), found.prop.encode())
        write_whole(self.path(f"{name}.cert"), found.proof)
        self.written += 1
        self.bytes += len(found.proof)

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
