"""Walks over graphs: windows against dense rows, rounding charges, and what is enclosed."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.nets import conv_net, convolution, dense_net, weights
from verify.bounders.rows import Rows, start_form
from verify.graph.ir import Graph
from verify.ops.registry import lookup, noise_of
from verify.ops.windowed import dense
from verify.readers.builder import GraphBuilder
from verify.traverse import evaluate, interval_step, merged, propagate, pull_back, run
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.region import Region, ball
from verify.values.relaxation import Relaxation
from verify.values.rounding import FLOAT32
from verify.values.window import Window

BATCH = 3


@dataclass(frozen=True)
class Walked:
    """A network with lines and noise over a region, as `pull_back` wants them."""

    graph: Graph
    region: Region
    bounds: dict[str, Bounds]
    lines: dict[str, Relaxation]
    noise: dict[str, Tensor]
    sizes: dict[str, Tensor]


def walked(graph: Graph, region: Region) -> Walked:
    """Interval bounds, and the lines of smallest area."""
    bounds = propagate(graph, region.bounds(), FLOAT32)
    found = Walked(graph, region, bounds, {}, {}, {k: b.magnitude() for k, b in bounds.items()})
    for node in graph.nodes[1:]:
        inputs = tuple(bounds[i] for i in node.inputs)
        noise = noise_of(node, FLOAT32, torch.float64, inputs)
        if noise is not None:
            found.noise[node.name] = noise
        rule = lookup(node).relax
        if rule is not None:
            found.lines[node.name] = rule(node, inputs[0], None)
    return found


@st.composite
def stacks(draw: st.DrawFn) -> Graph:
    """Convolutions of strides 1-3, kernels 1-5 and padding 0-2, with what may lie between them."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    side = draw(st.integers(7, 13))
    builder = GraphBuilder("x", (2, side, side + draw(st.integers(0, 2))))
    name = "x"
    for k in range(draw(st.integers(2, 4))):
        height, width = builder.shape(name)[1:]
        padding = draw(st.integers(0, 2))
        kernel = draw(st.integers(1, max(1, min(5, height + 2 * padding, width + 2 * padding))))
        groups = draw(st.sampled_from([1, 1, 2]))
        stride = draw(st.integers(1, 3))
        name = convolution(
            builder, name, 4, f"conv{k}", generator,
            kernel=kernel, stride=stride, padding=padding, groups=groups,
        )  # fmt: skip
        kind = draw(st.sampled_from(["relu", "relu", "scaled", "residual", "projected", "leaky"]))
        name = between(builder, name, kind, k, generator)
    size = torch.Size(builder.shape(name)).numel()
    name = builder.add("Reshape", (name,), "flat", shape=(size,))
    head = {"weight": weights(generator, 3, size), "bias": torch.zeros(3)}
    return builder.build(builder.add("Gemm", (name,), "logits", tensors=head))


def between(builder: GraphBuilder, name: str, kind: str, k: int, generator: torch.Generator) -> str:
    """What follows a convolution."""
    if kind == "leaky":
        slopes = {"below": torch.rand(4, 1, 1, generator=generator), "above": torch.tensor(1.0)}
        return builder.add("TwoPiece", (name,), f"leaky{k}", tensors=slopes)
    source = builder.add("Relu", (name,), f"relu{k}")
    if kind == "scaled":
        shape = builder.shape(source)
        constants = {
            "scale": torch.randn(*shape, generator=generator),
            "shift": torch.randn(4, 1, 1, generator=generator),
        }
        return builder.add("ScaleShift", (source,), f"scaled{k}", tensors=constants)
    if kind in ("residual", "projected"):
        branch = convolution(builder, source, 4, f"inner{k}", generator, kernel=3, padding=1)
        branch = builder.add("Relu", (branch,), f"inner_relu{k}")
        other = source
        if kind == "projected":
            other = convolution(builder, name, 4, f"short{k}", generator, kernel=1)
        signs = {"signs": (1, -1 if kind == "projected" else 1)}
        return builder.add("Add", (branch, other), f"add{k}", settings=signs)
    return source


def some_rows(graph: Graph, name: str, seed: int) -> Rows:
    """Entries of a node, others in each batch entry, on either side."""
    generator = torch.Generator().manual_seed(seed)
    size = graph.node(name).size
    index = torch.randint(size, (BATCH, 6), generator=generator)
    sign = torch.where(torch.rand(BATCH, 6, generator=generator) < 0.5, -1.0, 1.0)
    return Rows(index, sign.double())


