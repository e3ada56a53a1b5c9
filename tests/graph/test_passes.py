"""simplify: fewer nodes, the same function, magnitudes that still cover the file's roundings."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.graph.ir import Graph, Node
from verify.graph.passes import FOLDABLE_ROUNDINGS, simplify
from verify.readers.builder import GraphBuilder
from verify.traverse import evaluate, run

EXACT = 1e-12  # float64, values of order ten


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal float64 numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ops(graph: Graph) -> list[str]:
    """Operators in order, without the input."""
    return [node.op for node in graph.nodes[1:]]


def scaling(builder: GraphBuilder, source: str, shape: tuple[int, ...], seed: int) -> str:
    """A ScaleShift of random constants of a shape."""
    constants = {"scale": numbers(*shape, seed=seed), "shift": numbers(*shape, seed=seed + 1)}
    return builder.add("ScaleShift", (source,), f"scaling{seed}", tensors=constants)


def dense(builder: GraphBuilder, source: str, out: int) -> str:
    """A random dense layer."""
    width = builder.shape(source)[-1]
    constants = {"weight": numbers(out, width, seed=5), "bias": numbers(out, seed=6)}
    return builder.add("Gemm", (source,), "gemm", tensors=constants)


def convolution(builder: GraphBuilder, source: str) -> str:
    """A random padded convolution with three channels."""
    channels = builder.shape(source)[0]
    constants = {"weight": numbers(3, channels, 3, 3, seed=7), "bias": numbers(3, seed=8)}
    where = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": (1,)}
    return builder.add("Conv", (source,), "conv", tensors=constants, settings=where)


def same(graph: Graph, other: Graph) -> bool:
    """Whether two graphs agree on random inputs."""
    x = numbers(4, *graph.input.shape, seed=99)
    return bool(((run(graph, x) - run(other, x)).abs() <= EXACT).all())


def test_what_does_nothing_is_dropped() -> None:
    """Idle reshapes, transpositions, pads, choices and single summands go."""
    b = GraphBuilder("x", (2, 3))
    name = b.add("Reshape", ("x",), "r", shape=(2, 3))
    name = b.add("Transpose", (name,), "t", settings={"perm": (0, 1)})
    zero = torch.zeros(())
    name = b.add("Pad", (name,), "p", tensors={"value": zero}, settings={"pads": (0, 0, 0, 0)})
    every = {"index": torch.arange(3)}
    name = b.add("Select", (name,), "s", tensors=every, settings={"axis": (1,)})
    name = b.add("Add", (name,), "a", settings={"signs": (1,)})
    name = b.add("Concat", (name,), "c", settings={"axis": (0,)})
    graph = b.build(b.add("Relu", (name,), "y"))
    found = simplify(graph)
    assert ops(found) == ["Relu"]
    assert same(graph, found)


def test_what_does_something_is_kept() -> None:
    """The same operators with other settings stay."""
    b = GraphBuilder("x", (2, 2))
    name = b.add("Transpose", ("x",), "t", settings={"perm": (1, 0)})
    back = {"index": torch.tensor([1, 0])}
    name = b.add("Select", (name,), "s", tensors=back, settings={"axis": (1,)})
    name = b.add("Add", (name,), "a", settings={"signs": (-1,)})
    name = b.add(
        "Pad", (name,), "p", tensors={"value": torch.ones(())}, settings={"pads": (1, 0, -1, 0)}
    )
    graph = b.build(name)
    assert ops(simplify(graph)) == ["Transpose", "Select", "Add", "Pad"]
    assert same(graph, simplify(graph))


def test_an_idle_output_gives_way_to_its_input() -> None:
    """The last node is still the output."""
    b = GraphBuilder("x", (3,))
    b.add("Relu", ("x",), "h")
    b.add("Tanh", ("h",), "unused")
    graph = b.build(b.add("Reshape", ("h",), "y", shape=(3,)))
    assert ops(simplify(graph)) == ["Relu"]


def test_reshapes_in_a_row_become_one() -> None:
    """And none, if the last restores the first shape."""
    b = GraphBuilder("x", (4, 3))
    name = b.add("Reshape", ("x",), "r1", shape=(12,))
    graph = b.build(b.add("Reshape", (name,), "r2", shape=(2, 6)))
    assert ops(simplify(graph)) == ["Reshape"]
    assert same(graph, simplify(graph))
    assert ops(simplify(b.build(b.add("Reshape", (name,), "r3", shape=(4, 3))))) == []


def test_scales_are_folded_into_dense_and_convolutional_layers() -> None:
    """Per unit, per channel, or one for all."""
    b = GraphBuilder("x", (2, 4, 4))
    name = scaling(b, convolution(b, "x"), (3, 1, 1), 10)
    name = scaling(b, name, (), 20)
    name = b.add("Reshape", (name,), "flat", shape=(48,))
    graph = b.build(scaling(b, dense(b, name, 5), (5,), 30))
    found = simplify(graph)
    assert ops(found) == ["Conv", "Reshape", "Gemm"]
    assert same(graph, found)


def test_scales_that_are_not_per_unit_are_kept() -> None:
    """A scale per position of a convolution, or per row of a stack of vectors, does not fold."""
    b = GraphBuilder("x", (2, 4, 4))
    graph = b.build(scaling(b, convolution(b, "x"), (1, 4, 4), 10))
    assert ops(simplify(graph)) == ["Conv", "ScaleShift"]
    b = GraphBuilder("x", (3, 4))
    graph = b.build(scaling(b, dense(b, "x", 5), (3, 1), 10))
    assert ops(simplify(graph)) == ["Gemm", "ScaleShift"]


def test_a_layer_that_others_read_is_not_folded() -> None:
    """Its unscaled output is needed."""
    b = GraphBuilder("x", (4,))
    layer = dense(b, "x", 4)
    scaled = scaling(b, layer, (4,), 10)
    graph = b.build(b.add("Add", (scaled, layer), "y", settings={"signs": (1, 1)}))
    assert ops(simplify(graph)) == ["Gemm", "ScaleShift", "Add"]
    assert same(graph, simplify(graph))


def test_normalisation_of_the_input_stays_in_front() -> None:
    """Folding it forward would multiply what it cancels."""
    b = GraphBuilder("x", (4,))
    graph = b.build(dense(b, scaling(b, "x", (4,), 10), 5))
    assert ops(simplify(graph)) == ["ScaleShift", "Gemm"]


def test_long_chains_of_scales_keep_within_the_roundings_paid_for() -> None:
    """Each node folds at most FOLDABLE_ROUNDINGS roundings of the file."""
    b = GraphBuilder("x", (4,))
    name = "x"
    for i in range(12):
        name = scaling(b, name, (4,), 10 * i)
    graph = b.build(name)
    found = simplify(graph)
    assert len(ops(found)) >= 12 * 2 / FOLDABLE_ROUNDINGS
    assert len(ops(found)) < 12
    assert same(graph, found)


def unfolded_magnitude(graph: Graph, x: torch.Tensor) -> torch.Tensor:
    """|W|·|x| + |b| at every step of a chain of affine nodes: what error analysis is about."""
    size = x.abs()
    for node in graph.nodes[1:]:
        name = "shift" if node.op == "ScaleShift" else "bias"
        stored = node.tensors.get(f"{name}_magnitude", node.tensors[name].abs())
        absolute = {k: t.abs() for k, t in node.tensors.items()} | {name: stored}
        positive = Node(node.name, node.op, ("x",), node.shape, node.input_shapes, absolute)
        size = evaluate(Graph((Node("x", "Input", (), node.input_shapes[0]), positive)), size)[
            node.name
        ]
    return size


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_magnitudes_cover_the_unfolded_computation(seed: int, steps: int) -> None:
    """|W'|·|x| + bias_magnitude is what the chain of nodes passes through, cancellation or not."""
    b = GraphBuilder("x", (4,))
    name = dense(b, "x", 5)
    for i in range(steps):
        name = scaling(b, name, (5,), seed + 7 * i)
    graph = b.build(name)
    found = simplify(graph)
    assert ops(found) == ["Gemm"]
    x = numbers(3, 4, seed=seed)
    before, after = unfolded_magnitude(graph, x), unfolded_magnitude(found, x)
    assert bool(((before - after).abs() <= EXACT * (1 + before)).all())
