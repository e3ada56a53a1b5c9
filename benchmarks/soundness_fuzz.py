"""Random provocative nets: does any bound lie above what exact or float32 arithmetic attains?

    python -m benchmarks.soundness_fuzz --nets 4200 --out fuzz.jsonl

A problem is a net, a box and a row of the outputs. A bound is wrong if some input of the box gives
the row less, in rational numbers or in a float32 execution. Beside the rigorous bounders stands
the same CROWN without a charge for rounding, in float32 and float64. Runs resume: seeds that
the file already holds are not run again. Exit code 1 if a rigorous bound or search was wrong.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.fuzzing import asked_of, held
from benchmarks.provocative import EXACT, KINDS, Net, Single, exactly, executed, graph_of, make
from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.bounders.slopes import Ascent
from verify.bounders.zonotope import Zonotope
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.protocols import Bounder
from verify.search.activation_split import ActivationSplit
from verify.search.input_split import InputSplit
from verify.search.milp import Milp
from verify.search.outcome import Search
from verify.values.budget import Budget
from verify.values.property import Case, Halfspaces
from verify.values.region import Box
from verify.values.result import Verdict
from verify.values.spec import Spec

ROWS = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
BOXES, POINTS = 6, 6
"""Per net and per box."""
BOUNDERS: dict[str, Bounder] = {
    "ibp": Interval(),
    "crown": Crown(),
    "alpha-crown": AlphaCrown(ascent=Ascent(3)),
    "zonotope": Zonotope(),
}
PLAIN = {"crown, plain float64": torch.float64, "crown, plain float32": torch.float32}
SEARCHES: dict[str, Callable[[], Search]] = {
    "input split": lambda: InputSplit(workers=1),
    "activation split": ActivationSplit,
    "milp": Milp,
}
SECONDS = 0.3
"""For one search."""


def boxes(net: Net, generator: np.random.Generator) -> tuple[Single, Single]:
    """Corners (box, entries) of boxes from points to wide ones, at several scales."""
    entries = int(np.prod(net.shape))
    width = np.array([0.0, 1e-6, 1e-3, 0.05, 0.3, 1.0])[:, None]
    scale = 10.0 ** generator.choice([0.0, 0.0, 0.0, -4.0, 4.0])
    centre = generator.standard_normal((BOXES, entries))
    both = np.stack([centre - width, centre + width]) * scale
    single: NDArray[np.float32] = both.astype(np.float32)
    return single[0], single[1]


def points(low: Single, high: Single, generator: np.random.Generator) -> Single:
    """Corners and points inside of each box; (box * POINTS, entries)."""
    share = generator.random((len(low), POINTS, low.shape[1]))
    share[:, : POINTS - 2] = np.round(share[:, : POINTS - 2])
    inside = low[:, None] + share * (high - low)[:, None].astype(np.float64)
    single: Single = np.clip(inside.astype(np.float32), low[:, None], high[:, None])
    return single.reshape(-1, low.shape[1])


def attained(net: Net, x: Single, generator: np.random.Generator) -> dict[str, list[Fraction]]:
    """The least value of each (box, row), exact and executed; -inf as a huge negative number."""
    rows = [[int(v) for v in row] for row in ROWS.tolist()]
    count = len(x) // POINTS
    found = {}
    if net.kind in EXACT:
        values = exactly(net, x)
        found["exact"] = [
            min(sum((c * v for c, v in zip(row, y, strict=True)), Fraction(0)) for y in part)
            for part in (values[i * POINTS : (i + 1) * POINTS] for i in range(count))
            for row in rows
        ]
    ways = np.stack(executed(net, x, generator)).astype(np.float64)
    ways = ways.reshape(len(ways), count, POINTS, 2).transpose(1, 0, 2, 3).reshape(count, -1, 2)
    least = []
    with np.errstate(invalid="ignore"):
        margins = np.einsum("bny,ry->brn", ways, ROWS.numpy())
    margins = np.where(np.isfinite(margins), margins, -np.inf)
    for i in range(count):
        for r, row in enumerate(rows):
            k = int(margins[i, r].argmin())
            y = ways[i, k]
            finite = bool(np.isfinite(y).all())
            value = (
                sum((c * Fraction(v) for c, v in zip(row, y.tolist(), strict=True)), Fraction(0))
                if finite
                else Fraction(-(10**400))
            )
            least.append(value)
    found["executed"] = least
    return found


def bounds(graph: Graph, low: Single, high: Single) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Each bounder's bound of each (box, row)."""
    shape = (len(low), *graph.input.shape)
    box = Box(torch.tensor(low).double().view(shape), torch.tensor(high).double().view(shape))
    coeff = ROWS.expand(len(low), -1, -1)
    asked = Problem(graph, box, Spec(coeff, torch.zeros(coeff.shape[:2], dtype=torch.float64)))
    for name, bounder in BOUNDERS.items():
        yield name, bounder(asked, Budget()).margin.double().numpy().ravel()
    for name, dtype in PLAIN.items():
        yield name, Crown(rounding=None)(asked.to(dtype)).margin.double().numpy().ravel()


