"""How much a batch gains over one input at a time, for us and for auto_LiRPA.

    python -m benchmarks.throughput --networks mnist-net_256x2 --methods crown --batch 32

The boxes of a network are repeated in turn until the batch is full.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks import ours
from benchmarks.bounds import METHODS
from benchmarks.outcome import Outcome
from benchmarks.peers.auto_lirpa import AutoLirpa, Method, Settings, import_peer
from benchmarks.suites.vnncomp import DEFAULT_FOLDER, NETWORKS, Instance, instances

Tool = Callable[["Batch"], Outcome]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Boxes of one network side by side.

    Attributes:
        model: the unpacked ONNX file.
        lower: shape (batch, *input), float32.
        upper: the same shape.
        label: shape (batch,), integer.
    """

    model: Path
    lower: Tensor
    upper: Tensor
    label: Tensor

    def rows(self) -> list[Batch]:
        """Each box as a batch of its own."""
        return [
            Batch(self.model, lower[None], upper[None], label[None])
            for lower, upper, label in zip(self.lower, self.upper, self.label, strict=True)
        ]


def stack(boxes: list[Instance]) -> Batch:
    """Instances of one network as one batch."""
    return Batch(
        model=boxes[0].model,
        lower=torch.cat([box.lower for box in boxes]),
        upper=torch.cat([box.upper for box in boxes]),
        label=torch.tensor([box.label for box in boxes]),
    )


@dataclass(frozen=True, slots=True)
class Gain:
    """Seconds for the whole batch, one by one and at once (medians over repeats)."""

    one_by_one: float
    at_once: float

    @property
    def factor(self) -> float:
        """How many times the throughput of one by one the batch reaches."""
        return self.one_by_one / self.at_once


def gain(tool: Tool, batch: Batch, repeats: int) -> Gain:
    """Time a tool both ways, in turn, after a warm-up of each."""
    tool(batch)
    tool(batch.rows()[0])
    singles: list[float] = []
    wholes: list[float] = []
    for _ in range(repeats):
        singles.append(sum(tool(row).seconds for row in batch.rows()))
        wholes.append(tool(batch).seconds)
    return Gain(statistics.median(singles), statistics.median(wholes))


def tools_for(names: list[str], peer: AutoLirpa | None, method: Method) -> dict[str, Tool]:
    """A function from a batch to its outcome, for each tool that takes part."""
    found: dict[str, Tool] = {}
    if "ours" in names:
        found["ours"] = lambda b: ours.bound(b.model, b.lower, b.upper, b.label, method)
    if peer:
        settings = Settings(method)
        found["peer"] = lambda b: peer.bound(b.model, b.lower, b.upper, b.label, settings=settings)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison that a command line describes; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.throughput", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--networks", default="mnist-net_256x2,mnist-net_256x4,cifar_base_kw")
    parser.add_argument("--methods", default="ibp,crown")
    parser.add_argument("--only", choices=("ours", "peer", "both"), default="both")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-path", type=Path)
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(given.threads)
    names = ["ours", "peer"] if given.only == "both" else [given.only]
    peer = AutoLirpa(import_peer(given.peer_path)) if "peer" in names else None
    table = Table(title=f"throughput of batches of {given.batch} (ms for the whole batch)")
    for heading in ("network", "method", "tool", "one by one", "at once", "factor"):
        table.add_column(heading)
    with tempfile.TemporaryDirectory() as scratch:
        for network in given.networks.split(","):
            if network not in NETWORKS:
                parser.error(f"unknown network {network!r}; known: {', '.join(NETWORKS)}")
            found = list(instances(network, Path(scratch), folder=given.data))
            batch = stack(list(islice(cycle(found), given.batch)))
            for method in given.methods.split(","):
                if method not in METHODS:
                    parser.error(f"unknown method {method!r}; known: {', '.join(METHODS)}")
                for name, tool in tools_for(names, peer, method).items():
                    result = gain(tool, batch, given.repeats)
                    times = (f"{1e3 * s:.1f}" for s in (result.one_by_one, result.at_once))
                    table.add_row(network, method, name, *times, f"{result.factor:.1f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
