"""Answers `unsat` under attack: ten thousand descents each, and none may be contradicted.

    python -m benchmarks.attack_unsat results.csv --data ../shared/data/vnncomp --sample 10

The results are those of `benchmarks.vnncomp`. Boxes are attacked whole: nothing that the search has
learnt narrows them. One JSON line an instance goes to --out; what is there is not attacked again.
Ends with exit code 1 if a counterexample is found.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from attacks.unsafe import Goal, UnsafeSearch
from benchmarks.certificates import present
from verify.graph.ir import Graph
from verify.network import load
from verify.readers.vnnlib import read_vnnlib
from verify.runtime import Runtime, with_tail
from verify.search.replaying import Replay
from verify.traverse import run
from verify.values.property import Case

STEPS = 40
"""Of each descent."""


def attacked(model: Path, spec: Path, restarts: int, seconds: float) -> dict[str, object]:
    """Attack every case of a property, the starts shared between cases and clauses."""
    network, stated = load(model), read_vnnlib(spec)
    assert isinstance(network.judge, Runtime)
    graph = network.graph.to(torch.float32)
    cases = stated.property.cases
    begun = time.monotonic()
    clauses = sum(len(case.clauses) for case in cases)
    starts = math.ceil(restarts / clauses)
    done = 0
    for case in cases:
        left = seconds - (time.monotonic() - begun)
        if left <= 0:
            break
        replay = Replay(case, network.judge.each_way, network.input_shape, stated.property.mixed)
        whole = case.witnesses()
        found: list[Tensor] = []

        def confirm(points: Tensor, replay: Replay = replay) -> Tensor | None:
            met = replay.check(points)
            found.extend([] if met is None else [met])  # noqa: B023  # called before the next turn
            return met

        search = UnsafeSearch(samples=restarts, restarts=starts, steps=STEPS, seconds=left, seed=17)
        mixed = stated.property.mixed

        def network_of(points: Tensor, mixed: bool = mixed) -> Tensor:
            return outputs(graph, points, mixed)

        search(network_of, whole.lower[None], whole.upper[None], goal(case), confirm)
        if found:
            return {"contradicted": found[0].flatten().tolist()}
        done += 1
    return {
        "cases": len(cases),
        "attacked": done,
        "starts": starts * clauses,
        "in_time": time.monotonic() - begun < seconds,
        "seconds": round(time.monotonic() - begun, 1),
    }


def outputs(graph: Graph, points: Tensor, mixed: bool) -> Tensor:
    """What a property's rows are over: the outputs, and in a mixed one the inputs behind them."""
    output = run(graph, points.view(-1, *graph.input.shape))
    if graph.tail is not None:
        output = with_tail(output, graph.tail)
    flat = output.flatten(1)
    return torch.cat((flat, points), dim=1) if mixed else flat


def goal(case: Case) -> Goal:
    """A case's clauses, in float32."""
    spec = case.spec()
    assert spec.clause is not None
    return Goal(spec.coeff[0].float(), spec.const[0].float(), spec.clause)


def wanted(results: list[Path], sample: int, seed: int) -> list[dict[str, str]]:
    """So many of our answers `unsat` of each category."""
    chosen = []
    for path in results:
        with path.open(newline="") as file:
            rows = [r for r in csv.DictReader(file) if r["answer"] == "unsat"]
        rows = [r for r in rows if r["tool"] == "tashika"]
        chosen += random.Random(seed).sample(rows, min(sample, len(rows)))
    return chosen


def main() -> int:
    """Attack, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path, help="CSV files of benchmarks.vnncomp")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/vnncomp"))
    parser.add_argument("--sample", type=int, default=5, help="answers of each file")
    parser.add_argument("--restarts", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=300.0, help="at most, an instance")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--out", type=Path, default=Path("attack_unsat.jsonl"))
    asked = parser.parse_args()
    rows = (
        [json.loads(line) for line in asked.out.read_text().splitlines()]
        if asked.out.exists()
        else []
    )
    known = {(row["category"], row["onnx"], row["vnnlib"]) for row in rows}
    for row in wanted(asked.results, asked.sample, asked.seed):
        key = (row["category"], row["onnx"], row["vnnlib"])
        if key in known:
            continue
        folder = asked.data / row["category"]
        model, spec = present(folder / row["onnx"]), present(folder / row["vnnlib"])
        found: dict[str, object] = dict(zip(("category", "onnx", "vnnlib"), key, strict=True))
        found |= attacked(model, spec, asked.restarts, asked.seconds)
        rows.append(found)
        with asked.out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(*(f"{name}={value}" for name, value in found.items()), flush=True)
    wrong = [row for row in rows if "contradicted" in row]
    whole = sum(bool(row.get("in_time")) for row in rows)
    print(f"{len(rows)} answers attacked, {whole} with all their starts, {len(wrong)} contradicted")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
