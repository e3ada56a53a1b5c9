"""Arithmetic with constants, sums, activations and clipping."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from verify.readers.onnx_broadcast import (
    add_variables,
    beside,
    joint_shape,
    meets,
    scaled_and_shifted,
)
from verify.readers.onnx_fold import fold
from verify.readers.onnx_importer import Importer, Value, Variable, reads
from verify.readers.onnx_node import OnnxNode
from verify.readers.onnx_product import product, quotient, reciprocal

FLOAT32_LARGEST = float(np.finfo(np.float32).max)
"""Stands for an infinite end of Clip: no finite float32 value lies beyond it."""

ONE = torch.ones((), dtype=torch.float64)
ZERO = torch.zeros((), dtype=torch.float64)


@reads("Add", "Sub", "Mul", "Div")
def read_arithmetic(importer: Importer, node: OnnxNode) -> list[Value]:
    """Two operands, variable or constant."""
    left, right = importer.value(node, 0), importer.value(node, 1)
    if isinstance(left, Variable) and isinstance(right, Variable):
        if node.op == "Mul":
            return [product(importer, node, left, right)]
        if node.op == "Div":
            return [quotient(importer, node, left, right)]
        sign = 1 if node.op == "Add" else -1
        return [add_variables(importer, node, [left, right], (1, sign))]
    if isinstance(left, Variable):
        other = importer.weights(node, 1)
        scale, shift = {
            "Add": (ONE, other),
            "Sub": (ONE, -other),
            "Mul": (other, ZERO),
            "Div": (1.0 / other, ZERO),
        }[node.op]
        return [scaled_and_shifted(importer, node, left, scale, shift)]
    if isinstance(right, Variable):
        other = importer.weights(node, 0)
        if node.op == "Div":
            right = reciprocal(importer, node, right, step="reciprocal")
        scale, shift = {
            "Add": (ONE, other),
            "Sub": (-ONE, other),
            "Mul": (other, ZERO),
            "Div": (other, ZERO),
        }[node.op]
        return [scaled_and_shifted(importer, node, right, scale, shift)]
    return fold(importer, node)


@reads("Sum")
def read_sum(importer: Importer, node: OnnxNode) -> list[Value]:
    """Any number of summands, variable or constant."""
    values = [importer.value(node, i) for i in range(len(node.inputs))]
    variables = [v for v in values if isinstance(v, Variable)]
    if not variables:
        return fold(importer, node)
    constants = [
        importer.weights(node, i) for i, v in enumerate(values) if not isinstance(v, Variable)
    ]
    total = variables[0]
    if len(variables) > 1:
        step = "sum" if constants else ""
        total = add_variables(importer, node, variables, (1,) * len(variables), step=step)
    for constant in constants:
        total = scaled_and_shifted(importer, node, total, ONE, constant)
    return [total]


@reads("Neg")
def read_neg(importer: Importer, node: OnnxNode) -> list[Value]:
    """-x."""
    value = importer.value(node, 0)
    if not isinstance(value, Variable):
        return fold(importer, node)
    return [importer.scale_shift(node, value, -ONE, ZERO)]


@reads("Relu", "Sigmoid", "Tanh")
def read_activation(importer: Importer, node: OnnxNode) -> list[Value]:
    """The graph's own activations."""
    value = importer.value(node, 0)
    if not isinstance(value, Variable):
        value = importer.standing(node, 0)
    return [importer.emit(node.op, (value,), node, batch=value.batch)]


def two_piece(
    importer: Importer, node: OnnxNode, value: Variable, below: Tensor, above: Tensor
) -> list[Value]:
    """below·x for x < 0, above·x for x > 0."""
    tensors = {"below": below, "above": above}
    return [importer.emit("TwoPiece", (value,), node, batch=value.batch, tensors=tensors)]


@reads("Abs")
def read_abs(importer: Importer, node: OnnxNode) -> list[Value]:
    """|x|."""
    value = importer.value(node, 0)
    if not isinstance(value, Variable):
        return fold(importer, node)
    return two_piece(importer, node, value, -ONE, ONE)


@reads("LeakyRelu")
def read_leaky_relu(importer: Importer, node: OnnxNode) -> list[Value]:
    """One slope for negative entries."""
    slope = torch.tensor(node.number("alpha", float(np.float32(0.01))), dtype=torch.float64)
    return two_piece(importer, node, importer.variable(node, 0), slope, ONE)


