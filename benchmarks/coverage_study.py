"""Does neuron coverage mean anything? Correlations at equal test-set size, and selection by it.

    python -m benchmarks.coverage_study --seeds 3 --json study.json --plot study.png

Per trained net, test sets of three sizes are drawn from held-out digits: "clean" ones from the
digits as they are, "mixed" ones from clean, noisy, brightened, shifted and turned digits in varying
shares. Kendall's tau relates each criterion's coverage of a set to

    faults      inputs of the set that the net misclassifies,
    kinds       distinct (true class, wrong class) pairs among them,
    attacked    the share of its other inputs that PGD at eps 0.05 flips,
    fragility   their mean certified radius (CROWN, float64, bisection), negated.

Only sets of one size are compared, so that size explains nothing; `faults, any size` compares all,
to show what size does. `random` is the baseline: an order drawn at random. Intervals are bootstrap
percentiles over nets and sets.

Then the use that is made of coverage: sets chosen greedily to cover as much as can be, from half of
the mixed inputs at a time, against sets of the same size that are chosen at random.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.coverage_pool import JOINT, KINDS, TICKED, Pool, Recipe, pool_of, recipes
from benchmarks.coverage_tau import Array, Tau, of_nets, resampled, tau
from benchmarks.machine import describe

ORDER = ("nc", "kmnc", "nbc", "snac", "tknc", "tknp", "nlc", "ssc", "vsc", "lsc", "dsc", "idc")
OUTCOMES = ("faults", "kinds", "attacked", "fragility")
ANY_SIZE = "faults, any size"
COLUMNS = (*OUTCOMES, ANY_SIZE)
POOLS = ("clean", "mixed")
SIZES = (20, 40, 80)
DRAWS = 1000
CHOSEN = 40
REPEATS = 6
assert set(ORDER) == {*TICKED, *JOINT}


@dataclass(frozen=True, slots=True, eq=False)
class Correlation:
    """One criterion with one outcome, on one net."""

    net: str
    pool: str
    criterion: str
    outcome: str
    tau: Tau


@dataclass(frozen=True, slots=True)
class Selection:
    """What sets of `CHOSEN` inputs hold, chosen by a criterion, less what random ones hold.

    Attributes:
        net, criterion, outcome: of which.
        chosen, random: means over the repeats.
    """

    net: str
    criterion: str
    outcome: str
    chosen: float
    random: float


def correlations(net: str, pool: Pool, kind: str, sets: int, seed: int) -> list[Correlation]:
    """The correlations on one net, over `sets` test sets of each size."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, float]] = []
    for size in SIZES:
        for _ in range(sets):
            chosen = drawn(pool, kind, size, generator)
            row = {criterion: pool.covered(criterion, chosen) for criterion in ORDER}
            rows.append(
                row
                | pool.outcomes(chosen)
                | {"random": float(generator.random()), "size": float(size)}
            )
    table = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    size_of = table["size"].astype(np.int64)
    counts = resampled(size_of, DRAWS, seed)
    alike, any_ = size_of[:, None] == size_of[None], np.ones((len(rows), len(rows)), dtype=bool)
    return [
        Correlation(
            net,
            kind,
            criterion,
            outcome,
            tau(
                table[criterion],
                table["faults" if outcome == ANY_SIZE else outcome],
                any_ if outcome == ANY_SIZE else alike,
                counts,
            ),
        )
        for criterion in (*ORDER, "random")
        for outcome in COLUMNS
    ]


