"""Certificates of `certify`: an input's neighbourhood as a property file, and its proof.

The verdict has been reached by then; what proves it is in the diary of the decision. What that does
not show to the checker is proved once more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from verify.certificates.diary import Diary
from verify.certificates.properties import certify_property
from verify.certificates.property_text import label_property
from verify.certificates.proving import NoCertificate
from verify.graph.ir import Graph
from verify.values.budget import Budget
from verify.values.property import Case, Halfspaces, Property
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
    graph: Graph,
    model: bytes,
    asked: Question,
    budget: Budget,
    about: str,
    diary: Diary | None = None,
) -> Certified:
    """A certificate for one verified input; raises NoCertificate.

    Args:
        graph: the network as read, float64.
        model: the ONNX file's bytes.
        asked: one input with its label and radius.
        budget: for finding it.
        about: one line for people, put into the property file.
        diary: of the decision.
    """
    region = asked.region()
    if not isinstance(region, Box):
        raise NoCertificate("a property file states boxes; certificates are for --norm inf only")
    label = int(asked.labels[0])
    text = label_property(region.lower, region.upper, label, graph.output.size, about)
    case = label_case(region, label, graph.output.size)
    stated = Property((case,), graph.input.size, graph.output.size)
    proof = certify_property(graph, stated, model, text.encode(), budget, diary)
    return Certified(text, proof)


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
