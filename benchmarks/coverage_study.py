"""Does neuron coverage mean anything? Its correlation with faults found, at equal test-set size.

    python -m benchmarks.coverage_study --seeds 3 --sets 120 --json study.json --plot study.png

Per trained net, many test sets of one size are drawn from a pool of clean, noisy, shifted, turned
and brightened digits, with different mixtures, so that the sets differ in what they exercise. Each
criterion is measured on each set; Kendall's tau relates it to

    faults       inputs of the set that the net misclassifies,
    kinds        distinct (true class, wrong class) pairs among them,
    attacked     inputs of the set that FGSM at eps 0.05 flips, of those that are right,
    radius       the set's median first-order radius, negated, so that larger means more fragile.

As sets have equal size, size explains nothing of it. `random` is the baseline: an order drawn at
random. Intervals are bootstrap percentiles over sets; the second table draws only sets without
mixing (clean inputs alone), where there is no distribution shift that could drive both sides.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau
from torch import Tensor
from torch.nn import functional as F

from attacks import FGSM, Ball
from benchmarks.machine import describe
from examples.train import conv_net, dense_net, load_splits, train
from verify.coverage import layers_of
from verify.coverage.generating import Mutations
from verify.coverage.layers import observed
from verify.coverage.records import overall
from verify.coverage.reference import Reference
from verify.coverage.registry import CRITERIA, CoverageSettings
from verify.graph.ir import Graph
from verify.network import load
from verify.traverse import run

CHOSEN = ("nc", "kmnc", "nbc", "snac", "tknc", "tknp", "nlc")
OUTCOMES = ("faults", "kinds", "attacked", "radius")
KINDS = {
    "clean": Mutations(0.0, 0.0),
    "noise": Mutations(0.25, 0.0),
    "bright": Mutations(0.0, 0.4),
    "shift": Mutations(0.0, 0.0, shift=1.0),
    "turn": Mutations(0.0, 0.0, rotation=25.0),
}


@dataclass(frozen=True, slots=True)
class Correlation:
    """Kendall's tau of one criterion with one outcome, and its 95 % bootstrap interval."""

    net: str
    pool: str
    criterion: str
    outcome: str
    tau: float
    low: float
    high: float


def nets(seeds: int) -> dict[str, Graph]:
    """Dense and convolutional nets, trained from different seeds."""
    training, _ = load_splits()
    found = {}
    for seed in range(seeds):
        for name, make, shape in (("dense", dense_net, (64,)), ("conv", conv_net, (1, 8, 8))):
            torch.manual_seed(seed)
            net = make()
            train(net, training, shape, 0.05, 25)
            found[f"{name}-{seed}"] = load(net, input_shape=shape).graph.to(torch.float32)
    return found


