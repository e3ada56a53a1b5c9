"""Bounds of a network's values over boxes, valid for every float32 execution, in float64.

A row A over a value is pulled back, step by step, to the input. The computed A of each step is
exact data for the next one; what its rounding may have cost is one number a row: with |x| <= X and
v = |W|·X + |b|, both our rounding and that of an execution are a small multiple of |A|·v (Higham
2002, section 3.1: any order of summation, fused or not). Errors are summed apart, paid at the end.

    u = 2^-53, e = 2^-24, gamma_k(r) = k·r / (1 - k·r)
    z = W·x + b executed in float32:   |error| <= gamma_{n+10}(e)·v + underflow
    A·W computed in float64:           |error·x| <= gamma_{m+10}(u)·|A|·v
"""

from dataclasses import dataclass, field

import numpy as np

from verify.check import curves
from verify.check.network import Affine, Array, Curve, MaxPool, Network, Relu
from verify.check.refusal import Refusal

UNIT = 2.0**-53
UNIT32 = 2.0**-24
SPARE = 1.0 + 2.0**-30
"""Pays for rounding in sums of up to 2^21 terms that are all >= 0."""
UNDERFLOW = 2.0**-64
"""What denormals flushed to zero may cost a term: 2^-126 of a factor, times a weight below 2^60."""
OVERFLOW = 2.0**126
"""Partial sums below this cannot overflow in float32."""
FUSED = 10
"""Roundings that a step may have beyond its sum: bias, folding of a normalisation, quotients."""
ROWS = 2**22
"""Coefficients of the rows that are pulled back at once."""


def gamma(terms: int, unit: float) -> float:
    """gamma_k, rounded up; refused where it says nothing any more."""
    if terms * unit > 0.25:
        raise Refusal("a sum has too many terms for float32")
    return terms * unit / (1.0 - terms * unit) * (1.0 + 2.0**-40)


def weighed(rows: Array, vector: Array) -> Array:
    """|A|·v for rows (box, row, n) and v (box, n), both >= 0 in effect; shape (box, row)."""
    found: Array = np.matmul(np.abs(rows), vector[:, :, None])[:, :, 0]
    return found


@dataclass
class Hints:
    """Slopes and multipliers that a row is pulled back with; any values are valid.

    Attributes:
        alpha: lower slopes by the name of a Relu, broadcastable to (box, row, neuron); clipped to
            [0, 1], and chosen here where they are NaN.
        push: multiples b of a Relu's input x that are put apart, of the same shape: b·x is at least
            its least over the bounds of x. On the side x >= 0 of a split, b > 0 costs nothing.
        kept: whether slopes are also taken where the sign of x is known.
    """

    alpha: dict[str, Array] = field(default_factory=dict)
    push: dict[str, Array] = field(default_factory=dict)
    kept: bool = False


