"""Results to people and files: progress while they come, then table, JSON and CSV."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Generic, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from verify.cli.failures import INTERRUPTED
from verify.cli.options import OutputOptions
from verify.errors import SettingError
from verify.report import (
    ModelStamp,
    Record,
    make_record,
    print_record,
    summary_text,
    write_csv,
    write_json,
)
from verify.report.records import Recordable
from verify.report.writers import csv_text, json_text

PLAIN_WIDTH = 160
"""Columns of a table that goes to a file or a pipe, where there is no window to fit."""

Item = TypeVar("Item")


class PlainConsole(Console):
    """A console that lets a broken pipe through, instead of ending the process with code 1."""

    def on_broken_pipe(self) -> None:
        """Raise what happened."""
        raise BrokenPipeError


def console_on(stream: IO[str]) -> Console:
    """A console whose tables are not cut at 80 columns where nobody's window is."""
    return PlainConsole(
        file=stream, width=None if stream.isatty() else PLAIN_WIDTH, highlight=False
    )


@dataclass(frozen=True, slots=True)
class Presenter:
    """Where the output of one command goes.

    Attributes:
        options: as given.
        started: time.monotonic() at the start of the command.
    """

    options: OutputOptions
    started: float

    @property
    def console(self) -> Console:
        """For people: standard output, or standard error where data go to standard output."""
        data = "-" in (self.options.json, self.options.csv)
        return console_on(sys.stderr if data else sys.stdout)

    def say(self, lines: Sequence[str]) -> None:
        """Print remarks, unless they are not wanted."""
        if not self.options.quiet:
            for line in lines:
                self.console.print(Text(line, style="dim"), soft_wrap=True)

    def warn(self, line: str) -> None:
        """Say what must not be overlooked, on standard error."""
        print(line, file=sys.stderr)

    def collect(self, parts: Iterable[Sequence[Item]], total: int, what: str) -> Collected[Item]:
        """Take results as they come, with a progress bar; Ctrl-C keeps what has come."""
        found: list[Item] = []
        shown = not self.options.quiet and sys.stderr.isatty()
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console_on(sys.stderr),
            transient=True,
            disable=not shown,
        )
        with progress:
            task = progress.add_task(what, total=total)
            try:
                for part in parts:
                    found.extend(part)
                    progress.advance(task, len(part))
            except KeyboardInterrupt:
                return Collected(found, interrupted=True)
        return Collected(found, interrupted=False)

    def record(
        self,
        command: str,
        stamp: ModelStamp,
        settings: Mapping[str, object],
        results: Sequence[Mapping[str, object] | Recordable],
        summary: Mapping[str, object],
    ) -> Record:
        """The record of this command."""
        return make_record(
            command,
            results=results,
            settings=settings,
            model=stamp,
            seconds=time.monotonic() - self.started,
            summary=summary,
        )

    def publish(self, record: Record, *, table: bool = True) -> None:
        """Write the record wherever it was asked for, and print it.

        Files come first: a closed pipe must not cost them.
        """
        self.write(record)
        if self.options.quiet or not table:
            self.console.print(Text(summary_text(record)), soft_wrap=True)
        else:
            print_record(record, console=self.console)

    def write(self, record: Record) -> None:
        """Write the record as JSON and CSV, as asked for."""
        options = self.options
        if options.json not in (None, "-"):
            write_json(record, str(options.json))
        if options.csv not in (None, "-"):
            write_csv(record, str(options.csv))
        if options.json == "-":
            sys.stdout.write(json_text(record))
        if options.csv == "-":
            sys.stdout.write(csv_text(record))


@dataclass(frozen=True, slots=True)
class Collected(Generic[Item]):
    """Results that came, and whether Ctrl-C cut them short."""

    results: list[Item]
    interrupted: bool

    def exit_code(self, code: int) -> int:
        """`code`, unless the run was interrupted."""
        if self.interrupted:
            print("interrupted: these are the results so far", file=sys.stderr)
            return INTERRUPTED
        return code


def presenter(options: OutputOptions) -> Presenter:
    """Start the clock and check where the output is to go.

    Raises:
        SettingError: if two things are to go to standard output, or a file to no folder.
    """
    if options.json == options.csv == "-":
        raise SettingError("--json - and --csv - cannot share standard output; name a file for one")
    for option, path in (("--json", options.json), ("--csv", options.csv)):
        if path is not None and path != "-" and not Path(path).resolve().parent.is_dir():
            raise SettingError(
                f"{option} is {path}, which lies in no folder that is there; make the folder, or "
                "name another file"
            )
    return Presenter(options, time.monotonic())
