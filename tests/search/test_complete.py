"""Deciding properties: verdicts against grids and exact optima, and what stands around them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from tests.readers.onnx_models import model
from verify.api import certify, prove_property, radius
from verify.cli.refuting import refuters
from verify.errors import PropertyError
from verify.network import Network, load
from verify.readers.vnnlib import StatedProperty, read_vnnlib
from verify.search import choosing
from verify.search.questions import case_of
from verify.search.replaying import Replay
from verify.search.stating import is_classification, searchable
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.question import question
from verify.values.result import Verdict


def small_net(folder: object, seed: int, inputs: int = 2, outputs: int = 2) -> Network:
    """inputs -> 8 -> 8 -> outputs, ReLU, random weights."""
    rng = np.random.default_rng(seed)
    sizes = [inputs, 8, 8, outputs]
    nodes, weights, last = [], {}, "x"
    for i, (m, n) in enumerate(itertools.pairwise(sizes)):
        weights[f"w{i}"] = rng.normal(size=(m, n)).astype(np.float32)
        weights[f"b{i}"] = rng.normal(size=n).astype(np.float32) * np.float32(0.5)
        name = "y" if i == len(sizes) - 2 else f"z{i}"
        nodes.append(onnx.helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [name]))
        last = name
        if name != "y":
            nodes.append(onnx.helper.make_node("Relu", [name], [f"r{i}"]))
            last = f"r{i}"
    path = f"{folder}/net{seed}.onnx"
    onnx.save(model(nodes, ["batch", inputs], weights), path)
    return load(path)


def stated(folder: object, text: str, inputs: int = 2, outputs: int = 2) -> StatedProperty:
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    for i in range(inputs):
        lines += [f"(assert (>= X_{i} -1))", f"(assert (<= X_{i} 1))"]
    path = f"{folder}/p.vnnlib"
    with open(path, "w") as stream:
        stream.write("\n".join([*lines, text]))
    return read_vnnlib(path)


def grid(network: Network, count: int = 201) -> tuple[Tensor, Tensor]:
    line = torch.linspace(-1, 1, count, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    return x, run(network.graph, x)


@pytest.mark.parametrize("seed", range(4))
def test_verdicts_on_either_side_of_the_optimum(tmp_path: object, seed: int) -> None:
    """Y_0 <= c with c a little below and a little above the least Y_0 that a grid attains."""
    network = small_net(tmp_path, seed)
    _, y = grid(network)
    least, spread = float(y[:, 0].min()), float(y[:, 0].max() - y[:, 0].min())
    above = stated(tmp_path, f"(assert (<= Y_0 {least + 0.01 * spread}))")
    found = prove_property(network, above, refuters=refuters(0), timeout=30)
    assert found.answer == "sat"
    assert found.witness is not None
    assert float(run(network.graph, found.witness[None])[0, 0]) <= least + 0.011 * spread
    below = stated(tmp_path, f"(assert (<= Y_0 {least - 0.05 * spread}))")
    found = prove_property(network, below, refuters=refuters(0), timeout=30)
    assert found.answer == "unsat"
    assert found.bound > 0


@pytest.mark.parametrize("seed", range(3))
def test_linear_constraints_of_inputs_count(tmp_path: object, seed: int) -> None:
    """Least Y_0 over the triangle X_0 + X_1 <= -0.5, on either side."""
    network = small_net(tmp_path, seed)
    x, y = grid(network)
    inside = y[x.sum(dim=1) <= -0.5, 0]
    least, spread = float(inside.min()), float(y[:, 0].max() - y[:, 0].min())
    tied = "(assert (<= (+ X_0 X_1) -0.5))"
    for shift, answer in ((0.02, "sat"), (-0.05, "unsat")):
        text = f"{tied}(assert (<= Y_0 {least + shift * spread}))"
        found = prove_property(network, stated(tmp_path, text), refuters=refuters(0), timeout=30)
        assert found.answer == answer, (seed, shift)
        if found.witness is not None:
            assert float(found.witness.double().sum()) <= -0.5


def test_constraints_that_mix_inputs_and_outputs(tmp_path: object) -> None:
    """Y_0 >= X_0 + c for c on either side of the largest difference."""
    network = small_net(tmp_path, 5)
    x, y = grid(network)
    most = float((y[:, 0] - x[:, 0]).max())
    for shift, answer in ((-0.05, "sat"), (0.2, "unsat")):
        text = f"(assert (>= Y_0 (+ X_0 {most + shift})))"
        found = prove_property(network, stated(tmp_path, text), refuters=refuters(0), timeout=30)
        assert found.answer == answer


def test_many_cases_are_bounded_together_and_one_bad_one_is_found(tmp_path: object) -> None:
    """An or over 60 strips: unsat, until one strip's limit is moved past its optimum."""
    network = small_net(tmp_path, 1)
    x, y = grid(network)
    ends = np.linspace(-1, 1, 61)

    def text(bad: int | None) -> str:
        terms = []
        for i, (low, high) in enumerate(itertools.pairwise(ends.tolist())):
            inside = y[(x[:, 0] >= low - 0.01) & (x[:, 0] <= high + 0.01), 0]
            limit = float(inside.min()) - 0.5 if i != bad else float(inside.mean())
            terms.append(f"(and (>= X_0 {low}) (<= X_0 {high}) (<= Y_0 {limit}))")
        return f"(assert (or {' '.join(terms)}))"

    found = prove_property(network, stated(tmp_path, text(None)), refuters=refuters(0), timeout=60)
    assert found.answer == "unsat"
    found = prove_property(network, stated(tmp_path, text(37)), refuters=refuters(0), timeout=60)
    assert (found.answer, found.case) == ("sat", 37)
    assert found.witness is not None
    assert ends[37] <= float(found.witness[0]) <= ends[38]


