"""The work of `verify runs`."""

from __future__ import annotations

import json as json_format
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.table import Table
from rich.text import Text

from verify.cli.presenting import console_on
from verify.errors import RunError, SettingError
from verify.report.records import REAL_ONLY, VERDICTS, Record
from verify.report.stored import record_of
from verify.report.writers import csv_text, json_text, parquet_bytes, write_whole
from verify.runs.comparing import Comparison, Pair, compare_runs, number
from verify.runs.folder import read_run, run_paths, runs_folder
from verify.runs.store import Store

INCOMPLETE, CONTRADICTION = 3, 1
SHOWN = 20
"""Changed instances in a table; the JSON has all."""
REPLACED = ("--run", "--runs")


@contextmanager
def opened(folder: Path | None, name: str) -> Iterator[Store]:
    """A run to be read."""
    store = read_run(runs_folder(folder), name)
    try:
        yield store
    finally:
        store.close()


def print_list(folder: Path | None) -> int:
    """A table of all runs; a damaged one is a line in it."""
    place = runs_folder(folder)
    table = Table("run", "command", "model", "results", *VERDICTS, "made (UTC)")
    for path in run_paths(place):
        try:
            with opened(place, path.stem) as store:
                table.add_row(*map(Text, cells(store)))
        except RunError as error:
            table.add_row(Text(path.stem), Text(str(error), style="red"))
    console = console_on(sys.stdout)
    if table.row_count:
        console.print(table)
    else:
        console.print(Text(f"no runs in {place}; --run NAME of a command makes one"))
    return 0


def cells(store: Store) -> list[str]:
    """One line of the list."""
    verdicts, count = store.verdicts(), store.count()
    return [
        store.name,
        store.head.command,
        Path(store.head.model_path or "").name,
        f"{len(store.done())} of {count}",
        *(str(verdicts.get(verdict, 0)) for verdict in VERDICTS),
        store.created,
    ]


def print_run(folder: Path | None, name: str) -> int:
    """All that is known of a run but its results."""
    with opened(folder, name) as store:
        head, count, done = store.head, store.count(), len(store.done())
        lines = [
            f"run:      {name} ({store.path})",
            f"command:  verify {' '.join(head.argv)}" if head.argv else f"command:  {head.command}",
            f"in:       {head.folder}",
            f"model:    {head.model_path} (sha256 {head.model_sha256})",
            f"version:  {head.version}",
            f"identity: {store.identity}",
            f"results:  {done} of {count}",
            *(f"  {verdict}: {number}" for verdict, number in sorted(store.verdicts().items())),
            "settings:",
            *(f"  {key}: {value}" for key, value in sorted(head.settings.items())),
            "worked on by:",
        ]
        for s in store.stretches():
            ended = s.outcome or "not ended: killed, or still at work"
            lines.append(
                f"  {s.started}, {s.seconds:.1f} s, {s.workers}, "
                f"process {s.pid} on {s.host}: {ended}"
            )
    console = console_on(sys.stdout)
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    return 0 if done == count else INCOMPLETE


def give_again(
    folder: Path | None, name: str, workers: int | None, scheduler: str | None, debug: bool
) -> int:
    """Run the command that made a run, in the folder where it was given."""
    from verify.cli.entry import main

    place = runs_folder(folder).resolve()
    with opened(place, name) as store:
        argv, where = list(store.head.argv), Path(store.head.folder)
    if not argv:
        raise RunError(f"run {name} was not made by a command; make it again where it was made")
    if not where.is_dir():
        raise RunError(f"run {name} was given in {where}, which is gone; make the folder again")
    replaced = (*REPLACED, *(("--workers", "--scheduler") if workers or scheduler else ()))
    argv = [*without(argv, replaced), "--run", name, "--runs", str(place)]
    argv += ["--workers", str(workers)] if workers is not None else []
    argv += ["--scheduler", scheduler] if scheduler is not None else []
    argv += ["--debug"] if debug else []
    print(f"in {where}: verify {' '.join(argv)}", file=sys.stderr)
    before = Path.cwd()
    os.chdir(where)
    try:
        return main(argv)
    finally:
        os.chdir(before)


def without(argv: Sequence[str], options: Sequence[str]) -> list[str]:
    """Arguments without some options and their values."""
    kept: list[str] = []
    rest = iter(argv)
    for argument in rest:
        if argument in options:
            next(rest, None)
        elif argument.partition("=")[0] not in options:
            kept.append(argument)
    return kept


def write_out(
    folder: Path | None, name: str, *, json: str | None, csv: str | None, parquet: Path | None
) -> int:
    """The record of a run in the forms that were asked for."""
    if json is None and csv is None and parquet is None:
        raise SettingError("name at least one of --json, --csv and --parquet")
    with opened(folder, name) as store:
        record = record_of(store)
    for target, text in ((json, json_text), (csv, csv_text)):
        put(target, record, text)
    if parquet is not None:
        write_whole(parquet, parquet_bytes(record))
    missing = record.summary["missing"]
    print(f"{len(record.results)} results written, {missing} missing", file=sys.stderr)
    return 0


