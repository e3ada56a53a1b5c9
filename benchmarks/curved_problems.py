"""Tiny nets of sigmoids, products, softmaxes and others, with thresholds next to what they attain.

Nothing minimises such nets exactly. So a threshold is put next to the value of the best input that
a descent finds: where that value, to 500 binary digits, is at most the threshold, a proof is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.digits import gaps
from benchmarks.exact_problems import AWAY, ROWS, Problem
from benchmarks.provocative import CURVED, Net, Single, Step, affine, cancel

CURVES = ("Sigmoid", "Tanh", "times", "Softmax", "Gelu", "Sin", "max", "Exp")
SAMPLES = 300
ROUNDS = 8
"""Of a descent, each of as many samples around the best point, half as far away."""


def bent(generator: np.random.Generator, *, mild: bool) -> Net:
    """One to three inputs and two or three layers, at least one of them curved, others Relus."""
    inputs, width = int(generator.integers(1, 4)), 2 * int(generator.integers(1, 4))
    hidden = int(generator.integers(1, 3))
    ops = [str(generator.choice([*CURVES, "Relu"])) for _ in range(hidden)]
    if "Relu" in ops or hidden == 1:
        ops[int(generator.integers(hidden))] = str(generator.choice(CURVES))
    steps, size, layers = [], inputs, []
    for op in ops:
        layer = affine(generator, size, width)
        if op == "Exp":  # within what float32 holds
            scale = np.float32(max(1.0, float(np.abs(layer.weight).max())))
            layer = Step("affine", layer.weight / scale, np.clip(layer.bias, -2, 2))
        layers.append(layer)
        steps += [layer, Step(op)]
        size = width // 2 if op in ("times", "max") else width
    last = affine(generator, size, 2)
    if not mild and size > 1 and generator.random() < 0.4 and ops[-1] not in ("times", "max"):
        cancel(generator, layers[-1], last)
    return Net("curved", (inputs,), (*steps, last))


def doubles(net: Net, x: Tensor) -> Tensor:
    """Outputs in float64, (point, 2); only to find inputs that are worth a look."""
    for step in net.steps:
        half = x.shape[1] // 2
        if step.op == "affine":
            x = x @ torch.from_numpy(step.weight).double().T + torch.from_numpy(step.bias)
        elif step.op == "Relu":
            x = x.clamp(min=0)
        elif step.op == "times":
            x = x[:, :half] * x[:, half:]
        elif step.op == "max":
            x = torch.maximum(x[:, ::2], x[:, 1::2])
        else:
            x = CURVED[step.op](x)
    return x


def lowest(
    net: Net, low: Single, high: Single, row: tuple[int, int], generator: np.random.Generator
) -> Single:
    """A few inputs at which the row is small, the best first, (point, inputs)."""
    centre, radius = (low.astype(float) + high) / 2, (high.astype(float) - low) / 2
    best: Single | None = None
    for _ in range(ROUNDS):
        spread = np.clip(generator.uniform(-1.3, 1.3, (SAMPLES, len(low))), -1, 1)
        x = np.clip((centre + spread * radius).astype(np.float32), low, high)
        x = x if best is None else np.concatenate((best, x))
        with np.errstate(over="ignore", invalid="ignore"):
            values = doubles(net, torch.from_numpy(x).double()).numpy() @ np.array(row, dtype=float)
        order = np.nan_to_num(values, nan=np.inf).argsort()
        best, radius = np.asarray(x[order[:3]], dtype=np.float32), radius / 3
        centre = best[0].astype(float)
    assert best is not None
    return best


def curved_problems(seed: int, *, mild: bool = False) -> Iterator[Problem]:
    """Those of one net and box; none where its values are no float64."""
    generator = np.random.default_rng([seed, 14])
    net = bent(generator, mild=mild)
    inputs = net.shape[0]
    width = np.zeros(inputs)
    wide = generator.choice(inputs, min(inputs, int(generator.integers(1, 3))), replace=False)
    width[wide] = generator.choice([1e-6, 1e-3, 0.05, 0.3, 1.0], len(wide))
    centre = generator.standard_normal(inputs)
    low, high = ((centre + s * width).astype(np.float32) for s in (-1, 1))
    row = ROWS[0 if mild else int(generator.integers(len(ROWS)))]
    found = lowest(net, low, high, row, generator)
    places = np.clip(np.concatenate((found, [low, high])), low, high)
    values = [float(v) for v in gaps(net, places, row, 0.0)]
    least, size = min(values), max(abs(v) for v in values)
    if not 2.0**-900 < abs(least) < 2.0**100:
        return
    for away in generator.choice(AWAY, 2, replace=False):
        for side in (-1, 1):
            threshold = least + side * float(away) * size
            if away == 0:
                threshold = float(np.nextafter(least, side * np.inf))
            if not 2.0**-900 < abs(threshold) < 2.0**100:
                continue
            truth = any(gap <= 0 for gap in gaps(net, places, row, threshold))
            yield Problem(net, low, high, row, threshold, truth, places, curved=True)
