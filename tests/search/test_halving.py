"""Halving: what splits of Relus leave open is closed on smaller boxes; nothing false is proved."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.nets import weights
from tests.search.test_activation_split import Judge, case_of
from tests.search.test_input_split import halfspaces, unconstrained
from verify.graph.ir import Graph
from verify.readers.builder import GraphBuilder
from verify.search.activation_split import ActivationSplit
from verify.search.choosing import plan
from verify.search.halving import Halving, parts
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.property import Case
from verify.values.result import Verdict


def curved_net(seed: int) -> Graph:
    """Relus around sigmoids: no split of a Relu closes what a sigmoid loses."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder("x", (2,))
    last = "x"
    for i, activation in enumerate(("Relu", "Sigmoid", "Relu", None)):
        size = builder.shape(last)[-1]
        tensors = {"weight": 2 * weights(generator, 6, size), "bias": weights(generator, 6)}
        last = builder.add("Gemm", (last,), f"dense{i}", tensors=tensors)
        if activation is not None:
            last = builder.add(activation, (last,), f"act{i}")
    return builder.build(last)


def least(graph: Graph, case: Case) -> float:
    """The least row of any clause over a fine grid; each clause has one row."""
    ticks = [torch.linspace(0, 1, 161, dtype=torch.float64)] * 2
    share = torch.cartesian_prod(*ticks)
    points = case.lower + share * (case.upper - case.lower)
    outputs = run(graph, points).flatten(1)
    rows = [outputs @ clause.coeff[0] + clause.const[0] for clause in case.clauses]
    return float(torch.stack(rows).amin())


def shifted(case: Case, by: float) -> Case:
    """All rows raised."""
    clauses = tuple(replace(clause, const=clause.const + by) for clause in case.clauses)
    return replace(case, clauses=clauses)


@pytest.mark.parametrize("seed", range(4))
def test_verdicts_on_both_sides_of_the_least(seed: int) -> None:
    """Just above the least value it proves; just below it does not."""
    graph = curved_net(seed)
    case = case_of(graph, seed, 0.6)
    lowest = least(graph, case)
    width = 0.02 * (1 + abs(lowest))
    close = shifted(case, -lowest + width)
    found = Halving()(graph, close, Judge(graph, close), Budget().within(60))
    assert found.verdict is Verdict.VERIFIED
    assert 0 < found.bound <= width
    below = shifted(case, -lowest - width)
    found = Halving()(graph, below, Judge(graph, below), Budget().within(60))
    assert found.verdict is not Verdict.VERIFIED
    if found.witness is not None:
        assert least_at(graph, below, found.witness) <= 0


def least_at(graph: Graph, case: Case, x: Tensor) -> float:
    """The least row at one input."""
    output = run(graph, x.view(1, -1)).flatten()
    return min(float(clause.coeff[0] @ output + clause.const[0]) for clause in case.clauses)


def test_relus_alone_are_not_enough() -> None:
    """Else the search would not be needed."""
    open_ = 0
    for seed in range(4):
        graph = curved_net(seed)
        case = case_of(graph, seed, 0.6)
        close = shifted(case, 0.02 * (1 + abs(least(graph, case))) - least(graph, case))
        alone = ActivationSplit()(graph, close, Judge(graph, close), Budget().within(20))
        open_ += alone.verdict is Verdict.UNKNOWN
    assert open_ > 0


def test_parts_cover_the_box_and_share_the_cut() -> None:
    """No input between the halves is lost."""
    graph = curved_net(0)
    case = case_of(graph, 0, 0.5)
    middle = (case.lower + case.upper) / 2
    first, second = parts(case, 1, middle)
    assert torch.equal(first.lower, case.lower)
    assert torch.equal(second.upper, case.upper)
    assert first.upper[1] == second.lower[1] == middle[1]
    assert first.upper[0] == second.upper[0] == case.upper[0]


def test_a_budget_ends_it_and_the_plan_names_it() -> None:
    """Without time it answers unknown; few inputs with Relus and sigmoids get it."""
    graph = curved_net(1)
    case = case_of(graph, 1, 0.6)
    close = shifted(case, 1e-9 - least(graph, case))
    found = Halving()(graph, close, None, Budget().within(0.3))
    assert found.verdict is Verdict.UNKNOWN
    assert "time" in found.reason
    assert any("boxes whose" in step.why for step in plan(graph, case))


@pytest.mark.parametrize(
    ("inputs", "product", "share"), [(4, False, 0.8), (600, True, 0.8), (600, False, 0.05)]
)
def test_boxes_go_first_where_a_network_is_small_or_multiplies(
    inputs: int, product: bool, share: float
) -> None:
    """Signs leave products loose; elsewhere boxes only get a glance before halving."""
    builder = GraphBuilder("x", (inputs,))
    tensors = {"weight": torch.ones(3, inputs).double(), "bias": torch.zeros(3).double()}
    dense = builder.add("Gemm", ("x",), "z", tensors=tensors)
    waves, kinks = builder.add("Sin", (dense,), "s"), builder.add("Relu", (dense,), "r")
    both = (waves, kinks)
    settings = {} if product else {"signs": (1, 1)}
    graph = builder.build(builder.add("Mul" if product else "Add", both, "y", settings=settings))
    lower, upper = torch.zeros(inputs).double(), torch.zeros(inputs).double()
    upper[:2] = 1.0
    case = Case(lower, upper, unconstrained(inputs), (halfspaces([[1.0] * 3], [0.0]),))
    steps = plan(graph, case)
    assert "box is split" in steps[0].why
    assert steps[0].share == share
