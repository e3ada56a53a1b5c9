"""Published networks under transformations: certified share, time, and soundness by sampling.

    python -m benchmarks.geometric --data /work/shared/data --out geometric.jsonl
    python -m benchmarks.geometric --data /work/shared/data --out geometric.jsonl --samples 100000

One JSON line per image, and a summary per network and transformation; a run that was cut off goes
on where it was. The second command samples what the first certified. Beside ours stand DeepG's
published figures (Balunovic et al. 2019, as re-run by Yang et al. 2023).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch

from benchmarks.geometric_points import crossings
from benchmarks.machine import describe
from verify.geometric.certify import Settings, certify_image
from verify.geometric.linear_constraints import pixel_forms
from verify.geometric.transforms import Transform, parse_transform
from verify.memory import keep_freed_memory
from verify.network import load
from verify.readers.examples import example_path
from verify.values.budget import Budget

Row = dict[str, Any]
SMALL = "shear(-.02,.02) rotation(-2,2) scale(.98,1.02) contrast(.98,1.02) brightness(-.001,.001)"
LARGE = "scale(.95,1.05) rotation(-5,5) contrast(.95,1.05) brightness(-.01,.01)"
CASES = {
    "mnist_r30": ("mnist_r30", "mnist", "rotation(-30,30)", "86 of 98, 19.1 s"),
    "mnist_cgt_r30": ("mnist_cgt_r30", "mnist", "rotation(-30,30)", "94.2 % of the test set (GPU)"),
    "mnist_t22": ("mnist_t22", "mnist", "translation(-2,2)", "77 of 100, 367.8 s (half pixels)"),
    "mnist_t11": ("mnist_t22", "mnist", "translation(-1,1)", "77 of 100, 367.8 s"),
    "cifar_r10": ("cifar_r10", "cifar10", "rotation(-10,10)", "65 of 74, 78.2 s"),
    "mnist_small": ("mnist_r30", "mnist", SMALL, "72 of 100, 71.7 s (its own network)"),
    "mnist_large": ("mnist_r30", "mnist", LARGE, "34 of 100, 155.2 s (its own network)"),
    "digits_small": ("digits_conv", "digits", SMALL, "-"),
    "digits_large": ("digits_conv", "digits", LARGE, "-"),
}


def network_file(folder: Path, name: str) -> Path:
    """The published networks lie in the data folder, the example in the package."""
    return (
        example_path(f"{name}.onnx")
        if name.startswith("digits")
        else (folder / "geometric" / f"{name}.onnx")
    )


def images(folder: Path, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels in [0, 1], channels first, and labels."""
    if kind == "digits":
        held = np.load(example_path("digits.npz"))
        x, labels = torch.from_numpy(held["x"]).float(), torch.from_numpy(held["y"]).long()
        return x.view(-1, 1, 8, 8), labels
    with (folder / "images" / f"{kind}_test_100.csv").open() as stream:
        rows = torch.tensor([[float(cell) for cell in row] for row in csv.reader(stream)])
    x = rows[:, 1:] / 255
    x = x.view(-1, 1, 28, 28) if kind == "mnist" else x.view(-1, 32, 32, 3).permute(0, 3, 1, 2)
    return x.contiguous(), rows[:, 0].long()


