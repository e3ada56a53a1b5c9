"""All bounds over boxes: intervals, then rows for the entries that a step that bends needs."""

from collections.abc import Callable

import numpy as np

from verify.check.bounds import Bounds, Pass
from verify.check.network import Affine, Array, Curve, MaxPool, Network, Relu


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
    """All bounds over boxes: intervals, then rows for every entry that a Relu or maximum needs.

    Args:
        network: the steps.
        lower, upper: of the boxes, shape (box, inputs).
        real: see `Pass`.
        rows: False for intervals only.
        more: called when a value that a Relu or maximum reads has its bounds, to tighten them.
    """
    done = Pass(network, real)
    done.values[network.input_name] = Bounds(lower.copy(), upper.copy())
    readers: dict[str, list[Relu | MaxPool | Curve]] = {}
    for step in network.steps.values():
        if not isinstance(step, Affine):
            readers.setdefault(step.source, []).append(step)
    attained = sharp(network)
    for name in network.steps:
        done.step(name)
        if name not in readers:
            continue
        x = done.values[name]
        # The side that is nearer to settling the sign first: what it settles needs no other. Each
        # box takes what it needs itself, so that its bounds do not depend on its company.
        above = x.lower + x.upper > 0
        for side in (above, ~above) if rows and name not in attained else ():
            open_ = np.zeros(x.lower.shape, dtype=bool)
            for step in readers[name]:
                if isinstance(step, MaxPool):
                    open_ |= contested(step, x)
                else:
                    wide = isinstance(step, Curve)
                    open_ |= (x.lower < x.upper) & (wide | ((x.lower < 0) & (x.upper > 0)))
            done.tighten(name, open_ & side, 1.0)
            done.tighten(name, open_ & ~side, -1.0)
        if more is not None:
            more(done, name)
    return done


def contested(step: MaxPool, x: Bounds) -> np.ndarray:
    """Which entries may be the largest of a window of which others may be, too; (box, entries)."""
    least = x.lower[:, step.windows].max(axis=2, keepdims=True)
    may = x.upper[:, step.windows] >= least
    may &= may.sum(axis=2, keepdims=True) > 1
    box, window, place = may.nonzero()
    found = np.zeros(x.lower.shape, dtype=bool)
    found[box, step.windows[window, place]] = True
    return found
