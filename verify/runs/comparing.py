"""Two runs, instance by instance: what changed, and what cannot both be true.

A counterexample is an execution of the file in either semantics, replayed in the model's own
runtime, and a proof under float32 covers every execution: so the two contradict each other whatever
semantics the counterexample was found in. A proof in real arithmetic covers no execution: where one
breaks it, rounding decides, and both may be right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from verify.runs.identity import Head
from verify.runs.store import Store

Row = Mapping[str, object]
SAME_QUESTION = (
    "norm",
    "input_range",
    "mean",
    "std",
    "transform",
    "flow",
    "smooth",
    "pixel_noise",
)
"""Settings under which verdicts about one input are about one claim, but for its radius. Semantics
is none of them: the verdict itself says what a proof covers."""
EXECUTED, REAL_ONLY = "verified", "verified (real arithmetic)"
"""Verdicts of proofs."""

NO_FIGURES = ("index", "seconds")


@dataclass(frozen=True, slots=True)
class Pair:
    """One instance that both runs decided.

    Attributes:
        first, second: the two results.
        contradiction: why they cannot both be true, or "".
        rounding: why they can, though one is proved and the other refuted; or "".
    """

    first: Row
    second: Row
    contradiction: str
    rounding: str = ""

    @property
    def moved(self) -> dict[str, float]:
        """By how much each number that both have differs, where it does; `outer.inner` if nested.

        Indices and seconds are left out.
        """
        mine, its = numbers(self.first), numbers(self.second)
        apart = {name: its[name] - value for name, value in mine.items() if name in its}
        return {name: gap for name, gap in apart.items() if gap}

    @property
    def index(self) -> object:
        """Number of the instance in its source."""
        return self.first["index"]

    @property
    def verdicts(self) -> tuple[str, str]:
        """That of each run."""
        return str(self.first["verdict"]), str(self.second["verdict"])


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two runs say of the same instances.

    Attributes:
        differences: of their heads, in words.
        pairs: instances that both decided: the same number with the same content.
        only_first, only_second: how many others have a result.
    """

    differences: tuple[str, ...]
    pairs: tuple[Pair, ...]
    only_first: int
    only_second: int

    @property
    def verdicts(self) -> dict[tuple[str, str], int]:
        """How often each pair of verdicts came."""
        return dict(Counter(pair.verdicts for pair in self.pairs))

    @property
    def changed(self) -> tuple[Pair, ...]:
        """Those whose verdict is another one."""
        return tuple(pair for pair in self.pairs if pair.verdicts[0] != pair.verdicts[1])

    @property
    def contradictions(self) -> tuple[Pair, ...]:
        """Those of which one result must be wrong."""
        return tuple(pair for pair in self.pairs if pair.contradiction)

    @property
    def by_rounding(self) -> tuple[Pair, ...]:
        """Those that are proved in real arithmetic and executed otherwise."""
        return tuple(pair for pair in self.pairs if pair.rounding)

    @property
    def figures(self) -> dict[str, tuple[int, float]]:
        """By name of a number: in how many pairs it differs, and by how much at most."""
        found: dict[str, tuple[int, float]] = {}
        for pair in self.pairs:
            for name, gap in pair.moved.items():
                count, most = found.get(name, (0, 0.0))
                found[name] = (count + 1, max(most, abs(gap)))
        return found

    def seconds(self) -> tuple[float, float]:
        """That each run spent on the pairs."""
        first = sum(number(pair.first, "seconds") or 0.0 for pair in self.pairs)
        return first, sum(number(pair.second, "seconds") or 0.0 for pair in self.pairs)


def compare_runs(first: Store, second: Store) -> Comparison:
    """Match instances by number and content.

    Raises:
        RunError: if one of the runs is damaged.
    """
    mine, its = results_of(first), results_of(second)
    shared = [place for place in mine if place in its]
    comparable = same_question(first.head, second.head)
    pairs = (
        Pair(mine[p], its[p], *(judged(mine[p], its[p]) if comparable else ("", "")))
        for p in shared
    )
    return Comparison(
        tuple(first.head.differences(second.head)),
        tuple(pairs),
        len(mine) - len(shared),
        len(its) - len(shared),
    )


def results_of(store: Store) -> dict[tuple[object, ...], Row]:
    """Results by number and content; those of all inputs together by the words in them."""
    rows = store.conclusion().get("results")
    if isinstance(rows, list):
        named: dict[tuple[object, ...], Row] = {
            tuple(sorted((k, v) for k, v in row.items() if isinstance(v, str))): row for row in rows
        }
        if len(named) == len(rows):
            return named
    places = {position: (index, content) for position, index, content in store.contents()}
    return {places[answer.position]: answer.record for answer in store.answers()}


def same_question(first: Head, second: Head) -> bool:
    """Whether claims of one are about what claims of the other are about."""
    return first.model_sha256 == second.model_sha256 and all(
        first.settings.get(name) == second.settings.get(name) for name in SAME_QUESTION
    )


def judged(first: Row, second: Row) -> tuple[str, str]:
    """Why two results about one input and model contradict each other, and why they do not.

    Both empty where neither proves what the other refutes.
    """
    return clash(first, second, EXECUTED), clash(first, second, REAL_ONLY)


def clash(first: Row, second: Row, proof: str) -> str:
    """What one result proves, by a verdict of this kind, and the other refutes; "" if nothing."""
    if first.get("label") != second.get("label"):
        return ""
    how, but = ("", "refuted") if proof == EXECUTED else (" in real arithmetic", "executed")
    rest = "" if proof == EXECUTED else ": rounding decides, both may be right"
    for proved, refuted, order in ((first, second, "first"), (second, first, "second")):
        if proved.get("verdict") != proof:
            continue
        low, high = number(proved, "eps"), nearest(refuted)
        if low is not None and high is not None and low >= high:
            other = "by the other" if proof == EXECUTED else "otherwise"
            return f"proved{how} by the {order} run up to {low:g}, {but} {other} at {high:g}{rest}"
        if "answer" in proved and refuted.get("verdict") == "falsified":
            other = "by the other" if proof == EXECUTED else "otherwise in the other"
            return f"proved{how} by the {order} run, {but} {other}{rest}"
    return ""


def nearest(row: Row) -> float | None:
    """Distance of a counterexample that a result tells of."""
    if "radius_attacked" in row:
        return number(row, "radius_attacked")
    return number(row, "distance") if row.get("verdict") == "falsified" else None


def number(row: Row, name: str) -> float | None:
    """A field that may be null or not there."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else None


def numbers(row: Row, prefix: str = "") -> dict[str, float]:
    """All numbers of a result, but those that say which it is or how long it took."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= numbers(value, f"{prefix}{name}.")
        elif name not in NO_FIGURES and isinstance(value, int | float):
            found[prefix + name] = float(value)
    return found
