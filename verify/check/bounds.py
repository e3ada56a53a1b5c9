"""Bounds of a network's values over boxes, valid for every float32 execution, in float64.

A row A over a value is pulled back, step by step, to the input. The computed A of each step is
exact data for the next one; what its rounding may have cost is one number a row: with |x| <= X and
v = |W|·X + |b|, both our rounding and that of an execution are a small multiple of |A|·v (Higham
2002, section 3.1: any order of summation, fused or not). Errors are summed apart, paid at the end.

    u = 2^-53, e = 2^-24, gamma_k(r) = k·r / (1 - k·r)
    z = W·x + b executed in float32:   |error| <= gamma_{n+10}(e)·v + underflow
    A·W computed in float64:           |error·x| <= gamma_{m+10}(u)·|A|·v
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from verify.check import curves
from verify.check.curves import UNIT, Lines, maximum_lines, relu_lines
from verify.check.network import Affine, Array, Curve, MaxPool, Network, Relu
from verify.check.refusal import Refusal

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
TOGETHER = 64
"""Boxes whose rows are pulled back at once."""


def gamma(terms: int, unit: float = UNIT) -> float:
    """gamma_k, rounded up, with `FUSED` more terms; refused where it says nothing any more."""
    count = terms + FUSED
    if count * unit > 0.25:
        raise Refusal("a sum has too many terms for float32")
    return count * unit / (1.0 - count * unit) * (1.0 + 2.0**-40)


def times(rows: Array, vector: Array) -> Array:
    """A·v for rows (box, row, n) and v (box, n)."""
    found: Array = np.matmul(rows, vector[:, :, None])[:, :, 0]
    return found


def weighed(rows: Array, vector: Array) -> Array:
    """|A|·v for v >= 0."""
    return times(np.abs(rows), vector)


@dataclass
class Hints:
    """Slopes and multipliers that a row is pulled back with; any values are valid.

    Attributes:
        alpha: lower slopes by the name of a Relu, broadcastable to (box, row, neuron); clipped to
            [0, 1], and chosen here where they are NaN.
        push: multiples b of a neuron's input x that are put apart, of the same shape: b·x is at
            least its least over the bounds of x. On the side x >= 0 of a split b > 0 is free.
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

    def centre(self) -> tuple[Array, Array]:
        """The middle and the radius, rounded up."""
        middle = self.lower / 2 + self.upper / 2
        return middle, np.maximum(self.upper - middle, middle - self.lower) * SPARE


@dataclass
class Planes:
    """rows >= coeff·x + const - error on a box, for every execution; and their least there.

    `coeff` has shape (box, row, inputs), the others (box, row).
    """

    coeff: Array
    const: Array
    error: Array
    least: Array

    def of(self, boxes: np.ndarray, rows: np.ndarray) -> "Planes":
        """Some rows on some boxes."""
        parts = (self.coeff, self.const, self.error, self.least)
        return Planes(*(part[boxes[:, None], rows] for part in parts))

    def or_better(self, other: "Planes") -> "Planes":
        """Of each row the plane with the larger least."""
        better = other.least > self.least
        return Planes(
            np.where(better[:, :, None], other.coeff, self.coeff),
            np.where(better, other.const, self.const),
            np.where(better, other.error, self.error),
            np.where(better, other.least, self.least),
        )


