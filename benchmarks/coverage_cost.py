"""What the cheap coverage criteria cost beside plain inference, and whether proofs hold.

python -m benchmarks.coverage_cost --inputs 10000 --samples 1000000
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from torch import Tensor

import verify
from verify.coverage import MaskRecord, NeuronCoverage, layers_of, measure
from verify.coverage.layers import activations
from verify.coverage.reachable import Search, layer_bounds, possible_masks
from verify.coverage.reference import Reference
from verify.coverage.registry import CHEAP, CRITERIA, CoverageSettings
from verify.graph.ir import Graph
from verify.readers.examples import example_path
from verify.traverse import run
from verify.values.region import Box


def median(work: Callable[[], object], runs: int) -> float:
    """CPU seconds on one thread, the median of several runs."""
    times = []
    for _ in range(runs):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return statistics.median(times)


def plain(graph: Graph, x: Tensor) -> None:
    """Inference alone."""
    for part in x.split(256):
        run(graph, part)


class Watch:
    """One network with its profile, ready to be measured."""

    def __init__(self, graph: Graph, x: Tensor, channels: bool) -> None:
        self.graph, self.x = graph, x
        self.layers = layers_of(graph, channels=channels)
        self.seen = Reference(graph, x[:2000], self.layers)
        assert self.seen.profile

    def measure(self, chosen: tuple[str, ...]) -> None:
        made = {c: CRITERIA[c].make(self.seen, CoverageSettings()) for c in chosen}
        measure(self.graph, self.x, self.layers, made)


def main() -> None:
    """Both measurements, on both example nets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120, highlight=False)
    for name in ("dense", "conv"):
        exact = verify.load(example_path(f"digits_{name}.onnx")).graph
        graph = exact.to(torch.float32)
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(options.inputs, *graph.input.shape, generator=generator)
        for channels in (True, False):
            watch = Watch(graph, x, channels)
            base = median(partial(plain, graph, x), options.runs)
            parts = {
                label: median(partial(watch.measure, chosen), options.runs) / base
                for label, chosen in {**{c: (c,) for c in CHEAP}, "all five": CHEAP}.items()
            }
            told = ", ".join(f"{label} {ratio:.2f}x" for label, ratio in parts.items())
            kind = "channels" if channels else "positions"
            console.print(f"{name}, {kind}: {told} of {base:.3f} CPU s")
        layers = layers_of(graph, channels=False)
        record = MaskRecord(NeuronCoverage(0.0, scaled=False), layers)
        zero, one = torch.zeros(1, *graph.input.shape), torch.ones(1, *graph.input.shape)
        bounds = layer_bounds(exact, Box(zero.double(), one.double()), layers)
        possible = possible_masks(record, bounds)
        ruled_out = sum(int((~mask).sum()) for mask in possible.values())
        left = options.samples
        while left > 0:
            part = torch.rand(min(left, 20_000), *graph.input.shape, generator=generator)
            part = part.round() if left % 40_000 else part
            for values in activations(graph, part, layers, at_once=2000):
                record.update(values)
            left -= len(part)
        everything = {layer: torch.ones_like(mask) for layer, mask in possible.items()}
        found = Search()(graph, record, everything, x[:64], zero[0], one[0])
        wrong = sum(int((record.covered[n] & ~possible[n]).sum()) for n in possible)
        wrong += sum(not bool(possible[hit.layer][hit.neuron, hit.section]) for hit in found)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        console.print(
            f"{name}: {ruled_out} neurons proved dead; of these active in {options.samples:,} "
            f"samples or found by search: {wrong}; peak memory {most:.0f} MiB"
        )


if __name__ == "__main__":
    main()
