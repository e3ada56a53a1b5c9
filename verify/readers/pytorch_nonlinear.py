"""Smooth functions, products and quotients of computed tensors, matrix products and softmax."""

from __future__ import annotations

from verify.readers.pytorch_importer import Call, Value, Variable, reads

FUNCTIONS = {
    "aten.exp": "Exp",
    "aten.log": "Log",
    "aten.sqrt": "Sqrt",
    "aten.reciprocal": "Reciprocal",
    "aten.sin": "Sin",
    "aten.cos": "Cos",
    "aten.erf": "Erf",
    "aten.sign": "Sign",
    "aten.floor": "Floor",
    "aten.ceil": "Ceil",
}
MOST_POWER = 64
"""Largest exponent that is read: beyond it float32 holds hardly any value."""


@reads(*FUNCTIONS)
def read_function(call: Call) -> Value:
    """The graph's own functions of one variable."""
    return call.emit(FUNCTIONS[call.op], (call.variable("self"),))


@reads("aten.gelu")
def read_gelu(call: Call) -> Value:
    """x·Phi(x), or its approximation by tanh, which is a function of its own."""
    exact = call.arguments.get("approximate", "none") == "none"
    return call.emit("Gelu" if exact else "GeluTanh", (call.variable("self"),))


@reads("aten.square", "aten.pow")
def read_power(call: Call) -> Value:
    """x to an integer power of 2 or more."""
    exponent = 2.0 if call.op == "aten.square" else call.number("exponent")
    if exponent == 1.0:
        return call.variable("self")
    if not exponent.is_integer() or not 2 <= exponent <= MOST_POWER:
        raise call.unsupported(f"the exponent {exponent}")
    return power(call, call.variable("self"), int(exponent))


def power(call: Call, x: Variable, exponent: int) -> Variable:
    """x^n for an integer n >= 2."""
    return call.emit("Power", (x,), settings={"exponent": (exponent,)})


def product(call: Call, x: Variable, y: Variable) -> Variable:
    """x·y entry by entry, broadcast; the square where both are one tensor."""
    if x == y:
        return power(call, x, 2)
    shape = call.result_shape()
    both = call.expand(x, shape, step="left"), call.expand(y, shape, step="right")
    return call.emit("Mul", both)


def reciprocal(call: Call, x: Variable) -> Variable:
    """1/x."""
    return call.emit("Reciprocal", (x,), step="reciprocal")


def matrix_product(call: Call, x: Variable, y: Variable) -> Variable:
    """x·y on the last two axes of each, leading axes broadcast."""
    shape = call.result_shape()
    left, right = call.inner(x), call.inner(y)
    if len(left) < 2 or len(right) < 2 or len(shape) < 2:
        raise call.unsupported(f"a product of computed tensors of shapes {left} and {right}")
    lead = shape[:-2]
    parts = (
        call.expand(x, (*lead, *left[-2:]), step="left"),
        call.expand(y, (*lead, *right[-2:]), step="right"),
    )
    return call.emit("MatMul", parts)


@reads("aten.bmm")
def read_bmm(call: Call) -> Value:
    """A product of one matrix a sample."""
    return matrix_product(call, call.variable("self"), call.variable("mat2"))


def softmax(call: Call, x: Variable, axis: int) -> Variable:
    """A softmax over one axis, counted without the batch axis."""
    rank = len(call.inner(x))
    if axis == rank - 1:
        return call.emit("Softmax", (x,))
    order = (*(i for i in range(rank) if i != axis), axis)
    back = tuple(sorted(range(rank), key=lambda i: order[i]))
    moved = call.emit("Transpose", (x,), settings={"perm": order}, step="last")
    found = call.emit("Softmax", (moved,), step="softmax")
    return call.emit("Transpose", (found,), settings={"perm": back})
