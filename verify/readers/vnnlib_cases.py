"""Conjunctions of atoms -> a Property: boxes with their clauses, equal boxes joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from verify.readers.vnnlib_numbers import Number
from verify.readers.vnnlib_terms import MOST_TERMS, Atom, Conjunction, End, Row
from verify.values.bounds import Bounds
from verify.values.property import Case, Halfspaces, Property

Side: TypeAlias = "tuple[Number, int]"
"""An end of an interval: the number, and whether it is excluded: sorts as the constraint does."""


class NoEnd(Exception):
    """An input has no lower or no upper end, or there is too much of something."""


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One conjunction, sorted into what it is about.

    Attributes:
        ends: of inputs' intervals.
        inputs: rows over inputs alone.
        outputs: rows that an output takes part in.
    """

    ends: tuple[End, ...]
    inputs: tuple[Row, ...]
    outputs: tuple[Row, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Boxed:
    """Ends of all inputs, combined: of each the tightest; None where none was given."""

    lower: list[Side | None]
    upper: list[Side | None]

    def cut(self, ends: tuple[End, ...]) -> Boxed | None:
        """With further ends; None if nothing is left."""
        if not ends:
            return self
        lower, upper = list(self.lower), list(self.upper)
        for index, is_upper, strict, value in ends:
            if is_upper:
                side, old = (value, 0 if strict else 1), upper[index]
                if old is None or side < old:
                    upper[index] = side
            else:
                side, old = (value, 1 if strict else 0), lower[index]
                if old is None or side > old:
                    lower[index] = side
        for index, *_ in ends:
            low, high = lower[index], upper[index]
            if low is not None and high is not None:
                (least, open_below), (most, closed_above) = low, high
                if least > most or (least == most and (open_below or not closed_above)):
                    return None
        return Boxed(lower, upper)


def sorted_out(term: Conjunction) -> Term:
    """The atoms by kind."""
    rows = [atom for atom in term if isinstance(atom, Row)]
    return Term(
        tuple(atom for atom in term if isinstance(atom, End)),
        tuple(row for row in rows if not any(output for output, _, _ in row.terms)),
        tuple(row for row in rows if any(output for output, _, _ in row.terms)),
    )


def kind_of(terms: list[Conjunction]) -> str:
    """Whether the atoms of an assertion are over inputs, over outputs, or over both."""
    about = {about_output(atom) for term in terms for atom in term}
    return "both" if len(about) > 1 else "outputs" if about == {True} else "inputs"


def about_output(atom: Atom) -> bool:
    """Whether an output takes part."""
    return isinstance(atom, Row) and any(output for output, _, _ in atom.terms)


def property_of(assertions: list[list[Conjunction]], inputs: int, outputs: int) -> Property:
    """The property that is met where all assertions are.

    Args:
        assertions: each a disjunction of conjunctions.
        inputs, outputs: how many there are.

    Raises:
        NoEnd: if an input has no lower or upper end in some case.
    """
    # Most of a large file: assertions of one atom, which all cases share.
    shared = sorted_out(tuple(a for terms in assertions if len(terms) == 1 for a in terms[0]))
    box = Boxed([None] * inputs, [None] * inputs).cut(shared.ends)
    sides = [Term((), shared.inputs, ())]
    clauses = [shared.outputs]
    for terms in assertions:
        if len(terms) == 1:
            continue
        kind = kind_of(terms)
        parts = [sorted_out(term) for term in terms]
        if kind == "outputs":
            clauses = product(clauses, [part.outputs for part in parts])
        else:
            sides = joined(sides, parts)
    found = grouped(box, sides, clauses)
    mixed = any(
        not o for group in found for clause in group[2] for row in clause for o, *_ in row[0]
    )
    return Property(cases_of(found, inputs, outputs, mixed), inputs, outputs, mixed)


def product(left: list[tuple[Row, ...]], right: list[tuple[Row, ...]]) -> list[tuple[Row, ...]]:
    """The conjunction of two disjunctions of rows."""
    refuse_many(len(left) * len(right))
    return [a + b for a in left for b in right]


def joined(left: list[Term], right: list[Term]) -> list[Term]:
    """The conjunction of two disjunctions of terms."""
    refuse_many(len(left) * len(right))
    return [
        Term(a.ends + b.ends, a.inputs + b.inputs, a.outputs + b.outputs)
        for a in left
        for b in right
    ]


def refuse_many(count: int) -> None:
    """Raise where a product gets too large."""
    if count > MOST_TERMS:
        raise NoEnd(f"more than {MOST_TERMS} alternatives once multiplied out; split the property")


Group: TypeAlias = "tuple[Boxed, tuple[Row, ...], list[tuple[Row, ...]]]"


def grouped(box: Boxed | None, terms: list[Term], clauses: list[tuple[Row, ...]]) -> list[Group]:
    """Boxes with their linear constraints and all clauses that belong to them."""
    if box is None:
        return []
    groups: dict[object, Group] = {}
    whole = sum(len(rows) for rows in clauses)
    spent = 0
    for term in terms:
        cut = box.cut(term.ends)
        if cut is None:
            continue
        for name, side in (("lower", cut.lower), ("upper", cut.upper)):
            if None in side:
                raise NoEnd(
                    f"input {side.index(None)} has no {name} bound in some case; every input "
                    "needs both, so add them"
                )
        key = (key_of(cut.lower), key_of(cut.upper), term.inputs) if len(terms) > 1 else None
        _, _, found = groups.setdefault(key, (cut, term.inputs, []))
        found.extend(term.outputs + clause for clause in clauses)
        spent += whole
        refuse_many(spent // 100)
    return list(groups.values())


def key_of(sides: list[Side | None]) -> tuple[tuple[float, float, int], ...]:
    """All that is kept of the ends: hashing fractions is slow."""
    return tuple((side[0][0], side[0][1], side[1]) for side in sides if side is not None)


def cases_of(groups: list[Group], inputs: int, outputs: int, mixed: bool) -> tuple[Case, ...]:
    """The groups as tensors."""
    if not groups:
        return ()
    down = ends_of([box.lower for box, _, _ in groups])
    up = ends_of([box.upper for box, _, _ in groups])
    floats = floats_of(down, up)
    # Where no float32 lies inside, the nearest one counts, and the box has to hold it.
    lower = np.minimum(down.outer(0), floats[0].astype(np.float64))
    upper = np.maximum(up.outer(1), floats[1].astype(np.float64))
    low32, high32 = torch.from_numpy(floats[0]), torch.from_numpy(floats[1])
    low, high = torch.from_numpy(lower), torch.from_numpy(upper)
    width = outputs + inputs if mixed else outputs
    none = halfspaces((), inputs, 0)
    return tuple(
        Case(
            low[i],
            high[i],
            halfspaces(rows, inputs, 0) if rows else none,
            tuple(halfspaces(clause, width, outputs) for clause in clauses),
            Bounds(low32[i], high32[i]),
        )
        for i, (_, rows, clauses) in enumerate(groups)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """Ends of intervals, (case, input): float64 below and above each, and a flag."""

    down: np.ndarray
    up: np.ndarray
    flag: np.ndarray

    def outer(self, upper: int) -> np.ndarray:
        """Rounded away from the interval."""
        return self.up if upper else self.down


def ends_of(sides: list[list[Side | None]]) -> Ends:
    """Numbers as arrays."""
    flat = [side for row in sides for side in row if side is not None]
    shape = (len(sides), -1)
    down = np.array([value[0] for value, _ in flat], dtype=np.float64).reshape(shape)
    up = np.array([value[1] for value, _ in flat], dtype=np.float64).reshape(shape)
    return Ends(down, up, np.array([flag for _, flag in flat], dtype=bool).reshape(shape))


def floats_of(low: Ends, high: Ends) -> tuple[np.ndarray, np.ndarray]:
    """The least and largest float32 in each interval; where there is none, the nearest."""
    infinity = np.float32(np.inf)
    with np.errstate(over="ignore"):
        least, most = low.up.astype(np.float32), high.down.astype(np.float32)
        middle = (low.up / 2 + high.down / 2).astype(np.float32)
    wide = least.astype(np.float64)
    # An open end that is itself a float32 is not among them.
    short = (wide < low.up) | (low.flag & (wide == low.down))
    least = np.where(short, np.nextafter(least, infinity), least)
    wide = most.astype(np.float64)
    beyond = (wide > high.down) | (~high.flag & (wide == high.up))
    most = np.where(beyond, np.nextafter(most, -infinity), most)
    none = ~(least <= most)
    return np.where(none, middle, least), np.where(none, middle, most)


def halfspaces(rows: tuple[Row, ...], width: int, outputs: int) -> Halfspaces:
    """Rows as tensors; inputs stand behind so many outputs."""
    coeff: Tensor = torch.zeros(len(rows), width, dtype=torch.float64)
    for i, row in enumerate(rows):
        for output, index, c in row.terms:
            coeff[i, index if output else outputs + index] = c
    down = torch.tensor([row.const.down for row in rows], dtype=torch.float64)
    up = torch.tensor([row.const.up for row in rows], dtype=torch.float64)
    strict = torch.tensor([row.strict for row in rows], dtype=torch.bool)
    return Halfspaces(coeff, down, strict, None if torch.equal(down, up) else up)