@dataclass
class Pass:
    """Bounds of every value over a batch of boxes, in the order of the steps.

    Attributes:
        network: the steps.
        real: whether only exact arithmetic is covered, not float32 executions.
        values: bounds by name.
        noise: by name of an affine step, what one entry may cost a row; (box, entries).
        known: lines of steps, once they were asked for.
    """

    network: Network
    real: bool
    values: dict[str, Bounds] = field(default_factory=dict)
    noise: dict[str, Array] = field(default_factory=dict)
    known: dict[str, Lines] = field(default_factory=dict)

    def affine(self, name: str, step: Affine) -> Bounds:
        """Interval bounds of an affine step, and its noise."""
        middle, spread, size = step.bias[None], np.zeros(1), step.bias_size[None]
        terms = back = len(step.parts)
        largest = 0.0
        for source, linear in step.parts:
            centre, radius = self.values[source].centre()
            middle = middle + linear.apply(centre)
            wide = linear.apply(radius, absolute=True)
            spread = spread + wide
            size = size + wide + linear.apply(np.abs(centre), absolute=True)
            terms, back = terms + linear.terms, back + linear.back
            largest = max(largest, float(self.values[source].magnitude().max(initial=0.0)))
        size = size * SPARE
        if not step.exact and not (size < OVERFLOW).all():
            raise Refusal(f"the value {name!r} may be too large for float32")
        executed = ours = np.zeros_like(size)
        if not step.exact:
            ours = gamma(max(back, terms)) * size
        if not step.exact and not self.real:
            executed = gamma(terms, UNIT32) * size + (terms + FUSED) * UNDERFLOW * (1.0 + largest)
        # A row that comes from a step that bends was rounded once an entry: charged here as well.
        self.noise[name] = (executed + ours + 4 * UNIT * size) * SPARE
        spread = (spread + executed + 2 * ours) * SPARE
        return Bounds(middle - spread, middle + spread)

    def step(self, name: str) -> None:
        """Interval bounds of one step whose sources are done."""
        step = self.network.steps[name]
        if isinstance(step, Affine):
            self.values[name] = self.affine(name, step)
            return
        x = self.values[step.source]
        if isinstance(step, Relu):
            self.values[name] = Bounds(np.maximum(x.lower, 0.0), np.maximum(x.upper, 0.0))
        elif isinstance(step, Curve):
            self.values[name] = Bounds(*curves.ends(step.kind, x.lower, x.upper, real=self.real))
        else:
            ends = (end[:, step.windows].max(axis=2) for end in (x.lower, x.upper))
            self.values[name] = Bounds(*ends)

    def lines(self, name: str) -> Lines:
        """Lines around a step that bends, over the bounds of what it reads."""
        if name not in self.known:
            step = self.network.steps[name]
            assert not isinstance(step, Affine)
            x = self.values[step.source]
            if isinstance(step, Relu):
                self.known[name] = relu_lines(x.lower, x.upper)
            elif isinstance(step, Curve):
                found = curves.lines(step.kind, x.lower, x.upper, real=self.real)
                self.known[name] = Lines(*found)
            else:
                self.known[name] = maximum_lines(x.lower, x.upper, step.windows)
        return self.known[name]

    def open(self, name: str) -> np.ndarray:
        """Which entries that a step reads leave it bent, so that better bounds may help it."""
        step = self.network.steps[name]
        assert not isinstance(step, Affine)
        x = self.values[step.source]
        if not isinstance(step, MaxPool):
            wide = isinstance(step, Curve)
            found: np.ndarray = (x.lower < x.upper) & (wide | ((x.lower < 0) & (x.upper > 0)))
            return found
        # Those that may be the largest of a window of which others may be, too.
        may = x.upper[:, step.windows] >= x.lower[:, step.windows].max(axis=2, keepdims=True)
        box, window, place = (may & (may.sum(axis=2, keepdims=True) > 1)).nonzero()
        found = np.zeros(x.lower.shape, dtype=bool)
        found[box, step.windows[window, place]] = True
        return found

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
        met: dict[str, Array] | None = None,
    ) -> Planes:
        """Linear functions of the input below the sum of rows·value(start) + const - error.

        With `interval`, rows are also bounded over the values of each Relu that they pass. NaN and
        infinities in the end count as nothing proved: -inf. `met` is filled with the rows as they
        arrive at each step that bends.
        """
        pending = dict(starts)
        best = np.full(const.shape, -np.inf)
        for name in reversed(self.network.steps):
            if name not in pending:
                continue
            here = pending.pop(name)
            step = self.network.steps[name]
            if isinstance(step, Affine):
                # The sum over all entries of the bias may be longer than any that the noise pays.
                summed = gamma(here.shape[2]) * np.abs(step.bias)
                error = error + weighed(here, self.noise[name] + summed)
                const = const + here @ step.bias
                flat = here.reshape(-1, here.shape[2])
                moved = [(s, m.adjoint(flat).reshape(*here.shape[:2], -1)) for s, m in step.parts]
            else:
                if met is not None:
                    met[name] = here
                if interval and not pending:
                    best = np.maximum(best, self.over_box(name, here, const, error))
                row, const, error = self.through(name, here, const, error, hints)
                moved = [(step.source, row)]
            for source, piece in moved:
                if source in pending:  # what each was rounded counts, however small their sum
                    size = np.abs(pending[source]) + np.abs(piece)
                    error = error + 4 * UNIT * times(size, self.values[source].magnitude())
                    piece = pending[source] + piece
                pending[source] = piece
            error = error + 4 * UNIT * np.abs(const)
        final = pending[self.network.input_name]
        last = self.over_box(self.network.input_name, final, const, error)
        return Planes(final, const, error * SPARE, np.maximum(best, last))

    def over_box(self, name: str, rows: Array, const: Array, error: Array) -> Array:
        """The least rows·x + const - error over the bounds of one value; (box, row)."""
        centre, radius = self.values[name].centre()
        spread = weighed(rows, radius)
        size = weighed(rows, self.values[name].magnitude()) + spread + np.abs(const)
        own = gamma(2 * rows.shape[2]) * size
        found = (times(rows, centre) + const - spread) - (error + own) * SPARE
        finite: Array = np.where(np.isfinite(found), found, -np.inf)
        return finite

    def through(
        self, name: str, here: Array, const: Array, error: Array, hints: Hints
    ) -> tuple[Array, Array, Array]:
        """A row over a step that bends as one over what it reads.

        Where it is positive at y it takes the line below, where it is negative the one above; then
        multiples of x are put apart.
        """
        step, lines = self.network.steps[name], self.lines(name)
        assert not isinstance(step, Affine)
        x, low, alpha = self.values[step.source], lines.low[:, None], hints.alpha.get(name)
        if lines.free is not None and alpha is not None:
            given = ~np.isnan(alpha) & (lines.free[:, None] | hints.kept)
            low = np.where(given, np.clip(alpha, 0.0, 1.0), low)
        above = np.minimum(here, 0.0)
        pulled = np.maximum(here, 0.0)
        paid = times(above, lines.above)
        size = -paid if (lines.above >= 0).all() else -times(above, np.abs(lines.above))
        if lines.below is not None:
            paid = paid + times(pulled, lines.below)
            size = size + times(pulled, np.abs(lines.below))
        pulled *= low
        above *= lines.high[:, None]
        if lines.sources is None:
            pulled += above  # exact: one of the two is 0
        else:
            box, row, _ = np.ogrid[: len(here), : here.shape[1], :1]
            found = np.zeros((*here.shape[:2], x.lower.shape[1]))
            for at, part in zip(lines.sources, (pulled, above), strict=True):
                size = size + weighed(part, np.take_along_axis(x.magnitude(), at, axis=1))
                np.add.at(found, (box, row, np.broadcast_to(at[:, None], here.shape)), part)
            pulled = found
        push = hints.push.get(name)
        if push is not None:
            pulled = pulled - push
            least = np.minimum(push * x.lower[:, None], push * x.upper[:, None]).sum(axis=2)
            const = const + least
            error = error + (2 * UNIT + gamma(push.shape[2])) * weighed(push, x.magnitude())
        if not isinstance(self.network.steps.get(step.source), Affine):
            error = error + 4 * UNIT * weighed(pulled, x.magnitude())
        return pulled, const + paid, error + gamma(here.shape[2]) * size

    def tighten(self, name: str, wanted: np.ndarray, sign: Array) -> None:
        """Plain rows for some entries of a value, whose interval bounds are known.

        Args:
            name: of the value.
            wanted: which entries each box wants, (box, entries).
            sign: of the same shape: +1 for lower bounds, -1 for upper ones.
        """
        x, counts = self.values[name], wanted.sum(axis=1)
        groups = [np.arange(len(counts))]
        at_once = max(1, ROWS // (min(len(counts), TOGETHER) * self.network.widest()))
        if len(counts) > TOGETHER:  # boxes that want about as many, so that few rows are idle
            groups = np.array_split(counts.argsort(), -(-len(counts) // TOGETHER))
        for boxes in groups:
            some = self if len(groups) == 1 else self.of(boxes)
            order = np.argsort(~wanted[boxes], axis=1, kind="stable")[:, : counts[boxes].max()]
            for first in range(0, order.shape[1], at_once):
                at = boxes[:, None], order[:, first : first + at_once]
                signs, zeros = np.where(wanted[at], sign[at], 0.0), np.zeros(at[1].shape)
                rows = np.zeros((*zeros.shape, wanted.shape[1]))
                np.put_along_axis(rows, at[1][:, :, None], signs[:, :, None], axis=2)
                found = some.least(name, rows, zeros, zeros, Hints())
                for side, way in ((x.lower, 1.0), (x.upper, -1.0)):
                    better = np.where(signs == way, found, -np.inf)
                    side[at] = way * np.maximum(way * side[at], better)

    def of(self, boxes: np.ndarray) -> "Pass":
        """The same of some boxes."""
        values = {n: Bounds(x.lower[boxes], x.upper[boxes]) for n, x in self.values.items()}
        noise = {name: size[boxes] for name, size in self.noise.items()}
        return Pass(self.network, self.real, values, noise)


def sharp(network: Network) -> set[str]:
    """Values whose interval bounds over a box are attained, so that no row can improve them.

    That is one map that mixes entries, and any number that do not, between them and the input.
    """
    mixed = {network.input_name: 0}
    for name, step in network.steps.items():
        if isinstance(step, Affine) and len(step.parts) == 1 and step.parts[0][0] in mixed:
            source, linear = step.parts[0]
            count = mixed[source] + int(linear.terms > 1)
            if count <= 1:
                mixed[name] = count
    return set(mixed)


def crown(
    network: Network,
    lower: Array,
    upper: Array,
    *,
    real: bool,
    rows: bool = True,
    more: Callable[[Pass, str], None] | None = None,
) -> Pass:
    """All bounds over boxes: intervals, then rows for every entry that a step that bends needs.

    Args:
        network: the steps.
        lower, upper: of the boxes, shape (box, inputs).
        real: see `Pass`.
        rows: False for intervals only.
        more: called when a value that a step that bends reads has its bounds, to tighten them.
    """
    done = Pass(network, real)
    done.values[network.input_name] = Bounds(lower.copy(), upper.copy())
    readers: dict[str, list[str]] = {}
    for name, step in network.steps.items():
        if not isinstance(step, Affine):
            readers.setdefault(step.source, []).append(name)
    attained = sharp(network)
    for name in network.steps:
        done.step(name)
        if name not in readers:
            continue
        x = done.values[name]
        # The side that is nearer to settling the sign first: what it settles needs no other. Each
        # box takes what it needs itself, so that its bounds do not depend on its company.
        nearer = np.where(x.lower + x.upper > 0, 1.0, -1.0)
        for sign in (nearer, -nearer) if rows and name not in attained else ():
            wanted = np.any([done.open(reader) for reader in readers[name]], axis=0)
            done.tighten(name, wanted, sign)
        if more is not None:
            more(done, name)
    return done
