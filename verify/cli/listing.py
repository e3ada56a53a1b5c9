"""`verify prop --list`: many properties, each decided on its own, through the engine of runs."""

from __future__ import annotations

import csv
import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verify.api import prove_property
from verify.cli import parsing
from verify.cli.options import OutputOptions, RunOptions
from verify.cli.presenting import presenter
from verify.cli.refuting import refuters
from verify.cli.running import Job, Running
from verify.cli.working import array_blob
from verify.errors import DataError, InputError
from verify.network import Network, load
from verify.readers.vnnlib import read_vnnlib
from verify.report import ModelStamp
from verify.report.records import plain_row
from verify.runs.answers import Answer
from verify.runs.engine import Solver
from verify.runs.identity import Instance
from verify.values.semantics import EXECUTED, Semantics

COLUMNS = (2, 3)
"""Of a line: model, property and, if there is one, seconds; as in the competition."""
CODES = {"falsified": 1, "unknown": 3}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the list.

    Attributes:
        model, spec: as files on this machine.
        timeout: seconds, or None.
    """

    model: str
    spec: str
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Listed:
    """One answer.

    Attributes:
        index: of the line, from 0.
        row: its fields in the record.
    """

    index: int
    row: Mapping[str, object]

    def to_record(self) -> Mapping[str, object]:
        """The fields of the record schema."""
        return self.row


@dataclass(frozen=True, slots=True, eq=False)
class PropWork:
    """Properties to decide; a `verify.runs.engine.Work`.

    Attributes:
        lines: all of them, in order.
        memory: bytes that a process may take.
        seed: of the attacks.
        files: the files' bytes by path where they have to travel, else None.
        semantics: what a proof is to hold for.
    """

    lines: tuple[Line, ...]
    memory: int
    seed: int
    files: Mapping[str, bytes] | None = None
    semantics: str = "float32"

    def open(self) -> Solver:
        """Put the files somewhere, if they have travelled."""
        # It lives as long as the solver that refers to it, and goes with it.
        folder = tempfile.TemporaryDirectory(prefix="tashika-") if self.files else None
        places: dict[str, Path] = {}
        for path, data in (self.files or {}).items():
            assert folder is not None
            places[path] = Path(folder.name) / f"{len(places)}_{Path(path).name}"
            places[path].write_bytes(data)
        last: list[tuple[Path, Network]] = []

        def solve(positions: Sequence[int]) -> list[Answer]:
            assert folder is None or Path(folder.name).is_dir()
            found = []
            for p in positions:
                line = self.lines[p]
                model, spec = (places.get(name, Path(name)) for name in (line.model, line.spec))
                found.append(self.answer(p, line, (model, spec), last))
            return found

        return solve

    def answer(
        self,
        position: int,
        line: Line,
        files: tuple[Path, Path],
        last: list[tuple[Path, Network]],
    ) -> Answer:
        """Decide one; a file that cannot be used is an answer too.

        Args:
            last: the model that was loaded last, as lists name one model many times.
        """
        started = time.monotonic()
        row: dict[str, object] = {"index": position, "model": line.model, "property": line.spec}
        try:
            if not last or last[0][0] != files[0]:
                last[:] = [(files[0], load(files[0]))]
            stated = read_vnnlib(files[1])
            spent = time.monotonic() - started
            decision = prove_property(
                last[0][1],
                stated,
                refuters=refuters(self.seed),
                timeout=None if line.timeout is None else max(0.05, line.timeout - spent),
                memory=self.memory,
                semantics=self.semantics,
            )
        except InputError as error:
            row |= {"verdict": "unknown", "answer": "error", "reason": str(error)}
            row |= {"method": "", "seconds": time.monotonic() - started}
            return Answer(position, plain_row(row))
        if decision.interrupted:
            raise KeyboardInterrupt
        row |= {
            "verdict": decision.verdict,
            "margin": decision.bound,
            "method": decision.method,
            "seconds": time.monotonic() - started,
            "reason": decision.reason,
            "answer": decision.answer,
            "case": decision.case,
            "domains": decision.domains,
        }
        witness = decision.witness
        return Answer(
            position,
            plain_row(row),
            {} if witness is None else {"witness": array_blob(witness)},
        )


def prove_list(
    path: Path,
    timeout: str | None,
    memory: str,
    seed: int,
    output: OutputOptions,
    runs: RunOptions,
    semantics: Semantics = EXECUTED,
) -> int:
    """Decide every line of a list; returns the exit code.

    Raises:
        InputError: if the list cannot be read, or names a file that is not there.
    """
    show = presenter(output)
    seconds, size = parsing.positive(timeout, "--timeout"), parsing.size(memory)
    lines = read_list(path, seconds)
    hashes = {name: hashed(name) for line in lines for name in (line.model, line.spec)}
    files = None
    if runs.scheduler is not None:
        files = {name: Path(name).read_bytes() for name in hashes}
    work = PropWork(lines, size, seed, files, semantics.name)
    settings: dict[str, object] = {
        "list": str(path),
        "memory": size,
        "seed": seed,
        "semantics": semantics.name,
    }
    job = Job(
        command="prop",
        settings={**settings, "limit": None},
        stamp=ModelStamp(None, None),
        work=work,
        here=PropWork(lines, size, seed, None, semantics.name).open,
        instances=lambda: [
            Instance(i, None, None, f"{hashes[x.model]} {hashes[x.spec]} {x.timeout}".encode())
            for i, x in enumerate(lines)
        ],
        indices=range(len(lines)),
        size=1,
        back=lambda answer: Listed(answer.position, answer.record),
    )
    with Running(runs, job, show) as running:
        done = running.collect()
    summary = {"interrupted": done.interrupted, **running.summary()}
    record = show.record("prop", job.stamp, job.settings, done.results, summary)
    show.publish(record, table=False)
    for listed in [] if output.quiet else done.results:
        row = listed.row
        names = f"{Path(str(row['model'])).name} {Path(str(row['property'])).name}"
        show.console.print(f"{row['answer']!s:8} {row['seconds']:8.2f} s  {names}")
    verdicts = {str(listed.row["verdict"]) for listed in done.results}
    code = next((code for verdict, code in CODES.items() if verdict in verdicts), 0)
    return running.exit_code(done, code)


def read_list(path: Path, timeout: float | None) -> tuple[Line, ...]:
    """The lines of a list; paths in it are relative to its folder.

    Args:
        timeout: seconds for each line, in place of its own; None leaves it its own.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"list {path} cannot be read ({error}); check the path") from None
    found = []
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        if len(cells) not in COLUMNS:
            raise DataError(
                f"line {number} of {path} has {len(cells)} columns, expected model,property or "
                "model,property,seconds"
            )
        own = parsing.positive(cells[2], f"line {number}: seconds") if len(cells) > 2 else None
        model, spec = (str((path.parent / cell).resolve()) for cell in cells[:2])
        found.append(Line(model, spec, own if timeout is None else timeout))
    if not found:
        raise DataError(f"list {path} has no lines; write model,property,seconds")
    return tuple(found)


def hashed(path: str) -> str:
    """Of a file's bytes.

    Raises:
        DataError: if it is not there.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; correct the list") from None
