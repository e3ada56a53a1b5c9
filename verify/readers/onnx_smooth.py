"""Smooth and piecewise constant functions of one tensor, and softmax."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from verify.readers.onnx_broadcast import add_variables
from verify.readers.onnx_fold import FOLDS, fold
from verify.readers.onnx_importer import Importer, Value, Variable, reads
from verify.readers.onnx_node import OnnxNode
from verify.readers.onnx_norm import log_softmax
from verify.readers.onnx_product import product

ONE = torch.ones((), dtype=torch.float64)
ZERO = torch.zeros((), dtype=torch.float64)


@reads(
    "Exp",
    "Log",
    "Sqrt",
    "Reciprocal",
    "Sin",
    "Cos",
    "Erf",
    "Softplus",
    "Sign",
    "Floor",
    "Ceil",
)
def read_function(importer: Importer, node: OnnxNode) -> list[Value]:
    """The graph's own functions of one variable; constants are folded where that is exact."""
    value = importer.value(node, 0)
    if not isinstance(value, Variable):
        if node.op in FOLDS:
            return fold(importer, node)
        value = importer.standing(node, 0)
    return [importer.emit(node.op, (value,), node, batch=value.batch)]


@reads("Gelu")
def read_gelu(importer: Importer, node: OnnxNode) -> list[Value]:
    """x·Phi(x), or its approximation by tanh, which is a function of its own."""
    kinds = {"none": "Gelu", "tanh": "GeluTanh"}
    kind = node.text("approximate", "none")
    if kind not in kinds:
        raise node.unsupported(f"the approximation {kind!r}")
    value = importer.variable(node, 0)
    return [importer.emit(kinds[kind], (value,), node, batch=value.batch)]


@reads("HardSwish")
def read_hard_swish(importer: Importer, node: OnnxNode) -> list[Value]:
    """x·max(0, min(1, x/6 + 1/2))."""
    value = importer.variable(node, 0)
    line = importer.scale_shift(node, value, ONE / 6, ONE / 2, step="line")
    ends = {"low": ZERO, "high": ONE}
    gate = importer.emit("Clip", (line,), node, batch=value.batch, tensors=ends, step="gate")
    return [product(importer, node, value, gate)]


@reads("Elu", "Selu", "Celu")
def read_elu(importer: Importer, node: OnnxNode) -> list[Value]:
    """gamma·(max(x, 0) + alpha·(exp(min(x, 0) / c) - 1))."""
    value = importer.variable(node, 0)
    alpha = node.number("alpha", 1.6732632 if node.op == "Selu" else 1.0)
    gamma = node.number("gamma", 1.0507010) if node.op == "Selu" else 1.0
    inner = alpha if node.op == "Celu" else 1.0
    if inner <= 0.0:
        raise node.unsupported(f"alpha is {inner}")
    right = importer.emit("Relu", (value,), node, batch=value.batch, step="right")
    flipped = importer.scale_shift(node, value, -ONE, ZERO, step="flipped")
    left = importer.emit("Relu", (flipped,), node, batch=value.batch, step="left")
    argument = importer.scale_shift(node, left, -ONE / inner, ZERO, step="argument")
    curve = importer.emit("Exp", (argument,), node, batch=value.batch, step="exp")
    bent = importer.scale_shift(node, curve, ONE * alpha, -ONE * alpha, step="bent")
    if gamma == 1.0:
        return [add_variables(importer, node, [right, bent], (1, 1))]
    total = add_variables(importer, node, [right, bent], (1, 1), step="sum")
    return [importer.scale_shift(node, total, ONE * gamma, ZERO)]


@reads("Softmax", "LogSoftmax")
def read_softmax(importer: Importer, node: OnnxNode) -> list[Value]:
    """Left out at the very end, since it keeps the order of the classes; else a node of its own."""
    value = importer.variable(node, 0)
    rank = len(value.shape)
    axis = node.axis(node.integer("axis", -1 if node.opset >= 13 else 1), rank)
    classes = value.shape[axis] if node.opset >= 13 else math.prod(value.shape[axis:])
    if axis == 0 and value.batch:
        value = importer.whole(node, value, "a softmax over axis 0")
    if classes == math.prod(value.shape):
        found = Variable(value.name, value.shape, value.batch, tail=node.op)
        importer.tails[value.name] = node
        return [found]
    if node.op == "LogSoftmax":
        return [log_softmax(importer, node, value, axis)]
    return [softmax(importer, node, value, axis)]


def softmax(importer: Importer, node: OnnxNode, value: Variable, axis: int) -> Variable:
    """A softmax over one axis (before opset 13: over all axes from this one on)."""
    rank, batch = len(value.shape), value.batch
    if node.opset < 13:
        flat = (*value.shape[:axis], math.prod(value.shape[axis:]))
        seen = importer.viewed(node, value, flat, batch=batch, step="flat")
        result = importer.emit("Softmax", (seen,), node, batch=batch, step="softmax")
        return importer.viewed(node, result, value.shape, batch=batch, step="shape")
    if axis == rank - 1:
        return importer.emit("Softmax", (value,), node, batch=batch)
    order = [i for i in range(int(batch), rank) if i != axis] + [axis]
    inner = tuple(i - batch for i in order)
    back = tuple(sorted(range(len(inner)), key=lambda i: inner[i]))
    moved = importer.emit(
        "Transpose", (value,), node, batch=batch, settings={"perm": inner}, step="last"
    )
    result = importer.emit("Softmax", (moved,), node, batch=batch, step="softmax")
    return importer.emit("Transpose", (result,), node, batch=batch, settings={"perm": back})


def settled(importer: Importer, reader: OnnxNode, value: Variable) -> Variable:
    """A softmax that was left out, put in after all, because something reads it."""
    plain = replace(value, tail=None)
    node = importer.tails[value.name]
    flat = importer.viewed(reader, plain, (math.prod(value.shape),), batch=False, step="classes")
    if value.tail == "LogSoftmax":
        result = log_softmax(importer, node, flat, 0)
        return importer.viewed(reader, result, value.shape, batch=value.batch, step="shape")
    result = importer.emit("Softmax", (flat,), node, batch=False, step="softmax")
    return importer.viewed(reader, result, value.shape, batch=value.batch, step="shape")
