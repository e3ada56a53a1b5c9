"""A VNN-LIB property, read exactly: boxes of inputs and unsafe clauses of outputs, in rationals.

Read are declarations, and assertions built of and, or, <=, >=, <, > between variables and numbers.
A strict comparison is treated as if equality were unsafe too, which is harder to prove.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from verify.check.network import Array
from verify.check.refusal import Refusal

TOKEN = re.compile(r"[()]|[^\s();]+|;[^\n]*")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")
MOST_DIGITS = 1200
"""Of a number; the exact decimal of any float64 is shorter."""
MOST_DEPTH = 100
MOST_TERMS = 1_000_000
"""Of the disjunction that a property is multiplied out to."""


@dataclass(frozen=True)
class Row:
    """coefficients·y + constant <= 0, unsafe if it holds together with the rest of its clause."""

    coefficients: dict[int, Fraction]
    constant: Fraction


@dataclass(frozen=True)
class Case:
    """A box of inputs, and clauses of outputs that are unsafe there."""

    lower: list[Fraction]
    upper: list[Fraction]
    clauses: list[list[Row]]


def parsed(text: str) -> list[Any]:
    """The file as nested lists of words."""
    stack: list[list[Any]] = [[]]
    for token in TOKEN.findall(text):
        if token[0] == ";":
            continue
        if token == "(":
            if len(stack) > MOST_DEPTH:
                raise Refusal("the property is nested too deeply")
            stack.append([])
        elif token == ")":
            if len(stack) == 1:
                raise Refusal("the property closes a bracket that was not opened")
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    if len(stack) != 1:
        raise Refusal("the property ends inside a bracket")
    return stack[0]


def disjunction(formula: Any) -> list[list[list[str]]]:
    """The formula as a disjunction of conjunctions of comparisons."""
    if not isinstance(formula, list) or not formula:
        raise Refusal(f"{formula!r} is no formula")
    head, *parts = formula
    if head in ("<=", ">=", "<", ">") and len(parts) == 2:
        return [[formula]]
    if head == "or":
        return [term for part in parts for term in disjunction(part)]
    if head == "and":
        options = [disjunction(part) for part in parts]
        if np.prod([len(option) for option in options], dtype=object) > MOST_TERMS:
            raise Refusal("the property multiplies out to too many terms")
        return [[atom for term in choice for atom in term] for choice in product(*options)]
    raise Refusal(f"the checker does not read {head!r} with {len(parts)} arguments")


def linear(word: Any, names: dict[str, int]) -> Row:
    """A variable or a number as coefficients and a constant; outputs follow the inputs."""
    if isinstance(word, str) and word in names:
        return Row({names[word]: Fraction(1)}, Fraction(0))
    if isinstance(word, str) and len(word) <= MOST_DIGITS and NUMBER.fullmatch(word):
        return Row({}, Fraction(word))
    raise Refusal(f"{str(word)[:40]!r} is neither a declared variable nor a number")


def compared(atom: list[str], names: dict[str, int]) -> Row:
    """left <= right as a row left - right <= 0; >= the other way round."""
    head, left, right = atom
    if head in (">=", ">"):
        left, right = right, left
    first, second = linear(left, names), linear(right, names)
    coefficients = dict(first.coefficients)
    for name, value in second.coefficients.items():
        coefficients[name] = coefficients.get(name, Fraction(0)) - value
    return Row({n: v for n, v in coefficients.items() if v}, first.constant - second.constant)


def read_property(text: str, inputs: int, outputs: int) -> list[Case]:
    """The cases of a property, equal boxes joined; raises Refusal."""
    names: dict[str, int] = {}
    bounds: list[Row] = []
    choices: list[list[list[Row]]] = []
    for statement in parsed(text):
        match statement:
            case ["declare-const", str(name), "Real"]:
                kind = re.fullmatch(r"([XY])_(\d{1,9})", name)
                if kind is None or name in names:
                    raise Refusal(f"variable {name!r} is declared twice, or is no X_i or Y_i")
                names[name] = int(kind[2]) + (inputs if kind[1] == "Y" else 0)
            case ["assert", formula]:
                terms = [[compared(a, names) for a in term] for term in disjunction(formula)]
                if len(terms) == 1:
                    bounds.extend(terms[0])
                else:
                    choices.append(terms)
            case _:
                raise Refusal(f"the checker does not read the statement {str(statement)[:60]}")
    if sorted(names.values()) != list(range(inputs + outputs)):
        raise Refusal(f"the property does not declare {inputs} inputs and {outputs} outputs")
    if np.prod([len(terms) for terms in choices], dtype=object) > MOST_TERMS:
        raise Refusal("the property multiplies out to too many terms")
    whole = Box([None] * inputs, [None] * inputs)
    common = whole.cut(bounds, inputs)
    joined: dict[frozenset[Any], Case] = {}
    for chosen in product(*choices):
        box = Box(list(whole.lower), list(whole.upper))
        clause = common + box.cut([row for term in chosen for row in term], inputs)
        joined.setdefault(box.beyond(whole), box.case()).clauses.append(clause)
    return list(joined.values())


@dataclass
class Box:
    """Bounds of the inputs as far as they are known."""

    lower: list[Fraction | None]
    upper: list[Fraction | None]

    def cut(self, rows: list[Row], inputs: int) -> list[Row]:
        """Take over the rows that bound inputs; returns those about outputs."""
        clause = []
        for row in rows:
            if not row.coefficients or min(row.coefficients) >= inputs:
                shifted = {n - inputs: v for n, v in row.coefficients.items()}
                clause.append(Row(shifted, row.constant))
                continue
            if len(row.coefficients) > 1:
                raise Refusal("a constraint ties several variables of which one is an input")
            ((place, value),) = row.coefficients.items()
            bound = -row.constant / value
            ends, nearer = (self.upper, min) if value > 0 else (self.lower, max)
            known = ends[place]
            ends[place] = bound if known is None else nearer(known, bound)
        return clause

    def beyond(self, whole: "Box") -> frozenset[Any]:
        """Where this box differs from another one, and how."""
        ends = zip((*self.lower, *self.upper), (*whole.lower, *whole.upper), strict=True)
        pairs = enumerate(ends)
        return frozenset((i, own) for i, (own, other) in pairs if own is not other and own != other)

    def case(self) -> Case:
        """With no clause yet; refused unless all inputs are bounded."""
        lower = [value for value in self.lower if value is not None]
        upper = [value for value in self.upper if value is not None]
        if len(lower) != len(self.lower) or len(upper) != len(self.upper):
            raise Refusal("an input is not bounded on both sides")
        return Case(lower, upper, [])


def hull(values: list[Fraction], sign: int) -> Array:
    """Ends of a box in float64, moved outward (down for sign -1) to hold the float32 cast as well.

    Whoever casts a decimal to float32 may land outside the decimal box by half a unit; that point
    is covered too.
    """
    wide = np.empty(len(values))
    for i, value in enumerate(values):
        try:
            near = float(value)
        except OverflowError:
            raise Refusal("a bound of an input is beyond float64") from None
        inward = near > value if sign < 0 else near < value
        wide[i] = np.nextafter(near, sign * np.inf) if inward else near
    if (np.abs(wide) > float(np.finfo(np.float32).max)).any():
        raise Refusal("a bound of an input is beyond float32")
    single = wide.astype(np.float32)
    casts = [single, *(np.nextafter(single, np.float32(side * np.inf)) for side in (-1, 1))]
    exact = np.stack([cast.astype(np.float64) for cast in casts])
    off = np.abs(exact - wide)
    # All that may be nearest; where two are, within the rounding of `wide`, both count.
    nearest = off <= off.min(axis=0) + 2.0**-50 * np.abs(wide)
    outward: Array = np.where(nearest, sign * exact, -np.inf).max(axis=0)
    return sign * np.maximum(outward, sign * wide)
