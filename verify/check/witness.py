"""A counterexample in the competition's format, evaluated again with rigorous intervals.

    sat
    ((X_0 0.5)
     (X_1 -0.25)
     (Y_0 1.5))

Only the X are used. A point is a box of no width, so the bounds of `verify.check.bounds` enclose
what the network gives there, in real arithmetic or in every float32 execution.
"""

import re
from fractions import Fraction

import numpy as np

from verify.check.bounds import Hints, crown
from verify.check.leaf import Goal, goal_of
from verify.check.network import Array, Network
from verify.check.refusal import Refusal
from verify.check.vnnlib import MOST_DIGITS, NUMBER, Case

ENTRY = re.compile(r"\(\s*X_(\d{1,9})\s+([^\s()]+)\s*\)")


def read_witness(text: str, inputs: int) -> list[Fraction]:
    """The inputs, each given once."""
    found: dict[int, Fraction] = {}
    for place, word in ENTRY.findall(text):
        if len(word) > MOST_DIGITS or not NUMBER.fullmatch(word) or int(place) in found:
            raise Refusal(f"the witness gives X_{place} twice, or as {word[:40]!r}")
        found[int(place)] = Fraction(word)
    if sorted(found) != list(range(inputs)):
        raise Refusal(f"the witness does not give each of {inputs} inputs")
    return [found[i] for i in range(inputs)]


def check_witness(text: str, network: Network, cases: list[Case]) -> str:
    """What the witness shows, in one line; raises Refusal if it is no counterexample."""
    if network.ordered:
        raise Refusal("the checker does not evaluate a Softmax")
    values = read_witness(text, network.size(network.input_name))
    # What is run is the nearest float32; a decimal may be written short, but must mean it.
    point = np.array([float(np.float32(float(value))) for value in values])
    if any(float(value) != x for x, value in zip(point, values, strict=True)):
        raise Refusal("the witness is not made of float32 numbers")
    exact = [Fraction(x) for x in point.tolist()]
    inside = [case for case in cases if holds(case, exact)]
    if not inside:
        raise Refusal("the witness lies in none of the property's boxes")
    shown = []
    for real, meaning in ((True, "in real arithmetic"), (False, "in every float32 execution")):
        if any(met(network, case, point, real=real) for case in inside):
            shown.append(meaning)
    if not shown:
        raise Refusal("the witness's outputs are within rounding of the property's border")
    return f"the counterexample holds {' and '.join(shown)}"


def holds(case: Case, values: list[Fraction]) -> bool:
    """Whether a point lies in the box, exactly; a float32 nearest to an end counts as inside.

    Where the box holds no float32 number in some direction, its nearest one stands for it. An end
    that a strict comparison gives is outside.
    """
    for i, (low, value, high) in enumerate(zip(case.lower, values, case.upper, strict=True)):
        if any(value == end and (i, side) in case.open for side, end in enumerate((low, high))):
            return False
        if low == high and {(i, False), (i, True)} & case.open:
            return False
        cast = [Fraction(float(np.float32(float(end)))) for end in (low, high)]
        narrow = cast[0] < low and cast[1] < low or cast[0] > high and cast[1] > high
        if not (low <= value <= high or ((low == high or narrow) and value in cast)):
            return False
    return True


def met(network: Network, case: Case, point: Array, *, real: bool) -> bool:
    """Whether all rows of some clause are <= 0 at the point."""
    goal: Goal = goal_of(case, network.size(network.output_name))
    done = crown(network, point[None], point[None], real=real)
    name = network.output_name
    least = done.least(name, -goal.coeff[None], -goal.const[None], goal.slack[None], Hints())[0]
    return any(bool((least[goal.clause == k] >= 0).all()) for k in range(goal.count))
