"""Decimal constants as what proofs and witnesses need: the float64 numbers around them."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

MOST_DIGITS = 1000
"""Characters of one constant."""
MOST_EXPONENT = 400
"""Beyond 10^400 nothing is a float64; below 10^-400 everything rounds to 0 and its neighbour."""
EXPONENT = re.compile(r"[eE]([-+]?\d+)$")


class Number(NamedTuple):
    """A rational and the float64 numbers around it; tuples compare as the rationals do.

    Attributes:
        down: the largest float64 that is no more.
        up: the smallest float64 that is no less.
        exact: the number itself.
    """

    down: float
    up: float
    exact: Fraction


def number_of(text: str) -> Number | str:
    """The number that a decimal states, or what is wrong with it."""
    exponent = EXPONENT.search(text)
    if len(text) > MOST_DIGITS:
        return f"a constant of {len(text)} characters; at most {MOST_DIGITS} are read"
    if exponent and abs(int(exponent.group(1))) > MOST_EXPONENT:
        return f"the constant {text} is beyond what float64 holds; rescale the property"
    exact, nearest = Decimal(text), float(text)
    if math.isinf(nearest):
        return f"the constant {text} is beyond what float64 holds; rescale the property"
    # Decimal and float compare exactly, and much faster than fractions do.
    if exact == nearest:
        return Number(nearest, nearest, Fraction(exact))
    if exact < nearest:
        return Number(math.nextafter(nearest, -math.inf), nearest, Fraction(exact))
    return Number(nearest, math.nextafter(nearest, math.inf), Fraction(exact))


def number_from(exact: Fraction) -> Number | None:
    """A rational with its neighbours; None where it is beyond float64."""
    try:
        nearest = float(exact)
    except OverflowError:
        return None
    rounded = Fraction(nearest)
    if rounded == exact:
        return Number(nearest, nearest, exact)
    if exact < rounded:
        return Number(math.nextafter(nearest, -math.inf), nearest, exact)
    return Number(nearest, math.nextafter(nearest, math.inf), exact)
