"""A category folder of the competition, run as the competition runs it, and compared.

    python -m benchmarks.vnncomp ../shared/data/vnncomp/acasxu --sample 20 --timeout-cap 30

Every instance is a fresh process, and its whole time counts. Results are appended to a CSV as they
come; started again, what is there is not run again. An answer that contradicts expected.csv ends
the run with exit code 1. `--peer nnenum` puts a peer beside us, instance by instance.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.solvers import PEERS, Attempt, Peer, Resident, Solver, Tashika
from benchmarks.suites.vnncomp_category import Listed, found, listed, sampled

SOLVED = ("sat", "unsat")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the results: an instance and what one solver made of it."""

    tool: str
    category: str
    onnx: str
    vnnlib: str
    timeout: float
    expected: str
    answer: str
    seconds: float
    cpu: float
    method: str
    domains: int
    note: str

    @property
    def key(self) -> tuple[str, str, str, str, float]:
        """What is not run twice."""
        return self.tool, self.category, self.onnx, self.vnnlib, self.timeout

    @property
    def contradicts(self) -> bool:
        """Whether it says the opposite of what is known."""
        return {self.answer, self.expected} == set(SOLVED)


def row_of(tool: str, instance: Listed, timeout: float, attempt: Attempt) -> Row:
    """The line for an attempt."""
    return Row(
        tool,
        instance.category,
        instance.onnx,
        instance.vnnlib,
        timeout,
        instance.expected,
        attempt.answer,
        round(attempt.seconds, 3),
        round(attempt.cpu, 3),
        attempt.method,
        attempt.domains,
        attempt.note,
    )


def read_rows(path: Path) -> list[Row]:
    """The results so far; a line that a kill cut short is left out."""
    if not path.is_file():
        return []
    kinds = {field.name: field.type for field in fields(Row)}
    casts = {"float": float, "int": int, "str": str}
    rows = []
    with path.open(newline="") as stream:
        for line in csv.DictReader(stream):
            if all(line.get(name) is not None for name in kinds):
                rows.append(Row(**{n: casts[str(k)](line[n]) for n, k in kinds.items()}))
    return rows


def append_row(path: Path, row: Row) -> None:
    """Add a line, with the heading if it is the first."""
    text = path.read_text() if path.is_file() else ""
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Row)])
        if not text:
            writer.writeheader()
        elif not text.endswith("\n"):
            stream.write("\n")
        writer.writerow(asdict(row))


def run_all(
    folder: Path, solvers: Sequence[Solver], path: Path, args: argparse.Namespace
) -> list[Row]:
    """Run what is not there yet; returns the lines of this choice of instances."""
    done = {row.key: row for row in read_rows(path)}
    rows = []
    for instance in sampled(listed(folder), args.sample, args.seed):
        timeout = min(instance.timeout, args.timeout_cap)
        for solver in solvers:
            key = (solver.name, instance.category, instance.onnx, instance.vnnlib, timeout)
            if key not in done:
                files = found(folder, instance.onnx), found(folder, instance.vnnlib)
                attempt = solver(*files, timeout)
                done[key] = row_of(solver.name, instance, timeout, attempt)
                append_row(path, done[key])
            row = done[key]
            rows.append(row)
            mark = "  CONTRADICTION" if row.contradicts else ""
            print(
                f"{row.tool:10} {row.answer:8} {row.expected:8} {row.seconds:7.2f} s "
                f"{row.cpu:7.2f} s {row.method:20} {row.domains:8d}  {row.onnx} {row.vnnlib}{mark}",
                flush=True,
            )
    return rows


def summary(rows: Sequence[Row]) -> list[dict[str, object]]:
    """A line for each category and tool."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.category, row.tool), []).append(row)
    lines = []
    for (category, tool), part in groups.items():
        solved = [row for row in part if row.answer in SOLVED]
        times = [row.seconds for row in solved]
        lines.append(
            {
                "category": category,
                "tool": tool,
                "instances": len(part),
                "unsat": sum(row.answer == "unsat" for row in part),
                "sat": sum(row.answer == "sat" for row in part),
                "solved %": round(100 * len(solved) / len(part), 1),
                "known": sum(row.expected in SOLVED for row in part),
                "missed": sum(row.expected in SOLVED and row.answer not in SOLVED for row in part),
                "errors": sum(row.answer == "error" for row in part),
                "wrong": sum(row.contradicts for row in part),
                "median s": round(statistics.median(times), 2) if times else math.nan,
                "total s": round(sum(times), 1),
                "median cpu s": round(statistics.median([r.cpu for r in solved]), 2)
                if solved
                else math.nan,
                "domains": sum(row.domains for row in part),
            }
        )
    return lines


def print_table(lines: Sequence[dict[str, object]]) -> None:
    """As Markdown, ready for benchmarks/README.md."""
    if not lines:
        return
    names = list(lines[0])
    print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))
    for line in lines:
        print("| " + " | ".join(str(line[name]) for name in names) + " |")


def plot(rows: Sequence[Row], path: Path) -> None:
    """A cactus plot: instances solved within a time, a line for each tool."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for tool in dict.fromkeys(row.tool for row in rows):
        times = sorted(r.seconds for r in rows if r.tool == tool and r.answer in SOLVED)
        axes.step(range(1, len(times) + 1), times, where="post", label=f"{tool} ({len(times)})")
    axes.set(xlabel="instances solved", ylabel="seconds, whole process", yscale="log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    made.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="category folders")
    made.add_argument("--results", type=Path, default=Path("vnncomp_results.csv"))
    made.add_argument("--plot", type=Path, help="cactus plot, .png")
    made.add_argument("--timeout-cap", type=float, default=math.inf, metavar="S")
    made.add_argument("--sample", type=int, metavar="N", help="so many of each folder")
    made.add_argument("--seed", type=int, default=0, help="of the sample")
    made.add_argument("--in-process", action="store_true", help="one process, without start-up")
    made.add_argument("--peer", action="append", default=[], choices=sorted(PEERS))
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, and return 1 if an answer contradicts what is known."""
    args = parser().parse_args(argv)
    solvers: list[Solver] = [Resident() if args.in_process else Tashika()]
    solvers += [Peer(name) for name in args.peer]
    print(describe(threads=os.cpu_count() or 1))
    rows: list[Row] = []
    for folder in args.folders:
        rows += run_all(folder.resolve(), solvers, args.results, args)
    print()
    print_table(summary(rows))
    if args.plot is not None:
        plot(rows, args.plot)
    wrong = [row for row in rows if row.contradicts]
    for row in wrong:
        print(
            f"CONTRADICTION: {row.tool} says {row.answer} of {row.onnx} {row.vnnlib}, "
            f"which is known to be {row.expected}",
            file=sys.stderr,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
