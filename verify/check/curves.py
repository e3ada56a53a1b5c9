"""Lines below and above what bends: Relus, maxima; sigmoid and tanh, whatever slopes are chosen.

Those two are convex left of 0, concave right of it; f(x) + f(-x) is constant: f - s·x is largest,
left of 0, at an end; right of 0 it lies below any of its tangents. The least follows by symmetry.
Trusted is that NumPy's tanh is off by a few units in the last place, far below `FUNCTION`.
"""

from dataclasses import dataclass

import numpy as np

from verify.check.network import Array, Index

UNIT = 2.0**-53
FUNCTION = 2.0**-47
"""Error of a computed value of f, which is at most 1: some 60 roundings."""
KERNEL = {"Sigmoid": 5e-7, "Tanh": 8e-7}
"""How far a float32 kernel may be from the function: twice what a sweep of all float32 found."""
TRIES = 25
"""Halvings in the search for a tangent, which decides tightness only."""


def value(kind: str, x: Array) -> Array:
    """f(x), up to `FUNCTION`."""
    half: Array = np.tanh(x if kind == "Tanh" else x / 2)
    return half if kind == "Tanh" else half / 2 + 0.5


def slope(kind: str, x: Array) -> Array:
    """About f'(x)."""
    y = value(kind, x)
    return 1 - y * y if kind == "Tanh" else y * (1 - y)


def above(kind: str, low: Array, high: Array) -> tuple[Array, Array]:
    """Slope s and offset b with f(x) <= s·x + b on [low, high]."""
    width = np.where(high > low, high - low, 1.0)
    chord = np.where(high > low, (value(kind, high) - value(kind, low)) / width, 0.0)
    # Where the curve bends below its chord's end, the tangent through (low, f(low)) or in between.
    left, right = np.maximum(low, 0.0), np.maximum(high, 0.0)
    for _ in range(TRIES):
        middle = (left + right) / 2
        far = value(kind, middle) - value(kind, low) > slope(kind, middle) * (middle - low)
        left, right = np.where(far, left, middle), np.where(far, middle, right)
    bent = np.where(low >= 0, slope(kind, (low + high) / 2), slope(kind, right))
    s = np.where((high <= 0) | ((low < 0) & (slope(kind, high) >= chord)), chord, bent)
    s = np.clip(s, 0.0, 1.0)

    def rest(x: Array) -> Array:
        """f(x) - s·x, rounded up."""
        y = value(kind, x)
        found: Array = y - s * x + FUNCTION * (1.0 + s * np.abs(x))
        return found

    # Right of 0, where f' = s, or the nearest point to it.
    share = np.sqrt(np.clip(1 - s * (1.0 if kind == "Tanh" else 4.0), 0.0, 1.0 - 1e-15))
    touch = np.arctanh(share) * (1.0 if kind == "Tanh" else 2.0)
    first, last = np.maximum(low, 0.0), np.maximum(high, 0.0)
    touch = np.clip(touch, first, last)
    steep = slope(kind, touch) - s
    slack = FUNCTION * 4 * (1.0 + s) * (last - first)
    tangent = rest(touch) + np.maximum(steep * (first - touch), steep * (last - touch)) + slack
    ends = np.maximum(rest(np.minimum(low, 0.0)), rest(np.minimum(high, 0.0)))
    offset = np.where(high > 0, tangent, -np.inf)
    offset = np.maximum(offset, np.where(low < 0, ends, -np.inf))
    return s, np.where((low >= 0) & (high <= 0), rest(low), offset)


def lines(kind: str, low: Array, high: Array, *, real: bool) -> tuple[Array, Array, Array, Array]:
    """Slope and offset of a line below, and of one above, for every execution."""
    kernel = 0.0 if real else KERNEL[kind]
    s, b = above(kind, low, high)
    t, c = above(kind, -high, -low)
    rise = 0.0 if kind == "Tanh" else 1.0
    # f(x) = rise - f(-x) >= rise - (t·(-x) + c)
    below = rise - c
    extra = kernel + FUNCTION * (1.0 + np.abs(b) + np.abs(c))
    return t, below - extra, s, b + extra


def ends(kind: str, low: Array, high: Array, *, real: bool) -> tuple[Array, Array]:
    """Bounds of the values on [low, high]."""
    extra = (0.0 if real else KERNEL[kind]) + FUNCTION
    return value(kind, low) - extra, value(kind, high) + extra


@dataclass(frozen=True)
class Lines:
    """low·x + below <= y <= high·x + above for each entry y of a step that bends; (box, entries).

    Attributes:
        free: of a Relu, where the sign of x is open; any slope from 0 to 1 is below it everywhere.
        sources: which x the line below, and the one above, are about; None for the same as y.
    """

    low: Array
    below: Array | None
    high: Array
    above: Array
    free: np.ndarray | None = None
    sources: tuple[Index, Index] | None = None


def relu_lines(lower: Array, upper: Array) -> Lines:
    """Below: 0 or x, whichever encloses less; above: the chord, its offset rounded up."""
    active, inactive = lower >= 0, upper <= 0
    low, high = np.minimum(lower, 0.0), np.maximum(upper, 0.0)
    free = ~(active | inactive)
    chord = np.where(free, high / np.where(free, high - low, 1.0), active)
    chord = np.clip(chord, 0.0, 1.0)
    # Convex: the largest y - s·x on [low, high] is at an end.
    offset = np.maximum(-chord * low, high - chord * high)
    offset = (offset + 8 * UNIT * np.maximum(-low, high)) * (1.0 + 8 * UNIT)
    least_area = np.where(free, upper > -lower, chord)
    return Lines(least_area, None, chord, np.where(free, offset, 0.0), free)


def maximum_lines(lower: Array, upper: Array, windows: Index) -> Lines:
    """Below: one entry of the window; above: a chord of max(x_j, M) over [l_j, u_j].

    M is the largest upper bound among the others. The maximum is convex in x_j, so a line that is
    above it at both ends is above it; its offset is rounded up.
    """
    lower, upper = lower[:, windows], upper[:, windows]
    every = np.broadcast_to(windows, upper.shape)
    likely, best = ((lower + upper).argmax(2)[:, :, None], upper.argmax(2)[:, :, None])
    low, high = (np.take_along_axis(end, best, 2)[:, :, 0] for end in (lower, upper))
    picks = [np.take_along_axis(every, place, 2) for place in (likely, best)]
    # Padding repeats entries: all places of the chosen one are left out of the others.
    rest = np.where(every == picks[1], -np.inf, upper).max(axis=2)
    at_low, at_high = np.maximum(low, rest), np.maximum(high, rest)
    width = np.where(high > low, high - low, 1.0)
    slope = np.clip(np.where(high > low, (at_high - at_low) / width, 0.0), 0.0, 1.0)
    offset = np.maximum(at_low - slope * low, at_high - slope * high)
    offset = offset + 8 * UNIT * (np.abs(low) + np.abs(high) + np.abs(at_low) + np.abs(at_high))
    wins = rest <= low
    slope, offset = np.where(wins, 1.0, slope), np.where(wins, 0.0, offset)
    sources = picks[0][:, :, 0], picks[1][:, :, 0]
    return Lines(np.ones_like(slope), None, slope, offset, None, sources)
