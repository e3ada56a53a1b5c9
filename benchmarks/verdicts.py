"""Our verdicts on boxes whose answer is known: a soundness test first, a race second.

    python -m benchmarks.verdicts --methods crown,alpha-crown --networks mnist-net_256x2 --limit 30

Every instance of the networks in `benchmarks.suites.vnncomp` is bounded rigorously. The run fails
if an instance that has a counterexample is verified.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import ours
from benchmarks.suites.vnncomp import DEFAULT_FOLDER, NETWORKS, instances


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts over the instances of one network."""

    unsat: int = 0
    verified: int = 0
    sat: int = 0
    wrong: int = 0
    unknown: int = 0
    also: int = 0
    seconds: float = 0.0


def known(folder: Path, network: str) -> dict[str, str]:
    """The known answer of each property of a network: "sat", "unsat" or "unknown"."""
    with (folder / NETWORKS[network] / "expected.csv").open(newline="") as listing:
        rows = list(csv.DictReader(listing))
    return {
        Path(row["vnnlib"]).stem: row["expected"]
        for row in rows
        if Path(row["onnx"]).stem == network
    }


def tally(network: str, method: str, folder: Path, limit: int | None, scratch: Path) -> Tally:
    """Bound the instances of one network and count what comes out."""
    answers = known(folder, network)
    counts = dict.fromkeys(("unsat", "verified", "sat", "wrong", "unknown", "also"), 0)
    seconds = 0.0
    for instance in instances(network, scratch, folder=folder, limit=limit):
        label = torch.tensor([instance.label])
        found = ours.bound(
            instance.model, instance.lower, instance.upper, label, method, rigorous=True
        )
        seconds += found.seconds
        verified = bool((found.margins > 0).all())
        answer = answers[instance.name]
        counts[answer] += 1
        key = {"unsat": "verified", "sat": "wrong", "unknown": "also"}[answer]
        counts[key] += int(verified)
    return Tally(**counts, seconds=seconds)


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison; the exit code is 1 if something with a counterexample was verified."""
    parser = argparse.ArgumentParser(prog="benchmarks.verdicts")
    parser.add_argument("--data", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--methods", default="crown")
    parser.add_argument("--limit", type=int, default=None)
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    table = Table(title="rigorous verdicts beside known answers")
    for heading in ("network", "method", "verified / unsat", "wrong / sat", "of unknown", "s"):
        table.add_column(heading)
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        for network in given.networks.split(","):
            for method in given.methods.split(","):
                got = tally(network, method, given.data, given.limit, Path(scratch))
                wrong += got.wrong
                table.add_row(
                    network,
                    method,
                    f"{got.verified} / {got.unsat}",
                    f"{got.wrong} / {got.sat}",
                    f"{got.also} / {got.unknown}",
                    f"{got.seconds:.1f}",
                )
    Console().print(table)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
