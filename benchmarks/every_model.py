"""Which models of a folder of competition categories are read, checked and bounded.

    python -m benchmarks.every_model [FOLDER] [--category NAME ...] [--each N]

Every model that an instance names is loaded with its cross-check, and bounded by `ibp` and `crown`
on the first input box of its first property. The table counts models per category.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.suites.vnncomp import DEFAULT_FOLDER, stored
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.errors import VerifyError
from verify.network import Network, load
from verify.problem import Problem
from verify.protocols import Bounder
from verify.values.budget import Budget
from verify.values.region import Box
from verify.values.spec import Spec

ATOM = re.compile(r"\(\s*(<=|>=)\s+X_(\d+)\s+([-+.\deE]+)\s*\)")
MOST_ROWS = 20
"""Outputs that are bounded, both ways: enough to see that bounds are finite."""
LIMIT_S = 60.0
"""Seconds for one method on one model."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one model.

    Attributes:
        category, model: names.
        stage: "read" if it was not read, "ibp" or "crown" if that gave no finite bounds, "" if all
            went well.
        message: what went wrong.
        load_s, ibp_s, crown_s: CPU seconds.
        ibp_width, crown_width: mean width of the outputs' bounds, NaN if there are none.
    """

    category: str
    model: str
    stage: str
    message: str
    load_s: float = float("nan")
    ibp_s: float = float("nan")
    crown_s: float = float("nan")
    ibp_width: float = float("nan")
    crown_width: float = float("nan")


def text(path: Path) -> str:
    """A property file, packed or not."""
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()


def first_box(path: Path, entries: int) -> tuple[Tensor, Tensor]:
    """The first bounds that a property states of every input, float64, shape (entries,)."""
    ends = {
        "<=": torch.full((entries,), torch.nan, dtype=torch.float64),
        ">=": torch.full((entries,), torch.nan, dtype=torch.float64),
    }
    missing = 2 * entries
    for side, index, number in ATOM.findall(text(path)):
        if torch.isnan(ends[side][int(index)]):
            ends[side][int(index)] = float(number)
            missing -= 1
            if not missing:
                break
    return ends[">="], ends["<="]


def models(
    folder: Path, categories: list[str], each: int | None
) -> Iterator[tuple[str, Path, Path]]:
    """Category, model and first property of every model that instances name."""
    for listing in sorted(folder.glob("*/instances.csv")):
        category = listing.parent
        if categories and category.name not in categories:
            continue
        with listing.open(newline="") as lines:
            firsts: dict[str, str] = {}
            for row in csv.reader(lines):
                firsts.setdefault(row[0], row[1])
        for model, spec in list(firsts.items())[:each]:
            yield category.name, stored(category / model), stored(category / spec)


def outputs_both_ways(size: int) -> Spec:
    """Rows for some outputs and their negations."""
    chosen = torch.linspace(0, size - 1, min(size, MOST_ROWS)).long().unique()
    rows = torch.zeros(len(chosen), size, dtype=torch.float64)
    rows[torch.arange(len(chosen)), chosen] = 1.0
    coeff = torch.cat((rows, -rows))[None]
    return Spec(coeff, torch.zeros(coeff.shape[:2], dtype=torch.float64))


def bounded(network: Network, box: tuple[Tensor, Tensor], method: Bounder) -> tuple[Tensor, float]:
    """Widths of the outputs' bounds and the CPU seconds that they took."""
    shape = (1, *network.input_shape)
    region = Box(box[0].view(shape), box[1].view(shape))
    problem = Problem(network.graph, region, outputs_both_ways(network.classes))
    begin = time.process_time()
    margin = method(problem, Budget(deadline=time.monotonic() + LIMIT_S)).margin[0]
    seconds = time.process_time() - begin
    half = len(margin) // 2
    return -(margin[:half] + margin[half:]), seconds


def tried(category: str, model: Path, spec: Path) -> Finding:
    """Load and bound one model."""
    begin = time.process_time()
    try:
        network = load(model)
    except VerifyError as error:
        return Finding(category, model.name, "read", str(error))
    spent = {"load_s": time.process_time() - begin}
    box = first_box(spec, network.graph.input.size)
    for name, method in (("ibp", Interval()), ("crown", Crown())):
        try:
            width, spent[f"{name}_s"] = bounded(network, box, method)
        except VerifyError as error:
            return Finding(category, model.name, name, str(error) or type(error).__name__, **spent)
        spent[f"{name}_width"] = float(width.mean())
        if not bool(torch.isfinite(width).all()):
            return Finding(category, model.name, name, "bounds are not finite", **spent)
    return Finding(category, model.name, "", "", **spent)


def table(findings: list[Finding]) -> Table:
    """Counts and seconds per category."""
    shown = Table("category", "models", "read", "ibp finite", "crown finite", "load s", "ibp s",
                  "crown s", "ibp width", "crown width")  # fmt: skip
    for category in dict.fromkeys(f.category for f in findings):
        mine = [f for f in findings if f.category == category]
        counts = [
            len(mine),
            sum(f.stage != "read" for f in mine),
            sum(f.stage in ("", "crown") for f in mine),
            sum(f.stage == "" for f in mine),
        ]

        def mean(name: str, mine: list[Finding] = mine) -> str:
            found = torch.tensor([getattr(f, name) for f in mine], dtype=torch.float64)
            return f"{float(found.nanmean()):.3g}"

        names = ("load_s", "ibp_s", "crown_s", "ibp_width", "crown_width")
        shown.add_row(category, *map(str, counts), *map(mean, names))
    return shown


def main(arguments: list[str] | None = None) -> int:
    """Try every model; the exit code is 1 if one fails."""
    parser = argparse.ArgumentParser(prog="benchmarks.every_model")
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--category", nargs="*", default=[])
    parser.add_argument("--each", type=int, default=None, help="models per category")
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    console, findings = Console(width=160), []
    for category, model, spec in models(given.folder, given.category, given.each):
        found = tried(category, model, spec)
        findings.append(found)
        if found.stage:
            console.print(f"{category} {found.model}: {found.stage}: {found.message}", markup=False)
    console.print(table(findings))
    return int(any(f.stage for f in findings))


if __name__ == "__main__":
    raise SystemExit(main())
