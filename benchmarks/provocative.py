"""Small random networks that provoke rounding, and what exact and float32 arithmetic make of them.

A net is a list of steps over flat vectors, from which the graph that a bounder sees is built; a
convolution stands there as its unrolled matrix, so the judges share no code with the library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.graph.ir import Graph
from verify.readers.builder import GraphBuilder

Single = NDArray[np.float32]
Double = NDArray[np.float64]
KINDS = ("dense", "deep", "conv", "residual", "maxpool", "sigmoid", "tanh")
EXACT = ("dense", "deep", "conv", "residual", "maxpool")
"""Kinds whose outputs are rational."""
CURVED: dict[str, Callable[[Tensor], Tensor]] = {
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Softmax": lambda x: x.softmax(dim=-1),
    "Gelu": lambda x: x * torch.special.erfc(x * -(0.5**0.5)) / 2,
    "Sin": torch.sin,
    "Exp": torch.exp,
}
"""In float64; their outputs are not rational."""
SMALLEST = np.float32(2.0**-126)
SHIFT = 149
"""Every float32 is a whole number of 2^-149."""
WAYS = 10


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One operation on a flat vector.

    Attributes:
        op: "affine", "Relu", a key of `CURVED`, "keep" and "add" (a residual), "times" (the first
            half by the second), or "max" (of neighbouring pairs along the last axis).
        weight, bias: of an affine step, (out, in) and (out,), float32.
        kernel: its kernel if it is a convolution of 2 x 2.
    """

    op: str
    weight: Single = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    bias: Single = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    kernel: Single | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Net:
    """A net of two outputs; `shape` is that of its input."""

    kind: str
    shape: tuple[int, ...]
    steps: tuple[Step, ...]


def numbers(generator: np.random.Generator, *shape: int) -> Single:
    """Normal or whole numbers, mostly near 1, some at a scale from 1e-8 to 1e8."""
    raw = generator.standard_normal(shape)
    raw = np.round(2 * raw) if generator.random() < 0.2 else raw
    power = generator.uniform(-8, 8) if generator.random() < 0.3 else 0.0
    return np.asarray(raw * 10.0**power, dtype=np.float32)


def affine(generator: np.random.Generator, size: int, out: int) -> Step:
    """A dense step."""
    return Step("affine", numbers(generator, out, size), numbers(generator, out))


def convolution(generator: np.random.Generator, side: int, out: int) -> Step:
    """A 2 x 2 convolution of one channel of side x side, with its unrolled matrix."""
    kernel, bias = numbers(generator, out, 1, 2, 2), numbers(generator, out)
    if generator.random() < 0.5:
        big = np.float32(2.0 ** generator.uniform(8, 40))
        kernel[0, 0, 0, 0], kernel[0, 0, 1, 1] = big, -big
    n = side - 1
    weight = np.zeros((out, n, n, side, side), dtype=np.float32)
    for i in range(n):
        for j in range(n):
            weight[:, i, j, i : i + 2, j : j + 2] = kernel[:, 0]
    return Step("affine", weight.reshape(out * n * n, -1), np.repeat(bias, n * n), kernel)


def cancel(generator: np.random.Generator, before: Step, after: Step) -> None:
    """Two neurons that are copies, and leave with large weights of opposite signs."""
    a, b = generator.choice(len(before.bias), 2, replace=False)
    if before.kernel is None:
        before.weight[b], before.bias[b] = before.weight[a], before.bias[a]
    big = 2.0 ** generator.uniform(8, 40, len(after.bias))
    after.weight[:, a] = (big * generator.choice([1, -1], len(big))).astype(np.float32)
    after.weight[:, b] = -after.weight[:, a]


def make(kind: str, seed: int) -> Net:
    """The net of that kind and seed."""
    g = np.random.default_rng([KINDS.index(kind), seed])
    inputs, width = int(g.integers(1, 5)), int(g.integers(3, 9))
    act = Step({"sigmoid": "Sigmoid", "tanh": "Tanh"}.get(kind, "Relu"))
    shape: tuple[int, ...] = (inputs,)
    if kind in ("conv", "maxpool"):
        shape = (1, 3, 3)
        first = convolution(g, 3, 2)
        pool = (Step("max"),) if kind == "maxpool" else ()
        size = 4 if kind == "maxpool" else 8
        last = affine(g, size, 2)
        steps = (first, act, *pool, last)
        if g.random() < 0.6 and not pool:
            cancel(g, first, last)
        return Net(kind, shape, steps)
    first, last = affine(g, inputs, width), affine(g, width, 2)
    middle: tuple[Step, ...] = ()
    if kind == "deep":
        middle = (affine(g, width, width), act, affine(g, width, width), act)
    if kind == "residual":
        middle = (Step("keep"), affine(g, width, width), Step("add"), act)
    chosen = [step for step in (first, *middle, last) if step.op == "affine"]
    if g.random() < 0.7:
        k = int(g.integers(0, len(chosen) - 1))
        cancel(g, chosen[k], chosen[k + 1])
    return Net(kind, shape, (first, act, *middle, last))


