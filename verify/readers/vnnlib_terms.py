"""Formulas -> disjunctions of conjunctions of atoms; an atom is an end of a box or a linear row."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from verify.readers.vnnlib_numbers import Number, number_from, number_of
from verify.readers.vnnlib_tokens import (
    NUMBER,
    Declared,
    Part,
    Simple,
    Source,
    Word,
    head_of,
    start_of,
)

MOST_TERMS = 200_000
"""Of the disjunctive normal form of all assertions together."""
MOST_ATOMS = 20_000_000
"""In all its terms together."""
LARGEST_INTEGER = 2**53
"""Integers up to it are float64 numbers."""

IS_NUMBER = re.compile(NUMBER)
NEGATED = {"<=": ">", ">=": "<", "<": ">=", ">": "<=", "=": "!=", "!=": "="}
SAME = {"==": "=", "distinct": "!="}


class End(NamedTuple):
    """One end of one input's interval: x <= value or x >= value, or < and > where strict."""

    entry: int
    upper: bool
    strict: bool
    value: Number


class Row(NamedTuple):
    """A linear constraint: sum of coefficient·variable + const <= 0, or < 0 where strict.

    Attributes:
        terms: (is an output, index, coefficient), every coefficient a float64 number.
        const: the constant.
        strict: whether equality is excluded.
    """

    terms: tuple[tuple[bool, int, float], ...]
    const: Number
    strict: bool


Atom: TypeAlias = "End | Row"
Conjunction: TypeAlias = "tuple[Atom, ...]"
Form: TypeAlias = "dict[tuple[bool, int], Fraction]"