def example(folder: Path) -> dict[str, object]:
    """DeepG's own example: MNIST image 0, rotation by one degree; its mean gap is 0.005468."""
    x, _ = images(folder, "mnist")
    transform = parse_transform("rotation(-1,1)")
    low, high = transform.low[None], transform.high[None]
    seconds, processor = [], []
    for _ in range(30):
        wall, used = time.perf_counter(), time.process_time()
        forms = pixel_forms(transform, x[0], low, high, segments=12)
        seconds.append(time.perf_counter() - wall)
        processor.append(time.process_time() - used)
    angles = torch.rand(1300, 1, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    angles = torch.cat(
        (angles, crossings(transform, x[0].shape), low, high, -torch.zeros_like(low))
    )
    seen = transform(x[:1].expand(len(angles), -1, -1, -1), angles).double()
    t = angles[:, :, None, None]
    under = forms.lower[0, 0] + t * forms.lower[0, 1]
    over = forms.upper[0, 0] + t * forms.upper[0, 1]
    return {
        "case": "deepg_example1",
        "gap": float((forms.upper - forms.lower)[0, 0].mean()),
        "interval_width": float((forms.bounds.upper - forms.bounds.lower).mean()),
        "wall_seconds": median(seconds),
        "processor_seconds": median(processor),
        "samples": seen.numel(),
        "violations": int(((seen < under) | (seen > over)).sum()),
        "published": "gap 0.005468 in 0.92 s on 20 threads, optimum 0.005439",
    }


def certified(folder: Path, name: str, arguments: argparse.Namespace) -> Iterator[Row]:
    """One network under one transformation, image by image; those written already are left out."""
    file, kind, text, _ = CASES[name]
    network, transform = load(network_file(folder, file)), parse_transform(text)
    x, labels = images(folder, kind)
    x, labels = x[: arguments.limit], labels[: arguments.limit]
    right = (network.judge.predict(x) == labels).nonzero().flatten().tolist()
    settings = Settings(method=arguments.method, tolerance=None)
    known = {row["index"] for row in written(arguments.out) if row["case"] == name}
    for i in right:
        if i in known:
            continue
        wall, processor = time.perf_counter(), time.process_time()
        found = certify_image(
            network.graph,
            network.judge,
            x[i],
            int(labels[i]),
            transform,
            settings=settings,
            budget=Budget().within(arguments.timeout),
            index=i,
        )
        processor, wall = time.process_time() - processor, time.perf_counter() - wall
        yield {
            "case": name,
            "index": i,
            "verdict": found.verdict.value,
            "margin": None if math.isnan(found.margin) else found.margin,
            "boxes": found.boxes,
            "processor_seconds": processor,
            "wall_seconds": wall,
            "parameters": found.parameters,
            "images": len(x),
            "correct": len(right),
        }


def sampled(folder: Path, name: str, arguments: argparse.Namespace) -> Iterator[Row]:
    """Certified images again, those of the least certified margin first; see `points`.

    Not one of them may be misclassified in ONNX Runtime.
    """
    file, kind, text, _ = CASES[name]
    network, transform = load(network_file(folder, file)), parse_transform(text)
    x, labels = images(folder, kind)
    rows = [row for row in written(arguments.out) if row["case"] == name]
    done = {row["index"] for row in rows if "samples" in row}
    sure = {row["index"]: row["margin"] for row in rows if row.get("verdict") == "verified"}
    nearest = sorted(sure.keys() - done, key=sure.__getitem__)
    for i in nearest[: arguments.sample_images]:
        wrong, count, borders, start = 0, 0, 0, time.process_time()
        while count < arguments.samples:
            parameters, bordering = points(transform, x[i], seed=i * 10**6 + count)
            many = len(parameters)
            seen = transform(x[i].expand(many, -1, -1, -1), parameters)
            wrong += int(network.judge.misclassified(seen, labels[i].expand(many)).sum())
            count, borders = count + many, borders + bordering
        yield {
            "case": name,
            "index": i,
            "samples": count,
            "at_borders": borders,
            "misclassified": wrong,
            "sampling_seconds": time.process_time() - start,
        }


def points(transform: Transform, image: torch.Tensor, seed: int) -> tuple[torch.Tensor, int]:
    """Parameters where cells begin and end, ends, eighths of the range and random ones.

    Returns:
        About 1000 of them, and how many lie at a cell's border or a bit beside it.
    """
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(500, len(transform.steps), generator=generator).double()
    unit[:100] = (unit[:100] * 8).round() / 8
    borders = crossings(transform, image.shape, count=120, seed=seed)
    inside = transform.low + unit * (transform.high - transform.low)
    return torch.cat((inside, borders)), len(borders)


def summary(name: str, rows: list[Row]) -> Row:
    """Counts, and seconds an image: mean, median, largest."""
    asked = [row for row in rows if "verdict" in row]
    counts = {
        verdict: sum(row["verdict"] == verdict for row in asked)
        for verdict in ("verified", "falsified", "unknown")
    }
    times = {
        f"{what}_{kind}": round(function([row[f"{kind}_seconds"] for row in asked]), 3)
        for kind in ("processor", "wall")
        for what, function in (("mean", mean), ("median", median), ("most", max))
    }
    checked = [row for row in rows if "samples" in row]
    return {
        "case": name,
        "transform": CASES[name][2],
        "images": asked[0]["images"],
        "correct": asked[0]["correct"],
        **counts,
        **times,
        "mean_boxes": round(mean([row["boxes"] for row in asked]), 1),
        "samples": sum(row["samples"] for row in checked),
        "sampled_images": len(checked),
        "at_borders": sum(row["at_borders"] for row in checked),
        "misclassified": sum(row["misclassified"] for row in checked),
        "published": CASES[name][3],
    }


def written(path: Path | None) -> list[Row]:
    """What a run wrote so far."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> None:
    """Run, write image by image, and sum up what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", default=",".join(("example", *CASES)))
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--samples", type=int, default=0, help="per certified image, afterwards")
    parser.add_argument("--sample-images", type=int, default=None, help="certified ones at most")
    parser.add_argument("--method", default="forward")
    parser.add_argument("--timeout", type=float, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; a run goes on there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    machine = describe(arguments.threads)
    for name in arguments.cases.split(","):
        if name == "example":
            print(json.dumps(example(arguments.data)), flush=True)  # noqa: T201
            continue
        work = sampled if arguments.samples else certified
        for row in work(arguments.data, name, arguments):
            with arguments.out.open("a") as stream:
                stream.write(json.dumps({**row, **machine}) + "\n")
        rows = [row for row in written(arguments.out) if row["case"] == name]
        print(json.dumps(summary(name, rows)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
