"""Sample nodes of every operator: what the operator contracts are tried on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod

import torch
from torch import Tensor

from verify.graph.ir import Node
from verify.ops.registry import lookup

Settings = Mapping[str, tuple[int, ...]]


def single(values: Tensor) -> Tensor:
    """Float64 copies of float32 numbers, as a file would hold them."""
    return values.to(torch.float32).to(torch.float64)


def normal(seed: int, *shape: int) -> Tensor:
    """Normal numbers that float32 represents exactly."""
    return single(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def node(
    op: str,
    *shapes: tuple[int, ...],
    tensors: Mapping[str, Tensor] | None = None,
    settings: Settings | None = None,
    shape: tuple[int, ...] | None = None,
) -> Node:
    """A node on its own, whose inputs have the given shapes."""
    names = tuple(f"in{i}" for i in range(len(shapes)))
    found = Node("out", op, names, shape or (), shapes, dict(tensors or {}), dict(settings or {}))
    if shape is None:
        trial = lookup(found).forward(found, *(torch.zeros(1, *s).double() for s in shapes))
        found = Node(
            "out", op, names, tuple(trial.shape[1:]), shapes, found.tensors, found.settings
        )
    return found


def conv(
    *,
    shape: tuple[int, ...] = (2, 5, 5),
    out: int = 3,
    kernel: tuple[int, ...] = (3, 3),
    stride: tuple[int, ...] | None = None,
    padding: tuple[int, ...] | None = None,
    dilation: tuple[int, ...] | None = None,
    groups: int = 1,
    seed: int = 0,
) -> Node:
    """A convolution with random weights."""
    rank = len(kernel)
    return node(
        "Conv",
        shape,
        tensors={
            "weight": normal(seed, out, shape[0] // groups, *kernel),
            "bias": normal(seed + 1, out),
        },
        settings={
            "stride": stride or (1,) * rank,
            "padding": padding or (0,) * rank,
            "dilation": dilation or (1,) * rank,
            "groups": (groups,),
        },
    )


def pool(shape: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], pads: int = 0,
         dilation: int = 1) -> Node:  # fmt: skip
    """A max pooling with equal padding on all sides."""
    rank = len(kernel)
    settings = {
        "kernel": kernel,
        "stride": stride,
        "pads": (pads,) * (2 * rank),
        "dilation": (dilation,) * rank,
    }
    return node("MaxPool", shape, settings=settings)


def two_piece(below: Tensor, above: Tensor, *shape: int) -> Node:
    """A function with a kink at 0."""
    return node("TwoPiece", shape, tensors={"below": single(below), "above": single(above)})


def clip(low: float, high: float, *shape: int) -> Node:
    """A clamp."""
    ends = {"low": torch.tensor(low), "high": torch.tensor(high)}
    return node("Clip", shape, tensors={k: v.to(torch.float64) for k, v in ends.items()})


def gemm(out: int, fan_in: int, *lead: int, seed: int = 3) -> Node:
    """A dense layer."""
    tensors = {"weight": normal(seed, out, fan_in), "bias": normal(seed + 1, out)}
    return node("Gemm", (*lead, fan_in), tensors=tensors)


def scale_shift(shape: tuple[int, ...], *constants: int) -> Node:
    """A scaling whose constants have a shape of their own."""
    tensors = {"scale": normal(5, *constants), "shift": normal(6, *constants)}
    return node("ScaleShift", shape, tensors=tensors)


def pad(shape: tuple[int, ...], pads: tuple[int, ...], value: float) -> Node:
    """A constant padding."""
    tensors = {"value": torch.tensor(value, dtype=torch.float64)}
    return node("Pad", shape, tensors=tensors, settings={"pads": pads})


def reduction(shape: tuple[int, ...], axes: tuple[int, ...], scale: float) -> Node:
    """A sum or mean."""
    tensors = {"scale": single(torch.tensor(scale))}
    return node("Reduce", shape, tensors=tensors, settings={"axes": axes})


def select(shape: tuple[int, ...], axis: int, index: tuple[int, ...]) -> Node:
    """Entries of one axis."""
    return node("Select", shape, tensors={"index": torch.tensor(index)}, settings={"axis": (axis,)})


def transposed(shape: tuple[int, ...], out: int, kernel: tuple[int, ...], stride: int,
               padding: int = 0, extra: int = 0, groups: int = 1) -> Node:  # fmt: skip
    """A transposed convolution with random weights."""
    rank = len(kernel)
    return node(
        "ConvTranspose",
        shape,
        tensors={"weight": normal(7, shape[0], out // groups, *kernel), "bias": normal(8, out)},
        settings={
            "stride": (stride,) * rank,
            "padding": (padding,) * rank,
            "dilation": (1,) * rank,
            "output_padding": (extra,) * rank,
            "groups": (groups,),
        },
    )


def power(exponent: int, *shape: int) -> Node:
    """An integer power."""
    return node("Power", shape, settings={"exponent": (exponent,)})


def stairs(shape: tuple[int, ...], *whole: int) -> Tensor:
    """Something that jumps with every whole number."""
    places = torch.arange(prod(shape), dtype=torch.float64).view(shape)
    return sum(((places + k * n) % 5 for k, n in enumerate(whole, 1)), torch.zeros(shape).double())


def program(inputs: int, *shape: int) -> Node:
    """A tensor computed from whole numbers."""
    names = tuple(f"in{i}" for i in range(inputs))
    return Node("out", "Program", names, shape, ((1,),) * inputs, program=partial(stairs, shape))


TENTH, ONE = torch.tensor(0.1), torch.tensor(1.0)

SAMPLES: dict[str, list[Node]] = {
    "Input": [node("Input", (4,))],
    "Gemm": [gemm(3, 5), gemm(1, 1), gemm(4, 3, 2), gemm(2, 40)],
    "Conv": [
        conv(),
        conv(stride=(2, 2), padding=(1, 1)),
        conv(stride=(2, 1), padding=(0, 2), kernel=(2, 3)),
        conv(groups=2, shape=(4, 5, 5), out=4, padding=(1, 1)),
        conv(dilation=(2, 2), padding=(2, 2)),
        conv(kernel=(1, 1), stride=(2, 2)),
        conv(shape=(4, 4, 4), out=4, kernel=(2, 2), stride=(2, 2), groups=4),
        conv(shape=(2, 9), kernel=(3,), stride=(2,), padding=(1,)),
        conv(shape=(1, 3, 3, 3), out=2, kernel=(2, 2, 2)),
    ],
    "ScaleShift": [scale_shift((3, 2, 2), 3, 1, 1), scale_shift((4,), 4), scale_shift((4,))],
    "Add": [
        node("Add", (3, 2), (3, 2), settings={"signs": (1, -1)}),
        node("Add", (4,), (4,), (4,), settings={"signs": (-1, 1, 1)}),
    ],
    "Reduce": [reduction((3, 4), (1,), 0.25), reduction((2, 3, 3), (1, 2), -0.3)],
    "Reshape": [node("Reshape", (2, 3), shape=(6,)), node("Reshape", (4,), shape=(2, 1, 2))],
    "Transpose": [node("Transpose", (2, 3, 4), settings={"perm": (2, 0, 1)})],
    "Select": [select((5, 2), 0, (4, 1, 1)), select((2, 3), 1, (0, 2))],
    "Pad": [pad((2, 3), (1, 0, 0, 2), -0.5), pad((5,), (-1, 2), 3.0), pad((4, 4), (-1,) * 4, 0.0)],
    "Concat": [
        node("Concat", (2, 3), (1, 3), settings={"axis": (0,)}),
        node("Concat", (2, 1), (2, 2), (2, 3), settings={"axis": (1,)}),
    ],
    "MaxPool": [
        pool((2, 4, 4), (2, 2), (2, 2)),
        pool((1, 5, 5), (3, 3), (1, 1), pads=1),
        pool((2, 6), (2,), (1,), dilation=2),
        pool((1, 4, 4), (1, 1), (1, 1)),
    ],
    "Relu": [node("Relu", (6,)), node("Relu", (2, 3, 2))],
    "Sigmoid": [node("Sigmoid", (6,))],
    "Tanh": [node("Tanh", (6,)), node("Tanh", (2, 3))],
    "TwoPiece": [
        two_piece(TENTH, ONE, 6),
        two_piece(-ONE, ONE, 6),
        two_piece(ONE, TENTH, 6),
        two_piece(ONE, -ONE, 6),
        two_piece(torch.tensor([[0.2], [-0.7], [3.0]]), ONE, 3, 2),
        two_piece(ONE, ONE, 2),
    ],
    "ConvTranspose": [
        transposed((2, 3, 3), 3, (2, 2), 2),
        transposed((2, 3, 2), 2, (4, 4), 2, padding=1, extra=1),
        transposed((4, 3, 3), 2, (3, 3), 1, groups=2),
        transposed((2, 5), 2, (3,), 2),
    ],
    **{name: [node(name, (6,))] for name in ("Exp", "Log", "Sqrt", "Reciprocal", "Softplus")},
    **{name: [node(name, (6,))] for name in ("Erf", "Gelu", "GeluTanh", "Sin", "Cos")},
    **{name: [node(name, (6,))] for name in ("Sign", "Floor", "Ceil")},
    "Power": [power(2, 6), power(3, 6), power(4, 2, 3)],
    "ArgMax": [
        node("ArgMax", (3, 4), settings={"axis": (0,)}),
        node("ArgMax", (2, 5), settings={"axis": (1,)}),
    ],
    "Trunc": [node("Trunc", (6,))],
    "Exceeds": [node("Exceeds", (6,), tensors={"gap": torch.tensor(1e-5).double()})],
    "Level": [node("Level", (6,), tensors={"level": torch.zeros(6).double()})],
    "Equal": [node("Equal", (6,), (6,))],
    "Blurred": [node("Blurred", (1,), (5,)), node("Blurred", (3, 1), (3, 4))],
    "Program": [program(1, 4), program(2, 2, 3)],
    "Mul": [node("Mul", (6,), (6,)), node("Mul", (2, 3), (2, 3))],
    "MatMul": [
        node("MatMul", (2, 3), (3, 4)),
        node("MatMul", (2, 3, 1), (2, 1, 2)),
        node("MatMul", (2, 1, 3, 4), (2, 1, 4, 2)),
    ],
    "Softmax": [node("Softmax", (5,)), node("Softmax", (2, 3)), node("Softmax", (2, 1))],
    "Clip": [clip(-0.3, 0.8, 6), clip(0.0, 6.0, 6), clip(-1.0, -1.0, 3), clip(1.0, 3.0, 6)],
}
"""Per operator, nodes of several shapes and settings."""

EVERY = [(op, i) for op, nodes in SAMPLES.items() for i in range(len(nodes))]
"""Names of all samples, for parametrisation."""


POSITIVE = ("Log", "Sqrt", "Reciprocal")
"""Operators that are sampled on positive numbers only."""


def kinks(sample: Node) -> list[float]:
    """Where an elementwise function bends sharply."""
    if sample.op in POSITIVE:
        return [1e-3]
    ends = [float(sample.tensors[k]) for k in ("low", "high") if k in sample.tensors]
    return [0.0, *ends]