@dataclass(eq=False)
class Reader:
    """Reads formulas over variables that were declared.

    Attributes:
        source: for messages.
        variables: name -> (is an output, index); filled by the declarations.
        tensors: name -> (is an output, shape), whose entries are variables such as X[0,2].
        numbers: constants met so far, by their text.
        atoms: simple atoms met so far: large disjunctions repeat the same ones.
        spent: atoms in the terms so far.
    """

    source: Source
    variables: dict[str, tuple[bool, int]] = field(default_factory=dict)
    tensors: dict[str, tuple[bool, tuple[int, ...]]] = field(default_factory=dict)
    numbers: dict[str, Number] = field(default_factory=dict)
    atoms: dict[tuple[bool, str, str], Atom] = field(default_factory=dict)
    spent: int = 0

    def number(self, text: str, start: int) -> Number:
        """A constant."""
        known = self.numbers.get(text)
        if known is None:
            found = number_of(text)
            if isinstance(found, str):
                raise self.source.error(start, found)
            known = self.numbers[text] = found
        return known

    def variable(self, name: str, start: int) -> tuple[bool, int]:
        """Whether a variable is an output, and its index."""
        found = self.variables.get(name)
        if found is None and self.tensors:
            found = self.variables[name] = self.entry(name, start)
        if found is None:
            raise self.source.error(
                start, f"the variable {name} is not declared before it is used; declare it"
            )
        return found

    def entry(self, name: str, start: int) -> tuple[bool, int]:
        """The entry of a tensor that X[0,2] names, counted in row-major order."""
        tensor, _, index = name.partition("[")
        if tensor not in self.tensors:
            raise self.source.error(
                start, f"the variable {tensor} is not declared before it is used; declare it"
            )
        output, shape = self.tensors[tensor]
        places = [p.strip() for p in index.rstrip("]").split(",")] if index.strip("] ") else []
        fits = len(places) == len(shape) and all(
            p.isdecimal() and len(p) < 12 and int(p) < n for p, n in zip(places, shape, strict=True)
        )
        if not fits:
            raise self.source.error(
                start, f"{name} is no entry of {tensor}, whose shape is {list(shape)}"
            )
        flat = 0
        for place, length in zip(places, shape, strict=True):
            flat = flat * length + int(place)
        return output, flat

    # Formulas.

    def terms(self, part: Part, *, negated: bool = False) -> list[Conjunction]:
        """The disjunctive normal form of a formula (or of its negation)."""
        if isinstance(part, Simple) and not negated:
            return [(self.simple(part),)]
        if isinstance(part, Simple):
            op = NEGATED["<=" if part.upper else ">="]
            form, constant = {self.variable(part.variable, part.start): Fraction(1)}, Fraction(0)
            limit = self.number(part.limit, part.start).exact
            return self.compared(op, form, constant - limit, part.start)
        if isinstance(part, Word) and part.text in ("true", "false"):
            return [()] if (part.text == "true") != negated else []
        head = head_of(part)
        if not isinstance(part, list) or not head:
            raise self.source.error(
                start_of(part), "expected a formula: (and ...), (or ...) or a comparison"
            )
        arguments = part[2:]
        if head == "and" and not negated and all(isinstance(a, Simple) for a in arguments):
            # Most of a large file: no need to multiply anything out.
            self.spend(len(arguments), part)
            return [tuple(self.simple(a) for a in arguments if isinstance(a, Simple))]
        if head == "not":
            self.expect(part, len(arguments) == 1, "(not ...) takes one formula")
            return self.terms(arguments[0], negated=not negated)
        if head in ("and", "or"):
            if (head == "and") != negated:
                return self.product([self.terms(a, negated=negated) for a in arguments], part)
            return self.limited(
                [t for a in arguments for t in self.terms(a, negated=negated)], part
            )
        op = SAME.get(head, head)
        if op not in NEGATED:
            raise self.source.error(
                start_of(part[1]),
                f"unknown operator {head!r}; expected and, or, not, <=, >=, <, >, =, !=",
            )
        arguments = self.indexed(arguments)
        self.expect(part, len(arguments) == 2, f"({head} ...) compares two expressions")
        (left, c), (right, d) = (self.linear(a) for a in arguments)
        difference = added(left, right, Fraction(-1))
        return self.compared(NEGATED[op] if negated else op, difference, c - d, start_of(part))

    def expect(self, part: Part, fine: bool, what: str) -> None:
        """Raise unless it is fine."""
        if not fine:
            raise self.source.error(start_of(part), what)

    def limited(self, terms: list[Conjunction], part: Part) -> list[Conjunction]:
        """The terms, unless they are too many."""
        if len(terms) > MOST_TERMS:
            raise self.source.error(
                start_of(part), f"more than {MOST_TERMS} alternatives; split the property"
            )
        return terms

    def product(self, factors: list[list[Conjunction]], part: Part) -> list[Conjunction]:
        """The conjunction of disjunctions, multiplied out."""
        shared: list[Atom] = []
        found: list[Conjunction] = [()]
        for factor in factors:
            if len(factor) == 1:
                shared.extend(factor[0])
                continue
            if len(found) * len(factor) > MOST_TERMS:
                raise self.source.error(
                    start_of(part),
                    f"more than {MOST_TERMS} alternatives once multiplied out; split the property",
                )
            found = [a + b for a in found for b in factor]
            self.spend(sum(map(len, found)), part)
        self.spend(len(shared) * len(found), part)
        common = tuple(shared)
        return [term + common for term in found] if common else found

    def spend(self, atoms: int, part: Part) -> None:
        """Count atoms, and stop where they get too many."""
        self.spent += atoms
        if self.spent > MOST_ATOMS:
            raise self.source.error(
                start_of(part), f"more than {MOST_ATOMS} comparisons in all; split the property"
            )

    # Atoms.

    def simple(self, part: Simple) -> Atom:
        """An end of a box, or a row over one output."""
        key = (part.upper, part.variable, part.limit)
        found = self.atoms.get(key)
        if found is None:
            output, index = self.variable(part.variable, part.start)
            value = self.number(part.limit, part.start)
            found = self.atoms[key] = one_sided(output, index, part.upper, False, value)
        return found

    def compared(self, op: str, form: Form, const: Fraction, start: int) -> list[Conjunction]:
        """The terms of `form + const op 0`."""
        form = {key: c for key, c in form.items() if c}
        if not form:
            holds = {
                "<=": const <= 0,
                "<": const < 0,
                ">=": const >= 0,
                ">": const > 0,
                "=": const == 0,
                "!=": const != 0,
            }[op]
            return [()] if holds else []
        below = self.row(form, const, False, start)
        above = self.row({key: -c for key, c in form.items()}, -const, False, start)
        if op == "=":
            return [(below, above)]
        if op == "!=":
            return [(strictly(below),), (strictly(above),)]
        atom = below if op in ("<=", "<") else above
        return [(strictly(atom) if op in ("<", ">") else atom,)]

    def row(self, form: Form, const: Fraction, strict: bool, start: int) -> Atom:
        """form + const <= 0, scaled so that its coefficients are float64 numbers."""
        scale = Fraction(1)
        if len(form) == 1:
            (((output, index), c),) = form.items()
            value = number_from(-const / c)
            if value is None:
                raise self.source.error(start, "a constant is beyond what float64 holds; rescale")
            return one_sided(output, index, c > 0, strict, value)
        if any(as_float(c) is None for c in form.values()):
            for c in form.values():
                if scale.numerator <= LARGEST_INTEGER:
                    scale *= (c * scale).denominator
        scaled = {key: as_float(c * scale) for key, c in form.items()}
        offset = number_from(const * scale)
        if offset is None or any(c is None for c in scaled.values()):
            raise self.source.error(
                start,
                "a coefficient has more digits than float64 holds; write it with fewer",
            )
        terms = tuple((o, i, c) for (o, i), c in scaled.items() if c is not None)
        return Row(terms, offset, strict)

    # Expressions.

    def linear(self, part: Part) -> tuple[Form, Fraction]:
        """An expression as coefficients and a constant."""
        if isinstance(part, Word):
            if IS_NUMBER.fullmatch(part.text):
                return {}, self.number(part.text, part.start).exact
            return {self.variable(part.text, part.start): Fraction(1)}, Fraction(0)
        head = head_of(part)
        if not isinstance(part, list) or isinstance(part, Declared) or not head:
            raise self.source.error(start_of(part), "expected a number, a variable or (+ ...)")
        self.expect(part, len(part) > 2, f"({head} ...) needs something to work on")
        values = [self.linear(a) for a in self.indexed(part[2:])]
        first, const = values[0]
        if head == "+":
            for form, c in values[1:]:
                first, const = added(first, form, Fraction(1)), const + c
            return first, const
        if head == "-":
            if len(values) == 1:
                return {key: -c for key, c in first.items()}, -const
            for form, c in values[1:]:
                first, const = added(first, form, Fraction(-1)), const - c
            return first, const
        if head in ("*", "/"):
            return self.scaled(head, values, part)
        raise self.source.error(
            start_of(part[1]), f"unknown operator {head!r}; expected +, -, * or /"
        )

    def scaled(
        self, head: str, values: list[tuple[Form, Fraction]], part: Part
    ) -> tuple[Form, Fraction]:
        """A product or quotient of which at most one factor holds variables."""
        form, const = values[0]
        for other, factor in values[1:]:
            if head == "/":
                self.expect(part, not other and factor != 0, "only divide by constants, not by 0")
                factor = 1 / factor
            elif other:
                self.expect(part, not form, "a product of two variables is not linear; rewrite it")
                form, const, factor = other, factor, const
            form = {key: c * factor for key, c in form.items()}
            const = const * factor
        size = max((abs(c) for c in (*form.values(), const)), default=Fraction(0))
        digits = max(size.numerator.bit_length(), size.denominator.bit_length())
        self.expect(part, digits < 100_000, "a constant has too many digits; round it")
        return form, const

    def indexed(self, parts: list[Part]) -> list[Part]:
        """The parts, with `X [0, 2]` joined to the one name `X[0,2]`."""
        found: list[Part] = []
        for part in parts:
            before = found[-1] if found else None
            if isinstance(part, Word) and part.text.startswith("["):
                if not isinstance(before, Word):
                    raise self.source.error(part.start, "an index without a variable before it")
                found[-1] = Word(before.text + "".join(part.text.split()), before.start)
            else:
                found.append(part)
        return found


def one_sided(output: bool, index: int, upper: bool, strict: bool, value: Number) -> Atom:
    """variable <= value or >= value: an input's end, or an output's row."""
    if not output:
        return End(index, upper, strict, value)
    if upper:
        const = Number(-value.up, -value.down, -value.exact)
        return Row(((True, index, 1.0),), const, strict)
    return Row(((True, index, -1.0),), value, strict)


def strictly(atom: Atom) -> Atom:
    """The atom without its border."""
    return atom._replace(strict=True)


def added(left: Form, right: Form, factor: Fraction) -> Form:
    """left + factor · right."""
    total = dict(left)
    for key, c in right.items():
        total[key] = total.get(key, Fraction(0)) + factor * c
    return total


def as_float(value: Fraction) -> float | None:
    """The float64 number that equals a rational, or None."""
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if Fraction(found) == value else None
