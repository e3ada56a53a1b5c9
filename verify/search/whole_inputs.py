"""Inputs that the network reads as whole numbers only: one part of a case for each of them.

The network is constant in such an input between two whole numbers, so a case falls into parts in
which it is a point; and where it only chooses what a program computes, into one part per result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from math import prod

import torch

from verify.graph.ir import Graph, Node
from verify.search.rooting import Open
from verify.values.property import Case

MOST_PARTS = 10_000
"""A case with more combinations of whole numbers is left as it is; its box is split instead."""


def in_whole_parts(graph: Graph, left: list[Open]) -> list[Open]:
    """The cases with whole inputs fixed, each to every value that tells anything apart."""
    entries = whole_entries(graph)
    if not entries:
        return left
    return [part for entry in left for part in parts_of(graph, entry, entries)]


def parts_of(graph: Graph, entry: Open, entries: dict[int, set[str]]) -> Iterable[Open]:
    """One case with every varying whole input fixed."""
    case = entry.case
    varying = [i for i in entries if bool(case.lower[i] < case.upper[i])]
    spans = [
        range(int(case.lower[i].trunc()), int(case.upper[i].trunc()) + 1)
        for i in varying
        if bool(torch.isfinite(case.lower[i]) & torch.isfinite(case.upper[i]))
    ]
    tied = len(case.inputs) or any(c.coeff.shape[1] > graph.output.size for c in case.clauses)
    if not varying or len(spans) < len(varying) or tied:
        return [entry]
    if prod(len(span) for span in spans) > MOST_PARTS:
        return [entry]
    programs = chosen_programs(graph, entries, varying)
    seen: set[object] = set()
    parts = []
    for whole in product(*spans):
        at = dict(zip(varying, whole, strict=True))
        key = whole if programs is None else results_at(programs, case, at)
        if key not in seen:
            seen.add(key)
            parts.append(replace(entry, case=fixed(case, at)))
    return parts


def fixed(case: Case, at: dict[int, int]) -> Case:
    """The case at points whose decimals, cut off, leave the given whole numbers."""
    lower, upper = case.lower.clone(), case.upper.clone()
    for index, whole in at.items():
        point = min(max(float(whole), float(lower[index])), float(upper[index]))
        lower[index] = upper[index] = point
    return replace(case, lower=lower, upper=upper)


def whole_entries(graph: Graph) -> dict[int, set[str]]:
    """Entries of the flat input that are read only to be cut to whole numbers; by which nodes."""
    if not any(node.op == "Trunc" for node in graph.nodes):
        return {}
    flat = {graph.input.name} if len(graph.input.shape) == 1 else set()
    cut: dict[int, set[str]] = {}
    plain: set[int] = set()
    for node in graph.nodes[1:]:
        if graph.input.name not in node.inputs and not flat & set(node.inputs):
            continue
        if node.op == "Reshape" and len(node.shape) == 1:
            flat.add(node.name)
            continue
        if node.op != "Select" or node.inputs[0] not in flat:
            return {}
        index = node.tensors["index"].tolist()
        readers = list(behind(graph, node.name))
        alone = len(index) == 1 and not is_output(graph, node.name)
        if alone and readers and all(reader.op == "Trunc" for reader in readers):
            cut.setdefault(index[0], set()).update(reader.name for reader in readers)
        else:
            plain.update(index)
    return {index: names for index, names in cut.items() if index not in plain}


def behind(graph: Graph, name: str) -> Iterable[Node]:
    """The nodes that read a node, itself or reshaped."""
    for node in graph.nodes:
        if name in node.inputs:
            if node.op == "Reshape":
                yield from behind(graph, node.name)
            else:
                yield node


def is_output(graph: Graph, name: str) -> bool:
    """Whether a node, itself or reshaped, is what the network answers."""
    if name == graph.output.name:
        return True
    views = (node for node in graph.nodes if node.op == "Reshape" and name in node.inputs)
    return any(is_output(graph, node.name) for node in views)


def chosen_programs(
    graph: Graph, entries: dict[int, set[str]], varying: list[int]
) -> list[tuple[Node, list[int]]] | None:
    """The programs that the varying inputs feed, with the entry behind each of their inputs.

    None where something else reads such an input, too, be it the caller, or a program reads
    something else.
    """
    owner = {name: index for index, names in entries.items() for name in names}
    found: dict[str, tuple[Node, list[int]]] = {}
    for index in varying:
        for name in entries[index]:
            if is_output(graph, name):
                return None
            for reader in behind(graph, name):
                sources = [source_of(graph, i) for i in reader.inputs]
                if reader.op != "Program" or any(s not in owner for s in sources):
                    return None
                found[reader.name] = reader, [owner[s] for s in sources]
    return list(found.values())


def source_of(graph: Graph, name: str) -> str:
    """The node behind reshapes."""
    node = graph.node(name)
    return source_of(graph, node.inputs[0]) if node.op == "Reshape" else name


def results_at(
    programs: list[tuple[Node, list[int]]], case: Case, at: dict[int, int]
) -> tuple[bytes, ...]:
    """What the programs compute at whole inputs, as something to compare."""
    found = []
    for node, indices in programs:
        assert node.program is not None
        whole = [at.get(i, int(case.lower[i].trunc())) for i in indices]
        found.append(node.program(*whole).numpy().tobytes())
    return tuple(found)
