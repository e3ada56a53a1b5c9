"""Slices and places that an input chooses: read, matched with ONNX Runtime, bounded, decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.readers.onnx_models import chain, integers, read_back, reference
from verify.bounders.interval import Interval
from verify.errors import UnsupportedOperator
from verify.graph.ir import Graph
from verify.readers.onnx_deferred import Steps
from verify.search.rooting import Open, opened
from verify.search.whole_inputs import in_whole_parts, whole_entries
from verify.traverse import propagate, run
from verify.values.bounds import Bounds
from verify.values.property import Case, Halfspaces
from verify.values.rounding import FLOAT32

LENGTH = 6


def blanked() -> onnx.ModelProto:
    """Inputs 0 to 5 with the two from place x[6] on set to zero, as exporters write it; summed."""
    return chain(
        (LENGTH + 1,),
        ("Slice", ["x", "zero", "six"], "image"),
        ("Gather", ["x", "place"], "chosen"),
        ("Cast", ["chosen"], "start", {"to": 7}),
        ("Add", ["start", "two"], "end"),
        ("Unsqueeze", ["start", "zero"], "starts"),
        ("Unsqueeze", ["end", "zero"], "ends"),
        ("Range", ["i0", "i6", "i1"], "every"),
        ("Slice", ["every", "starts", "ends"], "index"),
        ("Shape", ["index"], "count"),
        ("Expand", ["blank", "count"], "blanks"),
        ("Unsqueeze", ["index", "one"], "places"),
        ("ConstantOfShape", ["six"], "ones", {
            "value": onnx.numpy_helper.from_array(np.ones(1, np.float32)),
        }),
        ("ScatterND", ["ones", "places", "blanks"], "mask"),
        ("Mul", ["image", "mask"], "y"),
        zero=integers(0), one=integers(1), six=integers(LENGTH), place=np.int64(LENGTH),
        two=np.int64(2), i0=np.int64(0), i6=np.int64(LENGTH), i1=np.int64(1),
        blank=np.float32([0]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Our reading."""
    return read_back(blanked(), tmp_path_factory.mktemp("blanked")).graph


@pytest.mark.parametrize("place", [-9.0, -1.5, -1.0, -0.5, 0.0, 0.99, 1.0, 3.7, 5.0, 6.0, 80.0])
def test_matches_the_runtime_wherever_the_place_is(place: float, tmp_path: Path) -> None:
    """Negative places count from the end, and what leaves the axis is cut off."""
    read = read_back(blanked(), tmp_path)
    x = torch.cat((torch.arange(1.0, LENGTH + 1), torch.tensor([place])))[None]
    np.testing.assert_array_equal(run(read.graph, x).numpy(), reference(read, x))