def pools(seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Held-out images under each kind of change, shape (n, 1, 8, 8), and their labels."""
    _, held = load_splits()
    x = torch.from_numpy(held.x).reshape(-1, 1, 8, 8)
    generator = torch.Generator().manual_seed(seed)
    changed = {name: mutations.apply(x, generator).clamp(0, 1) for name, mutations in KINDS.items()}
    return changed, torch.from_numpy(held.y)


def study(
    name: str, graph: Graph, *, sets: int, size: int, pool: str, seed: int
) -> list[Correlation]:
    """The correlations on one net."""
    shape = graph.input.shape
    training, _ = load_splits()
    layers = layers_of(graph, channels=False)
    seen = Reference(graph, torch.from_numpy(training.x).reshape(-1, *shape), layers)
    changed, labels = pools(seed)
    kinds = list(KINDS) if pool == "mixed" else ["clean"]
    stacked = torch.cat([changed[kind] for kind in kinds]).reshape(-1, *shape)
    every = labels.repeat(len(kinds))
    with torch.no_grad():
        values = observed(graph, stacked, layers)
        logits = run(graph, stacked)
    wrong = logits.argmax(dim=1) != every
    hit = FGSM()(lambda x: run(graph, x), stacked, every, Ball(0.05, lower=0.0, upper=1.0)).found
    radius = first_order_radius(graph, stacked, every)
    generator = np.random.default_rng(seed)
    rows: list[dict[str, float]] = []
    for _ in range(sets):
        if pool == "mixed":
            weight = generator.dirichlet(np.full(len(kinds), 0.5)).repeat(len(labels))
        else:
            weight = np.ones(len(labels))
        chosen = torch.from_numpy(
            generator.choice(len(stacked), size, replace=False, p=weight / weight.sum())
        )
        row: dict[str, float] = {"random": float(generator.random())}
        for criterion in CHOSEN:
            record = CRITERIA[criterion].make(seen, CoverageSettings(k=20))
            record.update({layer: value[chosen] for layer, value in values.items()})
            row[criterion] = overall(record.shares()).covered
        faulty = chosen[wrong[chosen]]
        pairs = {(int(every[i]), int(logits[i].argmax())) for i in faulty}
        right = chosen[~wrong[chosen]]
        row |= {
            "faults": float(len(faulty)),
            "kinds": float(len(pairs)),
            "attacked": float(hit[right].double().mean()),
            "radius": -float(radius[chosen].median()),
        }
        rows.append(row)
    table = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return [
        correlation(name, pool, criterion, outcome, table, generator)
        for criterion in (*CHOSEN, "random")
        for outcome in OUTCOMES
    ]


def first_order_radius(graph: Graph, x: Tensor, labels: Tensor) -> Tensor:
    """margin / |gradient of the margin|_1 against the nearest rival, 0 where misclassified."""
    leaf = x.clone().requires_grad_()
    logits = run(graph, leaf)
    own = logits.gather(1, labels[:, None])[:, 0]
    rival = (logits - 1e9 * F.one_hot(labels, logits.shape[1])).amax(dim=1)
    (slope,) = torch.autograd.grad((own - rival).sum(), leaf)
    margin = (own - rival).detach().clamp(min=0)
    return margin / slope.flatten(1).abs().sum(dim=1).clamp(min=1e-12)


def correlation(
    net: str,
    pool: str,
    criterion: str,
    outcome: str,
    table: dict[str, np.ndarray],
    generator: np.random.Generator,
) -> Correlation:
    """Tau over the sets, with 200 bootstrap draws."""
    x, y = table[criterion], table[outcome]
    draws = [
        kendalltau(x[pick], y[pick]).statistic
        for pick in (generator.integers(0, len(x), len(x)) for _ in range(200))
    ]
    low, high = np.nanpercentile(draws, [2.5, 97.5]) if np.ptp(x) and np.ptp(y) else (0.0, 0.0)
    tau = kendalltau(x, y).statistic
    return Correlation(net, pool, criterion, outcome, float(np.nan_to_num(tau)), low, high)


def show(found: list[Correlation], console: Console) -> None:
    """Mean tau over the nets, and on how many of them its interval excludes 0 from above."""
    for pool in dict.fromkeys(row.pool for row in found):
        count = len({row.net for row in found})
        table = Table(title=f"{pool}: mean Kendall tau ({count} nets; how many clearly above 0)")
        table.add_column("criterion")
        for outcome in OUTCOMES:
            table.add_column(outcome, justify="right")
        for criterion in (*CHOSEN, "random"):
            cells = []
            for outcome in OUTCOMES:
                rows = [
                    row
                    for row in found
                    if (row.pool, row.criterion, row.outcome) == (pool, criterion, outcome)
                ]
                mean = float(np.mean([row.tau for row in rows]))
                cells.append(f"{mean:+.2f} ({sum(row.low > 0 for row in rows)})")
            table.add_row(criterion, *cells)
        console.print(table)


def draw(found: list[Correlation], path: Path) -> None:
    """Every net's tau as a dot, criteria side by side, one panel per outcome and pool."""
    from matplotlib.figure import Figure

    pools_ = list(dict.fromkeys(row.pool for row in found))
    figure = Figure(figsize=(11, 2.4 * len(pools_) + 1), layout="constrained")
    grid = figure.subplots(len(pools_), len(OUTCOMES), squeeze=False, sharey=True, sharex=True)
    names = (*CHOSEN, "random")
    for i, pool in enumerate(pools_):
        for j, outcome in enumerate(OUTCOMES):
            axes = grid[i, j]
            axes.axhline(0, color="#5F5F5F", linewidth=0.8)
            for k, criterion in enumerate(names):
                rows = [
                    row
                    for row in found
                    if (row.pool, row.criterion, row.outcome) == (pool, criterion, outcome)
                ]
                place = k + np.linspace(-0.25, 0.25, len(rows))
                tau = np.array([row.tau for row in rows])
                ends = np.array([[t.tau - t.low, t.high - t.tau] for t in rows]).clip(min=0).T
                colour = "#5F5F5F" if criterion == "random" else "#0072B2"
                axes.errorbar(place, tau, ends, fmt="o", ms=3, lw=0.8, color=colour)
            axes.set_xticks(range(len(names)), names, rotation=60)
            axes.set_ylim(-1, 1)
            axes.spines[["top", "right"]].set_visible(False)
            if i == 0:
                axes.set_title(outcome)
        grid[i, 0].set_ylabel(f"Kendall tau\n({pool} sets)")
    figure.savefig(path, dpi=130)


def main() -> None:
    """Train, draw sets, correlate, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", type=int, default=120)
    parser.add_argument("--size", type=int, default=60)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    found: list[Correlation] = []
    for seed, (name, graph) in enumerate(nets(options.seeds).items()):
        for pool in ("mixed", "clean"):
            found += study(name, graph, sets=options.sets, size=options.size, pool=pool, seed=seed)
    show(found, Console(width=120))
    if options.plot:
        draw(found, options.plot)
    if options.json:
        rows = [{field: getattr(row, field) for field in row.__slots__} for row in found]
        text = json.dumps({"machine": describe(torch.get_num_threads()), "rows": rows}, indent=1)
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
