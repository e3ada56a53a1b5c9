"""Margins and seconds of our bounds beside auto_LiRPA's, alternating in one process.

    python -m benchmarks.bounds --peer-path ~/auto_LiRPA --networks resnet_2b --methods ibp,crown

Prints a table per network and method; --json appends one line per instance.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import ours
from benchmarks.machine import describe
from benchmarks.outcome import Outcome
from benchmarks.peers.auto_lirpa import (
    AutoLirpa,
    ConvMode,
    Method,
    PeerMissingError,
    Settings,
    import_peer,
)
from benchmarks.records import Record, compare
from benchmarks.suites.vnncomp import DEFAULT_FOLDER, NETWORKS, Instance, instances
from benchmarks.timing import alternate

METHODS: tuple[Method, ...] = get_args(Method)
CONV_MODES: tuple[ConvMode, ...] = get_args(ConvMode)
# Both forms of convolutions are tried on the first instance only where the slower one is bearable.
TRIED_METHODS = ("ibp", "crown")

TABLE_WIDTH = 150  # columns that hold every heading and the longest network name

Tool = Callable[[Instance], Outcome]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, as the command line said it."""

    folder: Path
    networks: tuple[str, ...]
    methods: tuple[Method, ...]
    tools: tuple[str, ...]
    limit: int | None
    repeats: int
    patience: float
    conv_mode: str
    lr_alpha: float
    threads: int
    peer_path: Path | None
    output: Path | None


def parse(arguments: list[str]) -> Plan:
    """The plan that a command line describes; exits with a usage line on a wrong one."""
    parser = argparse.ArgumentParser(prog="benchmarks.bounds", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, default=DEFAULT_FOLDER, help="folder of VNN-COMP categories")
    add("--networks", default=",".join(NETWORKS), help="names, comma-separated")
    add("--methods", default="ibp,crown", help=f"of {', '.join(METHODS)}, comma-separated")
    add("--only", choices=("ours", "peer", "both"), default="both", help="which tools run")
    add("--limit", type=int, default=5, help="instances per network; 0 for all")
    add("--repeats", type=int, default=3, help="timed rounds after the warm-up")
    add("--patience", type=float, default=30.0, help="seconds after which a call is not repeated")
    add("--conv-mode", choices=(*CONV_MODES, "faster"), default="faster", help="of the peer")
    add("--lr-alpha", type=float, default=0.1, help="the peer's learning rate in alpha-CROWN")
    add("--threads", type=int, default=2, help="torch threads, for both tools")
    add("--peer-path", type=Path, help="clone of auto_LiRPA; default $TASHIKA_AUTO_LIRPA")
    add("--json", type=Path, help="append one line per instance to this file")
    given = parser.parse_args(arguments)
    networks, methods = tuple(given.networks.split(",")), tuple(given.methods.split(","))
    for kind, names, known in (("network", networks, NETWORKS), ("method", methods, METHODS)):
        for name in names:
            if name not in known:
                parser.error(f"unknown {kind} {name!r}; known: {', '.join(known)}")
    return Plan(
        folder=given.data,
        networks=networks,
        methods=methods,
        tools=("ours", "peer") if given.only == "both" else (given.only,),
        limit=given.limit or None,
        repeats=given.repeats,
        patience=given.patience,
        conv_mode=given.conv_mode,
        lr_alpha=given.lr_alpha,
        threads=given.threads,
        peer_path=given.peer_path,
        output=given.json,
    )


def call_ours(method: Method) -> Tool:
    """Our side: a function from an instance to its outcome."""
    return lambda instance: ours.bound(
        instance.model, instance.lower, instance.upper, torch.tensor([instance.label]), method
    )


def call_peer(peer: AutoLirpa, settings: Settings) -> Tool:
    """The peer's side: a function from an instance to its outcome."""
    return lambda instance: peer.bound(
        instance.model,
        instance.lower,
        instance.upper,
        torch.tensor([instance.label]),
        settings=settings,
    )