@reads("PRelu")
def read_prelu(importer: Importer, node: OnnxNode) -> list[Value]:
    """A learned slope for negative entries, broadcast to the input."""
    value, slope = importer.variable(node, 0), importer.weights(node, 1)
    if joint_shape(importer, node, value.shape, slope.shape) != value.shape:
        raise node.invalid(f"slopes of shape {tuple(slope.shape)} do not fit {value.shape}")
    return two_piece(importer, node, value, beside(slope, value), ONE)


@reads("HardSigmoid")
def read_hard_sigmoid(importer: Importer, node: OnnxNode) -> list[Value]:
    """max(0, min(1, alpha·x + beta))."""
    alpha = torch.tensor(node.number("alpha", float(np.float32(0.2))), dtype=torch.float64)
    beta = torch.tensor(node.number("beta", 0.5), dtype=torch.float64)
    line = importer.scale_shift(node, importer.variable(node, 0), alpha, beta, step="line")
    return [clipped(importer, node, line, 0.0, 1.0)]


def clipped(
    importer: Importer, node: OnnxNode, value: Variable, low: float, high: float
) -> Variable:
    """min(max(x, low), high); infinite ends are open."""
    if math.isnan(low) or math.isnan(high):
        raise node.invalid(f"its range is [{low}, {high}]")
    largest = math.inf if importer.double else FLOAT32_LARGEST
    low, high = max(low, -largest), min(high, largest)
    if low == -largest and high == largest:
        return value
    if low == 0.0 and high == largest:
        return importer.emit("Relu", (value,), node, batch=value.batch)
    tensors = {
        "low": torch.tensor(low, dtype=torch.float64),
        "high": torch.tensor(high, dtype=torch.float64),
    }
    return importer.emit("Clip", (value,), node, batch=value.batch, tensors=tensors)


@reads("Clip")
def read_clip(importer: Importer, node: OnnxNode) -> list[Value]:
    """Bounds as attributes (opset < 11) or as optional inputs."""
    value = importer.variable(node, 0)
    if node.opset < 11:
        low = node.number("min", -FLOAT32_LARGEST)
        high = node.number("max", FLOAT32_LARGEST)
    else:
        low = importer.scalar(node, 1) if node.has(1) else -math.inf
        high = importer.scalar(node, 2) if node.has(2) else math.inf
    return [clipped(importer, node, value, low, high)]


@reads("Max", "Min")
def read_extremum(importer: Importer, node: OnnxNode) -> list[Value]:
    """The larger or smaller of tensors, by max(x, y) = relu(x - y) + y and its mirror image."""
    values = [importer.value(node, i) for i in range(len(node.inputs))]
    if not any(isinstance(v, Variable) for v in values):
        return fold(importer, node)
    lower = node.op == "Min"
    total, *rest = sorted(range(len(values)), key=lambda i: not isinstance(values[i], Variable))
    result = importer.variable(node, total)
    for position in rest:
        other = values[position]
        if isinstance(other, Variable):
            result = larger_of_two(importer, node, result, other, lower=lower)
        elif other.size == 1 and len(other.shape) <= len(result.shape):
            bound = importer.scalar(node, position)
            ends = (-math.inf, bound) if lower else (bound, math.inf)
            result = clipped(importer, node, result, *ends)
        else:
            constant = importer.weights(node, position)
            result = larger_of_constant(importer, node, result, constant, lower=lower)
    return [result]


def larger_of_two(
    importer: Importer, node: OnnxNode, x: Variable, y: Variable, *, lower: bool
) -> Variable:
    """max(x, y) = relu(x - y) + y;  min(x, y) = y - relu(y - x)."""
    signs = (-1, 1) if lower else (1, -1)
    gap = add_variables(importer, node, [x, y], signs, step="gap")
    part = importer.emit("Relu", (gap,), node, batch=gap.batch, step="relu")
    return add_variables(importer, node, [part, y], (-1 if lower else 1, 1))


def larger_of_constant(
    importer: Importer, node: OnnxNode, x: Variable, constant: Tensor, *, lower: bool
) -> Variable:
    """max(x, c) = relu(x - c) + c;  min(x, c) = c - relu(c - x)."""
    shape = joint_shape(importer, node, x.shape, constant.shape)
    x = meets(importer, node, x, shape, "expand")
    level, sign = beside(constant, x), -ONE if lower else ONE
    gap = importer.scale_shift(node, x, sign, -sign * level, step="gap")
    part = importer.emit("Relu", (gap,), node, batch=gap.batch, step="relu")
    return importer.scale_shift(node, part, sign, level)
