"""Noise: no float32 execution of an operator leaves the value by more than is charged."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.contracts.executions import executions
from tests.contracts.samples import SAMPLES, gemm, single, two_piece
from verify.graph.ir import Node
from verify.ops.affine import EXTRA_ROUNDINGS, by_parts
from verify.ops.curve import DEVIATIONS
from verify.ops.registry import REGISTRY, lookup, noise_of
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.rounding import FLOAT32, PARTIAL_SUMS, REAL, Rounding, gamma

ROUNDED = [
    (op, i)
    for op, rules in REGISTRY.items()
    if rules.rounds and rules.relax is None
    for i in range(len(SAMPLES[op]))
]


def matrix(node: Node) -> tuple[Tensor, Tensor]:
    """W of shape (out, all inputs) and b of an affine node, from its values alone."""
    sizes = [int(np.prod(s)) for s in node.input_shapes]
    every = torch.eye(sum(sizes), dtype=torch.float64)
    parts = [
        p.reshape(-1, *s) for p, s in zip(every.split(sizes, dim=1), node.input_shapes, strict=True)
    ]
    zero = [torch.zeros_like(p[:1]) for p in parts]
    bias = lookup(node).forward(node, *zero).flatten(1)
    weight = lookup(node).forward(node, *parts).flatten(1) - bias
    # W + b - b is rounded; the weights themselves are float32 numbers.
    return single(weight.T.contiguous()), bias[0]


def points(node: Node, seed: int, scale: float) -> Tensor:
    """Inputs of mixed magnitudes, float32 numbers, all inputs side by side."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(int(np.prod(s)) for s in node.input_shapes)
    size = 10 ** (6 * torch.rand(20, total, generator=generator) - 3)
    return single(scale * size * torch.randn(20, total, generator=generator))


def escape(node: Node, x: Tensor, rounding: Rounding, seed: int) -> float:
    """The largest |execution - value| as a share of the charge."""
    weight, bias = matrix(node)
    sizes = [int(np.prod(s)) for s in node.input_shapes]
    inputs = tuple(
        Bounds(-p.abs().view(-1, *s), p.abs().view(-1, *s))
        for p, s in zip(x.split(sizes, dim=1), node.input_shapes, strict=True)
    )
    charge = noise_of(node, rounding, torch.float64, inputs)
    assert charge is not None
    exact = x @ weight.T + bias
    worst = 0.0
    for found in executions(weight.numpy(), bias.numpy(), x.numpy(), seed):
        gap = (torch.from_numpy(found).double() - exact).abs()
        worst = max(worst, float((gap / charge.flatten(1)).max()))
    return worst


@pytest.mark.parametrize(("op", "i"), ROUNDED)
@pytest.mark.parametrize("scale", [1.0, 1e-38, 1e20])
def test_executions_of_affine_operators_stay_within_their_noise(
    op: str, i: int, scale: float
) -> None:
    """Shuffled, fused, pairwise and flushed sums; normal, denormal and large inputs."""
    node = SAMPLES[op][i]
    assert escape(node, points(node, i, scale), FLOAT32, i) <= 1


@pytest.mark.parametrize(("op", "i"), ROUNDED)
def test_executions_stay_within_what_parts_of_sums_are_charged(op: str, i: int) -> None:
    """Half the inputs 0, signs known or not; and it is never more than the plain noise."""
    node = SAMPLES[op][i]
    x = points(node, i, 1.0)
    x = x * (torch.rand(x.shape, generator=torch.Generator().manual_seed(i)) > 0.5)
    weight, bias = matrix(node)
    exact = x @ weight.T + bias
    found = np.stack(list(executions(weight.numpy(), bias.numpy(), x.numpy(), i)))
    gap = (torch.from_numpy(found).double() - exact).abs().amax(dim=0)
    sizes = [int(np.prod(s)) for s in node.input_shapes]
    for low in (x, x.clamp(max=0), -x.abs()):
        high = torch.maximum(x, -low) if low is not x else x
        inputs = tuple(
            Bounds(a.view(-1, *s), b.view(-1, *s))
            for a, b, s in zip(
                low.split(sizes, dim=1), high.split(sizes, dim=1), node.input_shapes, strict=True
            )
        )
        close = noise_of(node, PARTIAL_SUMS, torch.float64, inputs)
        plain = noise_of(node, FLOAT32, torch.float64, inputs)
        assert close is not None
        assert plain is not None
        assert bool((gap <= close.flatten(1)).all())
        assert bool((close <= plain).all())