def choose_settings(peer: AutoLirpa, plan: Plan, method: Method, first: Instance) -> Settings:
    """The peer's settings, with the faster of its two forms of convolutions.

    Tried on the first instance, which is also the peer's warm-up. alpha-CROWN takes "patches",
    which was never slower where both were measured, and spares memory.
    """
    base = Settings(method, lr_alpha=plan.lr_alpha)
    if plan.conv_mode in CONV_MODES:
        modes = [mode for mode in CONV_MODES if mode == plan.conv_mode]
    else:
        modes = list(CONV_MODES) if method in TRIED_METHODS else ["patches"]
    candidates = [replace(base, conv_mode=mode) for mode in modes]

    def seconds(settings: Settings) -> float:
        runs = [call_peer(peer, settings)(first).seconds for _ in range(2)]
        return min(runs)

    return candidates[0] if len(candidates) == 1 else min(candidates, key=seconds)


def measure(plan: Plan, peer: AutoLirpa | None, network: str, method: Method) -> list[Record]:
    """Every instance of one network under one method, after a warm-up on the first."""
    records: list[Record] = []
    tools: dict[str, Tool] = {}
    settings = Settings(method)
    with tempfile.TemporaryDirectory() as scratch:
        for instance in instances(network, Path(scratch), folder=plan.folder, limit=plan.limit):
            if not tools:
                if "ours" in plan.tools:
                    tools["ours"] = call_ours(method)
                if peer:
                    settings = choose_settings(peer, plan, method, instance)
                    tools["peer"] = call_peer(peer, settings)
                for tool in tools.values():
                    tool(instance)
            calls = {name: (lambda t=tool, i=instance: t(i)) for name, tool in tools.items()}
            measured = alternate(calls, plan.repeats, plan.patience)
            if "peer" in measured:
                note = f"conv_mode={settings.conv_mode} lr_alpha={settings.lr_alpha}"
                measured["peer"] = replace(measured["peer"], settings=note)
            records.append(
                Record(
                    network=network,
                    instance=instance.name,
                    label=instance.label,
                    method=method,
                    ours=measured.get("ours"),
                    peer=measured.get("peer"),
                )
            )
    return records


def add_row(table: Table, records: list[Record]) -> None:
    """One line of the table: the medians over instances, and how the margins compare."""
    ours_seconds = [r.ours.median for r in records if r.ours]
    peer_seconds = [r.peer.median for r in records if r.peer]
    cells = [records[0].network, records[0].method, str(len(records))]
    for seconds in (ours_seconds, peer_seconds):
        cells.append(f"{1e3 * statistics.median(seconds):.2f}" if seconds else "-")
    if ours_seconds and peer_seconds:
        ratios = [o / p for o, p in zip(ours_seconds, peer_seconds, strict=True)]
        result = compare(records)
        cells += [
            f"{statistics.median(ratios):.2f}",
            f"{max(ratios):.2f}",
            f"{result.worse} / {result.worse_relative} of {result.margins}",
            str(result.better),
            f"{result.median_difference:+.3g}",
            f"{result.mean_difference:+.3g}",
            f"{result.worst_difference:+.1e}",
        ]
    table.add_row(*cells)


def new_table() -> Table:
    """The empty table, with a heading for every column."""
    table = Table(title="bounds: ours beside auto_LiRPA (times in ms, medians over instances)")
    for heading in ("network", "method", "n", "ours", "peer", "ratio", "max ratio"):
        table.add_column(heading, justify="left" if heading in ("network", "method") else "right")
    for heading in ("worse abs/rel", "better", "median diff", "mean diff", "worst rel"):
        table.add_column(heading, justify="right")
    return table


def main(arguments: list[str] | None = None) -> int:
    """Run the plan of a command line; returns the exit code."""
    plan = parse(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(plan.threads)
    try:
        peer = AutoLirpa(import_peer(plan.peer_path)) if "peer" in plan.tools else None
    except PeerMissingError as error:
        print(f"{error} Or measure our side alone by --only ours.", file=sys.stderr)
        return 2
    machine = describe(plan.threads) | ({"auto_lirpa": peer.version} if peer else {})
    console, table = Console(), new_table()
    console.width = max(console.width, TABLE_WIDTH)  # a log file has no width of its own
    for network in plan.networks:
        for method in plan.methods:
            console.print(f"{network} {method} ...", highlight=False)
            records = measure(plan, peer, network, method)
            add_row(table, records)
            if plan.output:
                with plan.output.open("a") as lines:
                    lines.writelines(
                        json.dumps({**r.as_json(), "machine": machine}) + "\n" for r in records
                    )
    console.print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