def graph_of(net: Net) -> Graph:
    """The same as the library's graph."""
    builder = GraphBuilder("x", net.shape)
    name = kept = "x"
    for i, step in enumerate(net.steps):
        if step.op == "keep":
            kept = name
        elif step.op == "add":
            name = builder.add("Add", (name, kept), f"s{i}", settings={"signs": (1, 1)})
        elif step.op == "max":
            name = pooled(builder, name, f"p{i}")
        elif step.op == "times":
            half = builder.shape(name)[0] // 2
            sides = [
                builder.add(
                    "Select",
                    (name,),
                    f"h{i}",
                    tensors={"index": torch.arange(first, first + half)},
                    settings={"axis": (0,)},
                )
                for first in (0, half)
            ]
            name = builder.add("Mul", tuple(sides), f"m{i}")
        elif step.op != "affine":
            name = builder.add(step.op, (name,), f"a{i}")
        elif step.kernel is not None:
            places = len(step.bias) // len(step.kernel)
            bias = torch.tensor(step.bias[::places].copy())
            constants = {"weight": torch.tensor(step.kernel), "bias": bias}
            settings = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": (1,)}
            name = builder.add("Conv", (name,), f"c{i}", tensors=constants, settings=settings)
        else:
            shape = builder.shape(name)
            if len(shape) > 1:
                flat = (int(np.prod(shape)),)
                name = builder.add("Reshape", (name,), f"f{i}", shape=flat)
            constants = {"weight": torch.tensor(step.weight), "bias": torch.tensor(step.bias)}
            name = builder.add("Gemm", (name,), f"g{i}", tensors=constants)
    return builder.build(name)


def pooled(builder: GraphBuilder, name: str, wished: str) -> str:
    """The larger of pairs: of a picture, or of a flat vector seen as one."""
    shape = builder.shape(name)
    flat = len(shape) == 1
    if flat:
        name = builder.add("Reshape", (name,), f"{wished}s", shape=(1, *shape))
    kernel = (2,) if flat else (1, 2)
    ones, none = tuple(1 for _ in kernel), (0,) * (2 * len(kernel))
    settings = {"kernel": kernel, "stride": kernel, "pads": none, "dilation": ones}
    name = builder.add("MaxPool", (name,), wished, settings=settings)
    size = int(np.prod(builder.shape(name)))
    return builder.add("Reshape", (name,), f"{wished}f", shape=(size,)) if flat else name


def whole(values: Single) -> NDArray[np.object_]:
    """float32 numbers in units of 2^-149, as Python integers."""
    flat = [n << SHIFT >> (d.bit_length() - 1) for n, d in map(ratio, values.ravel().tolist())]
    return np.array(flat, dtype=object).reshape(values.shape)


def ratio(value: float) -> tuple[int, int]:
    """Numerator, and denominator, a power of two."""
    return value.as_integer_ratio()


def exactly(net: Net, x: Single) -> list[list[Fraction]]:
    """The outputs of inputs (point, entries) in rational numbers."""
    values, unit = whole(x), SHIFT
    kept, kept_unit = values, unit
    for step in net.steps:
        if step.op == "affine":
            values = values.dot(whole(step.weight).T) + (whole(step.bias) << unit)
            unit += SHIFT
        elif step.op == "Relu":
            values = np.maximum(values, 0)
        elif step.op == "keep":
            kept, kept_unit = values, unit
        elif step.op == "add":
            values = values + (kept << (unit - kept_unit))
        elif step.op == "times":
            left, right = np.split(values, 2, axis=1)
            values, unit = left * right, 2 * unit
        elif step.op == "max":
            values = np.maximum(values[:, ::2], values[:, 1::2])
    return [[Fraction(int(v), 1 << unit) for v in row] for row in values]


def executed(net: Net, x: Single, generator: np.random.Generator) -> list[Single]:
    """Outputs of several float32 executions, each (point, 2)."""
    found = []
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for way in range(WAYS):
            flush = way % 5 == 4
            values = kept = flushed(x, flush)
            for step in net.steps:
                if step.op == "affine":
                    values = summed(values, step, way, generator)
                elif step.op == "keep":
                    kept = values
                elif step.op == "add":
                    values = flushed(values + kept, flush)
                elif step.op == "max":
                    values = np.maximum(values[:, ::2], values[:, 1::2])
                elif step.op == "times":
                    left, right = np.split(values, 2, axis=1)
                    values = flushed(left * right, flush)
                elif step.op == "Relu":
                    values = np.maximum(values, np.float32(0))
                else:
                    wide = CURVED[step.op](torch.from_numpy(values.astype(np.float64)))
                    values = wide.numpy().astype(np.float32)
            found.append(values)
    return found


def flushed(values: Single, flush: bool) -> Single:
    """Denormals as zero, if asked."""
    if not flush:
        return values
    return np.where(np.abs(values) < SMALLEST, np.float32(0), values).astype(np.float32)


def summed(x: Single, step: Step, way: int, generator: np.random.Generator) -> Single:
    """One affine step: order, tree, place of the bias and fusing vary with the way."""
    weight, bias, flush = step.weight, step.bias, way % 5 == 4
    size = np.abs(weight).max(axis=0)
    order = (
        (np.argsort(size), np.argsort(-size))[way] if way < 2 else generator.permutation(len(size))
    )
    first = way % 2 == 0
    total = np.broadcast_to(bias if first else np.float32(0) * bias, (len(x), len(bias)))
    if way % 5 == 3:  # fused: the product is exact in float64, then one rounding
        for k in order:
            wide = x[:, k, None].astype(np.float64) * weight[None, :, k] + total
            total = wide.astype(np.float32)
    elif way % 5 == 2:  # a balanced tree
        terms = x[:, None, order] * weight[None][..., order]
        while terms.shape[-1] > 1:
            if terms.shape[-1] % 2:
                terms = np.concatenate((terms, np.zeros_like(terms[..., :1])), axis=-1)
            terms = terms[..., ::2] + terms[..., 1::2]
        total = terms[..., 0] + total
    else:
        for k in order:
            total = flushed(total + flushed(x[:, k, None] * weight[None, :, k], flush), flush)
    return np.asarray(total if first else total + bias, dtype=np.float32)
