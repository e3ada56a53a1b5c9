"""Arithmetic, activations, clipping and the softmax at the end."""

from __future__ import annotations

import math
from math import prod

import torch
from torch import Tensor

from verify.readers.pytorch_importer import Call, Value, Variable, reads
from verify.readers.pytorch_nonlinear import product, reciprocal, softmax

FLOAT32_LARGEST = float(torch.finfo(torch.float32).max)
"""Stands for an infinite end of Clip: no finite float32 value lies beyond it."""

ONE = torch.ones((), dtype=torch.float64)
ZERO = torch.zeros((), dtype=torch.float64)


@reads("aten.add", "aten.sub")
def read_add(call: Call) -> Value:
    """x + alpha·y or x - alpha·y, with any of the two constant."""
    factor = call.constant("alpha") if "alpha" in call.arguments else ONE
    factor = factor if call.op == "aten.add" else -factor
    left, right = call.arguments["self"], call.arguments["other"]
    if isinstance(left, Variable) and isinstance(right, Variable):
        return add(call, left, right, factor)
    if isinstance(left, Variable):
        return scaled(call, left, ONE, call.constant("other") * factor)
    return scaled(call, call.variable("other"), factor, call.constant("self"))


def add(call: Call, left: Variable, right: Variable, factor: Tensor) -> Variable:
    """left + factor·right, broadcast to the result."""
    shape = call.result_shape()
    x = call.expand(left, shape, step="left")
    y = call.expand(right, shape, step="right")
    if abs(float(factor)) != 1:
        y = call.emit("ScaleShift", (y,), tensors={"scale": factor, "shift": ZERO}, step="scaled")
        factor = ONE
    return call.emit("Add", (x, y), settings={"signs": (1, int(factor))})


@reads("aten.mul", "aten.div", "aten.neg")
def read_scale(call: Call) -> Value:
    """x·y, x/y or -x."""
    if call.op == "aten.neg":
        return scaled(call, call.variable("self"), -ONE, ZERO)
    left, right = call.arguments["self"], call.arguments["other"]
    if isinstance(left, Variable) and isinstance(right, Variable):
        if call.arguments.get("rounding_mode") is not None:
            raise call.unsupported("a division that rounds")
        if call.op == "aten.div":
            right = reciprocal(call, right)
        return product(call, left, right)
    if call.op == "aten.mul":
        key, other = ("self", "other") if isinstance(left, Variable) else ("other", "self")
        return scaled(call, call.variable(key), call.constant(other), ZERO)
    if call.arguments.get("rounding_mode") is not None:
        raise call.unsupported("a division that rounds")
    if not isinstance(left, Variable):
        return scaled(call, reciprocal(call, call.variable("other")), call.constant("self"), ZERO)
    return scaled(call, left, 1.0 / call.constant("other"), ZERO)


def scaled(call: Call, x: Variable, scale: Tensor, shift: Tensor) -> Variable:
    """x·scale + shift, broadcast to the result."""
    shape = call.result_shape()
    tensors = {
        "scale": per_sample(call, scale, len(shape)),
        "shift": per_sample(call, shift, len(shape)),
    }
    return call.emit("ScaleShift", (call.expand(x, shape),), tensors=tensors)


def per_sample(call: Call, constant: Tensor, rank: int) -> Tensor:
    """A constant without batch axis; `rank` is that of the result without it.

    Raises:
        UnsupportedOperator: if it differs between the samples of the batch.
    """
    if constant.ndim <= rank:
        return constant
    if constant.ndim == rank + 1 and bool((constant == constant[:1]).all()):
        return constant[0]
    raise call.unsupported(
        f"its constant of shape {tuple(constant.shape)} treats samples of a batch differently"
    )


@reads("aten.relu")
def read_relu(call: Call) -> Value:
    """max(x, 0)."""
    return call.emit("Relu", (call.variable("self"),))


@reads("aten.sigmoid")
def read_sigmoid(call: Call) -> Value:
    """1 / (1 + exp(-x))."""
    return call.emit("Sigmoid", (call.variable("self"),))


@reads("aten.tanh")
def read_tanh(call: Call) -> Value:
    """Hyperbolic tangent."""
    return call.emit("Tanh", (call.variable("self"),))


@reads("aten.abs")
def read_abs(call: Call) -> Value:
    """|x|."""
    return call.emit("TwoPiece", (call.variable("self"),), tensors={"below": -ONE, "above": ONE})


@reads("aten.leaky_relu")
def read_leaky_relu(call: Call) -> Value:
    """One slope for negative entries."""
    tensors = {"below": call.constant("negative_slope"), "above": ONE}
    return call.emit("TwoPiece", (call.variable("self"),), tensors=tensors)


@reads("aten.prelu", "aten._prelu_kernel")
def read_prelu(call: Call) -> Value:
    """A learned slope for negative entries, one for all or one per channel."""
    x, slope = call.variable("self"), call.constant("weight")
    if slope.ndim <= 1 and slope.numel() > 1:
        slope = slope.view(-1, *[1] * (len(call.inner(x)) - 1))
    elif slope.ndim <= 1:
        slope = slope.reshape(())
    slope = per_sample(call, slope, len(call.inner(x)))
    return call.emit("TwoPiece", (x,), tensors={"below": slope, "above": ONE})


@reads("aten.hardtanh")
def read_hardtanh(call: Call) -> Value:
    """min(max(x, low), high)."""
    return clipped(call, call.variable("self"), call.number("min_val"), call.number("max_val"))


@reads("aten.clamp", "aten.clamp_min", "aten.clamp_max")
def read_clamp(call: Call) -> Value:
    """The same, with ends that may be open."""
    low = -math.inf if call.arguments.get("min") is None else call.number("min")
    high = math.inf if call.arguments.get("max") is None else call.number("max")
    return clipped(call, call.variable("self"), low, high)


@reads("aten.hardsigmoid")
def read_hardsigmoid(call: Call) -> Value:
    """max(0, min(1, x/6 + 1/2))."""
    tensors = {"scale": ONE / 6, "shift": ONE / 2}
    line = call.emit("ScaleShift", (call.variable("self"),), tensors=tensors, step="line")
    return clipped(call, line, 0.0, 1.0)


def clipped(call: Call, x: Variable, low: float, high: float) -> Variable:
    """A Clip or Relu node; infinite ends are open."""
    if not low <= high:
        raise call.unsupported(f"its range is [{low}, {high}]")
    if low == 0.0 and high == math.inf:
        return call.emit("Relu", (x,))
    ends = {"low": max(low, -FLOAT32_LARGEST), "high": min(high, FLOAT32_LARGEST)}
    tensors = {key: torch.tensor(end, dtype=torch.float64) for key, end in ends.items()}
    return call.emit("Clip", (x,), tensors=tensors)


@reads("aten._softmax", "aten._log_softmax", "aten.softmax", "aten.log_softmax")
def read_softmax(call: Call) -> Value:
    """Left out, and noted as the tail: it keeps the order of the classes."""
    x = call.variable("self")
    shape = call.inner(x)
    axis = call.axis(call.integer("dim"), len(shape) + 1)
    if shape[axis] != prod(shape):
        if "log" in call.op:
            raise call.unsupported(
                f"over an axis of {shape[axis]} of {prod(shape)} entries; only a softmax over the "
                "classes at the output can be left out"
            )
        return softmax(call, x, axis)
    return Variable(x.name, "LogSoftmax" if "log" in call.op else "Softmax")
