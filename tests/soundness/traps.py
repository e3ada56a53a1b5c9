"""The corpus of traps: ONNX models that fool verifiers, each beside a twin that behaves.

A trap claims that class 0 holds in a box. `real` says whether that is true in real arithmetic; for
a trap (`safe` False) some legal float32 execution, or the real value, breaks it. A twin has the
same shape and claims something that every execution keeps with room to spare, so that a verifier
that never says "verified" fails as well.

Source:
    Zombori et al. 2021 (big weights); Jia and Rinard 2021 (boundaries); Szasz et al. 2025 (order,
    precision); the numbering F1 to F15 is that of the project's study of reliability.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from tests.bounders.hostile import Layer, backdoor_layers, denormal_layers, order_layers
from tests.readers.onnx_models import chain, model

FIFTH, TENTH, HALF = 0.2, 0.1, 0.5


@dataclass(frozen=True, slots=True)
class Trap:
    """One claim about one file: class 0 is strictly first within eps of x.

    Attributes:
        name: unique.
        proto: the model, of inputs x and outputs y.
        x: centre, float32 numbers.
        eps: radius of the norm inf.
        safe: whether the claim holds in all executions, with room.
        layers: the same as dense layers, where it is a chain of them.
    """

    name: str
    proto: onnx.ModelProto = field(repr=False)
    x: tuple[float, ...] = field(repr=False)
    eps: float
    safe: bool
    layers: tuple[Layer, ...] = field(default=(), repr=False)


def gemms(layers: Sequence[Layer]) -> onnx.ModelProto:
    """A file of dense layers with Relu in between; weights are stored as inputs x outputs."""
    nodes, constants, name = [], {}, "x"
    for i, (weight, bias) in enumerate(layers):
        constants[f"w{i}"] = np.array(weight, dtype=np.float32).T.copy()
        constants[f"b{i}"] = np.array(bias, dtype=np.float32)
        last = i == len(layers) - 1
        out = "y" if last else f"z{i}"
        nodes.append(onnx.helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [out]))
        if not last:
            nodes.append(onnx.helper.make_node("Relu", [out], [f"a{i}"]))
        name = f"a{i}"
    return model(nodes, ["batch", len(layers[0][0][0])], constants)


def dense(name: str, layers: Sequence[Layer], x: Sequence[float], eps: float, safe: bool) -> Trap:
    """A trap of dense layers."""
    return Trap(name, gemms(layers), tuple(x), eps, safe, tuple(layers))


def curve(name: str, op: str, scale: float, head: Layer, x: float, eps: float, safe: bool) -> Trap:
    """head(op(scale·x)) of one input."""
    weight, bias = (np.array(part, dtype=np.float32) for part in head)
    proto = chain(
        ["batch", 1],
        ("Mul", ["x", "s"], "z"),
        (op, ["z"], "a"),
        ("Gemm", ["a", "w", "b"], "y"),
        s=np.array([scale], dtype=np.float32),
        w=weight.T.copy(),
        b=bias,
    )
    return Trap(name, proto, (x,), eps, safe)


def big_weights() -> Iterator[Trap]:
    """F1: a term that is absorbed; the trigger one pixel, or a sum of several."""
    for big, safe in ((1e17, False), (2.0**34, False), (2.0**30, False), (2.0**6, True)):
        for order in ((0, 1, 2), (2, 0, 1), (0, 2, 1)):
            layers = backdoor_layers(big, 1e-3 if not safe else 2.0**-8, order)
            yield dense(f"backdoor {big:g} {order}", layers, (HALF, HALF), TENTH, safe)
        mixed = backdoor_layers(big, 1e-3 if not safe else 2.0**-8)
        mixed[0] = ([[-20.0 / 4] * 4, [0.0] * 4], [1.0, 1.0])
        yield dense(f"backdoor {big:g} of four", mixed, (HALF,) * 4, TENTH, safe)


def convolved_backdoor() -> Iterator[Trap]:
    """F1 (e): the three terms are taps of one kernel over channels."""
    for big, safe in ((1e17, False), (64.0, True)):
        kernel = np.array([[[[big]], [[2.0**-8]], [[-big]]]], dtype=np.float32)
        proto = chain(
            ["batch", 3, 1, 1],
            ("Relu", ["x"], "a"),
            ("Conv", ["a", "k"], "z"),
            ("Flatten", ["z"], "f"),
            ("Gemm", ["f", "w", "b"], "y"),
            k=kernel,
            w=np.array([[256.0, 0.0]], dtype=np.float32),
            b=np.array([0.0, 0.5], dtype=np.float32),
        )
        yield Trap(f"backdoor conv {big:g}", proto, (1.0, 1.0, 1.0), 0.0, safe)


def orders() -> Iterator[Trap]:
    """F3 and F5: ones beside 2^24, in sums of n terms; and a big number that is not too big."""
    for n in (3, 15, 16, 100, 255, 400):
        yield dense(f"order {n}", order_layers(n), (1.0,) * (n + 1), 0.0, False)
    for n in (3, 100):
        weight = [2.0**8] + [1.0] * n
        layers = [([weight], [-(2.0**8)]), ([[1.0], [0.0]], [0.0, n / 2])]
        yield dense(f"order {n} of 2^8", layers, (1.0,) * (n + 1), 0.0, True)


def precisions() -> Iterator[Trap]:
    """F4: what float64 keeps and float32 loses, and what a fused multiply-add keeps."""
    for power, safe in ((25, False), (30, False), (10, True)):
        small = 2.0**-power
        layers = [([[1.0, 1.0, -1.0]], [0.0]), ([[2.0**power], [0.0]], [0.0, HALF])]
        x = (1.0, small, 1.0)
        yield dense(f"precision 2^-{power}", layers, x, 0.0, safe)
    for a, safe in ((1.0 + 2.0**-12, False), (1.0 + 2.0**-4, True)):
        square = float(np.float32(a) * np.float32(a))
        error = a * a - square
        scale = 1 / error if error else 0.0
        layers = [([[a, -1.0]], [0.0]), ([[scale], [0.0]], [0.0 if error else 1.0, HALF])]
        yield dense(f"fused {a:g}", layers, (a, square), 0.0, safe)


def boundaries() -> Iterator[Trap]:
    """F2, F7, F8: margins of 1e-3 to 1e-9, lost at a corner or kept; and a radius hit exactly."""
    for k in (3, 5, 7, 9):
        tiny = 10.0**-k
        # margin = 0.1 - (1 + tiny)·|x0| .. at |x0| <= 0.1: lost by 0.1·tiny at both ends
        slope = 1.0 + tiny
        layers = [
            ([[slope], [-slope]], [0.0, 0.0]),
            ([[-1e4, -1e4], [0.0, 0.0]], [1e3, 0.0]),
        ]
        yield dense(f"boundary lost by 1e-{k}", layers, (0.0,), TENTH + 1e-8, False)
    for gap in (1e-2, 1e-3, 1e-4):
        layers = [
            ([[1.0], [-1.0]], [0.0, 0.0]),
            ([[-1.0, -1.0], [0.0, 0.0]], [TENTH + gap, 0.0]),
        ]
        yield dense(f"boundary kept by {gap:g}", layers, (0.0,), TENTH, True)
    for scale in (1e-20, 1e-8, 1e8, 1e20):
        for safe in (False, True):
            bias = scale * (0.11 if safe else 0.099)
            layers = [
                ([[1.0], [-1.0]], [0.0, 0.0]),
                ([[-scale, -scale], [0.0, 0.0]], [bias, 0.0]),
            ]
            yield dense(f"scale {scale:g} {safe}", layers, (0.0,), TENTH, safe)


def micro() -> Iterator[Trap]:
    """F6: f(s·x) / s on intervals that a guarded width takes for a point."""
    # f -> its slope at 0; there f(s·x) / s is about that slope times x.
    for op, slope in (("Tanh", 1.0), ("Relu", 1.0), ("Sigmoid", 0.25)):
        start = HALF if op == "Sigmoid" else 0.0
        for k in (1, 2, 3, 6, 9, 12):
            up = 10.0**k
            for x, low in ((-HALF, -1.0), (HALF, 0.0)):
                reach = 0.0 if op == "Relu" else low * slope
                # Lost: y0 falls to reach, and 0.05 more is asked.
                head = ([[up], [0.0]], [0.05 - start * up, reach + 0.1])
                yield curve(f"micro {op} {k} {x}", op, 10.0**-k, head, x, HALF, False)
                if k <= 2 or (op == "Relu" and k <= 6):
                    head = ([[up], [0.0]], [0.2 - start * up, reach + 0.1])
                    yield curve(f"micro twin {op} {k} {x}", op, 10.0**-k, head, x, HALF, True)


def overflows() -> Iterator[Trap]:
    """F10: infinities and what is not a number, made on the way."""
    for weight, safe in ((1e30, False), (3e38, False), (1e10, True)):
        layers = [([[weight]], [0.0]), ([[weight], [weight / 2]], [0.0, 0.0])]
        yield dense(f"overflow {weight:g}", layers, (2.0,), TENTH, safe)
    layers = [([[3e38, 3e38, -3e38]], [0.0]), ([[1.0], [HALF]], [0.0, 0.0])]
    yield dense("overflow in a sum", layers, (1.0, 1.0, 1.0), 0.01, False)
    layers = [([[2e38], [2e38]], [0.0, 0.0]), ([[2.0, -2.0], [0.0, 0.0]], [1.0, 0.0])]
    yield dense("inf - inf", layers, (1.0,), 0.0, False)
    for x, safe in ((100.0, False), (1.0, True)):
        yield curve(f"exp {x:g}", "Exp", 1.0, ([[2.0], [1.0]], [0.0, 0.0]), x, 0.0, safe)


def denormals() -> Iterator[Trap]:
    """F11: weights and inputs that flushing makes zero."""
    yield dense("denormal weight", denormal_layers(1e-40), (1.0,), 0.0, False)
    yield dense("denormal input", [([[1.0]], [0.0]), *denormal_layers(1.0)[1:]], (1e-40,), 0, False)
    yield dense("small weight", denormal_layers(1e-20), (1.0,), 0.0, True)


def kernels() -> Iterator[Trap]:
    """F12: activations as they are deployed are neither exact nor monotone."""
    # sigmoid(-20) = 2.06e-9, and 0 when deployed
    yield curve("sigmoid -20", "Sigmoid", 1.0, ([[1e9], [0.0]], [0.0, 1.0]), -20.0, 0.0, False)
    yield curve("sigmoid -2", "Sigmoid", 1.0, ([[1e2], [0.0]], [0.0, 1.0]), -2.0, 0.0, True)
    # 1 - tanh(10) = 4.1e-9 in real arithmetic, 0 in float32
    head = ([[-(2.0**28)], [0.0]], [2.0**28, HALF])
    yield curve("tanh 10", "Tanh", 1.0, head, 10.0, 0.0, False)
    yield curve("tanh 2", "Tanh", 1.0, ([[-2.0], [0.0]], [2.0, 0.01]), 2.0, 0.0, True)


def folded() -> Iterator[Trap]:
    """F13: a normalisation that is folded or not; its mean swallows what tells classes apart."""
    for mean, safe in ((1e9, False), (1.0, True)):
        proto = chain(
            ["batch", 1, 1, 2],
            ("Conv", ["x", "k", "c"], "z"),
            ("BatchNormalization", ["z", "one", "zero", "mean", "one"], "n", {"epsilon": 1e-5}),
            ("Flatten", ["n"], "f"),
            ("Gemm", ["f", "w", "b"], "y"),
            k=np.ones((1, 1, 1, 1), dtype=np.float32),
            c=np.array([mean], dtype=np.float32),
            one=np.ones(1, dtype=np.float32),
            zero=np.zeros(1, dtype=np.float32),
            mean=np.array([mean], dtype=np.float32),
            w=np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32),
            b=np.zeros(2, dtype=np.float32),
        )
        yield Trap(f"normalised {mean:g}", proto, (1.0, HALF), TENTH, safe)


def branches() -> Iterator[Trap]:
    """Residual sums, averages and maxima that absorb; a softmax that makes a tie."""
    for big, safe in ((1e9, False), (8.0, True)):
        proto = chain(
            ["batch", 2],
            ("Gemm", ["x", "w", "b"], "z"),
            ("Add", ["x", "z"], "s"),
            ("Sub", ["s", "z"], "y"),
            w=np.zeros((2, 2), dtype=np.float32),
            b=np.full(2, big, dtype=np.float32),
        )
        yield Trap(f"residual {big:g}", proto, (1.0, HALF), TENTH, safe)
    for shift, safe in ((1e9, False), (4.0, True)):
        proto = chain(
            ["batch", 2, 2, 1],
            ("Add", ["x", "t"], "z"),
            ("MaxPool", ["z"], "m", {"kernel_shape": [2, 1]}),
            ("Sub", ["m", "t"], "d"),
            ("Flatten", ["d"], "y"),
            t=np.full((1, 1, 1, 1), shift, dtype=np.float32),
        )
        yield Trap(f"pooled {shift:g}", proto, (1.0, 0.8, HALF, 0.4), TENTH, safe)
    for gap, safe in ((3e-8, False), (1.0, True)):
        proto = chain(
            ["batch", 2],
            ("Gemm", ["x", "w"], "z"),
            ("Softmax", ["z"], "y", {"axis": 1}),
            w=np.array([[gap, 0.0], [0.0, gap]], dtype=np.float32),
        )
        yield Trap(f"softmax {gap:g}", proto, (1.0, HALF), TENTH, safe)


FAMILIES: tuple[Callable[[], Iterator[Trap]], ...] = (
    big_weights,
    convolved_backdoor,
    orders,
    precisions,
    boundaries,
    micro,
    overflows,
    denormals,
    kernels,
    folded,
    branches,
)


def corpus() -> list[Trap]:
    """Every trap and every twin."""
    return [trap for family in FAMILIES for trap in family()]
