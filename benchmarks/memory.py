"""Peak memory of one tool on one instance, in a process of its own.

    python -m benchmarks.memory --tool peer --network resnet_4b --method crown

Prints the resident set before the bounds (interpreter, torch, model), its peak, and the difference.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from benchmarks import ours
from benchmarks.bounds import METHODS
from benchmarks.peers.auto_lirpa import AutoLirpa, Settings, import_peer
from benchmarks.suites.vnncomp import DEFAULT_FOLDER, NETWORKS, instances

KIB_PER_MIB = 1024.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """Peak resident set in MiB, before and after the bounds, and the seconds they took."""

    before: float
    after: float
    seconds: float


def peak_mib() -> float:
    """Largest resident set of this process so far, in MiB (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_MIB


def main(arguments: list[str] | None = None) -> int:
    """Measure what a command line describes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description=__doc__.split("\n")[0])
    parser.add_argument("--tool", choices=("ours", "peer"), required=True)
    parser.add_argument("--network", choices=tuple(NETWORKS), required=True)
    parser.add_argument("--method", choices=METHODS, default="crown")
    parser.add_argument("--instance", type=int, default=0, help="position in the list")
    parser.add_argument("--conv-mode", choices=("patches", "matrix"), default="patches")
    parser.add_argument("--data", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-path", type=Path)
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as scratch:
        listed = instances(given.network, Path(scratch), folder=given.data)
        box = next(islice(listed, given.instance, None))
        label = torch.tensor([box.label])
        if given.tool == "peer":
            peer = AutoLirpa(import_peer(given.peer_path))
            settings = Settings(given.method, conv_mode=given.conv_mode)
            peer.convert(box.model, box.lower, box.upper, settings)
            before = peak_mib()
            outcome = peer.bound(box.model, box.lower, box.upper, label, settings=settings)
        else:
            ours.bound(box.model, box.lower, box.upper, label, "ibp")  # loads the model
            before = peak_mib()
            outcome = ours.bound(box.model, box.lower, box.upper, label, given.method)
    used = Footprint(before, peak_mib(), outcome.seconds)
    print(
        f"{given.tool} {given.method} {given.network} {box.name}: peak {used.after:.0f} MiB, "
        f"before the bounds {used.before:.0f} MiB, "
        f"difference {used.after - used.before:.0f} MiB, {used.seconds:.2f} s"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
