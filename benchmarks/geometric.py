"""Published networks under transformations: certified share, time, and soundness by sampling.

    python -m benchmarks.geometric --data /work/shared/data --limit 100 --out geometric.jsonl

One JSON line per network and transformation. Beside ours stand DeepG's published figures (Balunovic
et al. 2019, as re-run by Yang et al. 2023). Every certified image is then sampled: not one of its
transformations may be misclassified in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import torch

from benchmarks.machine import describe
from verify.geometric.certify import Settings, certify_image
from verify.geometric.linear_constraints import pixel_forms
from verify.geometric.transforms import parse_transform
from verify.network import load
from verify.values.budget import Budget

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
}


def images(folder: Path, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels in [0, 1], channels first, and labels."""
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
    started = time.perf_counter()
    for _ in range(20):
        forms = pixel_forms(transform, x[0], low, high, segments=8)
    seconds = (time.perf_counter() - started) / 20
    angles = torch.rand(1300, 1, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    seen = transform(x[:1].expand(1300, -1, -1, -1), angles).double()
    t = angles[:, :, None, None]
    under = forms.lower[0, 0] + t * forms.lower[0, 1]
    over = forms.upper[0, 0] + t * forms.upper[0, 1]
    return {
        "case": "deepg_example1",
        "gap": float((forms.upper - forms.lower)[0, 0].mean()),
        "interval_width": float((forms.bounds.upper - forms.bounds.lower).mean()),
        "seconds": seconds,
        "samples": seen.numel(),
        "violations": int(((seen < under) | (seen > over)).sum()),
        "published": "gap 0.005468 in 0.92 s on 20 threads, optimum 0.005439",
    }


def case(folder: Path, name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """One network under one transformation."""
    file, kind, text, published = CASES[name]
    network, transform = load(folder / "geometric" / f"{file}.onnx"), parse_transform(text)
    x, labels = images(folder, kind)
    x, labels = x[: arguments.limit], labels[: arguments.limit]
    right = (network.judge.predict(x) == labels).nonzero().flatten().tolist()
    counts = {"verified": 0, "falsified": 0, "unknown": 0}
    seconds, processor, boxes, wrong, samples = 0.0, 0.0, 0, 0, 0
    settings = Settings(method=arguments.method, tolerance=None)
    for i in right:
        started = time.process_time()
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
        processor += time.process_time() - started
        counts[found.verdict.value] += 1
        seconds, boxes = seconds + found.seconds, boxes + found.boxes
        if found.verdict.value != "verified":
            continue
        generator = torch.Generator().manual_seed(i)
        for start in range(0, arguments.samples, 1000):
            some = min(1000, arguments.samples - start)
            unit = torch.rand(some, len(transform.steps), generator=generator).double()
            parameters = transform.low + unit * (transform.high - transform.low)
            seen = transform(x[i].expand(some, -1, -1, -1), parameters)
            wrong += int(network.judge.misclassified(seen, labels[i].expand(some)).sum())
            samples += some
    return {
        "case": name,
        "transform": text,
        "images": len(x),
        "correct": len(right),
        **counts,
        "seconds_per_image": seconds / max(1, len(right)),
        "processor_seconds_per_image": processor / max(1, len(right)),
        "boxes_per_image": boxes / max(1, len(right)),
        "samples": samples,
        "misclassified_samples": wrong,
        "method": arguments.method,
        "published": published,
    }


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--method", default="forward")
    parser.add_argument("--timeout", type=float, default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    machine = describe(arguments.threads)
    names = arguments.cases.split(",")
    found = [example(arguments.data)] if "example" in names or len(names) == len(CASES) else []
    for name in names:
        if name != "example":
            found.append(case(arguments.data, name, arguments))
            print(json.dumps(found[-1]), flush=True)  # noqa: T201
    for row in found[:1]:
        print(json.dumps(row), flush=True)  # noqa: T201
    if arguments.out is not None:
        arguments.out.write_text("".join(json.dumps({**row, **machine}) + "\n" for row in found))


if __name__ == "__main__":
    main()
