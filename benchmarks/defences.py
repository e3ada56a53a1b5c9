"""What each defence is worth: clean, attacked and certified accuracy, and the gap between the two.

    python -m benchmarks.defences --data digits --seeds 0 --json digits.json --plot digits.png

Every method trains the same architecture from the same seeds for as many epochs, at one radius
(L-inf). Then the exported ONNX file is judged on held-out rows that training never saw: certified
by `verify` with its `auto` method, attacked by PGD and APGD of `attacks`. Clean, attacked and
certified accuracy count the same rows; a row that is both certified and attacked ends the run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from attacks import APGD, PGD, Ball
from attacks.defences import METHODS, Plan, Split, build, fit, ibp_initialise, method_named
from benchmarks.machine import describe
from verify import certify
from verify.export import onnx_bytes
from verify.readers.datasets import load_dataset
from verify.readers.examples import example_path
from verify.values.result import Verdict

COMPARED = tuple(name for name in METHODS if name != "attack")
IMAGES = Path(os.environ.get("TASHIKA_IMAGES", "/work/shared/data/images"))
CLASSES = 10


@dataclass(frozen=True, slots=True)
class Task:
    """Data, and how to train on them.

    Attributes:
        train, held_out: sources as `verify.readers.datasets` takes them.
        shape: of one input.
        eps: radius, L-inf.
        epochs, widths: of every method alike.
    """

    train: str
    held_out: str
    shape: tuple[int, ...]
    eps: float
    epochs: int
    widths: tuple[int, ...]


TASKS = {
    "digits": Task(
        str(example_path("digits_train.npz")),
        str(example_path("digits.npz")),
        (64,),
        0.1,
        60,
        (128, 64),
    ),
    "mnist": Task(
        str(IMAGES / "mnist_train_500.csv.gz"),
        str(IMAGES / "mnist_test_500.csv.gz"),
        (784,),
        0.1,
        60,
        (128, 64),
    ),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One trained network; accuracies are shares of `count` held-out rows."""

    method: str
    seed: int
    count: int
    clean: float
    attacked: float
    certified: float
    interval: float
    train_seconds: float
    judge_seconds: float

    @property
    def gap(self) -> float:
        """Share that is neither certified nor attacked."""
        return self.attacked - self.certified


def split_of(source: str, shape: tuple[int, ...]) -> Split:
    """All rows of a source."""
    data = load_dataset(source, input_shape=shape, classes=CLASSES)
    assert data.labels is not None
    return Split(data.x, data.labels)


def judged(net: nn.Module, held_out: Split, task: Task, count: int) -> tuple[float, float, float]:
    """Clean, attacked and certified accuracy of the exported file on the first `count` rows."""
    few = held_out.rows(torch.arange(min(count, len(held_out.x))))
    right = net(few.x).argmax(dim=1) == few.labels
    standing = right.clone()
    ball = Ball(task.eps, lower=0.0, upper=1.0)
    for attack in (PGD(), APGD(), APGD(loss="dlr", targeted=9)):
        rows = standing.nonzero().flatten()
        if len(rows):
            standing[rows] = ~attack(net, few.x[rows], few.labels[rows], ball).found
    rows = standing.nonzero().flatten()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        path.write_bytes(onnx_bytes(net, task.shape, CLASSES, "net"))
        # What was attacked is asked too: a proof of it would be a bug, and must show.
        results = certify(path, few.x, few.labels, eps=task.eps, input_range=(0.0, 1.0))
    proved = torch.tensor([result.verdict is Verdict.VERIFIED for result in results])
    if bool((proved & ~standing).any()):
        raise SystemExit("a row is both certified and attacked: one of the two is wrong")
    return float(right.double().mean()), len(rows) / len(few.x), float(proved.double().mean())


