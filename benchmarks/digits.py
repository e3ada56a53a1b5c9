"""Nets with curved functions, evaluated to hundreds of binary digits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mpmath import mp, mpf

from benchmarks.provocative import Net, Single

DIGITS = 500
"""Binary; weights of 2^40 that cancel over a few layers cost a third of them."""
Number = Any
"""An mpf, of which mpmath tells a type checker nothing."""


def sigmoid(x: Number) -> Number:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + mp.exp(-x))


def gelu(x: Number) -> Number:
    """x Phi(x)."""
    return x * mp.erfc(-x / mp.sqrt(2)) / 2


def softmax(values: list[Number]) -> list[Number]:
    """Of all values."""
    most = max(values)
    powers = [mp.exp(v - most) for v in values]
    total = sum(powers)
    return [p / total for p in powers]


EACH: dict[str, Callable[[Number], Number]] = {
    "Relu": lambda x: max(x, mpf(0)),
    "Sigmoid": sigmoid,
    "Tanh": mp.tanh,
    "Gelu": gelu,
    "Sin": mp.sin,
    "Exp": mp.exp,
}
"""Of one entry."""


def gaps(net: Net, x: Single, row: Sequence[int], threshold: float) -> list[Number]:
    """row.y - threshold at inputs (point, entries); 2^-DIGITS of the largest term may be missing.

    Raises:
        ValueError: for a step without a rule here.
    """
    found = []
    with mp.workprec(DIGITS):
        weights = {
            i: (
                [[mpf(v) for v in r] for r in step.weight.tolist()],
                [*map(mpf, step.bias.tolist())],
            )
            for i, step in enumerate(net.steps)
            if step.op == "affine"
        }
        for point in x.tolist():
            values = [mpf(v) for v in point]
            for i, step in enumerate(net.steps):
                half = len(values) // 2
                if step.op == "affine":
                    values = [
                        mp.fdot(zip(r, values, strict=True)) + b
                        for r, b in zip(*weights[i], strict=True)
                    ]
                elif step.op in EACH:
                    values = [EACH[step.op](v) for v in values]
                elif step.op == "Softmax":
                    values = softmax(values)
                elif step.op == "times":
                    values = [a * b for a, b in zip(values[:half], values[half:], strict=True)]
                elif step.op == "max":
                    values = [max(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
                else:
                    raise ValueError(f"{step.op} is not for this judge")
            found.append(mp.fdot(zip(row, values, strict=True)) - mpf(threshold))
    return found
