"""Products, quotients and powers of tensors that depend on the input."""

from __future__ import annotations

import numpy as np
import torch

from verify.readers.onnx_broadcast import joint_shape, meets
from verify.readers.onnx_fold import fold
from verify.readers.onnx_importer import Importer, Value, Variable, leads_with_batch, reads
from verify.readers.onnx_node import OnnxNode

MOST_POWER = 64
"""Largest exponent of a power that is read: beyond it float32 holds hardly any value."""


def product(
    importer: Importer, node: OnnxNode, x: Variable, y: Variable, *, step: str = ""
) -> Variable:
    """x·y entry by entry, broadcast; the square where both are one tensor."""
    if x == y:
        return power(importer, node, x, 2, step=step)
    shape = joint_shape(importer, node, x.shape, y.shape)
    batch = leads_with_batch(shape)
    both = [
        importer.viewed(
            node, meets(importer, node, v, shape, f"{step}expand{i}"), shape, batch=batch,
            step=f"{step}align{i}",
        )
        for i, v in enumerate((x, y))
    ]  # fmt: skip
    return importer.emit("Mul", tuple(both), node, batch=batch, step=step)


def reciprocal(importer: Importer, node: OnnxNode, x: Variable, *, step: str = "") -> Variable:
    """1/x."""
    return importer.emit("Reciprocal", (x,), node, batch=x.batch, step=step)


def power(
    importer: Importer, node: OnnxNode, x: Variable, exponent: int, *, step: str = ""
) -> Variable:
    """x^n for an integer n >= 2."""
    settings = {"exponent": (exponent,)}
    return importer.emit("Power", (x,), node, batch=x.batch, settings=settings, step=step)


def quotient(importer: Importer, node: OnnxNode, x: Variable, y: Variable) -> Variable:
    """x/y, as x·(1/y): the rules of both charge more than the one rounding of a quotient."""
    return product(importer, node, x, reciprocal(importer, node, y, step="reciprocal"))


@reads("Pow")
def read_pow(importer: Importer, node: OnnxNode) -> list[Value]:
    """x to a constant power: an integer from -64 to 64, 1/2 or -1/2."""
    value, exponents = importer.value(node, 0), importer.constant(node, 1)
    if not isinstance(value, Variable):
        return fold(importer, node)
    different = np.unique(exponents)
    if len(different) != 1:
        raise node.unsupported(f"exponents {different[:4].tolist()} in one tensor")
    if joint_shape(importer, node, value.shape, exponents.shape) != value.shape:
        raise node.unsupported(f"exponents of shape {exponents.shape} widen {value.shape}")
    exponent = float(different[0])
    if exponent == 1.0:
        return [value]
    size = abs(exponent)
    if size == 0.5:
        step = "root" if exponent < 0 else ""
        result = importer.emit("Sqrt", (value,), node, batch=value.batch, step=step)
    elif size == 1.0:
        result = value
    elif size.is_integer() and 2 <= size <= MOST_POWER:
        result = power(importer, node, value, int(size), step="power" if exponent < 0 else "")
    else:
        raise node.unsupported(f"the exponent {exponent}")
    return [reciprocal(importer, node, result) if exponent < 0 else result]


def matrix_product(importer: Importer, node: OnnxNode, x: Variable, y: Variable) -> Variable:
    """x·y on the last two axes of each, leading axes broadcast."""
    if len(x.shape) < 2 or len(y.shape) < 2 or x.shape[-1] != y.shape[-2]:
        raise node.unsupported(f"a product of computed tensors of shapes {x.shape} and {y.shape}")
    if len(x.shape) == len(y.shape) == 2 and x.batch and not y.batch:
        return sample_by_matrix(importer, node, x, y)
    lead: tuple[int, ...] = ()
    if len(x.shape) > 2 or len(y.shape) > 2:
        lead = joint_shape(importer, node, x.shape[:-2], y.shape[:-2])
    result = (*lead, x.shape[-2], y.shape[-1])
    importer.guard(node, result)
    batch = len(result) > 2 and leads_with_batch(result)
    parts = []
    for i, v in enumerate((x, y)):
        if len(v.shape) == 2:
            v = importer.whole(node, v, "a product of two computed matrices")
        shape = (*lead, *v.shape[-2:])
        v = meets(importer, node, v, shape, f"expand{i}")
        parts.append(importer.viewed(node, v, shape, batch=batch, step=f"align{i}"))
    found = importer.emit("MatMul", tuple(parts), node, batch=batch)
    return importer.reshape(node, found, found.shape, step="batched")


def sample_by_matrix(importer: Importer, node: OnnxNode, x: Variable, y: Variable) -> Variable:
    """x of shape (1, k), a sample, times a matrix that is the same for every sample."""
    row = importer.viewed(node, x, (1, *x.shape), batch=True, step="row")
    matrix = importer.viewed(node, y, (1, *y.shape), batch=True, step="matrix")
    found = importer.emit("MatMul", (row, matrix), node, batch=True, step="product")
    return importer.viewed(node, found, (1, y.shape[1]), batch=True, step="")


@reads("Where")
def read_where(importer: Importer, node: OnnxNode) -> list[Value]:
    """Where with a constant condition: c·x + (1 - c)·y, exact but for signed zeros."""
    condition = importer.constant(node, 0)
    values = [importer.value(node, i) for i in (1, 2)]
    if not any(isinstance(v, Variable) for v in values):
        return fold(importer, node)
    shape = joint_shape(importer, node, condition.shape, *(v.shape for v in values))
    chosen = torch.from_numpy(np.broadcast_to(condition, shape).astype(np.float64))
    batch = leads_with_batch(shape)
    parts, shift = [], torch.zeros((), dtype=torch.float64)
    for i, (value, weight) in enumerate(zip(values, (chosen, 1 - chosen), strict=True)):
        if not isinstance(value, Variable):
            filled = torch.where(weight > 0, importer.weights(node, i + 1), 0.0)
            shift = shift + (filled[0] if batch else filled)
            continue
        whole = importer.viewed(
            node, meets(importer, node, value, shape, f"expand{i}"), shape, batch=batch,
            step=f"align{i}",
        )  # fmt: skip
        scale = weight[0] if batch else weight
        zero = torch.zeros((), dtype=torch.float64)
        parts.append(importer.scale_shift(node, whole, scale, zero, step=f"part{i}"))
    if len(parts) == 1:
        one = torch.ones((), dtype=torch.float64)
        return [importer.scale_shift(node, parts[0], one, shift)]
    return [importer.emit("Add", tuple(parts), node, batch=batch, settings={"signs": (1, 1)})]
