"""Hints that the checker accepts: tried with its own bounds, and split further where they fail.

A search closes its leaves with bounds of its own. The checker has other ones, a little looser or
tighter. So a tree is not copied but tried: what the checker does not follow is split again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verify.certificates.tree import (
    Branch,
    CaseProof,
    InputSplit,
    Part,
    Proof,
    Slopes,
    of_row,
    whole,
)
from verify.certificates.writing import certificate_bytes
from verify.check.bounds import Hints, Pass, crown
from verify.check.certificate import read_certificate
from verify.check.leaf import Goal, goal_of, rows_over, settled
from verify.check.network import Network
from verify.check.onnx_bytes import read_model, unpacked
from verify.check.operators import read_network
from verify.check.refusal import Refusal
from verify.check.tree import check_case
from verify.check.vnnlib import Case, hull, read_property
from verify.values.budget import Budget, OutOfTime

Array = NDArray[np.float64]

FEW_INPUTS = 30
"""Up to so many inputs that vary, a leaf that fails may be split at an input."""
AT_ONCE = 256
"""Boxes that are bounded together."""


@dataclass(frozen=True, eq=False)
class Claim:
    """What is to be certified.

    Attributes:
        model, prop: the two files' bytes.
        network: the checker's reading of the model.
        cases: the checker's reading of the property.
    """

    model: bytes
    prop: bytes
    network: Network
    cases: list[Case]


class NoCertificate(Exception):
    """A verdict that the checker cannot be shown; the message says why."""


Suggest = Callable[[int], Iterable[CaseProof]]
"""What may prove one case, the likeliest first."""


def claim(model: bytes, prop: bytes) -> Claim:
    """Both files as the checker reads them; raises NoCertificate where it refuses them."""
    try:
        network = read_network(read_model(model))
        sizes = network.size(network.input_name), network.size(network.output_name)
        return Claim(model, prop, network, read_property(unpacked(prop).decode(), *sizes))
    except Refusal as refusal:
        raise NoCertificate(f"the checker does not read it: {refusal}") from refusal


def certificate(
    about: Claim,
    budget: Budget,
    suggest: Suggest | None = None,
    *,
    real: bool = False,
) -> bytes:
    """A certificate that the checker accepts, or NoCertificate.

    Args:
        about: the claim.
        budget: time for all of it.
        suggest: what to try; by default plain bounds and splits of inputs.
        real: whether the claim is about real arithmetic only.
    """
    cases = []
    for number, case in enumerate(about.cases):
        plain = [whole(len(case.clauses), Branch())]
        tried = plain if suggest is None else suggest(number)
        cases.append(first_accepted(about, number, tried, budget, real=real))
    return certificate_bytes(about.model, about.prop, cases, real=real)


def first_accepted(
    about: Claim, number: int, tried: Iterable[CaseProof], budget: Budget, *, real: bool
) -> CaseProof:
    """The first proof of a case that the checker takes, mended where that is possible."""
    case, why = about.cases[number], "nothing is known of it"
    for found in tried:
        try:
            for part in found.parts:
                mend(about.network, case, part, budget, real=real)
            data = certificate_bytes(about.model, about.prop, [found], real=real)
            with np.errstate(all="ignore"):
                check_case(read_certificate(data), 0, about.network, case)
        except OutOfTime:
            raise NoCertificate("the time for the certificate is over") from None
        except (Refusal, NoCertificate) as reason:
            why = str(reason)
            continue
        return found
    raise NoCertificate(f"the checker's bounds do not prove it: {why}")


@dataclass(frozen=True, eq=False)
class Open:
    """A branch with its box."""

    branch: Branch
    lower: Array
    upper: Array


def mend(network: Network, case: Case, part: Part, budget: Budget, *, real: bool) -> None:
    """Split a tree's plain leaves until the checker's bounds prove its clauses at all of them.

    Branches below which Relus are split, or that carry hints, are left to the checker as they are.
    """
    goal = goal_of(case, network.size(network.output_name))
    waiting = [Open(part.tree, hull(case.lower, -1), hull(case.upper, 1))]
    span = np.maximum(waiting[0].upper - waiting[0].lower, 1e-300)
    varying = int((waiting[0].upper > waiting[0].lower).sum())
    while waiting:
        budget.check()
        some, waiting = waiting[-AT_ONCE:], waiting[:-AT_ONCE]
        leaves = []
        for item in some:
            if isinstance(item.branch.split, InputSplit):
                waiting += halves(item)
            elif item.branch.split is None and not item.branch.proofs:
                leaves.append(item)
        if not leaves:
            continue
        lower = np.stack([item.lower for item in leaves])
        upper = np.stack([item.upper for item in leaves])
        clauses = np.array(part.clauses, dtype=np.int64)
        found = settled(network, lower, upper, goal, clauses, real=real)
        for item, row, slopes in zip(leaves, found.proved, found.slopes, strict=True):
            if row.all():
                continue
            if varying > FEW_INPUTS:
                raise NoCertificate(
                    "the checker's bounds do not prove it, and there are too many inputs to split"
                )
            waiting += split_further(item, slopes, span)


def halves(item: Open) -> list[Open]:
    """The children of a branch whose input is split."""
    split = item.branch.split
    assert isinstance(split, InputSplit)
    assert item.branch.first is not None
    assert item.branch.second is not None
    below, above = item.upper.copy(), item.lower.copy()
    below[split.axis] = above[split.axis] = split.value
    return [
        Open(item.branch.first, item.lower, below),
        Open(item.branch.second, above, item.upper),
    ]


def split_further(item: Open, slopes: Array, span: Array) -> list[Open]:
    """Halve the input that moves the rows most; a long edge counts for something of its own."""
    width = item.upper - item.lower
    moved = width * (slopes + slopes.mean())
    share = width / span
    score = moved / max(float(moved.max()), 1e-300) + share / max(float(share.max()), 1e-300)
    axis = int(score.argmax())
    low, high = float(item.lower[axis]), float(item.upper[axis])
    middle = low / 2 + high / 2
    if not low < middle < high:
        raise NoCertificate("a part of the region is too small to be split further")
    item.branch.cut(InputSplit(axis, middle))
    return halves(item)


def rooted(
    network: Network,
    case: Case,
    tightenings: list[Proof],
    rows: Slopes,
    *,
    real: bool,
) -> CaseProof:
    """A tree of one leaf with optimised slopes, for what its plain bounds do not prove.

    Args:
        network: the checker's reading.
        case: what is to be proved.
        tightenings: of Relu inputs, in graph order; rows that do not help are left out.
        rows: slopes of the goal's rows, in their order, shape (row, neuron).
        real: see `certificate`.
    """
    goal = goal_of(case, network.size(network.output_name))
    lower, upper = hull(case.lower, -1)[None], hull(case.upper, 1)[None]
    branch = Branch()
    written = whole(goal.count, branch)
    every = np.arange(goal.count)
    if settled(network, lower, upper, goal, every, real=real).proved.all() or not rows:
        return written
    done = crown(network, lower, upper, real=real)
    open_ = ~goal.proved(rows_over(done, goal).least)[0]
    found = with_slopes(done, goal, rows)
    if not proved_by(goal, found, open_):
        written.tightenings = tightenings
    for clause in open_.nonzero()[0].tolist():
        mine = (goal.clause == clause).nonzero()[0]
        best = int(found[mine].argmax())
        slopes = {name: alpha[mine[best] : mine[best] + 1] for name, alpha in rows.items()}
        branch.proofs.append(of_row(clause, best, slopes))
    return written


def with_slopes(done: Pass, goal: Goal, rows: Slopes) -> Array:
    """The goal's rows with slopes of their own over the bounds of one box; shape (row,)."""
    alpha = {name: np.nan_to_num(a.astype(np.float64))[None] for name, a in rows.items()}
    found: Array = rows_over(done, goal, Hints(alpha)).least[0]
    return found


def proved_by(goal: Goal, found: Array, open_: NDArray[np.bool_]) -> bool:
    """Whether every open clause has a positive row."""
    return bool((goal.proved(found[None])[0] | ~open_).all())