def test_properties_without_outputs_or_inputs(tmp_path: object) -> None:
    """A clause without rows is met by any input; contradicting inputs by none."""
    network = small_net(tmp_path, 0)
    assert prove_property(network, stated(tmp_path, "(assert (>= X_0 0.5))")).answer == "sat"
    nothing = stated(tmp_path, "(assert (>= X_0 2)) (assert (<= Y_0 0))")
    assert prove_property(network, nothing).answer == "unsat"


def test_a_misfit_is_refused(tmp_path: object) -> None:
    """Another number of inputs or outputs belongs to another model."""
    network = small_net(tmp_path, 0)
    with pytest.raises(PropertyError, match="declares 3 outputs, but the model has 2"):
        prove_property(network, stated(tmp_path, "(assert (<= Y_0 0))", outputs=3))


def test_out_of_time_is_said(tmp_path: object) -> None:
    """With next to no time the answer is timeout, not unknown, and never unsat."""
    network = small_net(tmp_path, 0)
    found = prove_property(network, stated(tmp_path, "(assert (<= Y_0 -1))"), timeout=1e-6)
    assert (found.answer, found.verdict) == ("timeout", Verdict.UNKNOWN)


def test_a_wrong_bounder_would_be_caught_by_a_replayed_witness(tmp_path: object) -> None:
    """The replay decides by the file's own outputs and the stated case, not by our arithmetic."""
    network = small_net(tmp_path, 2)
    _, y = grid(network)
    case = stated(tmp_path, f"(assert (<= Y_0 {float(y[:, 0].min()) - 0.01}))").property.cases[0]
    ways = lambda x: [torch.full((1, 2), -1e9), run(network.graph, x).float()]  # noqa: E731
    replay = Replay(case, ways, (2,))
    assert replay.check(torch.zeros(1, 2)) is None
    lying = replace(replay, run=lambda x: [torch.full((1, 2), -1e9)])
    assert lying.check(torch.zeros(1, 2)) is not None


def test_a_left_out_softmax_needs_a_classification(tmp_path: object) -> None:
    """Order rows to all others may drop the softmax and demand a gap; a constant may not."""
    network = small_net(tmp_path, 0)
    graph = replace(network.graph, tail="Softmax")
    ordered = stated(tmp_path, "(assert (>= Y_1 Y_0))").property
    assert is_classification(ordered.cases[0])
    _, cases = searchable(graph, ordered)
    assert cases is not None
    assert float(cases[0].clauses[0].const) < 0
    assert searchable(graph, stated(tmp_path, "(assert (>= Y_1 0.5))").property)[1] is None
    some = stated(tmp_path, "(assert (>= Y_1 Y_0))", outputs=3).property
    assert not is_classification(some.cases[0])


def test_the_plan_says_why() -> None:
    """Few varying inputs: boxes; the reason names the number."""
    asked = question(torch.zeros(1, 3), torch.tensor([0]), 0.1)
    graph = load("examples/digits_dense.onnx").graph
    steps = choosing.plan(graph, case_of(asked, 2))
    assert "3 inputs vary" in steps[0].why


@pytest.mark.parametrize("seed", range(2))
def test_certify_complete_and_radius_exact(tmp_path: object, seed: int) -> None:
    """The exact radius, found by bisection on a fine grid of the plane, lies in the bracket."""
    network = small_net(tmp_path, seed)
    x = torch.tensor([[0.1, -0.2]])
    label = int(network.judge.predict(x)[0])
    points, y = grid(network, 401)
    other = y[:, 1 - label] > y[:, label]
    near = (points[other] - x.double()).abs().amax(dim=1)
    exact = float(near.min()) if len(near) else math.inf
    options = {"input_range": (-1.0, 1.0), "refuters": refuters(0)}
    (bracket,) = radius(network, x, exact=True, largest=1.2, **options)
    if math.isinf(exact):
        assert bracket.certified == pytest.approx(1.2)
        return
    assert bracket.attacked - bracket.certified <= 0.011 * bracket.attacked
    assert bracket.certified <= exact
    assert bracket.attacked <= exact * 1.02 + 0.006
    (low,) = certify(network, x, eps=0.97 * bracket.certified, complete=True, **options)
    (high,) = certify(network, x, eps=1.03 * bracket.attacked, complete=True, **options)
    assert (low.verdict, high.verdict) == (Verdict.VERIFIED, Verdict.FALSIFIED)
    (ball,) = certify(network, x, eps=bracket.attacked, norm=2, complete=True, method="ibp")
    assert ball.verdict is not Verdict.UNKNOWN or "norm inf only" in ball.reason


def test_shares_of_a_budget() -> None:
    """No deadline stays none; a share never exceeds the whole."""
    assert Budget().share(0.5) == Budget()
    whole = Budget().within(10)
    assert whole.share(0.5).deadline < whole.deadline
    assert whole.share(2.0).deadline == whole.deadline