def run(method: str, seed: int, task: Task, count: int) -> Row:
    """Train one network and judge it."""
    train, held_out = split_of(task.train, task.shape), split_of(task.held_out, task.shape)
    net = build("dense", task.shape, CLASSES, widths=task.widths, seed=seed)
    chosen = method_named(method)
    if chosen.certified:
        ibp_initialise(net, seed)
    plan = Plan(chosen, Ball(task.eps, lower=0.0, upper=1.0), epochs=task.epochs, seed=seed)
    started = time.process_time()
    history = fit(net, plan, train, held_out)
    trained = time.process_time()
    clean, attacked, certified = judged(net, held_out, task, count)
    return Row(
        method=method,
        seed=seed,
        count=min(count, len(held_out.x)),
        clean=clean,
        attacked=attacked,
        certified=certified,
        interval=history[-1].certified,
        train_seconds=trained - started,
        judge_seconds=time.process_time() - trained,
    )


def mean(rows: Sequence[Row], name: str) -> float:
    """Of a figure over the seeds."""
    return statistics.fmean(getattr(row, name) for row in rows)


def show(rows: Sequence[Row], title: str) -> None:
    """One line per method, averaged over the seeds; the spread of the gap in brackets."""
    table = Table(title=title)
    for heading in ("method", "clean", "attacked", "certified", "gap", "by IBP", "train s"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for method in dict.fromkeys(row.method for row in rows):
        mine = [row for row in rows if row.method == method]
        gaps = [row.gap for row in mine]
        spread = f" ({min(gaps):.1%}..{max(gaps):.1%})" if len(mine) > 1 else ""
        shares = (f"{mean(mine, name):.1%}" for name in ("clean", "attacked", "certified"))
        gap = f"{mean(mine, 'gap'):.1%}{spread}"
        interval, seconds = f"{mean(mine, 'interval'):.1%}", f"{mean(mine, 'train_seconds'):.1f}"
        table.add_row(method, *shares, gap, interval, seconds)
    Console(width=120).print(table)


def draw(rows: Sequence[Row], path: str, title: str) -> None:
    """Certified accuracy as a bar, the undecided above it hatched, clean accuracy as a mark."""
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(row.method for row in rows))
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    groups = [[row for row in rows if row.method == method] for method in methods]
    certified = [mean(group, "certified") for group in groups]
    gap = [mean(group, "gap") for group in groups]
    axes.bar(methods, certified, color="#0072B2", label="certified (lower bound)")
    axes.bar(
        methods,
        gap,
        bottom=certified,
        color="#DDDDDD",
        edgecolor="#5F5F5F",
        hatch="//",
        label="undecided: neither certified nor attacked",
    )
    for at, group in enumerate(groups):
        attacked = [row.attacked for row in group]
        axes.plot([at] * len(group), attacked, "_", color="#D55E00", markersize=16)
        axes.plot([at], [mean(group, "clean")], "D", color="black", markersize=5)
    axes.plot(
        [], [], "_", color="#D55E00", markersize=12, label="attacked (upper bound), each seed"
    )
    axes.plot([], [], "D", color="black", markersize=5, label="clean")
    axes.set_ylim(0, 1.02)
    axes.set_ylabel(f"share of {rows[0].count} held-out inputs")
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, judge, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=TASKS, default="digits")
    parser.add_argument("--methods", default=",".join(COMPARED))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--epochs", type=int, help="default: the task's own")
    parser.add_argument("--eps", type=float, help="default: the task's own")
    parser.add_argument("--count", type=int, default=200, help="held-out rows that are judged")
    parser.add_argument("--json")
    parser.add_argument("--plot")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    task = TASKS[given.data]
    changed = {"epochs": given.epochs, "eps": given.eps}
    task = Task(**{**asdict(task), **{k: v for k, v in changed.items() if v is not None}})
    if not Path(task.train).exists():
        print(f"{task.train} is not there; take --data digits", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for seed in map(int, given.seeds.split(",")):
        for method in given.methods.split(","):
            rows.append(run(method, seed, task, given.count))
            print(asdict(rows[-1]), file=sys.stderr, flush=True)
    seeds = len({row.seed for row in rows})
    title = f"Defences on {given.data} at eps {task.eps:g}, {task.epochs} epochs, {seeds} seed(s)"
    show(rows, title)
    if given.json:
        stored = {
            "machine": describe(1),
            "task": asdict(task),
            "rows": [{**asdict(row), "gap": row.gap} for row in rows],
        }
        Path(given.json).write_text(json.dumps(stored, indent=2) + "\n")
    if given.plot:
        draw(rows, given.plot, title)
    return 0


if __name__ == "__main__":
    sys.exit(main())
