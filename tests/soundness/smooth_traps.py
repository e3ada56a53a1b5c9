"""Traps of the operators that are put together of others, and of smooth ones: see `traps`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tests.readers.onnx_models import chain
from tests.soundness.traps import HALF, TENTH, Trap, curve, dense

PAIR = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)


def normalised_layers() -> Iterator[Trap]:
    """A variance whose numbers cancel: entries far from 0 that differ by little."""
    for shift, safe in ((2.0**22, False), (2.0, True)):
        proto = chain(
            ["batch", 2],
            ("Add", ["x", "t"], "z"),
            ("LayerNormalization", ["z", "one", "zero"], "n", {"axis": -1, "epsilon": 1e-5}),
            ("Gemm", ["n", "w", "b"], "y"),
            t=np.array([[shift, shift]], dtype=np.float32),
            one=np.ones(2, dtype=np.float32),
            zero=np.zeros(2, dtype=np.float32),
            w=PAIR,
            b=np.zeros(2, dtype=np.float32),
        )
        # From 2^22 on, float32 holds halves only: 0.7 and 0.5 become one number.
        yield Trap(f"layer normalisation {shift:g}", proto, (0.7, HALF), 0.01, safe)


def logarithms() -> Iterator[Trap]:
    """log p of what is all but certain is 0 when executed; of infinite gaps it is no number."""
    for gap, scale, safe in ((20.0, 1e9, False), (2.0, 1.0, True)):
        proto = chain(
            ["batch", 2],
            ("LogSoftmax", ["x"], "p", {"axis": 1}),
            ("Gemm", ["p", "w", "b"], "y"),
            w=np.array([[-scale, 0.0], [0.0, 0.0]], dtype=np.float32),
            b=np.array([0.0, 0.1], dtype=np.float32),
        )
        # -log p_0 = log(1 + e^-gap), 2.06e-9 at 20: one float32 away from log(1).
        yield Trap(f"log of a softmax, {gap:g}", proto, (gap, 0.0), 0.0, safe)
    for size, safe in ((3.3e38, False), (2.0, True)):
        proto = chain(
            ["batch", 2],
            ("Mul", ["x", "s"], "z"),
            ("LogSoftmax", ["z"], "p", {"axis": 1}),
            ("Mul", ["p", "o"], "y"),
            s=np.array([[size, size / 2]], dtype=np.float32),
            o=np.array([[1.0, 1.0]], dtype=np.float32),
        )
        yield Trap(f"log of a softmax of {size:g}", proto, (1.0, 1.0), TENTH, safe)
    for add, safe in ((1e-9, False), (HALF, True)):
        # log(1 + add): the sum is 1 in float32.
        proto = chain(
            ["batch", 1],
            ("Add", ["x", "t"], "z"),
            ("Log", ["z"], "l"),
            ("Gemm", ["l", "w", "b"], "y"),
            t=np.array([[add]], dtype=np.float32),
            w=np.array([[1 / add, 0.0]], dtype=np.float32),
            b=np.array([0.0, 0.1], dtype=np.float32),
        )
        yield Trap(f"log of 1 + {add:g}", proto, (1.0,), 0.0, safe)


def reductions() -> Iterator[Trap]:
    """The largest and the smallest of numbers that were absorbed; ties of 1e-7."""
    for op in ("ReduceMax", "ReduceMin"):
        for shift, safe in ((1e9, False), (4.0, True)):
            proto = chain(
                ["batch", 2, 2],
                ("Add", ["x", "t"], "z"),
                (op, ["z"], "m", {"axes": [2], "keepdims": 0}),
                ("Sub", ["m", "u"], "y"),
                t=np.full((1, 1, 1), shift, dtype=np.float32),
                u=np.full((1, 1), shift, dtype=np.float32),
            )
            x = (1.0, 0.8, HALF, 0.4)
            yield Trap(f"{op} {shift:g}", proto, x, TENTH, safe)
        for tie, safe in ((1e-7, False), (1e-2, True)):
            # y0 - y1 = tie - (max - min of |x| <= 1e-3 about 1/2), on the wrong side at a corner.
            proto = chain(
                ["batch", 1, 2],
                (op, ["x"], "m", {"axes": [2], "keepdims": 0}),
                ("Gemm", ["m", "w", "b"], "y"),
                w=np.array([[1.0 if op == "ReduceMax" else -1.0, 0.0]], dtype=np.float32),
                b=np.array([0.0, (0.4 if op == "ReduceMax" else -0.6) - tie], dtype=np.float32),
            )
            # Executed at the corner, 1/2 -+ 1/10 is rounded, and the tie is below what it loses.
            yield Trap(f"{op} tie {tie:g}", proto, (HALF, HALF), TENTH + 2e-7, safe)


def gelus() -> Iterator[Trap]:
    """Far to the left their values are there in real arithmetic, and 0 when executed."""
    for kind, far in (("none", -6.0), ("tanh", -6.0)):
        for x, scale, safe in ((far, 1e12, False), (-1.0, 10.0, True)):
            proto = chain(
                ["batch", 1],
                ("Gelu", ["x"], "g", {"approximate": kind}),
                ("Gemm", ["g", "w", "b"], "y"),
                opset=20,
                w=np.array([[-scale, 0.0]], dtype=np.float32),
                b=np.array([0.0, 1e-3], dtype=np.float32),
            )
            yield Trap(f"gelu {kind} {x:g}", proto, (x,), 0.0, safe)


def tiny_and_huge() -> Iterator[Trap]:
    """Values that are denormal on the way, and curves outside what they are defined on."""
    # exp(-100) = 26.5 of the smallest numbers there are: executed it is 26 or 27 of them, or none.
    head = ([[-3e38], [0.0]], [1.12e-5, 0.0])
    yield curve("exp -100", "Exp", 1.0, head, -100.0, 0.0, False)
    yield curve("exp -10", "Exp", 0.1, ([[10.0], [0.0]], [0.0, 1.0]), -10.0, 0.0, True)
    for op, x in (("Log", 0.0), ("Sqrt", 0.0), ("Reciprocal", 0.0)):
        head = ([[-1.0], [0.0]], [-5.0, 0.0]) if op != "Sqrt" else ([[1.0], [0.0]], [5.0, 0.0])
        yield curve(f"{op} about 0", op, 1.0, head, x, TENTH, False)
    for op in ("Log", "Sqrt", "Reciprocal"):
        yield curve(f"{op} about 2", op, 1.0, ([[1.0], [0.0]], [1.0, 0.0]), 2.0, TENTH, True)
    for scale, safe in ((1e-30, False), (1.0, True)):
        # relu(s x)·relu(s x) is denormal, or 0, and scaled back: a product that vanishes.
        proto = chain(
            ["batch", 1],
            ("Mul", ["x", "s"], "z"),
            ("Mul", ["z", "z"], "q"),
            ("Gemm", ["q", "w", "b"], "y"),
            s=np.array([[scale]], dtype=np.float32),
            w=np.array([[min(1 / scale**2, 3e38), 0.0]], dtype=np.float32),
            b=np.array([0.0, 1e-30], dtype=np.float32),
        )
        yield Trap(f"square {scale:g}", proto, (1.0,), TENTH, safe)
    for big, safe in ((2.0**26, False), (4.0, True)):
        # sigmoid(x)·B + sigmoid(-x)·B - B = 0 in real arithmetic; the 1 beside it is absorbed.
        proto = chain(
            ["batch", 1],
            ("Gemm", ["x", "v"], "z"),
            ("Sigmoid", ["z"], "a"),
            ("Gemm", ["a", "w", "b"], "y"),
            v=np.array([[1.0, -1.0]], dtype=np.float32),
            w=np.array([[big, 0.0], [big, 0.0]], dtype=np.float32),
            b=np.array([1.0 - big, HALF], dtype=np.float32),
        )
        yield Trap(f"sigmoids {big:g}", proto, (0.3,), 0.01, safe)


def near_ties() -> Iterator[Trap]:
    """Margins of 1e-7 of logits near 1, at scales from 1e-20 to 1e20; kept where they are 1e-3."""
    for scale in (1e-20, 1.0, 1e20):
        for margin, safe in ((1e-8, False), (1e-3, True)):
            layers = [
                ([[1.0, 1.0], [1.0, -1.0]], [0.0, 0.0]),
                ([[scale / 2, scale / 2], [scale, 0.0]], [scale * margin, -scale * HALF]),
            ]
            # y0 - y1 = scale·(x0 - x0 - x1 + 1/2 + margin) at x1 = 1/2, x0 = 1.
            yield dense(f"tie {margin:g} at {scale:g}", layers, (1.0, HALF), 0.0, safe)


FAMILIES: tuple[Callable[[], Iterator[Trap]], ...] = (
    normalised_layers,
    logarithms,
    reductions,
    gelus,
    tiny_and_huge,
    near_ties,
)


def corpus() -> list[Trap]:
    """Every trap and every twin of these."""
    return [trap for family in FAMILIES for trap in family()]