def judged(net: Net, seed: int) -> dict[str, object]:
    """One net: how many bounds of each method each judge finds wrong, and how tight they are."""
    generator = np.random.default_rng([seed, 7])
    low, high = boxes(net, generator)
    truth = attained(net, points(low, high, generator), generator)
    graph = graph_of(net)
    found: dict[str, NDArray[np.float64]] = dict(bounds(graph, low, high))
    record: dict[str, object] = {"kind": net.kind, "seed": seed, "problems": len(low) * len(ROWS)}
    for name, values in found.items():
        for judge, least in truth.items():
            wrong = [
                i
                for i, v in enumerate(values.tolist())
                if np.isfinite(v) and Fraction(v) > least[i]
            ]
            record[f"{name}/{judge}"] = len(wrong)
    plain, ours = found["crown, plain float64"], found["crown"]
    with np.errstate(invalid="ignore", over="ignore"):
        loss = (plain - ours) / np.maximum(np.abs(plain), 1e-30)
    record["finite"] = int(np.isfinite(ours).sum())
    record["tight"] = int((loss < 1e-3).sum())
    return record


def searched(net: Net, seed: int) -> dict[str, object]:
    """Complete searches on one box and row: a threshold that is attained, and one out of reach."""
    generator = np.random.default_rng([seed, 8])
    low, high = boxes(net, generator)
    low, high = low[3:5], high[3:5]
    truth = attained(net, points(low, high, generator), generator)
    least = min(truth["exact"][0], truth["executed"][0])
    graph = graph_of(net)
    known = Crown()(problem_of(graph, low[:1], high[:1])).margin[0, 0].item()
    record: dict[str, object] = {"kind": net.kind, "seed": seed, "searched": 1}
    if not np.isfinite(known):
        return record
    lost = np.nextafter(float(least), np.inf)  # no less than what some execution attains
    kept = known - 0.05 * abs(known)
    for name, made in SEARCHES.items():
        for threshold, which in ((lost, "wrong"), (kept, "proved")):
            done = made()(graph, case_of(low[0], high[0], float(threshold)), None, within())
            record[f"{name}/{which}"] = int(done.verdict is Verdict.VERIFIED)
    return record


def within() -> Budget:
    """Of one search."""
    return Budget().within(SECONDS)


def problem_of(graph: Graph, low: Single, high: Single) -> Problem:
    """A batch of boxes and all rows."""
    shape = (len(low), *graph.input.shape)
    box = Box(torch.tensor(low).double().view(shape), torch.tensor(high).double().view(shape))
    coeff = ROWS.expand(len(low), -1, -1)
    return Problem(graph, box, Spec(coeff, torch.zeros(coeff.shape[:2], dtype=torch.float64)))


def case_of(low: Single, high: Single, threshold: float) -> Case:
    """Unsafe is that output 0 is at most the threshold."""
    ends: list[Tensor] = [torch.tensor(side).double() for side in (low, high)]
    none = torch.zeros(0, dtype=torch.float64)
    free = Halfspaces(none.view(0, 1).expand(0, len(low)), none, none.bool())
    const = torch.tensor([-threshold], dtype=torch.float64)
    return Case(ends[0], ends[1], free, (Halfspaces(ROWS[:1], const, torch.zeros(1).bool()),))


def table(records: list[dict[str, object]]) -> tuple[str, int]:
    """The totals in words, and how many answers of ours were wrong."""
    total: Counter[str] = Counter()
    nets: Counter[str] = Counter()
    for record in records:
        for key, value in record.items():
            if isinstance(value, int) and key != "seed":
                total[key] += value
                nets[key] += value > 0
    lines = [
        f"{nets['problems']} nets, {total['problems']} problems (net, box, row)",
        f"{'bounds':24}{'above exact':>14}{'above executed':>16}{'nets exact':>12}{'nets':>8}",
    ]
    bad = 0
    for name in (*BOUNDERS, *PLAIN):
        exact, run = total[f"{name}/exact"], total[f"{name}/executed"]
        wrong = sum(
            bool(r.get(f"{name}/exact", 0) or r.get(f"{name}/executed", 0)) for r in records
        )
        lines.append(f"{name:24}{exact:14}{run:16}{nets[f'{name}/exact']:12}{wrong:8}")
        bad += exact + run if name in BOUNDERS else 0
    lines.append(
        f"crown: finite {total['finite']} of {total['problems']}, "
        f"within 0.1 % of plain float64 {total['tight']}"
    )
    if total["searched"]:
        lines.append(f"{'searches of ' + str(total['searched']):24}{'wrong':>14}{'proved':>16}")
    for name in SEARCHES:
        wrong = total[f"{name}/wrong"]
        lines.append(f"{name:24}{wrong:14}{total[f'{name}/proved']:16}")
        bad += wrong
    return "\n".join(lines), bad


def main(arguments: list[str] | None = None) -> int:
    """Run what the file does not hold yet, then print the table."""
    asked = asked_of(
        arguments, __doc__, nets=700, every=20, which="every which net is searched too"
    )
    torch.set_num_threads(1)
    records = held(asked.out)
    done = {(r["kind"], r["seed"], "searched" in r) for r in records}
    started = time.monotonic()
    for i in range(asked.nets):
        kind, seed = KINDS[i % len(KINDS)], asked.first + i // len(KINDS)
        if time.monotonic() - started > asked.seconds:
            break
        net, fresh = make(kind, seed), []
        if (kind, seed, False) not in done:
            fresh.append(judged(net, seed))
        if seed % asked.every == 0 and kind in EXACT and (kind, seed, True) not in done:
            fresh.append(searched(net, seed))
        records += fresh
        if asked.out:
            with asked.out.open("a") as file:
                file.writelines(json.dumps(record) + "\n" for record in fresh)
    text, bad = table(records)
    print(text)
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
