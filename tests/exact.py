"""The judge of small nets: exact minima by mixed-integer programming, on paths of its own.

Nothing of the library's bounds or programs is used: the big-M constants are intervals computed
here, the solver is scipy's. Its answers hold up to HiGHS's tolerance, `FEASIBILITY`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from verify.graph.ir import Graph

Vector = NDArray[np.float64]
FEASIBILITY = 1e-6
"""HiGHS's default tolerance on constraints, with the layers' weights of order 1."""


class NoOracle(Exception):
    """HiGHS itself gave up on a model."""


@dataclass(frozen=True)
class Layer:
    """A dense layer behind a function with slopes below and above 0."""

    weight: Vector
    bias: Vector
    below: float
    above: float


def layers(graph: Graph) -> list[Layer]:
    """Those of a net of dense layers with Relu or TwoPiece between; the last one's slopes are 1."""
    found = []
    for node in graph.nodes[1:]:
        if node.op == "Gemm":
            weight, bias = node.tensors["weight"].numpy(), node.tensors["bias"].numpy()
            found.append(Layer(weight, bias, 1.0, 1.0))
        elif node.op == "Relu":
            found[-1] = Layer(found[-1].weight, found[-1].bias, 0.0, 1.0)
        elif node.op == "TwoPiece":
            below, above = float(node.tensors["below"]), float(node.tensors["above"])
            found[-1] = Layer(found[-1].weight, found[-1].bias, below, above)
        elif node.op != "Reshape":
            raise ValueError(f"{node.op} is not for this judge")
    return found


def least_worst(
    graph: Graph,
    low: Vector,
    high: Vector,
    rows: Vector,
    const: Vector,
    inputs: tuple[Vector, Vector] | None = None,
) -> tuple[float, Vector]:
    """min over the box of the largest of rows·f(x) + const, and where; inf if no x is allowed.

    Args:
        graph: see `layers`.
        low, high: the box.
        rows, const: over the output.
        inputs: g and h of constraints g·x + h <= 0.

    Variables: x, then per hidden layer r = relu(z) and its binary a, then the largest row t:
    r >= z, r >= 0, r <= z - l(1 - a), r <= u·a; the layer's value is below·z + (above - below)·r.
    """
    *hidden, last = layers(graph)
    total = len(low) + 2 * sum(len(layer.bias) for layer in hidden) + 1
    lower, upper, integer = np.full(total, -np.inf), np.full(total, np.inf), np.zeros(total)
    lower[: len(low)], upper[: len(low)] = low, high
    value, offset = np.eye(len(low), total), np.zeros(len(low))
    value_low, value_high = low, high
    first = len(low)
    blocks, least, most = [], [], []

    def add(block: Vector, at_least: Vector | float, at_most: Vector | float) -> None:
        blocks.append(block)
        least.append(np.broadcast_to(at_least, len(block)))
        most.append(np.broadcast_to(at_most, len(block)))

    for layer in hidden:
        count = len(layer.bias)
        z, shift = layer.weight @ value, layer.weight @ offset + layer.bias
        plus, minus = np.maximum(layer.weight, 0), np.minimum(layer.weight, 0)
        z_low = plus @ value_low + minus @ value_high + layer.bias - 1e-6
        z_high = plus @ value_high + minus @ value_low + layer.bias + 1e-6
        r, a = np.eye(count, total, first), np.eye(count, total, first + count)
        under, over = np.minimum(z_low, 0), np.maximum(z_high, 0)
        lower[first : first + count], upper[first : first + count] = 0, over
        lower[first + count : first + 2 * count] = z_low >= 0
        upper[first + count : first + 2 * count] = z_high > 0
        integer[first + count : first + 2 * count] = 1
        add(r - z, shift, np.inf)
        add(r - z - under[:, None] * a, -np.inf, shift - under)
        add(r - over[:, None] * a, -np.inf, 0.0)
        value = layer.below * z + (layer.above - layer.below) * r
        offset = layer.below * shift
        ends = [
            layer.below * np.minimum(v, 0) + layer.above * np.maximum(v, 0) for v in (z_low, z_high)
        ]
        crossing = (z_low < 0) & (z_high > 0)
        value_low = np.where(crossing, np.minimum(np.minimum(*ends), 0), np.minimum(*ends))
        value_high = np.where(crossing, np.maximum(np.maximum(*ends), 0), np.maximum(*ends))
        first += 2 * count
    output, shift = last.weight @ value, last.weight @ offset + last.bias
    top = np.eye(1, total, total - 1)
    add(rows @ output - top, -np.inf, -(rows @ shift + const))
    if inputs is not None and len(inputs[1]):
        g, h = inputs
        add(np.hstack([g, np.zeros((len(g), total - len(low)))]), -np.inf, -h)
    constraints = LinearConstraint(
        np.concatenate(blocks), np.concatenate(least), np.concatenate(most)
    )
    for presolve in (True, False):  # either stumbles over a few of these tiny models
        found = milp(
            top[0],
            constraints=constraints,
            bounds=Bounds(lower, upper),
            integrality=integer,
            options={"mip_rel_gap": 0.0, "presolve": presolve},
        )
        if found.success:
            return float(found.fun), found.x[: len(low)]
        if found.status == 2:
            return np.inf, np.full(len(low), np.nan)
    raise NoOracle(found.message)