def drawn(pool: Pool, kind: str, size: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """A test set of distinct inputs."""
    share = np.array([1.0] + [0.0] * (len(KINDS) - 1))
    if kind == "mixed":
        # Some of every kind, so that there are always enough inputs to draw.
        share = 0.02 + generator.dirichlet(np.full(len(KINDS), 0.5))
    weight = share[pool.kind]
    chosen = generator.choice(len(weight), size, replace=False, p=weight / weight.sum())
    return np.asarray(chosen, dtype=np.int64)


def greedy(
    footprints: NDArray[np.bool_], size: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Inputs that each add most to what those before cover; ties at random.

    Once nothing adds anything, counting starts again from nothing (Rothermel et al. 2001,
    additional coverage).
    """
    weight = footprints.astype(np.float32)
    left, free = np.ones(weight.shape[1], dtype=np.float32), np.ones(len(weight), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < size:
        gain = np.where(free, weight @ left, -1.0)
        if gain.max() <= 0:
            if left.all():  # nothing covers anything
                gain = np.where(free, 0.0, -1.0)
            else:
                left[:] = 1
                continue
        pick = int(generator.choice(np.flatnonzero(gain == gain.max())))
        chosen.append(pick)
        free[pick] = False
        left[footprints[pick]] = 0
    return np.array(chosen, dtype=np.int64)


def selections(net: str, pool: Pool, seed: int) -> list[Selection]:
    """Greedy sets against random ones, each time from half of the pool."""
    generator = np.random.default_rng(seed)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (*TICKED, "random")}
    for _ in range(REPEATS):
        half = generator.permutation(len(pool.wrong))[: len(pool.wrong) // 2]
        for name in TICKED:
            chosen = half[greedy(pool.footprints[name][half], CHOSEN, generator)]
            found[name].append(pool.outcomes(chosen))
        found["random"] += [pool.outcomes(generator.permutation(half)[:CHOSEN]) for _ in range(20)]
    means = {
        name: {key: float(np.mean([row[key] for row in rows])) for key in OUTCOMES}
        for name, rows in found.items()
    }
    return [
        Selection(net, name, key, means[name][key], means["random"][key])
        for name in TICKED
        for key in OUTCOMES
    ]


def told(found: list[Correlation], pool: str, criterion: str, outcome: str) -> str:
    """Mean tau over the nets, its interval, and on how many nets its own is above or below 0."""
    rows = picked(found, pool, criterion, outcome)
    mean, low, high = of_nets(rows, 0)
    above = sum(row.interval[0] > 0 for row in rows)
    below = sum(row.interval[1] < 0 for row in rows)
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}] {above}/{below}"


def picked(found: list[Correlation], pool: str, criterion: str, outcome: str) -> list[Tau]:
    """One per net."""
    wanted = (pool, criterion, outcome)
    return [row.tau for row in found if (row.pool, row.criterion, row.outcome) == wanted]


def show(found: list[Correlation], chosen: list[Selection], console: Console) -> None:
    """Both tables, as Markdown readers and terminals can take them."""
    count = len({row.net for row in found})
    for pool in POOLS:
        title = f"{pool} sets: mean tau over {count} nets [95 %], nets clearly above/below 0"
        fill(
            Table(title=title),
            (*ORDER, "random"),
            COLUMNS,
            lambda criterion, outcome, pool=pool: told(found, pool, criterion, outcome),  # type: ignore[misc]
            console,
        )

    def ratio(criterion: str, outcome: str) -> str:
        rows = [r for r in chosen if (r.criterion, r.outcome) == (criterion, outcome)]
        low, high = difference(np.array([r.chosen - r.random for r in rows]))
        one, other = (
            float(np.mean([getattr(r, key) for r in rows])) for key in ("chosen", "random")
        )
        return f"{one:.4g} / {other:.4g} [{low:+.3g}, {high:+.3g}]"

    title = f"{CHOSEN} inputs chosen greedily / at random [difference, 95 % over nets]"
    fill(Table(title=title), TICKED, OUTCOMES, ratio, console)


def difference(values: Array) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean over nets."""
    generator = np.random.default_rng(0)
    means = values[generator.integers(0, len(values), (DRAWS, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def fill(
    table: Table,
    rows: tuple[str, ...],
    columns: tuple[str, ...],
    cell: Callable[[str, str], str],
    console: Console,
) -> None:
    """Print one table."""
    table.add_column("criterion")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(row, *(cell(row, column) for column in columns))
    console.print(table)


def draw(found: list[Correlation], path: Path) -> None:
    """Every net's tau as a dot, the mean with its interval beside; a panel per outcome and pool."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.4), layout="constrained")
    grid = figure.subplots(len(POOLS), len(COLUMNS), squeeze=False, sharey=True, sharex=True)
    names = (*ORDER, "random")
    for i, pool in enumerate(POOLS):
        for j, outcome in enumerate(COLUMNS):
            axes = grid[i, j]
            axes.axvline(0, color="#5F5F5F", linewidth=0.8)
            for k, criterion in enumerate(names):
                rows = picked(found, pool, criterion, outcome)
                values = [row.value for row in rows]
                place = k + 0.12 + np.linspace(0, 0.25, len(rows))
                colour = "#5F5F5F" if criterion == "random" else "#0072B2"
                axes.plot(values, place, "o", ms=2.5, color=colour, alpha=0.55, mew=0)
                mean, low, high = of_nets(rows, 0)
                ends = [[max(mean - low, 0)], [max(high - mean, 0)]]
                axes.errorbar([mean], [k - 0.12], xerr=ends, fmt="D", ms=4, lw=1.6, color=colour)
            axes.set_yticks(range(len(names)), names)
            axes.set_xlim(-1, 1)
            axes.spines[["top", "right"]].set_visible(False)
            if i == 0:
                axes.set_title(outcome)
            else:
                axes.set_xlabel("Kendall tau")
        grid[i, 0].set_ylabel(f"{pool} sets")
    grid[0, 0].invert_yaxis()
    figure.savefig(path, dpi=110)


def as_data(found: list[Correlation], chosen: list[Selection]) -> dict[str, object]:
    """Everything that was found."""
    rows = [
        {
            "net": row.net,
            "pool": row.pool,
            "criterion": row.criterion,
            "outcome": row.outcome,
            "tau": row.tau.value,
            "low": row.tau.interval[0],
            "high": row.tau.interval[1],
        }
        for row in found
    ]
    return {
        "machine": describe(torch.get_num_threads()),
        "rows": rows,
        "selections": [dataclasses.asdict(row) for row in chosen],
    }


OfNet = tuple[str, list[Correlation], list[Selection]]


def of_net(options: argparse.Namespace, numbered: tuple[int, Recipe]) -> OfNet:
    """Everything about one net, and a line on what it is like; read back where it is there."""
    seed, recipe = numbered
    torch.set_num_threads(1)
    kept = options.parts / f"{recipe.name}.pickle" if options.parts else None
    if kept is not None and kept.exists():
        done: OfNet = pickle.loads(kept.read_bytes())
        return done
    pool = pool_of(recipe.trained(), recipe.shape, seed, options.images)
    found = []
    for kind in POOLS:
        found += correlations(recipe.name, pool, kind, options.sets, seed)
    clean = pool.kind == 0
    line = (
        f"{recipe.name}: wrong {pool.wrong[clean].mean():.1%} of clean, {pool.wrong.mean():.1%} of "
        f"all; mean certified radius {pool.radius[clean].mean():.4f} clean, "
        f"{pool.radius.mean():.4f} all"
    )
    result = (line, found, selections(recipe.name, pool, seed))
    if kept is not None:
        kept.write_bytes(pickle.dumps(result))
    return result


def main() -> None:
    """Train, draw sets, correlate, choose, tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", type=int, default=60, help="of each size")
    parser.add_argument("--images", type=int, default=360, help="held-out digits in the pool")
    parser.add_argument("--parts", type=Path, help="folder that keeps each net's results")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--workers", type=int, default=2, help="processes, one net each")
    options = parser.parse_args()
    found: list[Correlation] = []
    chosen: list[Selection] = []
    console = Console(width=170, highlight=False)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as workers:
        for line, more, picks in workers.map(
            partial(of_net, options), enumerate(recipes(options.seeds))
        ):
            console.print(line)
            found += more
            chosen += picks
    show(found, chosen, console)
    if options.plot:
        draw(found, options.plot)
    if options.json:
        options.json.write_text(json.dumps(as_data(found, chosen), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