@pytest.mark.parametrize("n", [3, 17, 101, 1000])
def test_sums_that_depend_on_their_order_stay_within_the_noise(n: int) -> None:
    """2^24 and n ones: the largest first loses all ones, which one ulp per sum does not cover."""
    weight = torch.tensor([2.0**24, *[1.0] * n], dtype=torch.float64)[None]
    node = gemm(1, n + 1)
    node = Node("out", "Gemm", node.inputs, (1,), ((n + 1,),),
                {"weight": weight, "bias": torch.zeros(1).double()})  # fmt: skip
    x = torch.ones(1, n + 1, dtype=torch.float64)
    found = np.stack(list(executions(weight.numpy(), np.zeros(1), x.numpy(), 0)))
    assert found.max() - found.min() >= n - 1
    assert escape(node, x, FLOAT32, 0) <= 1
    assert escape(node, x, PARTIAL_SUMS, 0) <= 1
    assert escape(node, x, REAL, 0) > 1


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_parts_of_sums_that_cancel_are_as_large_as_either_side(sign: float) -> None:
    """2^24, ones and -2^24: the whole sum is small, and says nothing of what its parts lose."""
    weight = torch.tensor([2.0**24, *[1.0] * 300, -(2.0**24)], dtype=torch.float64)[None]
    size = weight.shape[1]
    node = gemm(1, size)
    node = Node("out", "Gemm", node.inputs, (1,), ((size,),),
                {"weight": weight, "bias": torch.zeros(1).double()})  # fmt: skip
    for turned in (weight.clone(), -weight, weight.abs()):
        node.tensors["weight"].copy_(turned)
        x = torch.full((1, size), sign, dtype=torch.float64)
        charge = noise_of(node, PARTIAL_SUMS, torch.float64, (Bounds(x, x.clone()),))
        assert charge is not None
        found = np.stack(list(executions(turned.numpy(), np.zeros(1), x.numpy(), 0)))
        gap = np.abs(found.astype(np.float64) - float(turned.sum() * sign)).max()
        assert gap <= float(charge)


def test_parts_of_sums_pay_at_least_their_formula() -> None:
    """gamma_{m+c}·P + (gamma_c + gamma_{m+c}^2)·v in rational arithmetic."""
    u, c = Fraction(1, 2**24), EXTRA_ROUNDINGS

    def exactly(k: int) -> Fraction:
        return k * u / (1 - k * u)

    for terms in (1, 30, 1000, 2**20):
        given = [torch.tensor(v, dtype=torch.float64) for v in (3.0, 7.0, float(terms))]
        exact = exactly(terms + c) * 3 + (exactly(c) + exactly(terms + c) ** 2) * 7
        found = float(by_parts(*given, 2.0**-24))
        assert exact <= Fraction(found) <= exact * (1 + Fraction(1, 10**9))


def test_zeros_and_signs_are_worth_something() -> None:
    """1000 terms of which 100 are not 0, half of either sign: a twentieth of the noise, or so."""
    node = gemm(1, 1000)
    weight = torch.tensor([1.0, -1.0]).double().repeat(500)[None]
    node = Node("out", "Gemm", node.inputs, (1,), ((1000,),),
                {"weight": weight, "bias": torch.zeros(1).double()})  # fmt: skip
    x = torch.zeros(1, 1000, dtype=torch.float64)
    x[0, :100] = 1.0
    close = noise_of(node, PARTIAL_SUMS, torch.float64, (Bounds(x, x),))
    plain = noise_of(node, FLOAT32, torch.float64, (Bounds(x, x),))
    assert close is not None
    assert plain is not None
    assert 50 * 2.0**-24 * 99 < float(close) < float(plain) / 12


@pytest.mark.parametrize("weight", [1e-40, 1e30])
def test_flushed_denormals_stay_within_the_noise(weight: float) -> None:
    """Denormal weights times large inputs, and the other way round, may be flushed to zero."""
    tensors = {"weight": single(torch.tensor([[weight, -weight]])), "bias": torch.zeros(1).double()}
    node = Node("out", "Gemm", ("x",), (1,), ((2,),), tensors)
    x = single(torch.tensor([[1e-39, 1e-45], [1e4, 1e-41]])) * (1.0 if weight > 1 else 1e8)
    assert escape(node, single(x), FLOAT32, 0) <= 1
    assert escape(node, single(x), Rounding(smallest=0.0, largest=math.inf), 0) > 1