def put(target: str | None, record: Record, text: Callable[[Record], str]) -> None:
    """Write one form of a record to where it belongs."""
    if target == "-":
        sys.stdout.write(text(record))
    elif target is not None:
        write_whole(target, text(record).encode())


def print_comparison(folder: Path | None, first: str, second: str, json: str | None) -> int:
    """Tables of what changed; the JSON has every instance."""
    place = runs_folder(folder)
    with opened(place, first) as mine, opened(place, second) as its:
        found = compare_runs(mine, its)
    if json is not None:
        text = json_format.dumps(as_json(first, second, found), indent=2, allow_nan=False) + "\n"
        if json == "-":
            sys.stdout.write(text)
        else:
            write_whole(json, text.encode())
    console = console_on(sys.stderr if json == "-" else sys.stdout)
    seconds = found.seconds()
    lines = [
        f"{first} against {second}: {len(found.pairs)} instances in both, {found.only_first} only "
        f"in {first}, {found.only_second} only in {second}",
        *(f"differs: {difference}" for difference in found.differences),
        f"seconds on those in both: {seconds[0]:.2f} and {seconds[1]:.2f}",
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)
    if any(verdict != "None" for pair in found.verdicts for verdict in pair):
        console.print(transitions(first, second, found))
    else:
        console.print(figures_table(found))
    first_of_all = [*found.contradictions, *found.by_rounding]
    shown = [*first_of_all, *(p for p in found.changed if p not in first_of_all)]
    if shown:
        console.print(pairs_table(first, second, shown[:SHOWN]))
    if len(shown) > SHOWN:
        console.print(Text(f"... and {len(shown) - SHOWN} more; --json has all"))
    if found.by_rounding:
        console.print(
            Text(
                f"{len(found.by_rounding)} proved in real arithmetic and executed otherwise: no "
                "contradiction, since such a proof covers no execution; rounding decides there."
            ),
            soft_wrap=True,
        )
    if found.contradictions:
        console.print(
            Text(
                f"{len(found.contradictions)} contradictions: of each, one result is wrong. Use "
                "neither run, and please report this.",
                style="bold red",
            ),
            soft_wrap=True,
        )
        return CONTRADICTION
    return 0


def transitions(first: str, second: str, found: Comparison) -> Table:
    """How many went from which verdict to which."""
    kinds = [v for v in (*VERDICTS, REAL_ONLY, "None") if any(v in pair for pair in found.verdicts)]
    table = Table(f"{first} \\ {second}", *kinds)
    for row in kinds:
        table.add_row(row, *(str(found.verdicts.get((row, column), 0)) for column in kinds))
    return table


def figures_table(found: Comparison) -> Table | Text:
    """Where there are no verdicts: which numbers moved, and how far."""
    if not found.pairs:
        return Text("they have nothing in common that could be compared")
    if not found.figures:
        return Text("all their numbers are the same")
    table = Table("figure", "differs in", "by at most")
    for name, (count, most) in found.figures.items():
        table.add_row(Text(name), f"{count} of {len(found.pairs)}", f"{most:.4g}")
    return table


def pairs_table(first: str, second: str, pairs: Sequence[Pair]) -> Table:
    """The instances themselves."""
    table = Table("index", first, second, f"margin {first}", f"margin {second}", "remark")
    for pair in pairs:
        margins = [number(row, "margin") for row in (pair.first, pair.second)]
        table.add_row(
            str(pair.index),
            *pair.verdicts,
            *("" if margin is None else f"{margin:.4g}" for margin in margins),
            Text(pair.contradiction or pair.rounding),
        )
    return table


def as_json(first: str, second: str, found: Comparison) -> dict[str, object]:
    """All of a comparison in plain values."""
    return {
        "schema": 1,
        "first": first,
        "second": second,
        "differences": list(found.differences),
        "only_first": found.only_first,
        "only_second": found.only_second,
        "seconds": list(found.seconds()),
        "verdicts": [{"first": a, "second": b, "count": n} for (a, b), n in found.verdicts.items()],
        "figures": [
            {"name": name, "differs": count, "most": most}
            for name, (count, most) in found.figures.items()
        ],
        "changed": [pair.index for pair in found.changed],
        "contradictions": [
            {"index": pair.index, "why": pair.contradiction} for pair in found.contradictions
        ],
        "by_rounding": [{"index": pair.index, "why": pair.rounding} for pair in found.by_rounding],
        "instances": [
            {"index": p.index, "first": dict(p.first), "second": dict(p.second)}
            for p in found.pairs
        ],
    }
