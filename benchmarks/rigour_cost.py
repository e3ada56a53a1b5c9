"""What rigour costs: time of a whole run, and certified radius, with rounding charged and without.

    python -m benchmarks.rigour_cost /work/shared/data/vnncomp

A run reads a file and a property, checks the reading against ONNX Runtime, and bounds the first
case: rigorously in float64, or plainly in float32. The radius is the largest share of the box
around its middle that is proved, by bisection; the loss is that of the rigorous bound against the
same bound in float64 without the charge. "Lost" are instances that the plain bound proves and the
rigorous one does not, with the largest plain margin among them beside the charge there. Seconds are
of this process's CPU, the better of two, alternating.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.crown import Crown
from verify.bounders.slopes import Ascent
from verify.graph.ir import Graph
from verify.network import load
from verify.problem import Problem
from verify.protocols import Bounder
from verify.readers.vnnlib import read_vnnlib
from verify.values.budget import Budget
from verify.values.property import Case
from verify.values.region import Box
from verify.values.rounding import FLOAT32, Rounding

NETS = {
    "mnist_fc": ("mnist-net_256x2", "mnist-net_256x4"),
    "acasxu": ("ACASXU_run2a_2_3_batch_2000", "ACASXU_run2a_4_2_batch_2000"),
}
ASCENT = Ascent(20)
STEPS = 20
"""Of the bisection."""


def bounder(name: str, rounding: Rounding | None) -> Bounder:
    """By its name on the command line."""
    if name == "crown":
        return Crown(rounding=rounding)
    return AlphaCrown(ascent=ASCENT, rounding=rounding)


def problem(graph: Graph, case: Case, share: float) -> Problem:
    """The case with its box shrunk around the middle."""
    middle, half = (case.lower + case.upper) / 2, (case.upper - case.lower) / 2
    shape = (1, *graph.input.shape)
    box = Box((middle - share * half).view(shape), (middle + share * half).view(shape))
    return Problem(graph, box, case.spec())


def whole_run(model: Path, prop: Path, name: str, rounding: Rounding | None) -> tuple[float, float]:
    """CPU seconds of everything, and of the bounds alone."""
    started = time.process_time()
    graph, case = load(model).graph, read_vnnlib(prop).property.cases[0]
    asked = problem(graph, case, 1.0)
    read = time.process_time()
    bounder(name, rounding)(asked if rounding else asked.to(torch.float32), Budget())
    done = time.process_time()
    return done - started, done - read


def least(graph: Graph, case: Case, name: str, rounding: Rounding | None) -> float:
    """The bound of the whole case."""
    asked = problem(graph, case, 1.0)
    return float(asked.spec.least(bounder(name, rounding)(asked, Budget()).margin)[0])


def lost_among(margins: list[tuple[float, float]]) -> str:
    """Of (plain, rigorous) margins: how many are proved by either, and what only the first does."""
    plain = [pair for pair in margins if pair[0] > 0]
    lost = [pair for pair in plain if not pair[1] > 0]
    said = f"{len(plain) - len(lost)} of {len(plain)}"
    if not lost:
        return said
    free, charged = max(lost)
    return f"{said}; margin {free:.1e}, charge {free - charged:.1e}"


def radius(graph: Graph, case: Case, name: str, rounding: Rounding | None) -> float:
    """The largest share of the box that is proved, at most 1."""
    low, high = 0.0, 1.0
    bound = bounder(name, rounding)
    for _ in range(STEPS):
        share = (low + high) / 2
        asked = problem(graph, case, share)
        least = float(asked.spec.least(bound(asked, Budget()).margin)[0])
        low, high = (share, high) if least > 0 else (low, share)
    return low


def main(arguments: list[str] | None = None) -> int:
    """A line for each family and method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the benchmarks")
    parser.add_argument("--properties", type=int, default=3)
    parser.add_argument("--family", nargs="*", choices=NETS, default=list(NETS))
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    heads = f"{'run ratio':>10}{'bounds ratio':>14}{'radius loss %':>26}  proved"
    print(f"{'family':10}{'method':14}{heads}")
    for family, names in ((family, NETS[family]) for family in asked.family):
        props = sorted((asked.data / family / "vnnlib").glob("*.vnnlib*"))[: asked.properties]
        models = [asked.data / family / "onnx" / f"{name}.onnx.gz" for name in names]
        for method in ("crown", "alpha-crown"):
            runs, bounds, losses, margins = [], [], [], []
            for model, prop in ((m, p) for m in models for p in props):
                both = [
                    [whole_run(model, prop, method, rounding) for rounding in (None, FLOAT32)]
                    for _ in range(2)
                ]
                plain, charged = (
                    [min(pair) for pair in zip(*x, strict=True)] for x in zip(*both, strict=True)
                )
                runs.append(charged[0] / plain[0])
                bounds.append(charged[1] / plain[1])
                graph, case = load(model).graph, read_vnnlib(prop).property.cases[0]
                both_ways = [least(graph, case, method, r) for r in (None, FLOAT32)]
                margins.append((both_ways[0], both_ways[1]))
                if method == "crown":
                    free = radius(graph, case, method, None)
                    if 0 < free < 1 - 1e-6:
                        losses.append(100 * (1 - radius(graph, case, method, FLOAT32) / free))
            said = f"{statistics.median(losses):.3f}, at most {max(losses):.3f}" if losses else "-"
            ratios = statistics.median(runs), statistics.median(bounds)
            line = f"{family:10}{method:14}{ratios[0]:10.2f}{ratios[1]:14.2f}{said:>26}"
            print(f"{line}  {lost_among(margins)}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
