"""Reshape and its relatives: the same entries under another shape, constant or variable."""

from __future__ import annotations

from math import prod

import numpy as np
import torch

from verify.readers.onnx_importer import Importer, Value, Variable, reads
from verify.readers.onnx_node import OnnxNode


def reshaped(importer: Importer, node: OnnxNode, value: Value, shape: tuple[int, ...]) -> Value:
    """A value under another shape of as many entries."""
    if prod(shape) != prod(value.shape):
        raise node.invalid(f"a tensor of shape {value.shape} cannot be reshaped to {shape}")
    if isinstance(value, Variable):
        importer.guard(node, shape)
        return importer.reshape(node, value, shape)
    return value.reshape(shape)


@reads("Reshape")
def read_reshape(importer: Importer, node: OnnxNode) -> list[Value]:
    """0 copies a length (unless allowzero), -1 is worked out."""
    value = importer.value(node, 0, tail=True)
    target = list(importer.integers(node, 1))
    if not node.flag("allowzero", False):
        for axis, length in enumerate(target):
            if length == 0:
                if axis >= len(value.shape):
                    raise node.invalid(f"shape {target} copies axis {axis} of {value.shape}")
                target[axis] = value.shape[axis]
    if any(length < -1 for length in target) or target.count(-1) > 1:
        raise node.invalid(f"its target shape is {target}")
    if -1 in target:
        known = prod(length for length in target if length != -1)
        target[target.index(-1)] = prod(value.shape) // known if known else 0
    return [reshaped(importer, node, value, tuple(target))]


@reads("Flatten")
def read_flatten(importer: Importer, node: OnnxNode) -> list[Value]:
    """Two axes: what lies before the given axis, and what from it on."""
    value = importer.value(node, 0, tail=True)
    rank = len(value.shape)
    axis = node.integer("axis", 1)
    if not -rank <= axis <= rank:
        raise node.invalid(f"axis {axis} is out of range for a tensor of rank {rank}")
    axis = axis + rank if axis < 0 else axis
    if axis == 0 and isinstance(value, Variable) and value.batch:
        value = importer.whole(node, value, "a flattening from axis 0")
    return [reshaped(importer, node, value, (prod(value.shape[:axis]), prod(value.shape[axis:])))]


@reads("Squeeze")
def read_squeeze(importer: Importer, node: OnnxNode) -> list[Value]:
    """Axes of length 1 dropped: the given ones, or all."""
    value = importer.value(node, 0, tail=True)
    given = importer.listed(node, "axes", 1)
    ones = tuple(axis for axis, length in enumerate(value.shape) if length == 1)
    axes = ones if given is None else node.axes(given, len(value.shape))
    if any(axis not in ones for axis in axes):
        raise node.invalid(f"axes {axes} of shape {value.shape} are not all of length 1")
    shape = tuple(n for axis, n in enumerate(value.shape) if axis not in axes)
    return [reshaped(importer, node, value, shape)]


@reads("Unsqueeze")
def read_unsqueeze(importer: Importer, node: OnnxNode) -> list[Value]:
    """Axes of length 1 put in."""
    value = importer.value(node, 0, tail=True)
    given = importer.listed(node, "axes", 1)
    if given is None:
        raise node.invalid("its axes are missing")
    axes = node.axes(given, len(value.shape) + len(given))
    rest = iter(value.shape)
    rank = len(value.shape) + len(axes)
    shape = tuple(1 if axis in axes else next(rest) for axis in range(rank))
    return [reshaped(importer, node, value, shape)]


@reads("Transpose")
def read_transpose(importer: Importer, node: OnnxNode) -> list[Value]:
    """Axes in another order, by default reversed."""
    value = importer.value(node, 0)
    rank = len(value.shape)
    given = node.integers("perm")
    perm = tuple(reversed(range(rank))) if given is None else given
    if sorted(perm) != list(range(rank)):
        raise node.invalid(f"attribute 'perm' is {list(perm)} for a tensor of rank {rank}")
    if not isinstance(value, Variable):
        return [value.transpose(perm)]
    if perm == tuple(range(rank)):
        return [value]
    if value.batch and perm[0] != 0:
        value = importer.whole(node, value, "a transposition")
    inner = tuple(axis - 1 for axis in perm[1:]) if value.batch else perm
    result = importer.emit("Transpose", (value,), node, batch=value.batch, settings={"perm": inner})
    return [importer.reshape(node, result, result.shape, step="batched")]


@reads("Identity", "Dropout")
def read_identity(importer: Importer, node: OnnxNode) -> list[Value]:
    """The value itself; Dropout does nothing at inference."""
    if node.op == "Dropout" and node.has(2) and bool(importer.constant(node, 2).any()):
        raise node.unsupported("training mode")
    return [importer.value(node, 0, tail=True)]


DOUBLE = 11
CASTS = {1: np.float32, DOUBLE: np.float64}
"""Element types of ONNX that a tensor that depends on the input may be cast to."""

WHOLE = (6, 7)
"""int32 and int64, to which it may be cast as well; decimals are cut off."""

BOOL = 9
"""To which it may be cast as 0 or 1."""

INTEGER_CASTS = {2: np.uint8, 3: np.int8, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_}


@reads("Cast")
def read_cast(importer: Importer, node: OnnxNode) -> list[Value]:
    """Between float32 and float64 for tensors that depend on the input, any for constants."""
    value = importer.value(node, 0, tail=True)
    target = node.integer("to", 0)
    if isinstance(value, Variable):
        if target in WHOLE:
            return [importer.emit("Trunc", (value,), node, batch=value.batch)]
        if target == BOOL:
            return [truth(importer, node, value)]
        if target not in CASTS:
            raise node.unsupported(f"a cast of a computed tensor to element type {target}")
        importer.double |= target == DOUBLE
        if not importer.double or target == DOUBLE or value.tail is not None:
            return [value]
        # A cast from float64 rounds; a scale of one is charged for it.
        one = torch.ones((), dtype=torch.float64)
        return [importer.scale_shift(node, value, one, torch.zeros_like(one))]
    dtype = CASTS.get(target) or INTEGER_CASTS.get(target)
    if dtype is None:
        raise node.unsupported(f"a cast to element type {target}")
    with np.errstate(all="ignore"):
        return [value.astype(dtype)]


@reads("CastLike")
def read_cast_like(importer: Importer, node: OnnxNode) -> list[Value]:
    """A constant in the type of another, or a variable left as it is."""
    value, like = importer.value(node, 0, tail=True), importer.value(node, 1)
    if isinstance(value, Variable) or isinstance(like, Variable):
        raise node.unsupported("only constants can be cast like one another")
    return [value.astype(like.dtype)]


def truth(importer: Importer, node: OnnxNode, value: Variable) -> Variable:
    """0 where the value is 0, else 1."""
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    tensors = {"level": zero}
    none = importer.emit(
        "Level", (value,), node, batch=value.batch, tensors=tensors, step="is_zero"
    )
    return importer.scale_shift(node, none, -one, one)