def one_hot(graph: Graph, name: str, rows: Rows, *, rigorous: bool) -> LinearForm:
    """The same rows over the whole node."""
    node = graph.node(name)
    coeff = torch.zeros(*rows.index.shape, node.size, dtype=torch.float64)
    coeff.scatter_(2, rows.index[:, :, None], rows.sign[:, :, None])
    const = torch.zeros_like(rows.sign)
    form = coeff.view(*rows.index.shape, *node.shape)
    return LinearForm(form, const, const if rigorous else None)


def inputs_of(graph: Graph, seed: int) -> Tensor:
    """A batch of inputs."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, *graph.input.shape, generator=generator)


def windows_agree(graph: Graph, seed: int) -> None:
    """Rows of every node, as windows and one-hot, lead to the same forms, errors and minima."""
    for p in (float("inf"), 2.0):
        net = walked(graph, ball(inputs_of(graph, seed), 0.05, p))
        for node in graph.nodes[1:]:
            rows = some_rows(graph, node.name, seed)
            noise = net.noise.get(node.name)
            for rigorous in (True, False):
                start, form = start_form(graph, node.name, rows, noise, rigorous=rigorous)
                whole = one_hot(graph, node.name, rows, rigorous=rigorous)
                charges = net.noise if rigorous else None
                found, expected = (
                    pull_back(graph, at, f, net.lines, noise=charges, sizes=net.sizes)
                    for at, f in ((start, form), (node.name, whole))
                )
                laid = dense(found, graph.input.shape).coeff
                torch.testing.assert_close(laid, expected.coeff, rtol=1e-10, atol=1e-10)
                torch.testing.assert_close(found.const, expected.const, rtol=1e-10, atol=1e-10)
                least = net.region.minimise(found)
                wanted = net.region.minimise(expected)
                torch.testing.assert_close(least, wanted, rtol=1e-9, atol=1e-9)
                if rigorous:
                    assert found.error is not None
                    assert expected.error is not None
                    torch.testing.assert_close(found.error, expected.error, rtol=1e-4, atol=1e-13)


@given(stacks(), st.integers(0, 99))
@settings(max_examples=25)
def test_windows_are_dense_rows(graph: Graph, seed: int) -> None:
    """Overhang, strides, groups, residual sums and scalings; other places in each batch entry."""
    windows_agree(graph, seed)


def test_a_window_that_reads_other_places_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: every batch entry's patches are those of entry 0."""
    plain = Window.gather

    def mutant(self: Window, values: Tensor, kernel: tuple[int, int], step: int = 1) -> Tensor:
        first = Window(self.place[:1], self.repeats, self.grid, self.stride, self.offset)
        return plain(first, values, kernel, step) if len(values) == 1 else plain(
            self, values, kernel, step)  # fmt: skip

    generator = torch.Generator().manual_seed(1)
    builder = GraphBuilder("x", (2, 9, 9))
    name = convolution(builder, "x", 4, "first", generator, kernel=3, padding=1)
    name = between(builder, name, "scaled", 0, generator)
    name = convolution(builder, name, 4, "second", generator, kernel=3, padding=1)
    graph = builder.build(name)
    windows_agree(graph, 0)
    monkeypatch.setattr(Window, "gather", mutant)
    with pytest.raises((AssertionError, RuntimeError)):
        windows_agree(graph, 0)


@given(stacks(), st.integers(0, 99))
@settings(max_examples=25)
def test_searches_in_float32_minimise_the_same_forms(graph: Graph, seed: int) -> None:
    """Phases, in float32 and over a box, against dense rows in float64."""
    net = walked(graph, ball(inputs_of(graph, seed), 0.05))
    small, region = graph.to(torch.float32), net.region.to(torch.float32)
    lines = {
        node.name: lookup(node).relax(node, net.bounds[node.inputs[0]].to(torch.float32), None)
        for node in small.nodes[1:]
        if lookup(node).relax is not None
    }
    for node in graph.nodes[1:]:
        rows = some_rows(graph, node.name, seed)
        start, form = start_form(small, node.name, rows.to(torch.float32), None, rigorous=False)
        found = pull_back(small, start, form, lines, into_box=True)
        whole = one_hot(graph, node.name, rows, rigorous=False)
        expected = net.region.minimise(pull_back(graph, node.name, whole, net.lines))
        least = region.minimise(found).double()
        torch.testing.assert_close(least, expected, rtol=1e-3, atol=1e-3)
        again = dense(found, graph.input.shape)
        torch.testing.assert_close(region.minimise(again).double(), least, rtol=1e-3, atol=1e-3)


