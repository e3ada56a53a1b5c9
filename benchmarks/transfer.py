"""Do MI, NI, DI and TI transfer better than plain I-FGSM between digits nets?

    python -m benchmarks.transfer --eps 0.15 --norm inf

The two embedded example nets and three nets trained here, on the held-out digits. Each attack
takes ten steps; the mean transfer rate over all ordered pairs of different nets is compared with
I-FGSM's by a bootstrap of the images, in pairs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from attacks import IFGSM, MIFGSM, PGD, Attack, Ball, transfer_matrix
from attacks.protocol import Model
from attacks.transfer import Transfer, difference, mean_transfer
from benchmarks.machine import ROOT, describe
from examples.train import conv_net, load_splits
from verify.network import load
from verify.traverse import run

STEPS = 10
BASELINE = "ifgsm"


def attacks() -> dict[str, Attack]:
    """Ten steps each, none stops at its first find; TI 3 and 5 pixels wide on images of 8."""
    plain = IFGSM(steps=STEPS, step_size=1 / STEPS, early_stop=False)
    made: dict[str, Attack] = {BASELINE: plain}
    for name, nesterov in (("mi", False), ("ni", True)):
        for suffix, diversity, blur in (
            ("", 0.0, 0),
            ("-di", 0.5, 0),
            ("-ti3", 0.0, 3),
            ("-ti5", 0.0, 5),
            ("-di-ti3", 0.5, 3),
        ):
            made[f"{name}{suffix}"] = MIFGSM(
                steps=STEPS,
                nesterov=nesterov,
                diversity=diversity,
                smallest=0.8,
                blur_size=blur,
                early_stop=False,
            )
    made["pgd"] = PGD(early_stop=False)
    return made


def fitted(net: nn.Module, seed: int, epochs: int) -> nn.Module:
    """Trained on clean digits (batch, 1, 8, 8), full batches, without touching the generators."""
    split = load_splits()[0]
    x, y = torch.from_numpy(split.x)[:, None], torch.from_numpy(split.y)
    descent = torch.optim.Adam(net.parameters(), 5e-3)
    net.train()
    for _ in range(epochs):
        descent.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        descent.step()
    return net.eval().requires_grad_(False)


def trained() -> dict[str, Model]:
    """Three nets of different shapes and starts."""
    made: dict[str, Model] = {}
    with torch.random.fork_rng():
        for seed, name in enumerate(("dense", "tanh", "conv"), 1):
            torch.manual_seed(seed)
            if name == "conv":
                net: nn.Module = conv_net()
            else:
                kind = nn.ReLU if name == "dense" else nn.Tanh
                net = nn.Sequential(
                    nn.Flatten(),
                    nn.Linear(64, 80),
                    kind(),
                    nn.Linear(80, 40),
                    kind(),
                    nn.Linear(40, 10),
                )
            made[f"{name}-{seed}"] = fitted(net, seed, 150)
    return made


def embedded() -> dict[str, Model]:
    """The example files, taking images; their answers are our own graph's in float32."""
    made: dict[str, Model] = {}
    for name in ("digits_dense", "digits_conv"):
        graph = load(ROOT / "examples" / f"{name}.onnx").graph.to(torch.float32)
        shape = graph.input.shape

        def model(x: Tensor, graph: object = graph, shape: tuple[int, ...] = shape) -> Tensor:
            return run(graph, x.reshape(-1, *shape))

        made[name] = model
    return made


def of_found(result: Transfer) -> float:
    """The mean over pairs of different nets of fooled / found: apart from the attack's success."""
    pairs = ~torch.eye(len(result.targets), dtype=torch.bool)
    fooled, found = (
        kind[: len(result.targets)][pairs].sum(dim=1) for kind in (result.fooled, result.found)
    )
    return float((fooled / found).nanmean())


def show(results: list[Transfer], ball: Ball) -> list[dict[str, object]]:
    """Print how the attacks compare; returns the same as records."""
    base = next(r for r in results if r.attack == BASELINE)
    table = Table(
        title=f"mean transfer over pairs of different nets, eps {ball.eps:g}, p {ball.p:g}"
    )
    for heading in (
        "attack",
        "white box",
        "transfer",
        "95 %",
        "minus I-FGSM",
        "95 %",
        "verdict",
        "of found",
    ):
        table.add_column(heading, no_wrap=True)
    rows: list[dict[str, object]] = []
    for result in results:
        count = len(result.targets)
        mean, gain = mean_transfer(result), difference(result, base)
        white = float(result.rate[:count].diag().mean())
        verdict = "better" if gain.low > 0 else "worse" if gain.high < 0 else "undecided"
        if result is base:
            verdict = ""
        table.add_row(
            result.attack,
            f"{white:.3f}",
            f"{mean.value:.3f}",
            f"{mean.low:.3f}..{mean.high:.3f}",
            f"{gain.value:+.3f}",
            f"{gain.low:+.3f}..{gain.high:+.3f}",
            verdict,
            f"{of_found(result):.3f}",
        )
        rows.append(
            {
                "attack": result.attack,
                "white_box": white,
                "transfer": asdict(mean),
                "minus_ifgsm": asdict(gain),
                "of_found": of_found(result),
                "sources": result.sources,
                "targets": result.targets,
                "rate": result.rate.tolist(),
            }
        )
    Console(width=140).print(table)
    noise = base.rate[-1]
    print("noise of the same norm:", ", ".join(f"{float(v):.3f}" for v in noise))
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison that a command line describes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.transfer", description=__doc__.split("\n")[0])
    parser.add_argument("--eps", type=float, default=0.15)
    parser.add_argument("--norm", choices=("inf", "2"), default="inf")
    parser.add_argument("--limit", type=int, default=360)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(1)
    with np.load(ROOT / "examples" / "digits.npz") as held_out:
        x = torch.from_numpy(held_out["x"])[: given.limit, None]
        labels = torch.from_numpy(held_out["y"])[: given.limit]
    models = {**embedded(), **trained()}
    for name, model in models.items():
        right = float((model(x).argmax(dim=1) == labels).double().mean())
        print(f"{name}: accuracy {right:.4f}")
    ball = Ball(given.eps, math.inf if given.norm == "inf" else 2.0, 0.0, 1.0)
    results = transfer_matrix(models, x, labels, ball, attacks())
    rows = show(results, ball)
    if given.json:
        record = {"eps": given.eps, "norm": given.norm, "machine": describe(1), "attacks": rows}
        given.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
