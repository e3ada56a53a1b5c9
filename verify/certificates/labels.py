"""Certificates of `certify`: an input's neighbourhood as a property file, and its proof.

The verdict has been reached by then. If plain bounds do not show it to the checker, slopes are
optimised again, as the alpha-CROWN stage did, and written down.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from verify.certificates.properties import slopes_over
from verify.certificates.property_text import label_property
from verify.certificates.proving import Claim, NoCertificate, certificate, claim, rooted
from verify.certificates.tree import CaseProof
from verify.graph.ir import Graph
from verify.values.budget import Budget
from verify.values.property import Case, Halfspaces
from verify.values.question import Question
from verify.values.region import Box
from verify.values.spec import classified_as


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
    case = label_case(region, int(asked.labels[0]), graph.output.size)
    rows, tightenings = slopes_over(graph, region, case, budget)
    return rooted(known.network, known.cases[0], tightenings, rows, real=False)


def label_case(region: Box, label: int, classes: int) -> Case:
    """The label's property as the searches read it, rows in the order of the property file."""
    rows = classified_as(torch.tensor([label]), classes)
    loose = torch.zeros(1, dtype=torch.bool)
    clauses = tuple(
        Halfspaces(coeff[None], const[None], loose)
        for coeff, const in zip(rows.coeff[0], rows.const[0], strict=True)
    )
    none = torch.zeros(0, region.lower[0].numel(), dtype=torch.float64)
    inputs = Halfspaces(none, none.new_zeros(0), torch.zeros(0, dtype=torch.bool))
    return Case(region.lower.flatten(), region.upper.flatten(), inputs, clauses)