@pytest.mark.parametrize(("weight", "x"), [(1e30, 1e30), (3e38, 2.0), (1.0, 3.4e38), (-1e30, 1e10)])
def test_a_sum_that_may_overflow_has_infinite_noise(weight: float, x: float) -> None:
    """Beyond float32 nothing is known of an execution, though float64 holds the value well."""
    tensors = {"weight": torch.tensor([[weight]]).double(), "bias": torch.zeros(1).double()}
    node = Node("out", "Gemm", ("x",), (1,), ((1,),), tensors)
    bounds = Bounds(torch.tensor([[x]]).double(), torch.tensor([[x]]).double())
    found = noise_of(node, FLOAT32, torch.float64, (bounds,))
    assert found is not None
    assert bool(torch.isinf(found).all())
    plain = noise_of(node, REAL, torch.float64, (bounds,))
    assert plain is not None
    assert bool(torch.isfinite(plain).all())


def test_a_slope_that_may_overflow_has_infinite_noise() -> None:
    """The same of a piecewise linear function, and a steep one pays for a flushed input."""
    node = two_piece(torch.tensor(1e30), torch.tensor(1.0), 1)
    size = torch.tensor([[1e10], [1e-39]]).double()
    found = noise_of(node, FLOAT32, torch.float64, (Bounds(-size, size),))
    assert found is not None
    assert torch.isinf(found).flatten().tolist() == [True, False]
    assert float(found[1]) >= 1e-39 * 1e30 * 0.9


@pytest.mark.parametrize(
    "op", ["Sigmoid", "Tanh", *(op for op in DEVIATIONS if op not in ("Power", "Gelu", "GeluTanh"))]
)
def test_deployed_curves_stay_within_their_noise(op: str) -> None:
    """numpy's, torch's and ONNX Runtime's float32 kernels, saturation and denormals included."""
    import onnxruntime
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"])],
        "curve",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(file.SerializeToString())
    ends = np.array([9, 18, 88, 104, 1e4, 3e38, 1e-39, 0], dtype=np.float32)
    x = np.concatenate([np.linspace(-20, 20, 20001, dtype=np.float32), ends, -ends])
    wide = torch.from_numpy(x).double()
    node = Node("out", op, ("x",), (len(x),), ((len(x),),))
    charge = noise_of(node, FLOAT32, torch.float64, (Bounds(wide[None], wide[None].clone()),))
    assert charge is not None
    known = torch.isfinite(charge[0])
    assert bool(known[10001:20001].all())  # of moderate positive numbers all is known
    x, wide, charge = x[known], wide[known], charge[:, known]
    value = lookup(node).forward(node, wide)
    for found in (
        session.run(None, {"x": x})[0],
        lookup(node).forward(node, torch.from_numpy(x)).numpy(),
    ):
        assert bool(((torch.from_numpy(found).double() - value).abs() <= charge[0]).all())


ONNX_NAMES = {"Power": "Pow", "GeluTanh": "Gelu"}


@pytest.mark.parametrize(
    ("op", "attributes", "inputs"),
    [
        ("Power", {}, 1),
        ("Gelu", {}, 1),
        ("GeluTanh", {"approximate": "tanh"}, 1),
        ("Mul", {}, 2),
        ("Div", {}, 2),
        ("MatMul", {}, 2),
        ("Softmax", {"axis": 1}, 1),
    ],
)
def test_executions_of_products_and_softmax_stay_within_their_noise(
    op: str, attributes: dict[str, object], inputs: int
) -> None:
    """ONNX Runtime's own kernels on inputs of mixed magnitudes, all of them constants here."""
    import onnxruntime
    from onnx import TensorProto, helper

    generator = torch.Generator().manual_seed(0)
    size = 10 ** (3 * torch.rand(inputs, 64, 64, generator=generator) - 1.5)
    x = single(size * torch.randn(inputs, 64, 64, generator=generator))
    names = ["x", "y"][:inputs]
    given = names if op != "Power" else ["x", "c"]
    graph = helper.make_graph(
        [helper.make_node(ONNX_NAMES.get(op, op), given, ["z"], **attributes)],
        "one",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [64, 64]) for n in names],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [64, 64])],
        [helper.make_tensor("c", TensorProto.FLOAT, [], [3.0])] if op == "Power" else [],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = onnxruntime.InferenceSession(file.SerializeToString())
    fed = {n: part.float().numpy() for n, part in zip(names, x, strict=True)}
    found = torch.from_numpy(session.run(None, fed)[0]).double()
    rule, points = op, [part[None] for part in x]
    if op == "Div":
        rule, points = "Mul", [points[0], 1 / points[1]]
    settings = {"exponent": (3,)} if op == "Power" else {}
    shapes = tuple((64, 64) for _ in points)
    node = Node("out", rule, tuple(names), (64, 64), shapes, {}, settings)
    bounds = tuple(Bounds(p, p.clone()) for p in points)
    charge = noise_of(node, FLOAT32, torch.float64, bounds)
    assert charge is not None
    gap = (found - lookup(node).forward(node, *points)[0]).abs()
    assert bool((gap <= charge[0]).all())
    assert float((gap / charge[0]).max()) > 1e-3  # the charge is not beyond all measure


