"""A VNN-LIB property, read exactly: boxes of inputs and unsafe clauses of outputs, in rationals.

Read are declarations, and assertions built of and, or, <=, >=, <, > between variables and numbers.
For proofs a strict comparison is one that equality meets, too, which is harder to prove.
"""

import math
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

    coefficients: dict[int, int]
    constant: Fraction
    strict: bool = False


@dataclass(frozen=True)
class Case:
    """A box of inputs, and clauses of outputs that are unsafe there.

    `open` names the ends that lie outside of the box, being those of strict comparisons.
    """

    lower: list[Fraction]
    upper: list[Fraction]
    clauses: list[list[Row]]
    open: frozenset[tuple[int, bool]] = frozenset()


Terms = list[list[Row]]
"""A disjunction of conjunctions; outputs are numbered after the inputs."""
Ends = dict[tuple[int, bool], tuple[Fraction, bool]]
"""The end of an input, by its number: False for the lower one, True for the upper one; and whether
it is strict."""


def parsed(text: str) -> list[Any]:
    """The file as nested lists of words."""
    stack: list[list[Any]] = [[]]
    for token in TOKEN.findall(text):
        if token == "(":
            if len(stack) > MOST_DEPTH:
                raise Refusal("the property is nested too deeply")
            stack.append([])
        elif token == ")":
            if len(stack) == 1:
                raise Refusal("the property closes a bracket that was not opened")
            done = stack.pop()
            stack[-1].append(done)
        elif token[0] != ";":
            stack[-1].append(token)
    if len(stack) != 1:
        raise Refusal("the property ends inside a bracket")
    return stack[0]


def all_of(parts: list[Terms]) -> Terms:
    """A conjunction of disjunctions, multiplied out."""
    if math.prod(len(terms) for terms in parts) > MOST_TERMS:
        raise Refusal("the property multiplies out to too many terms")
    return [[row for term in chosen for row in term] for chosen in product(*parts)]


def disjunction(formula: Any, names: dict[str, int]) -> Terms:
    """A formula as a disjunction; left <= right as the row left - right <= 0."""
    match formula:
        case ["or", *parts]:
            return [term for part in parts for term in disjunction(part, names)]
        case ["and", *parts]:
            return all_of([disjunction(part, names) for part in parts])
        case ["<=" | "<", left, right] | [">=" | ">", right, left]:
            coefficients: dict[int, int] = {}
            numbers: list[Fraction] = []
            for word, sign in ((left, 1), (right, -1)):
                if isinstance(word, str) and word in names:
                    n = names[word]
                    coefficients[n] = coefficients.get(n, 0) + sign
                else:
                    numbers.append(number(word) if sign > 0 else -number(word))
            constant = numbers[0] if len(numbers) == 1 else sum(numbers, Fraction(0))
            strict = len(formula[0]) == 1
            return [[Row({n: v for n, v in coefficients.items() if v}, constant, strict)]]
    head = formula[0] if isinstance(formula, list) and formula else formula
    raise Refusal(f"the checker does not read {str(head)[:40]!r}, or not with such arguments")


def number(word: Any) -> Fraction:
    """A number, exactly."""
    if isinstance(word, str) and len(word) <= MOST_DIGITS and NUMBER.fullmatch(word):
        return Fraction(word)
    raise Refusal(f"{str(word)[:40]!r} is neither a declared variable nor a number")


def read_property(text: str, inputs: int, outputs: int) -> list[Case]:
    """The cases of a property, equal boxes joined; raises Refusal."""
    names: dict[str, int] = {}
    common: list[Row] = []
    choices: list[Terms] = []
    for statement in parsed(text):
        match statement:
            case ["declare-const", str(name), "Real"]:
                kind = re.fullmatch(r"([XY])_(\d{1,9})", name)
                if kind is None or name in names:
                    raise Refusal(f"variable {name!r} is declared twice, or is no X_i or Y_i")
                names[name] = int(kind[2]) + (inputs if kind[1] == "Y" else 0)
            case ["assert", formula]:
                terms = disjunction(formula, names)
                if len(terms) == 1:
                    common += terms[0]
                else:
                    choices.append(terms)
            case _:
                raise Refusal(f"the checker does not read the statement {str(statement)[:60]}")
    if sorted(names.values()) != list(range(inputs + outputs)):
        raise Refusal(f"the property does not declare {inputs} inputs and {outputs} outputs")
    whole: Ends = {}
    shared = cut(whole, {}, common, inputs)
    joined: dict[frozenset[Any], Case] = {}
    for rows in all_of(choices):
        own: Ends = {}
        clause = shared + cut(own, whole, rows, inputs)
        key = frozenset(own.items())
        if key not in joined:
            ends = whole | own
            if len(ends) < 2 * inputs:
                raise Refusal("an input is not bounded on both sides")
            lower, upper = ([ends[i, side][0] for i in range(inputs)] for side in (False, True))
            open_ = frozenset(end for end, (_, strict) in ends.items() if strict)
            joined[key] = Case(lower, upper, [], open_)
        joined[key].clauses.append(clause)
    return list(joined.values())


def cut(ends: Ends, whole: Ends, rows: list[Row], inputs: int) -> list[Row]:
    """Take over, as `ends`, what rows bound inputs by within `whole`; returns those of outputs."""
    clause = []
    for row in rows:
        if not row.coefficients or min(row.coefficients) >= inputs:
            own = {n - inputs: value for n, value in row.coefficients.items()}
            clause.append(Row(own, row.constant, row.strict))
            continue
        if len(row.coefficients) > 1:
            raise Refusal("a constraint ties several variables of which one is an input")
        ((place, value),) = row.coefficients.items()
        above = value > 0  # the coefficient is 1 or -1
        end, bound = (place, above), -row.constant if above else row.constant
        known = ends.get(end, whole.get(end))
        if known is None or (bound < known[0] if above else bound > known[0]):
            ends[end] = bound, row.strict
        elif bound == known[0] and row.strict:
            ends[end] = known[0], True
    return clause


def hull(values: list[Fraction], sign: int) -> Array:
    """Ends of a box in float64, moved outward (down for sign -1) to hold the float32 cast as well.

    Whoever casts a decimal to float32 may land outside the decimal box by half a unit, in either
    direction where two numbers are as near; that point is covered too.
    """
    try:
        near = np.array([float(value) for value in values])
    except OverflowError:
        raise Refusal("a bound of an input is beyond float64") from None
    if (np.abs(near) >= float(np.finfo(np.float32).max)).any():
        raise Refusal("a bound of an input is beyond float32")
    same = np.array([x == value for x, value in zip(near.tolist(), values, strict=True)])
    # Past the decimal, so that its cast goes no further outward than this one's.
    wide = np.nextafter(near, sign * np.inf)
    wide = np.where(same & (near.astype(np.float32) == near), near, wide)
    outward: Array = np.maximum(sign * wide, sign * wide.astype(np.float32).astype(np.float64))
    return sign * outward