@given(stacks(), st.integers(0, 99))
@settings(max_examples=15)
def test_a_pulled_back_form_is_below_the_node(graph: Graph, seed: int) -> None:
    """At sampled inputs of the region, for every node and random rows."""
    x = inputs_of(graph, seed).double()
    net = walked(graph, ball(x, 0.05))
    generator = torch.Generator().manual_seed(seed)
    moved = x + 0.05 * (2 * torch.rand(x.shape, generator=generator, dtype=torch.float64) - 1)
    values = evaluate(graph, moved)
    for node in graph.nodes[1:]:
        box = net.bounds[node.name]
        assert bool((values[node.name] >= box.lower).all())
        assert bool((values[node.name] <= box.upper).all())
        coeff = torch.randn(BATCH, 4, *node.shape, generator=generator, dtype=torch.float64)
        form = LinearForm(coeff, torch.zeros(BATCH, 4).double(), torch.zeros(BATCH, 4).double())
        found = pull_back(graph, node.name, form, net.lines, noise=net.noise, sizes=net.sizes)
        exact = torch.einsum("brn,bn->br", coeff.flatten(2), values[node.name].flatten(1))
        least = torch.einsum("brn,bn->br", found.coeff.flatten(2), moved.flatten(1)) + found.const
        assert found.error is not None
        assert bool((least - found.error <= exact + 1e-12).all())


def test_intervals_without_rounding_are_narrower() -> None:
    """`rounding=None` leaves the noise out; with it every rounding node is wider."""
    graph = conv_net(0)
    start = ball(inputs_of(graph, 0), 0.1).bounds()
    plain, wide = propagate(graph, start), propagate(graph, start, FLOAT32)
    for node in graph.nodes[1:]:
        assert bool((wide[node.name].lower <= plain[node.name].lower).all())
        assert bool((wide[node.name].upper >= plain[node.name].upper).all())
    assert bool((wide["logits"].lower < plain["logits"].lower).all())


def test_a_step_is_the_whole_walk_of_one_node() -> None:
    """`interval_step` gives what `propagate` stores."""
    graph = dense_net(1)
    found = propagate(graph, ball(inputs_of(graph, 1), 0.1).bounds(), FLOAT32)
    for node in graph.nodes[1:]:
        again = interval_step(node, FLOAT32, tuple(found[i] for i in node.inputs))
        torch.testing.assert_close(again.lower, found[node.name].lower, rtol=0, atol=0)


def test_running_a_graph_follows_the_dtype_of_its_weights() -> None:
    """float32 weights give float32 outputs near the float64 ones."""
    graph = conv_net(2)
    x = inputs_of(graph, 2)
    assert run(graph, x).dtype == torch.float64
    small = run(graph.to(torch.float32), x)
    assert small.dtype == torch.float32
    torch.testing.assert_close(small.double(), run(graph, x), rtol=1e-4, atol=1e-4)


def test_the_sum_of_two_forms_pays_for_its_rounding() -> None:
    """In rational arithmetic: A1·x + A2·x is at least the merged form less its error."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        scale = 10 ** (8 * torch.rand(2, 4, generator=generator, dtype=torch.float64) - 4)
        parts = [
            LinearForm(
                (torch.randn(4, generator=generator, dtype=torch.float64) * s).view(1, 1, 4),
                torch.randn(1, 1, generator=generator, dtype=torch.float64) * s[0],
                torch.zeros(1, 1, dtype=torch.float64),
            )
            for s in scale
        ]
        x = torch.randn(1, 4, generator=generator, dtype=torch.float64)
        found = merged(parts[0], parts[1], (4,), x.abs())
        assert found.error is not None

        def exact(form: LinearForm, x: Tensor = x) -> Fraction:
            pairs = zip(form.coeff.flatten().tolist(), x.flatten().tolist(), strict=True)
            return Fraction(float(form.const)) + sum(Fraction(a) * Fraction(v) for a, v in pairs)

        gap = abs(exact(parts[0]) + exact(parts[1]) - exact(found))
        assert gap <= Fraction(float(found.error))
        assert float(found.error) <= 1e-12 * float(scale.max()) * 10
