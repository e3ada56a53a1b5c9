"""Tiny nets with thresholds next to an exact minimum, what leaves their function alone, and files.

See `benchmarks.exact_fuzz`, which asks searches about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.exact_minimum import least
from benchmarks.provocative import Net, Single, Step, affine, cancel, exactly

ROWS = ((1, 0), (1, -1), (-1, 1))
AWAY = (0.0, 1e-12, 1e-9, 1e-7, 1e-6, 1e-5, 1e-3, 1e-2)
"""How far a threshold is from the minimum, relative to the row's size; 0: one rounding."""
DEAD = 2
"""Neurons added that are never positive."""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Is row·y at most the threshold somewhere in the box?

    Attributes:
        net: two outputs.
        low, high: corners of the box, shape (inputs,).
        row, threshold: as said.
        truth: whether it is, in real arithmetic.
        places: inputs at which a float32 execution is likeliest to be.
    """

    net: Net
    low: Single
    high: Single
    row: tuple[int, int]
    threshold: float
    truth: bool
    places: Single


def tiny(generator: np.random.Generator, *, mild: bool = False) -> Net:
    """Two to four inputs, one to three layers of three to six neurons; mild: none that cancel."""
    inputs, width = (int(v) for v in (generator.integers(2, 5), generator.integers(3, 7)))
    sizes = [inputs, *[width] * int(generator.integers(1, 4)), 2]
    layers = [affine(generator, a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
    if generator.random() < 0.6 and not mild:
        k = int(generator.integers(0, len(layers) - 1))
        cancel(generator, layers[k], layers[k + 1])
    steps = [part for layer in layers for part in (layer, Step("Relu"))][:-1]
    return Net("dense", (inputs,), tuple(steps))


def problems(seed: int, *, mild: bool = False) -> Iterator[Problem]:
    """Those of one net and box; none where the exact minimum is no float64."""
    generator = np.random.default_rng([seed, 11])
    net = tiny(generator, mild=mild)
    inputs = net.shape[0]
    width = np.zeros(inputs)
    wide = generator.choice(inputs, int(generator.integers(1, 3)), replace=False)
    width[wide] = generator.choice([1e-6, 1e-3, 0.05, 0.3, 1.0], len(wide))
    scale = 10.0 ** generator.choice([0.0, 0.0, 0.0, -4.0, 4.0])
    centre = generator.standard_normal(inputs)
    low, high = (((centre + s * width) * scale).astype(np.float32) for s in (-1, 1))
    # The checker's language has no weights: there the row is the first output alone.
    row = ROWS[0 if mild else int(generator.integers(len(ROWS)))]
    minimum, where = least(net, low, high, row)
    if not 2.0**-900 < abs(float(minimum)) < 2.0**900:
        return
    places = np.array([[float(v) for v in where], low, high, (low + high) / 2], dtype=np.float32)
    places = np.clip(places, low, high)
    size = Fraction(max(abs(v) for y in exactly(net, places) for v in y))
    for away in generator.choice(AWAY, 2, replace=False):
        for side in (-1, 1):
            shifted = minimum + side * Fraction(float(away)) * size
            threshold = float(shifted)
            if away == 0 or Fraction(threshold) == minimum:
                threshold = float(np.nextafter(threshold, side * np.inf))
            if not 2.0**-900 < abs(threshold) < 2.0**900:
                continue
            truth = minimum <= Fraction(threshold)
            yield Problem(net, low, high, row, threshold, truth, places)


def permuted(net: Net, generator: np.random.Generator) -> Net:
    """Hidden neurons in another order."""
    steps, order = [], None
    layers = [step for step in net.steps if step.op == "affine"]
    for i, step in enumerate(layers):
        weight = step.weight if order is None else step.weight[:, order]
        last = i == len(layers) - 1
        order = np.arange(len(step.bias)) if last else generator.permutation(len(step.bias))
        steps += [replace(step, weight=weight[order], bias=step.bias[order]), Step("Relu")]
    return replace(net, steps=tuple(steps[:-1]))


def scaled(net: Net, generator: np.random.Generator) -> Net | None:
    """One layer 2^k times larger and the next as much smaller; None where a float32 changes."""
    first = 2 * int(generator.integers(len(net.steps) // 2))
    power = np.float32(2.0 ** int(generator.integers(1, 12)))
    steps = list(net.steps)
    here, after = steps[first], steps[first + 2]
    with np.errstate(over="ignore", under="ignore"):
        larger = replace(here, weight=here.weight * power, bias=here.bias * power)
        smaller = replace(after, weight=after.weight / power)
        kept = np.array_equal(larger.weight / power, here.weight)
        kept &= np.array_equal(larger.bias / power, here.bias)
        kept &= np.array_equal(smaller.weight * power, after.weight)
    if not kept:
        return None
    steps[first], steps[first + 2] = larger, smaller
    return replace(net, steps=tuple(steps))


def with_dead(net: Net, generator: np.random.Generator) -> Net:
    """Neurons that are never positive, with weights behind them."""
    first = 2 * int(generator.integers(len(net.steps) // 2))
    steps = list(net.steps)
    here, after = steps[first], steps[first + 2]
    never = np.zeros((DEAD, here.weight.shape[1]), dtype=np.float32)
    behind = generator.standard_normal((len(after.bias), DEAD)).astype(np.float32)
    below = -np.abs(generator.standard_normal(DEAD)).astype(np.float32)
    steps[first] = replace(
        here, weight=np.vstack([here.weight, never]), bias=np.append(here.bias, below)
    )
    steps[first + 2] = replace(after, weight=np.hstack([after.weight, behind]))
    return replace(net, steps=tuple(steps))


CHANGES: dict[str, Callable[[Net, np.random.Generator], Net | None]] = {
    "permuted": permuted,
    "scaled": scaled,
    "dead": with_dead,
}


def halves(asked: Problem) -> list[Problem]:
    """The box in two parts, each with a truth of its own."""
    axis = int((asked.high - asked.low).argmax())
    middle = np.float32(asked.low[axis] / 2 + asked.high[axis] / 2)
    below, above = asked.high.copy(), asked.low.copy()
    below[axis] = above[axis] = middle
    parts = []
    for low, high in ((asked.low, below), (above, asked.high)):
        truth = least(asked.net, low, high, asked.row)[0] <= Fraction(asked.threshold)
        places = np.clip(asked.places, low, high)
        parts.append(replace(asked, low=low, high=high, truth=truth, places=places))
    return parts


def value_of(row: tuple[int, int], y: list[Fraction]) -> Fraction:
    """row·y."""
    return sum((c * v for c, v in zip(row, y, strict=True)), Fraction(0))


def model_of(net: Net) -> bytes:
    """The net as an ONNX file."""
    nodes, constants, name = [], [], "x"
    for i, step in enumerate(net.steps):
        result = "y" if i == len(net.steps) - 1 else f"s{i}"
        names = [name]
        if step.op == "affine":
            for kind, array in (("w", step.weight.T), ("b", step.bias)):
                kept = np.ascontiguousarray(array)
                constants.append(numpy_helper.from_array(kept, f"{kind}{i}"))
                names.append(f"{kind}{i}")
        op = "Gemm" if step.op == "affine" else "Relu"
        nodes.append(helper.make_node(op, names, [result]))
        name = result
    ends = [("x", net.shape[0]), ("y", 2)]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n, size in ends]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], constants)
    opset = [helper.make_opsetid("", 17)]
    data: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return data


def property_of(asked: Problem) -> str:
    """The problem, of row (1, 0), in VNN-LIB; every number is written out in full."""
    inputs = len(asked.low)
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)]
    lines += [f"(declare-const Y_{i} Real)" for i in range(2)]
    for i in range(inputs):
        lines.append(f"(assert (>= X_{i} {decimal(asked.low[i])}))")
        lines.append(f"(assert (<= X_{i} {decimal(asked.high[i])}))")
    return "\n".join([*lines, f"(assert (<= Y_0 {decimal(asked.threshold)}))", ""])


def decimal(value: float) -> str:
    """A binary number as an exact decimal without an exponent."""
    text = f"{Fraction(float(value)).numerator:d}"
    power = Fraction(float(value)).denominator.bit_length() - 1
    if not power:
        return f"{text}.0"
    sign, digits = ("-", text[1:]) if text[0] == "-" else ("", text)
    # n / 2^p = n · 5^p / 10^p
    shifted = str(int(digits) * 5**power).rjust(power + 1, "0")
    return f"{sign}{shifted[:-power]}.{shifted[-power:]}"
