"""Tiny nets with thresholds next to an exact minimum, what leaves their function alone, and files.

See `benchmarks.exact_fuzz`, which asks searches about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from benchmarks.digits import gaps
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
        curved: whether the net's outputs are not rational: then `truth` is whether the threshold is
            attained at one of the places, and a minimum below it may exist all the same.
        whole: an input that is cut to a whole number before the net sees it, or None.
    """

    net: Net
    low: Single
    high: Single
    row: tuple[int, int]
    threshold: float
    truth: bool
    places: Single
    curved: bool = False
    whole: int | None = None

    def seen(self, x: Single) -> Single:
        """What the net sees of inputs (point, inputs)."""
        if self.whole is None:
            return x
        x = x.copy()
        x[:, self.whole] = np.trunc(x[:, self.whole])
        return x


def tiny(generator: np.random.Generator, *, mild: bool = False, pools: bool = False) -> Net:
    """Two to four inputs, one to three layers of three to six neurons; mild: none that cancel.

    Where it pools, one Relu is the larger of pairs instead.
    """
    inputs, width = (int(v) for v in (generator.integers(2, 5), generator.integers(3, 7)))
    sizes = [inputs, *[width] * int(generator.integers(1, 4)), 2]
    layers = [affine(generator, a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
    if generator.random() < 0.6 and not mild:
        k = int(generator.integers(0, len(layers) - 1))
        cancel(generator, layers[k], layers[k + 1])
    steps = [part for layer in layers for part in (layer, Step("Relu"))][:-1]
    if pools:
        k = int(generator.integers(0, len(layers) - 1))
        here, after = layers[k], layers[k + 1]
        even = len(here.bias) // 2 * 2
        steps[2 * k] = replace(here, weight=here.weight[:even], bias=here.bias[:even])
        steps[2 * k + 1] = Step("max")
        steps[2 * k + 2] = replace(after, weight=after.weight[:, : even // 2])
    return Net("pools" if pools else "dense", (inputs,), tuple(steps))


def branchy(generator: np.random.Generator) -> Net:
    """Two inputs and two hidden layers of eight to twelve neurons of ordinary size: trees grow."""
    width = int(generator.integers(8, 13))
    sizes = [2, width, width, 2]
    steps: list[Step] = []
    for a, b in zip(sizes, sizes[1:], strict=False):
        weight = (generator.standard_normal((b, a)) * (2 / a) ** 0.5).astype(np.float32)
        bias = (0.3 * generator.standard_normal(b)).astype(np.float32)
        steps += [Step("affine", weight, bias), Step("Relu")]
    return Net("dense", (2,), tuple(steps[:-1]))


KINDS: dict[str, Callable[[np.random.Generator], Net]] = {
    "tiny": tiny,
    "mild": lambda generator: tiny(generator, mild=True),
    "pools": lambda generator: tiny(generator, pools=True),
    "branchy": branchy,
}
"""By what sort of net a problem is about."""


def problems(seed: int, *, kind: str = "tiny") -> Iterator[Problem]:
    """Those of one net and box; none where the exact minimum is no float64."""
    number = {"pools": 15, "branchy": 18}.get(kind, 11)
    generator = np.random.default_rng([seed, number])
    net = KINDS[kind](generator)
    inputs = net.shape[0]
    width = np.zeros(inputs)
    wide = generator.choice(inputs, int(generator.integers(1, 3)), replace=False)
    width[wide] = generator.choice([1e-6, 1e-3, 0.05, 0.3, 1.0], len(wide))
    scale = 10.0 ** generator.choice([0.0, 0.0, 0.0, -4.0, 4.0])
    if kind == "branchy":
        width, scale = generator.uniform(0.3, 1.5, 2), 1.0
    centre = generator.standard_normal(inputs)
    low, high = (((centre + s * width) * scale).astype(np.float32) for s in (-1, 1))
    # The checker's language has no weights: there the row is the first output alone.
    row = ROWS[0 if kind == "mild" else int(generator.integers(len(ROWS)))]
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


def whole_problems(seed: int) -> Iterator[Problem]:
    """Like `problems`, of nets that see one input cut to a whole number; none that cancel."""
    generator = np.random.default_rng([seed, 16])
    net = tiny(generator, mild=True)
    inputs = net.shape[0]
    centre = generator.standard_normal(inputs)
    width = np.zeros(inputs)
    whole, wide = generator.choice(inputs, 2, replace=False)
    width[whole], width[wide] = generator.uniform(0.3, 3), generator.choice([1e-3, 0.3, 1.0])
    low, high = ((centre + s * width).astype(np.float32) for s in (-1, 1))
    best = None
    for number in range(int(low[whole]), int(high[whole]) + 1):
        ends = low.copy(), high.copy()
        ends[0][whole] = ends[1][whole] = number
        value, at = least(net, *ends, ROWS[0])
        if best is None or value < best[0]:
            inside = np.clip(np.float32(number), low[whole], high[whole])
            best = value, [float(v) for v in at], inside
    assert best is not None
    minimum, where, inside = best
    where[whole] = float(inside)
    if not 2.0**-900 < abs(float(minimum)) < 2.0**900:
        return
    places = np.clip(np.array([where, low, high], dtype=np.float32), low, high)
    made = Problem(net, low, high, ROWS[0], 0.0, False, places, whole=int(whole))
    size = Fraction(max(abs(v) for y in exactly(net, made.seen(places)) for v in y))
    for away in generator.choice(AWAY, 2, replace=False):
        for side in (-1, 1):
            threshold = float(minimum + side * Fraction(float(away)) * size)
            if away == 0 or Fraction(threshold) == minimum:
                threshold = float(np.nextafter(threshold, side * np.inf))
            if 2.0**-900 < abs(threshold) < 2.0**900:
                truth = minimum <= Fraction(threshold)
                yield replace(made, threshold=threshold, truth=truth)


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


def met_at(asked: Problem, x: Single) -> list[bool]:
    """Whether each input, (point, inputs), reaches the threshold; in exact numbers."""
    x = asked.seen(x)
    if asked.curved:
        return [gap <= 0 for gap in gaps(asked.net, x, asked.row, asked.threshold)]
    threshold = Fraction(asked.threshold)
    return [value_of(asked.row, y) <= threshold for y in exactly(asked.net, x)]


def value_of(row: tuple[int, int], y: list[Fraction]) -> Fraction:
    """row·y."""
    return sum((c * v for c, v in zip(row, y, strict=True)), Fraction(0))
