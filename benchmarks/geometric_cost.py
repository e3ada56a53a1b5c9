"""What one box of parameters costs as the image and the number of parameters grow.

    python -m benchmarks.geometric_cost --out cost.jsonl --plot cost.png

Two costs, in processor seconds, medians of several runs: the linear constraints of all pixels, and
the whole bound of one box through a small convolutional network of random weights. Boxes are small
enough for sampled points to move by about a pixel.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from benchmarks.machine import describe
from verify.geometric.forward import Forward
from verify.geometric.linear_constraints import pixel_forms
from verify.geometric.region import Transformed
from verify.geometric.transforms import parse_transform
from verify.graph.ir import Graph
from verify.memory import keep_freed_memory
from verify.problem import Problem
from verify.readers.builder import GraphBuilder
from verify.values.spec import classified_as

SHAPES = ((1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 224, 224))
STEPS = (
    "rotation(-{0},{0})",
    "scale({1},{2})",
    "shear(-{3},{3})",
    "contrast(0.98,1.02)",
)
"""One to four parameters; filled in for a pixel's travel at the image's edge."""


def text_of(parameters: int, side: int) -> str:
    """A transformation of so many parameters."""
    share = 1 / side
    numbers = (f"{57.3 * share:.6f}", f"{1 - share:.6f}", f"{1 + share:.6f}", f"{share:.6f}")
    return " ".join(step.format(*numbers) for step in STEPS[:parameters])


def network(shape: tuple[int, int, int]) -> Graph:
    """Two strided convolutions and a dense layer, of random weights."""
    generator = torch.Generator().manual_seed(0)
    builder, name, channels = GraphBuilder("x", shape), "x", shape[0]
    for i, out in enumerate((16, 32)):
        weight = torch.randn(out, channels, 4, 4, generator=generator) / (channels * 16) ** 0.5
        name = builder.add(
            "Conv",
            (name,),
            f"conv{i}",
            tensors={"weight": weight, "bias": torch.zeros(out)},
            settings={"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "groups": (1,)},
        )
        name, channels = builder.add("Relu", (name,), f"relu{i}"), out
    size = channels * (shape[1] // 4) * (shape[2] // 4)
    name = builder.add("Reshape", (name,), "flat", shape=(size,))
    weight = torch.randn(10, size, generator=generator) / size**0.5
    name = builder.add("Gemm", (name,), "out", tensors={"weight": weight, "bias": torch.zeros(10)})
    return builder.build(name)


def timed(work: Callable[[], object], times: int) -> float:
    """Median processor seconds; the first run does not count."""
    work()
    found = []
    for _ in range(times):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return median(found)


def measure(shape: tuple[int, int, int], parameters: int, times: int) -> dict[str, object]:
    """Both costs of one box."""
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    transform = parse_transform(text_of(parameters, shape[1]))
    low, high = transform.low[None], transform.high[None]
    forms = pixel_forms(transform, image, low, high)
    graph = network(shape)
    problem = Problem(graph, Transformed(forms), classified_as(torch.zeros(1).long(), 10))
    bounder = Forward(single=graph.to(torch.float32))
    return {
        "shape": shape,
        "parameters": parameters,
        "transform": text_of(parameters, shape[1]),
        "gap": float((forms.upper - forms.lower)[0, 0].mean()),
        "constraints_seconds": timed(lambda: pixel_forms(transform, image, low, high), times),
        "bound_seconds": timed(lambda: bounder(problem), times),
    }


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Seconds over pixels, a line per number of parameters."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, key, title in (
        (axes[0], "constraints_seconds", "Linear constraints of all pixels"),
        (axes[1], "bound_seconds", "One box through a small network"),
    ):
        for parameters in range(1, len(STEPS) + 1):
            line = [row for row in rows if row["parameters"] == parameters]
            places = [torch.Size(row["shape"]).numel() for row in line]  # type: ignore[arg-type]
            name = f"{parameters} parameter" + "s" * (parameters > 1)
            axis.plot(places, [row[key] for row in line], marker="o", label=name)
        axis.set(title=title, xlabel="values in the image", xscale="log", yscale="log")
        axis.set_xticks(places, ["1x28²", "3x32²", "3x64²", "3x224²"])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("processor seconds")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    machine, rows = describe(1), []
    for shape in SHAPES:
        for parameters in range(1, len(STEPS) + 1):
            rows.append(measure(shape, parameters, arguments.times))
            print(json.dumps(rows[-1]), flush=True)  # noqa: T201
    if arguments.out is not None:
        arguments.out.write_text("".join(json.dumps({**row, **machine}) + "\n" for row in rows))
    if arguments.plot is not None:
        draw(rows, arguments.plot)


if __name__ == "__main__":
    main()