def test_bounds_are_the_hull_over_the_places_between(graph: Graph) -> None:
    """From 0.5 to 2.5 the places are 0, 1 and 2: entries 0 to 3 may be blank, 4 and 5 are not."""
    x = torch.ones(1, LENGTH + 1, dtype=torch.float64)
    low, high = x.clone(), x.clone()
    low[0, LENGTH], high[0, LENGTH] = 0.5, 2.5
    found = propagate(graph, Bounds(low, high), FLOAT32)[graph.output.name]
    torch.testing.assert_close(
        found.lower, torch.tensor([[0.0, 0, 0, 0, 1, 1]]).double(), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(found.upper, torch.ones(1, LENGTH).double(), rtol=0, atol=1e-6)


def test_bounds_are_open_where_places_are_too_many(graph: Graph) -> None:
    """A wide box is not bounded by some of its places."""
    x = torch.ones(1, LENGTH + 1, dtype=torch.float64)
    low, high = x.clone(), x.clone()
    low[0, LENGTH], high[0, LENGTH] = -1e4, 1e4
    found = propagate(graph, Bounds(low, high), FLOAT32)[graph.output.name]
    assert bool(torch.isinf(found.lower).all())


def case_of(low: float, high: float) -> Case:
    """All entries 1 but the place; unsafe: the sum of the first three is at least 2.5."""
    lower, upper = (torch.ones(LENGTH + 1, dtype=torch.float64) for _ in range(2))
    lower[LENGTH], upper[LENGTH] = low, high
    row = torch.tensor([[-1.0, -1, -1, 0, 0, 0]], dtype=torch.float64)
    rows = Halfspaces(row, torch.tensor([2.5]).double(), torch.tensor([False]))
    none = Halfspaces(row.new_zeros(0, LENGTH + 1), row.new_zeros(0), torch.zeros(0).bool())
    return Case(lower, upper, none, (rows,))


def parts_left(graph: Graph, low: float, high: float) -> list[Open]:
    """What interval bounds leave open of the parts of a case."""
    from verify.search.rooting import narrowed
    from verify.values.budget import Budget

    parts = in_whole_parts(graph, opened([case_of(low, high)]))
    return narrowed(graph, Interval(), parts, Budget())[0]


def test_a_case_falls_into_one_part_per_result(graph: Graph) -> None:
    """Places -6 to 12 give blanks at 0-1, ..., 4-5, at 5 alone, and none: seven results."""
    assert whole_entries(graph).keys() == {LENGTH}
    parts = in_whole_parts(graph, opened([case_of(-6.0, 12.9)]))
    assert len(parts) == LENGTH + 1
    assert all(bool((p.case.lower == p.case.upper).all()) for p in parts)
    assert all(bool(p.case.lower[LENGTH] >= -6.0) for p in parts)


@pytest.mark.parametrize(("low", "high", "left"), [(0.0, 2.5, 0), (0.0, 3.0, 1), (-0.9, 9.0, 4)])
def test_parts_are_decided_one_by_one(graph: Graph, low: float, high: float, left: int) -> None:
    """Blanks at 3-4, 4-5, at 5 alone, and none at all leave three ones in front."""
    assert len(parts_left(graph, low, high)) == left


def test_an_input_that_is_read_otherwise_too_is_not_divided(tmp_path: Path) -> None:
    """Between two whole numbers the network may move then."""
    proto = chain(
        (2,), ("Gather", ["x", "i"], "g"), ("Cast", ["g"], "c", {"to": 7}),
        ("Cast", ["c"], "f", {"to": 1}), ("Add", ["f", "x"], "y"), i=integers(1),
    )  # fmt: skip
    assert whole_entries(read_back(proto, tmp_path).graph) == {}


def test_a_program_that_fails_proves_nothing() -> None:
    """A result of another shape is NaN, and its bounds are open."""
    steps = Steps((), (("k", (), 7),), {}, "k", shape=(3,))
    assert bool(torch.isnan(steps(2)).all())


HALVED: dict[str, Any] = {"two": np.int64(2), "place": np.int64(1)}
CHOSEN = ("Gather", ["x", "place"], "chosen")
WHOLE: dict[str, object] = {"to": 7}


@pytest.mark.parametrize("place", [-7.0, -3.9, -1.0, -0.5, 0.0, 1.0, 3.0, 7.5])
def test_quotients_of_whole_numbers_are_cut(place: float, tmp_path: Path) -> None:
    """-7 / 2 is -3, not -3.5: what a real quotient proves, an execution may break."""
    proto = chain(
        (2,), CHOSEN, ("Cast", ["chosen"], "k", WHOLE),
        ("Div", ["k", "two"], "half"), ("Cast", ["half"], "f", {"to": 1}),
        ("Add", ["f", "x"], "y"), **HALVED,
    )  # fmt: skip
    read = read_back(proto, tmp_path)
    x = torch.tensor([[0.25, place]])
    np.testing.assert_array_equal(run(read.graph, x).numpy(), reference(read, x))


def test_int32_wraps_around_as_in_the_runtime(tmp_path: Path) -> None:
    """100,000 squared is beyond 31 bits."""
    proto = chain(
        (2,), CHOSEN, ("Cast", ["chosen"], "k", {"to": 6}), ("Mul", ["k", "k"], "square"),
        ("Cast", ["square"], "f", {"to": 1}), ("Add", ["f", "x"], "y"), place=np.int64(1),
    )  # fmt: skip
    read = read_back(proto, tmp_path)
    x = torch.tensor([[0.0, 1e5]])
    assert float(run(read.graph, x)[0, 0]) < 1e10 == 1e5 * 1e5
    found = run(read.graph, x).numpy().astype(np.float32)
    np.testing.assert_array_equal(found, reference(read, x))


@pytest.mark.parametrize(
    ("op", "inputs", "kind"),
    [
        ("Div", ["k", "two"], 7),
        ("Div", ["k", "k"], 7),
        ("Mul", ["k", "k"], 7),
        ("Add", ["k", "k"], 6),
    ],
)
def test_whole_tensors_are_not_computed_with_in_decimals(
    op: str, inputs: list[str], kind: int, tmp_path: Path
) -> None:
    """Of more than one entry there are no steps to keep: refused."""
    proto = chain(
        (2,), ("Cast", ["x"], "k", {"to": kind}), (op, inputs, "h"),
        ("Cast", ["h"], "y", {"to": 1}), two=np.int64(2),
    )  # fmt: skip
    with pytest.raises(UnsupportedOperator, match="whole numbers|int32 numbers"):
        read_back(proto, tmp_path)


def test_sums_of_whole_tensors_are_read(tmp_path: Path) -> None:
    """In 64 bits they are exact."""
    proto = chain(
        (2,), ("Cast", ["x"], "k", {"to": 7}), ("Sub", ["k", "two"], "h"),
        ("Cast", ["h"], "f", {"to": 1}), ("Div", ["f", "three"], "y"), two=np.int64(2),
        three=np.float32(4),
    )  # fmt: skip
    read = read_back(proto, tmp_path)
    x = torch.tensor([[-1.5, 4.25]])
    np.testing.assert_array_equal(run(read.graph, x).numpy(), reference(read, x))


def test_a_whole_number_that_is_the_output_tells_all_its_values_apart(tmp_path: Path) -> None:
    """No program reads it, but the caller does: six parts, not one."""
    graph = read_back(
        chain((2,), CHOSEN, ("Cast", ["chosen"], "y", WHOLE), **HALVED), tmp_path
    ).graph
    assert graph.output.op == "Trunc"
    lower, upper = torch.zeros(2, dtype=torch.float64), torch.full((2,), 5.0).double()
    none = Halfspaces(torch.zeros(0, 2).double(), torch.zeros(0).double(), torch.zeros(0).bool())
    row = Halfspaces(torch.tensor([[-1.0]]).double(), torch.ones(1).double(), torch.zeros(1).bool())
    parts = in_whole_parts(graph, opened([Case(lower, upper, none, (row,))]))
    assert sorted(float(part.case.lower[1]) for part in parts) == [0, 1, 2, 3, 4, 5]
