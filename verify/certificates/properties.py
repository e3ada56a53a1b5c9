"""Certificates of `prop`: the search runs once more with its tree recorded, for the checker.

What bounds alone prove takes one leaf with optimised slopes. Where few inputs vary, the tree of
boxes is recorded; else the tree of Relu splits, without the bounds that a search finds anew on its
way down.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.memo import SPEC, Memo
from verify.bounders.slopes import Ascent
from verify.certificates.proving import Claim, NoCertificate, certificate, claim, rooted
from verify.certificates.recording import InputTree, ReluTrees, slopes_of, tightened
from verify.certificates.tree import CaseProof, Part, Proof, Slopes, whole
from verify.certificates.writing import certificate_bytes
from verify.check.certificate import read_certificate
from verify.check.leaf import Goal, goal_of
from verify.check.refusal import Refusal
from verify.check.tree import check_case
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.search.activation_split import ActivationSplit
from verify.search.input_split import InputSplit
from verify.values.budget import Budget, OutOfTime
from verify.values.property import Case, Property
from verify.values.region import Box
from verify.values.result import Verdict

ROOM = 2**30
"""Bytes of slopes that may be kept; beyond, the checker's plain bounds have to do."""
ITERATIONS = 40
"""Of the slopes: more than a verdict takes, as the checker sees a slightly larger box."""
SPARE = 1e-3
"""How much more than the property a search over Relus is asked for, in units of its rows."""
FEW_INPUTS = 20
"""Up to so many inputs that vary, the tree is one of boxes."""


def certify_property(
    graph: Graph, stated: Property, model: bytes, prop: bytes, budget: Budget
) -> bytes:
    """A certificate of a property that was found to hold; raises NoCertificate.

    Args:
        graph: the network, float64.
        stated: the property as the searches read it.
        model, prop: the two files' bytes.
        budget: for finding it.
    """
    if graph.tail is not None:
        raise NoCertificate(f"the checker does not know {graph.tail}")
    known = claim(model, prop)
    if len(known.cases) != len(stated.cases):
        raise NoCertificate("the checker reads other boxes in the property than the search does")

    def suggest(number: int) -> CaseProof | None:
        return suggested(graph, known, number, stated.cases[number], budget)

    return certificate(known, budget, suggest)


def suggested(
    graph: Graph, known: Claim, number: int, case: Case, budget: Budget
) -> CaseProof | None:
    """Hints for one case; None if there is nothing to prove."""
    if bool((case.lower > case.upper).any()):
        return None
    if int((case.upper > case.lower).sum()) <= FEW_INPUTS:
        tree = InputTree()
        found = InputSplit(on_step=tree.record)(graph, case, None, budget)
        if found.verdict is not Verdict.VERIFIED:
            raise NoCertificate(f"the search could not be repeated: {found.reason}")
        return whole(len(known.cases[number].clauses), tree.root)
    return optimised(graph, known, number, case, budget)


def optimised(graph: Graph, known: Claim, number: int, case: Case, budget: Budget) -> CaseProof:
    """One leaf with slopes of the alpha-CROWN method, or a tree of Relus, as far as needed."""
    theirs = known.cases[number]
    plain = rooted(known.network, theirs, [], {}, real=False)
    if not plain.parts[0].tree.proofs:
        return plain
    shape = (1, *graph.input.shape)
    region = Box(case.lower.view(shape), case.upper.view(shape))
    rows, tightenings = slopes_over(graph, region, case, budget)
    goal = goal_of(theirs, graph.output.size)
    order = order_of(case, goal.coeff)
    in_order = {name: alpha[order] for name, alpha in rows.items()}
    single = rooted(known.network, theirs, tightenings, in_order, real=False)
    if accepted(known, number, single):
        return single
    return split_up(graph, goal, case, budget)


def accepted(known: Claim, number: int, found: CaseProof) -> bool:
    """Whether the checker takes a proof of one case."""
    data = certificate_bytes(known.model, known.prop, [found])
    try:
        check_case(read_certificate(data), 0, known.network, known.cases[number])
    except Refusal:
        return False
    return True


def split_up(graph: Graph, goal: Goal, case: Case, budget: Budget) -> CaseProof:
    """A tree of Relu splits for each clause, from a search that keeps the root's bounds.

    The search is asked for a little more than the property, which pays for slopes rounded to
    float16 and for the slightly larger box.
    """
    memo = Memo(1, ROOM)
    memo.turn(torch.zeros(1, dtype=torch.long))
    trees = ReluTrees()
    search = ActivationSplit(ascent=Ascent(ITERATIONS), recorder=trees, memo=memo)
    found = search(graph, harder(case), None, budget)
    if found.verdict is not Verdict.VERIFIED:
        raise NoCertificate(
            "the search could not be repeated with the root's bounds alone, which is what "
            f"certificates state: {found.reason}"
        )
    order = order_of(case, goal.coeff)
    own = case.spec().clause
    assert own is not None
    parts = []
    for clause, tree in trees.trees.items():
        first = int((own == clause).nonzero()[0])
        theirs = int(goal.clause[order.tolist().index(first)])
        for node in tree.preorder():
            node.proofs = [replace(proof, clause=theirs) for proof in node.proofs]
        parts.append(Part([theirs], tree))
    readers = {n.inputs[0]: n.name for n in graph.nodes if n.op in ("Relu", "MaxPool")}
    tightenings = [
        one
        for name, kept in memo.new.items()
        if name in readers
        for part in kept
        for one in tightened(readers[name], part)
    ]
    return CaseProof(parts, [*tightenings, *trees.shared])


def harder(case: Case) -> Case:
    """The case with every row lowered by `SPARE` of the constants' and coefficients' size."""
    clauses = tuple(
        replace(c, const=c.const - SPARE * (c.const.abs() + c.coeff.abs().sum(dim=1)))
        for c in case.clauses
    )
    return replace(case, clauses=clauses)


def slopes_over(
    graph: Graph, region: Box, case: Case, budget: Budget
) -> tuple[Slopes, list[Proof]]:
    """Slopes of the case's rows, and of the neurons below them."""
    memo = Memo(1, ROOM)
    memo.turn(torch.zeros(1, dtype=torch.long))
    try:
        AlphaCrown(ascent=Ascent(ITERATIONS))(Problem(graph, region, case.spec()), budget, memo)
    except OutOfTime:
        raise NoCertificate("the time for the certificate is over") from None
    rows: Slopes = {}
    tightenings: list[Proof] = []
    readers = {n.inputs[0]: n.name for n in graph.nodes if n.op in ("Relu", "MaxPool")}
    for name, parts in memo.new.items():
        if name == SPEC:
            rows = slopes_of(parts[-1])
        elif name in readers:
            tightenings += [one for part in parts for one in tightened(readers[name], part)]
    return rows, tightenings


def order_of(case: Case, theirs: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each of the checker's rows, the case's row with the same coefficients."""
    own: Tensor = case.spec().coeff[0]
    places = []
    for row in theirs:
        same = (own == torch.from_numpy(row)).all(dim=1).nonzero().flatten()
        places.append(int(same[0]) if len(same) else 0)
    return np.array(places, dtype=np.int64)
