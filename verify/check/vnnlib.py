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

from verify.check.linear import Array
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
    joined: dict[tuple[Any, ...], Case] = {}
    for chosen in product(*choices):
        rows = [*bounds, *(row for term in chosen for row in term)]
        found = case_of(rows, inputs)
        key = (*found.lower, *found.upper)
        joined.setdefault(key, Case(found.lower, found.upper, [])).clauses.extend(found.clauses)
    return list(joined.values())


def case_of(rows: list[Row], inputs: int) -> Case:
    """The box and the one clause of a conjunction."""
    lower: list[Fraction | None] = [None] * inputs
    upper: list[Fraction | None] = [None] * inputs
    clause = []
    for row in rows:
        if not row.coefficients or min(row.coefficients) >= inputs:
            clause.append(Row({n - inputs: v for n, v in row.coefficients.items()}, row.constant))
            continue
        if len(row.coefficients) > 1:
            raise Refusal("a constraint ties several variables of which one is an input")
        ((place, value),) = row.coefficients.items()
        bound = -row.constant / value
        if value > 0:
            high = upper[place]
            upper[place] = bound if high is None else min(high, bound)
        else:
            low = lower[place]
            lower[place] = bound if low is None else max(low, bound)
    low_known = [value for value in lower if value is not None]
    high_known = [value for value in upper if value is not None]
    if len(low_known) != inputs or len(high_known) != inputs:
        raise Refusal("an input is not bounded on both sides")
    return Case(low_known, high_known, [clause])


def hull(values: list[Fraction], sign: int) -> Array:
    """Ends of a box in float64, moved outward (down for sign -1) to hold the float32 cast as well.

    Whoever casts a decimal to float32 may land outside the decimal box by half a unit; that point
    is covered too.
    """
    found = np.empty(len(values))
    for i, value in enumerate(values):
        try:
            wide = float(value)
        except OverflowError:
            raise Refusal("a bound of an input is beyond float64") from None
        if (Fraction(wide) - value) * sign < 0:
            wide = float(np.nextafter(wide, sign * np.inf))
        if abs(wide) > float(np.finfo(np.float32).max):
            raise Refusal("a bound of an input is beyond float32")
        near = np.float32(wide)
        around = [np.nextafter(near, np.float32(s * np.inf)) for s in (-1, 1)]
        singles = [float(single) for single in (near, *around) if np.isfinite(single)]
        least = min(abs(Fraction(single) - value) for single in singles)
        casts = [single for single in singles if abs(Fraction(single) - value) == least]
        found[i] = min(wide, *casts) if sign < 0 else max(wide, *casts)
    return found
