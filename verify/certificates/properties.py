"""Certificates of properties: from what the decision left behind, or else by deciding once more.

What bounds alone prove takes one leaf with optimised slopes. Where few inputs vary, the tree of
boxes is recorded; else the tree of Relu splits, with the rows that bounded neurons on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.slopes import Ascent
from verify.certificates.diary import Diary, Searched, rows_of_root
from verify.certificates.halves import Half, Halves
from verify.certificates.programs import ProgramTrees
from verify.certificates.proving import Claim, NoCertificate, certificate, claim, rooted
from verify.certificates.recording import InputTree, ReluTrees
from verify.certificates.tree import Branch, CaseProof, Part, of_row, whole
from verify.check.leaf import goal_of
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.search.choosing import Later
from verify.values.budget import Budget, OutOfTime
from verify.values.property import Case, Halfspaces, Property
from verify.values.region import Box
from verify.values.result import Verdict

ITERATIONS = 40
"""Of the slopes: more than a verdict takes, as the checker sees a slightly larger box."""
SPARES = (1e-2,)
"""How much more than the property a repeated search over Relus is asked for, one after another."""
NAMES = {
    "input_split": "InputSplit",
    "activation_split": "ActivationSplit",
    "milp": "Milp",
    "halving": "Halving",
}
"""Searches that leave proofs behind, by module."""
FEW_INPUTS = 20
"""Up to so many inputs that vary, a repeated search is one of boxes."""


def certify_property(
    graph: Graph,
    stated: Property,
    model: bytes,
    prop: bytes,
    budget: Budget,
    diary: Diary | None = None,
) -> bytes:
    """A certificate of a property that was found to hold; raises NoCertificate.

    Args:
        graph: the network, float64.
        stated: the property as the searches read it.
        model, prop: the two files' bytes.
        budget: for finding it.
        diary: of the decision; what it does not prove to the checker is searched again.
    """
    if graph.tail not in (None, "Softmax", "LogSoftmax"):
        raise NoCertificate(f"the checker does not know {graph.tail}")
    known = claim(model, prop)
    if len(known.cases) != len(stated.cases):
        raise NoCertificate("the checker reads other boxes in the property than the search does")

    def suggest(number: int) -> Iterable[CaseProof]:
        return suggestions(graph, known, number, stated.cases[number], budget, diary)

    return certificate(known, budget, suggest)


def suggestions(
    graph: Graph, known: Claim, number: int, case: Case, budget: Budget, diary: Diary | None
) -> Iterator[CaseProof]:
    """Proofs of one case: what was kept, then what the same methods find once more."""
    if bool((case.lower > case.upper).any()):
        yield whole(len(known.cases[number].clauses), Branch())
        return
    if diary is not None:
        yield from kept(diary, known, number, case)
    if int((case.upper > case.lower).sum()) <= FEW_INPUTS:
        yield from searched(Diary(graph), known, number, case, budget, "input_split")
        return
    again = Diary(graph)
    yield from kept(again, known, number, case)  # plain bounds
    bounder = again.bounder(AlphaCrown(ascent=Ascent(ITERATIONS)))
    shape = (1, *graph.input.shape)
    region = Box(case.lower.view(shape), case.upper.view(shape))
    try:
        bounder(Problem(graph, region, case.spec()), budget)
    except OutOfTime:
        raise NoCertificate("the time for the certificate is over") from None
    yield from kept(again, known, number, case)
    for spare in SPARES:
        again.spare = spare
        yield from searched(again, known, number, case, budget, "activation_split")


def searched(
    diary: Diary, known: Claim, number: int, case: Case, budget: Budget, module: str
) -> Iterator[CaseProof]:
    """What a search finds once more; raises NoCertificate if it does not prove the case."""
    outcome = diary.search(number, case, Later(module, NAMES[module]))(
        diary.graph, case, None, budget
    )
    if outcome.verdict is not Verdict.VERIFIED:
        raise NoCertificate(f"the search could not be repeated: {outcome.reason}")
    yield from kept(diary, known, number, case)


def kept(diary: Diary, known: Claim, number: int, case: Case) -> Iterator[CaseProof]:
    """What a diary knows of one case."""
    theirs = known.cases[number]
    goal = goal_of(theirs, diary.graph.output.size)
    rows = diary.rows(case, torch.from_numpy(goal.coeff))
    below = [row for s in diary.about(case)[-1:] for row in rows_of_root(s.memo, diary.graph)]
    single = rooted(known.network, theirs, below, rows, real=False)
    found = diary.found(number, case)
    if found is None:
        yield single
    elif isinstance(found.tree, InputTree):
        yield whole(len(theirs.clauses), found.tree.root)
    else:
        own = [same_clause(case, c) for c in found.case.clauses]
        if isinstance(found.tree, Halves):
            parts = [Part([c], under(found.tree.root, case, c, diary.graph)) for c in own]
        else:
            parts = parts_of(found.tree, own)
        if isinstance(found.tree, ProgramTrees):
            parts += unsplit(found, found.tree, own)
        (leaf,) = single.parts
        proved = {clause for part in parts for clause in part.clauses}
        leaf.clauses = [clause for clause in leaf.clauses if clause not in proved]
        leaf.tree.proofs = [p for p in leaf.tree.proofs if p.clause not in proved]
        shared = rows_of_root(found.memo, diary.graph)
        shared += found.tree.shared if isinstance(found.tree, ReluTrees) else []
        yield CaseProof([*parts, *([leaf] if leaf.clauses else [])], shared)
        if isinstance(found.tree, Halves):
            # The checker chooses lines of curves itself: other halves may have to do.
            yield whole(len(theirs.clauses), halved(found.tree.root))


def under(half: Half, case: Case, clause: int, graph: Graph) -> Branch:
    """The tree of one clause below a box; where no search left any, plain bounds have to do."""
    branch = Branch()
    if half.split is not None:
        assert half.first is not None
        assert half.second is not None
        branch.split = half.split
        branch.first = under(half.first, case, clause, graph)
        branch.second = under(half.second, case, clause, graph)
    elif half.trees is not None and half.memo is not None:
        own = [same_clause(case, c) for c in half.case.clauses]
        if clause in own and own.index(clause) in half.trees.trees:
            branch = half.trees.trees[own.index(clause)]
            for node in branch.preorder():
                node.proofs = [proof.about(clause) for proof in node.proofs]
            shared = [*rows_of_root(half.memo, graph), *half.trees.shared]
            branch.proofs = [*(proof.about(clause) for proof in shared), *branch.proofs]
    return branch


def halved(half: Half) -> Branch:
    """The halves alone."""
    branch = Branch(half.split)
    if half.first is not None and half.second is not None:
        branch.first, branch.second = halved(half.first), halved(half.second)
    return branch


def unsplit(found: Searched, trees: ProgramTrees, clauses: list[int]) -> list[Part]:
    """One leaf for each clause that the slopes proved before any program was made."""
    rows, parts, first = found.rows(), [], 0
    for i, clause in enumerate(found.case.clauses):
        if i not in trees.trees:
            leaf = Branch()
            for k in range(len(clause)):
                one = slice(first + k, first + k + 1)
                slopes = {name: alpha[one] for name, alpha in rows.items()}
                leaf.proofs.append(of_row(clauses[i], k, slopes))
            parts.append(Part([clauses[i]], leaf))
        first += len(clause)
    return parts


def parts_of(trees: ReluTrees | ProgramTrees, clauses: list[int]) -> list[Part]:
    """One part for each tree; clauses are numbered as in the whole case."""
    parts = []
    for own, tree in trees.trees.items():
        if tree.split is None and not tree.proofs:
            tree.proofs.append(of_row(own, 0, {}))  # so that the shared rows are looked at
        for node in tree.preorder():
            node.proofs = [proof.about(clauses[own]) for proof in node.proofs]
        parts.append(Part([clauses[own]], tree))
    return parts


def same_clause(case: Case, clause: Halfspaces) -> int:
    """The place of a clause in a case."""
    for i, own in enumerate(case.clauses):
        if torch.equal(own.coeff, clause.coeff) and torch.equal(own.const, clause.const):
            return i
    raise NoCertificate("the search was about other clauses than the property has")
