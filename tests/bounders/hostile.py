"""Nets that deployed float32 arithmetic and exact arithmetic see differently."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from tests.contracts.executions import executions
from verify.graph.ir import Graph
from verify.readers.builder import GraphBuilder

Single = NDArray[np.float32]
WAYS = 30
"""How many executions `executions` yields."""
Layer = tuple[Sequence[Sequence[float]], Sequence[float]]


def dense(layers: Sequence[Layer]) -> Graph:
    """Weights and biases, rounded to float32, with Relu in between."""
    builder = GraphBuilder("x", (len(layers[0][0][0]),))
    name = "x"
    for i, (weight, bias) in enumerate(layers):
        constants = {
            "weight": torch.tensor(np.array(weight, dtype=np.float32)),
            "bias": torch.tensor(np.array(bias, dtype=np.float32)),
        }
        name = builder.add("Gemm", (name,), f"gemm{i}", tensors=constants)
        if i < len(layers) - 1:
            name = builder.add("Relu", (name,), f"relu{i}")
    return builder.build(name)


def backdoor_layers(big: float, small: float, order: Sequence[int] = (0, 1, 2)) -> list[Layer]:
    """Class 0 where `big·c0 - big·c1 + small` is `small`; class 1 where the small term is lost.

    Input 0 is the trigger pixel p. From p = 0.05 on, h = relu(1 - 20 p) is 0, c0 = relu(1 - 2 h) is
    1 and so is c1; the difference is `small` in exact arithmetic. Logits: difference / small, 1/2.

    Args:
        big: the absorbing weight.
        small: the absorbed one.
        order: of the three terms in the sum.

    Source:
        Zombori et al. 2021, Fooling a Complete Neural Network Verifier (ICLR).
    """
    rows = ([-2.0, 0.0], [0.0, 1.0], [0.0, 1.0])
    starts, terms = (1.0, 0.0, 0.0), (big, -big, small)
    return [
        ([[-20.0, 0.0], [0.0, 0.0]], [1.0, 1.0]),
        ([rows[k] for k in order], [starts[k] for k in order]),
        ([[terms[k] for k in order]], [0.0]),
        ([[1.0 / small], [0.0]], [0.0, 0.5]),
    ]


def order_layers(n: int) -> list[Layer]:
    """Class 0 if n ones survive beside 2^24; inputs are all 1.

    Added to 2^24 one by one, float32 loses every one of them.
    """
    weight = [2.0**24] + [1.0] * n
    return [([weight], [-(2.0**24)]), ([[1.0], [0.0]], [0.0, n / 2])]


def denormal_layers(tiny: float) -> list[Layer]:
    """Class 0 unless denormals are flushed: tiny·x·(0.01/tiny) in two steps, against 0.005."""
    up = (0.01 / tiny) ** 0.5
    return [([[tiny]], [0.0]), ([[up]], [0.0]), ([[up], [0.0]], [0.0, 0.005])]


def outputs(graph: Graph, x: Single, seed: int, tries: int = 30) -> NDArray[np.float32]:
    """Outputs of several float32 executions, another order and rounding each; (tries, classes)."""
    found = []
    for k in range(tries):
        value = x.astype(np.float32)[None]
        for node in graph.nodes[1:]:
            if node.op == "Relu":
                value = np.maximum(value, np.float32(0))
                continue
            weight, bias = node.tensors["weight"].numpy(), node.tensors["bias"].numpy()
            ways = executions(weight, bias, value, seed + k)
            with np.errstate(over="ignore", invalid="ignore"):
                value = next(islice(ways, k % WAYS, None))
        found.append(value[0])
    return np.stack(found)