@dataclass
class Bounds:
    """lower <= value <= upper for every execution and every input of its box; (box, entries)."""

    lower: Array
    upper: Array

    def magnitude(self) -> Array:
        """The largest |value|."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))


@dataclass
class Planes:
    """rows >= coeff·x + const - error on a box, for every execution; and their least there.

    `coeff` has shape (box, row, inputs), the others (box, row).
    """

    coeff: Array
    const: Array
    error: Array
    least: Array


@dataclass
class Pass:
    """Bounds of every value over a batch of boxes, in the order of the steps.

    Attributes:
        network: the steps.
        real: whether only exact arithmetic is covered, not float32 executions.
        values: bounds by name.
        noise: by name of an affine step, what one entry may cost a row; (box, entries).
    """

    network: Network
    real: bool
    values: dict[str, Bounds] = field(default_factory=dict)
    noise: dict[str, Array] = field(default_factory=dict)

    def affine(self, name: str, step: Affine) -> Bounds:
        """Interval bounds of an affine step, and its noise."""
        middle, spread = step.bias[None], np.zeros((1, len(step.bias)))
        size = step.bias_size[None]
        terms = back = len(step.parts)
        largest = 0.0
        for source, linear in step.parts:
            x = self.values[source]
            centre = x.lower / 2 + x.upper / 2
            radius = np.maximum(x.upper - centre, centre - x.lower) * SPARE
            middle = middle + linear.apply(centre)
            spread = spread + linear.apply(radius, absolute=True)
            size = size + linear.apply(x.magnitude(), absolute=True)
            terms, back = terms + linear.terms, back + linear.back
            largest = max(largest, float(x.magnitude().max(initial=0.0)))
        # A row that comes from a Relu was rounded once an entry; that is charged here as well.
        passed = 4 * UNIT * size * SPARE
        if step.exact:
            self.noise[name] = passed
            rounding = np.zeros_like(size)
        else:
            if not (size < OVERFLOW).all():
                raise Refusal(f"the value {name!r} may be too large for float32")
            executed = gamma(terms + FUSED, UNIT32) * size
            executed = executed + (terms + FUSED) * UNDERFLOW * (1.0 + largest)
            executed = np.zeros_like(size) if self.real else executed
            ours = gamma(max(back, terms) + FUSED, UNIT) * size
            self.noise[name] = (executed + ours) * SPARE + passed
            rounding = (executed + 2 * ours) * SPARE
        spread = (spread + rounding) * SPARE
        return Bounds(middle - spread, middle + spread)

    def step(self, name: str) -> None:
        """Interval bounds of one step whose sources are done."""
        step = self.network.steps[name]
        if isinstance(step, Affine):
            self.values[name] = self.affine(name, step)
        elif isinstance(step, Relu):
            x = self.values[step.source]
            self.values[name] = Bounds(np.maximum(x.lower, 0.0), np.maximum(x.upper, 0.0))
        elif isinstance(step, Curve):
            x = self.values[step.source]
            self.values[name] = Bounds(*curves.ends(step.kind, x.lower, x.upper, real=self.real))
        else:
            x = self.values[step.source]
            lower, upper = x.lower[:, step.windows], x.upper[:, step.windows]
            self.values[name] = Bounds(lower.max(axis=2), upper.max(axis=2))

    def least(self, start: str, rows: Array, const: Array, error: Array, hints: Hints) -> Array:
        """Lower bounds of rows·value(start) + const - error over each box; (box, row)."""
        return self.planes({start: rows}, const, error, hints).least

    def planes(
        self,
        starts: dict[str, Array],
        const: Array,
        error: Array,
        hints: Hints,
        *,
        interval: bool = False,
    ) -> Planes:
        """Linear functions of the input below the sum of rows·value(start) + const - error.

        With `interval`, rows are also bounded over the values of each Relu that they pass. NaN and
        infinities in the end count as nothing proved: -inf.
        """
        pending = dict(starts)
        best = np.full(const.shape, -np.inf)
        for name in reversed(self.network.steps):
            if name not in pending:
                continue
            here = pending.pop(name)
            step = self.network.steps[name]
            if interval and not isinstance(step, Affine) and not pending:
                best = np.maximum(best, self.over_box(name, here, const, error))
            if isinstance(step, Affine):
                # The sum over all entries of the bias may be longer than any that the noise pays.
                summed = gamma(here.shape[2] + FUSED, UNIT) * np.abs(step.bias)
                error = error + weighed(here, self.noise[name] + summed)
                const = const + here @ step.bias
                flat = here.reshape(-1, here.shape[2])
                moved = {s: m.adjoint(flat).reshape(*here.shape[:2], -1) for s, m in step.parts}
                if len(moved) < len(step.parts):
                    raise Refusal("a value is added to itself")
            elif isinstance(step, Relu):
                source, const, error = self.through_relu(name, step, here, const, error, hints)
                moved = {step.source: source}
            elif isinstance(step, Curve):
                source, const, error = self.through_curve(step, here, const, error)
                moved = {step.source: source}
            else:
                source, const, error = self.through_max(step, here, const, error)
                moved = {step.source: source}
            for source_name, piece in moved.items():
                if source_name in pending:
                    piece = pending[source_name] + piece
                    size = self.values[source_name].magnitude()
                    error = error + 2 * UNIT * weighed(piece, size)
                pending[source_name] = piece
            error = error + 4 * UNIT * np.abs(const)
        final = pending[self.network.input_name]
        last = self.over_box(self.network.input_name, final, const, error)
        return Planes(final, const, error * SPARE, np.maximum(best, last))

    def over_box(self, name: str, rows: Array, const: Array, error: Array) -> Array:
        """The least rows·x + const - error over the bounds of one value; (box, row)."""
        x = self.values[name]
        centre = x.lower / 2 + x.upper / 2
        radius = np.maximum(x.upper - centre, centre - x.lower) * SPARE
        at_centre = np.matmul(rows, centre[:, :, None])[:, :, 0]
        spread = weighed(rows, radius)
        size = weighed(rows, x.magnitude()) + spread + np.abs(const)
        own = gamma(2 * rows.shape[2] + FUSED, UNIT) * size
        found = (at_centre + const - spread) - (error + own) * SPARE
        finite: Array = np.where(np.isfinite(found), found, -np.inf)
        return finite

    def through_relu(
        self, name: str, step: Relu, here: Array, const: Array, error: Array, hints: Hints
    ) -> tuple[Array, Array, Array]:
        """Below: alpha·x; above: the chord, its offset rounded up; then what is put apart.

        A row positive at y takes the lower line, a negative one the upper line.
        """
        x = self.values[step.source]
        low, high = np.minimum(x.lower, 0.0), np.maximum(x.upper, 0.0)
        width = high - low
        chord = np.where(width > 0, high / np.where(width > 0, width, 1.0), 0.0)
        chord = np.clip(np.where(x.lower >= 0, 1.0, np.where(x.upper <= 0, 0.0, chord)), 0.0, 1.0)
        # Convex: the largest y - s·x on [low, high] is at an end.
        offset = np.maximum(-chord * low, high - chord * high)
        offset = (offset + 8 * UNIT * np.maximum(-low, high)) * (1.0 + 8 * UNIT)
        stable = (x.lower >= 0) | (x.upper <= 0)
        offset = np.where(stable, 0.0, offset)
        least_area = (x.upper > -x.lower).astype(np.float64)[:, None]
        alpha = hints.alpha.get(name, np.full((1, 1, 1), np.nan))
        own = np.isnan(alpha) | (stable[:, None] & (not hints.kept))
        # Any slope from 0 to 1 is below, whatever the sign of x is known to be.
        plain = np.where(stable[:, None], chord[:, None], least_area)
        alpha = np.where(own, plain, np.clip(alpha, 0.0, 1.0))
        above = np.minimum(here, 0.0)
        paid = np.matmul(above, offset[:, :, None])[:, :, 0]
        pulled = np.maximum(here, 0.0)
        pulled *= alpha
        above *= chord[:, None]
        pulled += above  # exact: one of the two is 0
        push = hints.push.get(name)
        if push is not None:
            pulled = pulled - push
            size = weighed(push, x.magnitude())
            error = error + (2 * UNIT + gamma(here.shape[2] + FUSED, UNIT)) * size
            const = const + np.minimum(push * x.lower[:, None], push * x.upper[:, None]).sum(axis=2)
        if not isinstance(self.network.steps.get(step.source), Affine):
            error = error + 4 * UNIT * weighed(pulled, x.magnitude())
        error = error + gamma(here.shape[2] + FUSED, UNIT) * np.abs(paid)
        return pulled, const + paid, error

    def through_curve(
        self, step: Curve, here: Array, const: Array, error: Array
    ) -> tuple[Array, Array, Array]:
        """A row takes the line below where it is positive, the one above where it is negative."""
        x = self.values[step.source]
        low, below, high, above = curves.lines(step.kind, x.lower, x.upper, real=self.real)
        positive, negative = np.maximum(here, 0.0), np.minimum(here, 0.0)
        pulled = positive * low[:, None] + negative * high[:, None]  # one of the two is 0
        paid = np.matmul(positive, below[:, :, None]) + np.matmul(negative, above[:, :, None])
        sizes = weighed(here, np.abs(below) + np.abs(above))
        error = error + gamma(here.shape[2] + FUSED, UNIT) * sizes
        error = error + 4 * UNIT * weighed(pulled, x.magnitude())
        return pulled, const + paid[:, :, 0], error

    def through_max(
        self, step: MaxPool, here: Array, const: Array, error: Array
    ) -> tuple[Array, Array, Array]:
        """Below: one entry of the window; above: a chord of max(x_j, M) over [l_j, u_j].

        M is the largest upper bound among the others. The maximum is convex in x_j, so a line that
        is above it at both ends is above it; its offset is rounded up.
        """
        x = self.values[step.source]
        lower, upper = x.lower[:, step.windows], x.upper[:, step.windows]
        every = np.broadcast_to(step.windows, upper.shape)
        low_pick = np.take_along_axis(every, (lower + upper).argmax(2)[:, :, None], 2)[:, :, 0]
        best = upper.argmax(axis=2)[:, :, None]
        high_pick = np.take_along_axis(every, best, 2)
        low = np.take_along_axis(lower, best, 2)[:, :, 0]
        high = np.take_along_axis(upper, best, 2)[:, :, 0]
        # Padding repeats entries: all places of the chosen one are left out of the others.
        rest = np.where(every == high_pick, -np.inf, upper).max(axis=2)
        at_low, at_high = np.maximum(low, rest), np.maximum(high, rest)
        width = np.where(high > low, high - low, 1.0)
        slope = np.clip(np.where(high > low, (at_high - at_low) / width, 0.0), 0.0, 1.0)
        offset = np.maximum(at_low - slope * low, at_high - slope * high)
        size = np.abs(low) + np.abs(high) + np.abs(at_low) + np.abs(at_high)
        offset = offset + 8 * UNIT * size
        wins = rest <= low
        slope, offset = np.where(wins, 1.0, slope), np.where(wins, 0.0, offset)
        above = np.minimum(here, 0.0)
        source = np.zeros((*here.shape[:2], x.lower.shape[1]))
        boxes, rows = np.arange(here.shape[0]), np.arange(here.shape[1])
        for pick, part in (
            (low_pick, np.maximum(here, 0.0)),
            (high_pick[:, :, 0], above * slope[:, None]),
        ):
            places = np.broadcast_to(pick[:, None], here.shape)
            np.add.at(source, (boxes[:, None, None], rows[None, :, None], places), part)
        paid = np.matmul(above, offset[:, :, None])[:, :, 0]
        largest = x.magnitude()[:, step.windows].max(axis=2)
        sizes = weighed(above, np.abs(offset)) + 2 * weighed(here, largest)
        error = error + gamma(here.shape[2] + FUSED, UNIT) * sizes
        return source, const + paid, error

    def tighten(self, name: str, wanted: np.ndarray, sign: float) -> None:
        """Plain rows for some entries of a value: sign +1 for lower bounds, -1 for upper ones.

        Args:
            name: of the value, whose interval bounds are known.
            wanted: which entries each box wants, (box, entries).
            sign: +1 or -1.
        """
        x = self.values[name]
        boxes, size = x.lower.shape
        entries = wanted.any(axis=0).nonzero()[0]
        at_once = max(1, ROWS // max(1, boxes * self.widest()))
        for first in range(0, len(entries), at_once):
            part = entries[first : first + at_once]
            rows = np.zeros((boxes, len(part), size))
            rows[:, np.arange(len(part)), part] = sign
            zeros = np.zeros((boxes, len(part)))
            found = np.where(
                wanted[:, part], self.least(name, rows, zeros, zeros, Hints()), -np.inf
            )
            if sign > 0:
                x.lower[:, part] = np.maximum(x.lower[:, part], found)
            else:
                x.upper[:, part] = np.minimum(x.upper[:, part], -found)

    def widest(self) -> int:
        """The largest number of entries of a value."""
        return max(self.network.size(name) for name in self.network.shapes)
