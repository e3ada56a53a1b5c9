"""Our attacks beside Foolbox, torchattacks, adv-lib and AutoAttack, in one run on the same nets.

    python -m benchmarks.attacks strength --models mnist_256x2 --samples 50
    python -m benchmarks.attacks radius --models mnist_256x2 --norms 2,1 --steps 200
    python -m benchmarks.attacks time --models mnist_256x2,resnet_2b --repeats 5

`strength`: robust accuracy within a radius, and queries. `radius`: median distance of the nearest
point found. `time`: seconds at equal steps, with nothing stopped early, and as configured.
Queries are counted by the network itself, alike for all; success and distance are measured here.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import math
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks import machine, our_attacks
from benchmarks.peers.attack_libraries import (
    ENVIRONMENT,
    Budget,
    Libraries,
    Run,
    fixed_radius,
    import_libraries,
)
from benchmarks.peers.minimal_libraries import minimal_norm
from benchmarks.suites.attack_models import DATA, SOURCES, Case, load_case

NORMS = {"inf": math.inf, "2": 2.0, "1": 1.0, "0": 0.0}
# Steps where the caller names none; Square counts queries.
STEPS = {"pgd": 40, "square": 1000}
ALL_STEPS = 100
# The L2 and L1 radii that go with an L-inf radius, by the number of entries n: as far as the L-inf
# ball reaches in a share of the entries. Chosen so that all norms leave about as many images.
SHARE = 0.25
# A point is within the radius if its float64 distance exceeds it by no more than this, relative:
# the peers round to nearest. Ours get no such grace: their own judge is exact.
GRACE = 1e-5


class Counted(nn.Module):
    """A network that counts the samples it is shown and those whose gradient is taken."""

    def __init__(self, net: nn.Module) -> None:
        """Count from zero."""
        super().__init__()
        self.net, self.forwards, self.backwards = net, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        """The logits, as the network gives them."""
        logits: Tensor = self.net(x)
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, slope: Tensor) -> None:
        # Rows without a share in the loss count, too: they are computed.
        self.backwards += len(slope)


@dataclass(frozen=True, slots=True)
class Record:
    """One attack on one network.

    Attributes:
        command, model, kind, tool: what was measured; `kind` groups what is compared.
        p, eps, steps: of the budget.
        value: robust accuracy, median distance, or median seconds of CPU time.
        forward, backward: queries per sample.
        note: the error where the tool failed.
    """

    command: str
    model: str
    kind: str
    tool: str
    p: str
    eps: float
    steps: int
    value: float
    forward: float
    backward: float
    note: str = ""


def quietly(run: Run, net: nn.Module, case: Case, budget: Budget) -> Tensor:
    """The images that an attack returns; remarks on standard output are dropped."""
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(net, case.x.clone(), case.labels.clone(), budget)


def wrong(case: Case, images: Tensor) -> Tensor:
    """Which of the images the network misclassifies; shape (batch,), bool."""
    with torch.no_grad():
        # Strictly: a tie is no find.
        own = case.net(images)
        held = own.gather(1, case.labels[:, None]).squeeze(1)
        others = own.scatter(1, case.labels[:, None], -torch.inf).amax(dim=1)
    lost: Tensor = others > held
    return lost


def distances(case: Case, images: Tensor, p: float) -> Tensor:
    """How far each image lies, float64; inf where it is not misclassified or not an image."""
    moved = (images.double() - case.x.double()).flatten(1)
    far: Tensor = torch.linalg.vector_norm(moved, ord=p, dim=1)
    inside = ((images >= 0) & (images <= 1)).flatten(1).all(dim=1)
    return torch.where(wrong(case, images) & inside, far, torch.inf)


def measured(command: str, case: Case, kind: str, tool: str, run: Run, budget: Budget) -> Record:
    """Run one attack once and judge what it returns."""
    net = Counted(case.net).eval()
    value, note = math.nan, ""
    try:
        far = distances(case, quietly(run, net, case, budget), budget.p)
        if budget.eps < math.inf:
            value = 1 - float((far <= budget.eps * (1 + GRACE)).double().mean())
        else:
            value = float(far.median())
    except Exception as error:  # a peer's failure is a result, and says so in the table
        note = f"{type(error).__name__}: {error}"[:120]
    count = max(1, len(case.x))
    return Record(
        command,
        case.name,
        kind,
        tool,
        f"{budget.p:g}",
        budget.eps,
        budget.steps,
        value,
        net.forwards / count,
        net.backwards / count,
        note,
    )


def radius_of(eps: float, p: float, entries: int) -> float:
    """The radius in the p-norm that goes with an L-inf radius."""
    if p == math.inf:
        return eps
    return eps * float((SHARE * entries) ** (1 / p)) * (1.0 if p == 2 else SHARE)


def strength(case: Case, given: argparse.Namespace, libraries: Libraries) -> list[Record]:
    """Robust accuracy of every kind of attack, ours first."""
    peers = fixed_radius(libraries)
    records = []
    for p in given.norms:
        for eps in case.eps:
            for kind in given.kinds:
                steps = given.steps or STEPS.get(kind, ALL_STEPS)
                budget = Budget(p, radius_of(eps, p, case.x[0].numel()), steps)
                runs = {"ours": our_attacks.within(kind), **peers.get(kind, {})}
                records += [
                    measured("strength", case, kind, tool, run, budget)
                    for tool, run in runs.items()
                ]
    return records


def radius(case: Case, given: argparse.Namespace, libraries: Libraries) -> list[Record]:
    """Median distance of the nearest point that each minimal-norm attack finds."""
    records = []
    for p in given.norms:
        runs = {**our_attacks.nearest(p), **minimal_norm(libraries, p)}
        budget = Budget(p, math.inf, given.steps or 200)
        records += [
            measured("radius", case, f"L{p:g}", tool, run, budget) for tool, run in runs.items()
        ]
    return records


def timing(case: Case, given: argparse.Namespace, libraries: Libraries) -> list[Record]:
    """Seconds of PGD and APGD: at equal steps without early stops, and as configured."""
    peers = fixed_radius(libraries)
    clock: Callable[[], float] = time.perf_counter if given.wall else time.process_time
    records = []
    for p in given.norms:
        for kind in ("pgd", "apgd-ce", "apgd-dlr"):
            for early in (False, True):
                steps = given.steps or STEPS.get(kind, ALL_STEPS)
                size = radius_of(case.eps[0], p, case.x[0].numel())
                budget = Budget(p, size, steps, early)
                name = f"{kind}, {'as configured' if early else 'equal work'}"
                runs = {"ours": our_attacks.within(kind), **peers.get(kind, {})}
                once = {t: measured("time", case, name, t, r, budget) for t, r in runs.items()}
                usable = {tool: run for tool, run in runs.items() if not once[tool].note}
                seconds = alternate(usable, case, budget, given.repeats, clock)
                for tool, record in once.items():
                    value = seconds.get(tool, math.nan)
                    records.append(replaced(record, value))
    return records


def replaced(record: Record, value: float) -> Record:
    """The record with another value."""
    fields = {name: getattr(record, name) for name in record.__slots__}
    return Record(**{**fields, "value": value})


def alternate(
    runs: Mapping[str, Run], case: Case, budget: Budget, repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each tool; they take turns, and who goes first changes."""
    taken: dict[str, list[float]] = {tool: [] for tool in runs}
    for turn in range(repeats):
        for tool in list(runs) if turn % 2 == 0 else list(runs)[::-1]:
            gc.collect()
            begin = clock()
            quietly(runs[tool], case.net, case, budget)
            taken[tool].append(clock() - begin)
    return {tool: statistics.median(values) for tool, values in taken.items()}


