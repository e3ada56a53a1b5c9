"""A property as the bounders need it: over the graph's last node, every clause with a row."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from verify.errors import PropertyError
from verify.graph.ir import Graph, Node
from verify.values.property import Case, Halfspaces, Property
from verify.values.spec import SOFTMAX_GAP

ORDERING = ("Softmax", "LogSoftmax")


def refuse_misfit(graph: Graph, stated: Property) -> None:
    """Raise where a property is not about networks of this shape.

    Raises:
        PropertyError: if it declares another number of inputs or outputs.
    """
    for what, has, declares in (
        ("inputs", graph.input.size, stated.inputs),
        ("outputs", graph.output.size, stated.outputs),
    ):
        if has != declares:
            raise PropertyError(
                f"the property declares {declares} {what}, but the model has {has}; "
                "check that the two belong together"
            )


def searchable(graph: Graph, stated: Property) -> tuple[Graph, tuple[Case, ...] | None]:
    """The graph and the cases that bounds are to be found for.

    Where constraints tie inputs to outputs, or inputs to each other, the graph's output is followed
    by its input, and the clauses hold all rows. Where the file ends in a softmax that was left out,
    rows demand the gap that keeps the order.

    Returns:
        None for the cases if a left-out softmax does more than order: nothing can be proved then.
    """
    cases = stated.cases
    if graph.tail in ORDERING:
        if stated.mixed or not all(is_classification(case) for case in cases):
            return graph, None
        cases = tuple(with_gap(case) for case in cases)
    if stated.mixed or any(len(case.inputs) for case in cases):
        cases = tuple(with_inputs(case, stated) for case in cases)
        graph = beside_input(graph)
    return graph, cases


def is_classification(case: Case) -> bool:
    """Whether the clauses say that some output is at least another, the same one, for all others.

    Only then the order of a softmax follows from that of its inputs: the other output is the
    largest, so its exponential cannot vanish together with another's.
    """
    rows = [clause for clause in case.clauses if len(clause) == 1]
    if len(rows) != len(case.clauses) or not rows or len(case.inputs):
        return False
    coeff = torch.cat([row.coeff for row in rows])
    const = torch.cat([row.const for row in rows])
    if bool((const != 0).any()) or bool((coeff.abs().sum(dim=1) != 2).any()):
        return False
    labels = (coeff > 0).to(torch.int64)
    same = bool((labels.sum(dim=1) == 1).all()) and bool((coeff[labels.to(torch.bool)] == 1).all())
    label = labels.argmax(dim=1)
    others = {int(i) for i in (coeff == -1).to(torch.int64).argmax(dim=1)}
    wanted = set(range(coeff.shape[1])) - {int(label[0])}
    return same and bool((label == label[0]).all()) and others == wanted


def with_gap(case: Case) -> Case:
    """Rows that must be proved by more than a softmax can blur."""
    clauses = tuple(replace(c, const=c.const - SOFTMAX_GAP, narrow=None) for c in case.clauses)
    return replace(case, clauses=clauses)


def with_inputs(case: Case, stated: Property) -> Case:
    """Clauses over outputs followed by inputs, each with the constraints of the inputs."""
    width = stated.outputs + stated.inputs

    def wide(coeff: Tensor, first: int) -> Tensor:
        laid = coeff.new_zeros(len(coeff), width)
        laid[:, first : first + coeff.shape[1]] = coeff
        return laid

    tied = case.inputs
    clauses = tuple(
        Halfspaces(
            torch.cat((wide(clause.coeff, 0), wide(tied.coeff, stated.outputs))),
            torch.cat((clause.const, tied.const)),
            torch.cat((clause.strict, tied.strict)),
        )
        for clause in case.clauses
    )
    return replace(case, clauses=clauses)


def beside_input(graph: Graph) -> Graph:
    """The graph with its flat input behind its flat output."""
    taken = {node.name for node in graph.nodes}

    def fresh(name: str) -> str:
        while name in taken:
            name += "'"
        taken.add(name)
        return name

    parts = []
    for node in (graph.output, graph.input):
        flat = Node(
            fresh(f"{node.name}_flat"), "Reshape", (node.name,), (node.size,), (node.shape,)
        )
        parts.append(flat)
    whole = Node(
        fresh("outputs_and_inputs"),
        "Concat",
        tuple(part.name for part in parts),
        (sum(part.size for part in parts),),
        tuple(part.shape for part in parts),
        settings={"axis": (0,)},
    )
    return replace(graph, nodes=(*graph.nodes, *parts, whole))
