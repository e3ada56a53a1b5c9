"""Certificates of `certify`: an input's neighbourhood as a property file, and its proof.

The verdict has been reached by then. If plain bounds do not show it to the checker, slopes are
optimised again, as the alpha-CROWN stage did, and written down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.memo import SPEC, Kept, Memo, flat_rows
from verify.bounders.slopes import Ascent
from verify.certificates.property_text import label_property
from verify.certificates.proving import Claim, NoCertificate, certificate, claim, rooted
from verify.certificates.tree import CaseProof, Slopes, Tightening
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.values.budget import Budget, OutOfTime
from verify.values.question import Question
from verify.values.region import Box
from verify.values.spec import classified_as

ROOM = 2**30
"""Bytes of slopes that may be kept; beyond, the checker's plain bounds have to do."""
ITERATIONS = 40
"""Of the slopes: more than a verdict takes, as the checker sees a slightly larger box."""


@dataclass(frozen=True)
class Certified:
    """The two files about one input.

    Attributes:
        prop: the neighbourhood and the label as VNN-LIB.
        proof: the certificate.
    """

    prop: str
    proof: bytes


def certify_label(
    graph: Graph, model: bytes, asked: Question, budget: Budget, about: str
) -> Certified:
    """A certificate for one verified input; raises NoCertificate.

    Args:
        graph: the network as read, float64.
        model: the ONNX file's bytes.
        asked: one input with its label and radius.
        budget: for finding it.
        about: one line for people, put into the property file.
    """
    region = asked.region()
    if not isinstance(region, Box):
        raise NoCertificate("a property file states boxes; certificates are for --norm inf only")
    if graph.tail is not None:
        raise NoCertificate(f"the checker does not know {graph.tail}")
    label = int(asked.labels[0])
    text = label_property(region.lower, region.upper, label, graph.output.size, about)
    known = claim(model, text.encode())

    def suggest(number: int) -> CaseProof | None:
        assert number == 0
        return optimised(graph, known, asked, region, budget)

    return Certified(text, certificate(known, budget, suggest))


def optimised(
    graph: Graph, known: Claim, asked: Question, region: Box, budget: Budget
) -> CaseProof | None:
    """One leaf with slopes of the alpha-CROWN method, if plain bounds do not do."""
    plain = rooted(known.network, known.cases[0], [], {}, real=False)
    if not plain.parts[0].tree.proofs:
        return plain
    memo = Memo(1, ROOM)
    memo.turn(torch.zeros(1, dtype=torch.long))
    problem = Problem(graph, region, classified_as(asked.labels, graph.output.size))
    try:
        AlphaCrown(ascent=Ascent(ITERATIONS))(problem, budget, memo)
    except OutOfTime:
        raise NoCertificate("the time for the certificate is over") from None
    rows: Slopes = {}
    tightenings = []
    readers = {n.inputs[0]: n.name for n in graph.nodes if n.op in ("Relu", "MaxPool")}
    for name, parts in memo.new.items():
        if name == SPEC:
            rows = slopes_of(parts[-1])
        elif name in readers:
            tightenings += [one for part in parts for one in tightened(readers[name], part)]
    return rooted(known.network, known.cases[0], tightenings, rows, real=False)


def slopes_of(part: Kept) -> Slopes:
    """A memo's slopes over all neurons, NaN where a neuron had left; shape (row, neuron)."""
    return {
        name: flat_rows(part, name, None)[0].flatten(1).to(torch.float32).numpy()
        for name in part.alpha
    }


def tightened(relu: str, part: Kept) -> list[Tightening]:
    """A memo's rows of one node, by sign."""
    entries, signs = part.rows.index[0].numpy(), part.rows.sign[0].numpy()
    slopes = slopes_of(part)
    found = []
    for sign in (1, -1):
        mine = np.flatnonzero(signs == sign)
        if len(mine):
            own = {name: alpha[mine] for name, alpha in slopes.items()}
            found.append(Tightening(relu, entries[mine], sign, own))
    return found