def show(records: list[Record], given: argparse.Namespace) -> None:
    """One row per network and kind: ours, the best peer, and all of them."""
    table = Table(title=f"{given.command}: {TITLE[given.command]}")
    for heading in ("network", "kind", "p", "eps", "tool", "value", "forward", "backward", ""):
        table.add_column(heading, overflow="fold")
    for r in records:
        if given.command == "time":
            ours = next(
                o
                for o in records
                if (o.model, o.kind, o.p, o.tool) == (r.model, r.kind, r.p, "ours")
            )
            last = "" if r is ours else f"ours / this: {ours.value / r.value:.2f}"
        else:
            last = ""
        table.add_row(
            r.model,
            r.kind,
            r.p,
            f"{r.eps:.4g}",
            r.tool,
            f"{r.value:.5g}",
            f"{r.forward:.0f}",
            f"{r.backward:.0f}",
            r.note or last,
        )
    Console(width=150).print(table)


TITLE = {
    "strength": "robust accuracy, lower is stronger; queries per sample",
    "radius": "median distance, lower is stronger; queries per sample",
    "time": "median seconds of the whole batch",
}
COMMANDS = {"strength": strength, "radius": radius, "time": timing}


def listed(known: Mapping[str, object]) -> Callable[[str], list[str]]:
    """A reader of comma-separated names."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown {name!r}; known: {', '.join(known)}")
        return names

    return read


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison that a command line describes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.attacks", description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=tuple(COMMANDS))
    parser.add_argument("--models", type=listed(SOURCES), default=list(SOURCES))
    parser.add_argument("--norms", type=listed(NORMS), default=["inf"])
    parser.add_argument(
        "--kinds", type=listed(our_attacks.WITHIN), default=list(our_attacks.WITHIN)
    )
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--steps", type=int, help="gradient steps (queries for square)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wall", action="store_true", help="wall time instead of CPU time")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", type=Path, help="where to append one line per record")
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    given.norms = [NORMS[name] for name in given.norms]
    torch.set_num_threads(given.threads)
    libraries = import_libraries()
    for name, variable in ENVIRONMENT.items():
        print(f"{name}: {libraries.commits.get(name, f'absent (name a clone by {variable})')}")
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in given.models:
            case = load_case(model, given.samples, Path(scratch), given.data)
            found = COMMANDS[given.command](case, given, libraries)
            records += found
            if given.json:
                write(given.json, found, libraries, given.threads, len(case.x))
    show(records, given)
    return 0


def write(
    path: Path, records: list[Record], libraries: Libraries, threads: int, samples: int
) -> None:
    """One JSON line per record, with where and with what it was made."""
    made = {**machine.describe(threads), "samples": samples, "peers": dict(libraries.commits)}
    with path.open("a") as file:
        for record in records:
            fields = {name: getattr(record, name) for name in record.__slots__}
            file.write(json.dumps({**fields, **made}) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