@pytest.mark.parametrize(("first", "second"), [(1e-30, 1e-30), (1e-40, 1e30), (1e30, 1e-40)])
@pytest.mark.parametrize("op", ["Mul", "MatMul"])
def test_flushed_products_stay_within_their_noise(op: str, first: float, second: float) -> None:
    """A factor that is no normal number may be 0 when executed, and so may the product."""
    x, y = (torch.full((1, 3, 3), v, dtype=torch.float32).double() for v in (first, second))
    node = Node("out", op, ("x", "y"), (3, 3), ((3, 3), (3, 3)))
    charge = noise_of(node, FLOAT32, torch.float64, (Bounds(x, x), Bounds(y, y)))
    assert charge is not None
    assert bool((lookup(node).forward(node, x, y).abs() <= charge).all())


@pytest.mark.parametrize("i", range(len(SAMPLES["TwoPiece"])))
def test_executed_slopes_stay_within_their_noise(i: int) -> None:
    """One or two products of float32 numbers, as LeakyRelu and PRelu may be computed."""
    node = SAMPLES["TwoPiece"][i]
    generator = torch.Generator().manual_seed(i)
    x = single(torch.randn(200, *node.shape, generator=generator) * 100)
    charge = noise_of(node, FLOAT32, torch.float64, (Bounds(x, x),))
    assert charge is not None
    value = lookup(node).forward(node, x)
    below, above, small = (t.float() for t in (node.tensors["below"], node.tensors["above"], x))
    once = torch.where(small < 0, below * small, above * small)
    twice = above * ((small + small.abs()) / 2) + below * ((small - small.abs()) / 2)
    for found in (once, twice):
        assert bool(((found.double() - value).abs() <= charge).all())


def test_gamma_is_at_least_its_formula() -> None:
    """k·u / (1 - k·u) in rational arithmetic, and infinite once that means nothing."""
    for k in (1, 7, 1000, 2**20):
        u = Fraction(1, 2**24)
        exact = k * u / (1 - k * u)
        assert Fraction(gamma(k, 2.0**-24)) >= exact
        assert gamma(k, 2.0**-24) <= float(exact) * (1 + 1e-12)
    assert gamma(2**23, 2.0**-24) == float("inf")


@pytest.mark.parametrize(("op", "i"), ROUNDED)
def test_the_charge_covers_our_own_pull_back(op: str, i: int) -> None:
    """|A·f(x) - pulled(x)| in exact arithmetic is at most |A|·noise, for the real network."""
    node = SAMPLES[op][i]
    generator = torch.Generator().manual_seed(i)
    xs = tuple(1e8 * torch.randn(1, *s, generator=generator).double() for s in node.input_shapes)
    coeff = torch.randn(1, 3, *node.shape, generator=generator).double()
    pieces = lookup(node).pull_back(node, LinearForm(coeff, torch.zeros(1, 3).double()), None)
    weight, bias = matrix(node)
    charge = noise_of(node, REAL, torch.float64, tuple(Bounds(-x.abs(), x.abs()) for x in xs))
    assert charge is not None
    flat = [Fraction(v) for x in xs for v in x.flatten().tolist()]
    exact_y = [
        sum((Fraction(w) * v for w, v in zip(row, flat, strict=True)), Fraction(b))
        for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
    ]
    for r in range(3):
        row = [Fraction(a) for a in coeff[0, r].flatten().tolist()]
        expected = sum(a * y for a, y in zip(row, exact_y, strict=True))
        found = sum(Fraction(float(p.const[0, r])) for p in pieces)
        pulled = [v for p in pieces for v in p.coeff[0, r].flatten().tolist()]
        found += sum(Fraction(a) * v for a, v in zip(pulled, flat, strict=True))
        allowed = float((coeff[0, r].abs() * charge[0]).sum())
        assert abs(float(found - expected)) <= allowed
