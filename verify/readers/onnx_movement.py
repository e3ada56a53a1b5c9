"""Slice, Split, Gather, Pad, Concat, Expand: entries chosen, repeated and put together."""

from __future__ import annotations

import numpy as np
import torch

from verify.readers.onnx_broadcast import joint_shape, meets
from verify.readers.onnx_importer import Importer, Value, Variable, leads_with_batch, reads
from verify.readers.onnx_node import OnnxNode


def taken(
    importer: Importer,
    node: OnnxNode,
    value: Value,
    axis: int,
    index: list[int],
    *,
    step: str = "",
    output: int = 0,
) -> Value:
    """Entries of one axis; the batch axis may only be taken whole."""
    if isinstance(value, np.ndarray):
        return value.take(index, axis=axis)
    if index == list(range(value.shape[axis])):
        return value
    if axis == 0:
        value = importer.whole(node, value, "a choice of entries")
    chosen = importer.select(node, value, axis, index, step=step, output=output)
    return importer.reshape(node, chosen, chosen.shape, step="batched")


@reads("Slice")
def read_slice(importer: Importer, node: OnnxNode) -> list[Value]:
    """Ranges of axes, given as attributes (opset < 10) or as inputs."""
    value = importer.value(node, 0)
    rank = len(value.shape)
    starts = importer.listed(node, "starts", 1)
    ends = importer.listed(node, "ends", 2)
    axes = importer.listed(node, "axes", 3)
    if starts is None or ends is None:
        raise node.invalid("its starts or ends are missing")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = importer.integers(node, 4) if node.has(4) else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise node.invalid(f"starts {starts}, ends {ends}, axes {axes}, steps {steps}")
    if len({node.axis(axis, rank) for axis in axes}) != len(axes):
        raise node.invalid(f"axes {axes} name one axis twice")
    result: Value = value
    for position, (start, end, axis, step) in enumerate(
        zip(starts, ends, axes, steps, strict=True)
    ):
        axis = node.axis(axis, rank)
        length = result.shape[axis]
        # Python clamps as ONNX does, except that an end of -1 - length counts as "before 0".
        stop: int | None = end
        if step < 0 and end < -length:
            stop = None
        index = list(range(length))[start:stop:step]
        last = position == len(starts) - 1
        result = taken(importer, node, result, axis, index, step="" if last else f"axis{axis}")
    return [result]


@reads("Split")
def read_split(importer: Importer, node: OnnxNode) -> list[Value]:
    """Parts of one axis: as stated, or of equal length (the last may be shorter)."""
    value = importer.value(node, 0)
    axis = node.axis(node.integer("axis", 0), len(value.shape))
    length, parts = value.shape[axis], len(node.outputs)
    sizes = importer.listed(node, "split", 1)
    if sizes is None:
        parts = node.integer("num_outputs", parts)
        if parts != len(node.outputs):
            raise node.invalid(f"num_outputs is {parts}, but it has {len(node.outputs)} outputs")
        size = -(-length // parts)
        sizes = (*[size] * (parts - 1), length - size * (parts - 1))
    if len(sizes) != len(node.outputs) or sum(sizes) != length or min(sizes) < 1:
        raise node.invalid(f"parts {sizes} of an axis of length {length}")
    results: list[Value] = []
    start = 0
    for output, size in enumerate(sizes):
        index = list(range(start, start + size))
        results.append(taken(importer, node, value, axis, index, output=output))
        start += size
    return results


@reads("Gather")
def read_gather(importer: Importer, node: OnnxNode) -> list[Value]:
    """Entries of one axis by a constant index, whose shape replaces the axis."""
    value, index = importer.value(node, 0), importer.constant(node, 1)
    axis = node.axis(node.integer("axis", 0), len(value.shape))
    length = value.shape[axis]
    flat = importer.integers(node, 1)
    if any(not -length <= i < length for i in flat):
        raise node.invalid(f"its index leaves the range of an axis of length {length}")
    wanted = [i % length for i in flat]
    shape = (*value.shape[:axis], *index.shape, *value.shape[axis + 1 :])
    if isinstance(value, np.ndarray):
        importer.guard(node, (*shape, 1))
        return [value.take(wanted, axis=axis).reshape(shape)]
    chosen = taken(importer, node, value, axis, wanted)
    assert isinstance(chosen, Variable)
    return [importer.reshape(node, chosen, shape, step="shape")]


@reads("Pad")
def read_pad(importer: Importer, node: OnnxNode) -> list[Value]:
    """Constant padding (negative pads crop); reflect and edge repeat entries of the input."""
    value = importer.variable(node, 0)
    rank = len(value.shape)
    given = importer.listed(node, "pads", 1)
    fill = importer.scalar(node, 2) if node.has(2) else node.number("value", 0.0)
    stated = importer.integers(node, 3) if node.has(3) else tuple(range(rank))
    axes = tuple(node.axis(axis, rank) for axis in stated)
    if given is None or len(given) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise node.invalid(f"pads {given} for axes {axes}")
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        before[axis], after[axis] = given[position], given[position + len(axes)]
    importer.guard(
        node, tuple(n + b + a for n, b, a in zip(value.shape, before, after, strict=True))
    )
    if any(-b >= n or -a >= n for n, b, a in zip(value.shape, before, after, strict=True)):
        raise node.invalid(f"pads {given} crop all of a tensor of shape {value.shape}")
    if before[0] or after[0]:
        value = importer.whole(node, value, "padding of axis 0")
    mode = node.text("mode", "constant")
    if mode in ("reflect", "edge"):
        return [mirrored(importer, node, value, before, after, mode)]
    if mode != "constant":
        raise node.unsupported(f"mode {mode!r}")
    if not np.isfinite(fill):
        raise node.unsupported(f"padding with {fill}")
    skip = int(value.batch)
    result = importer.emit(
        "Pad",
        (value,),
        node,
        batch=value.batch,
        tensors={"value": torch.tensor(fill, dtype=torch.float64)},
        settings={"pads": (*before[skip:], *after[skip:])},
    )
    return [importer.reshape(node, result, result.shape, step="batched")]


def mirrored(
    importer: Importer,
    node: OnnxNode,
    value: Variable,
    before: list[int],
    after: list[int],
    mode: str,
) -> Variable:
    """Padding that repeats entries: a choice of entries along every padded axis."""
    for axis, (b, a) in enumerate(zip(before, after, strict=True)):
        length = value.shape[axis]
        if not b and not a:
            continue
        if mode == "reflect" and max(a, b) >= length:
            raise node.invalid(f"it reflects {max(a, b)} entries of an axis of length {length}")
        places = np.arange(-b, length + a)
        if mode == "edge":
            places = places.clip(0, length - 1)
        else:
            places = np.abs(places)
            places = np.where(places >= length, 2 * (length - 1) - places, places)
        value = importer.select(node, value, axis, places.tolist(), step=f"axis{axis}")
    return value


@reads("Concat")
def read_concat(importer: Importer, node: OnnxNode) -> list[Value]:
    """Tensors side by side; constants among variables get a node of their own."""
    values = [importer.value(node, i) for i in range(len(node.inputs))]
    if not values:
        raise node.invalid("it has no inputs")
    rank = len(values[0].shape)
    axis = node.axis(node.integer("axis", 1), rank)
    others = {(*v.shape[:axis], *v.shape[axis + 1 :]) for v in values}
    if len(others) != 1 or any(len(v.shape) != rank for v in values):
        raise node.invalid(f"shapes {[v.shape for v in values]} along axis {axis}")
    total = sum(v.shape[axis] for v in values)
    arrays = [v for v in values if isinstance(v, np.ndarray)]
    shape = (*values[0].shape[:axis], total, *values[0].shape[axis + 1 :])
    if len(arrays) == len(values):
        importer.guard(node, (*shape[:axis], max(total, 1), *shape[axis + 1 :]))
        return [np.concatenate(arrays, axis=axis)]
    importer.guard(node, shape)
    parts = [
        v if isinstance(v, Variable) else importer.standing(node, position)
        for position, v in enumerate(values)
        if v.shape[axis]
    ]
    if axis == 0:
        parts = [importer.whole(node, part, "a concatenation along axis 0") for part in parts]
    batch = axis != 0 and leads_with_batch(shape)
    parts = [
        importer.viewed(node, part, part.shape, batch=batch, step=f"part{i}")
        for i, part in enumerate(parts)
    ]
    result = importer.emit(
        "Concat", tuple(parts), node, batch=batch, settings={"axis": (axis - batch,)}
    )
    return [importer.reshape(node, result, result.shape, step="batched")]


@reads("Expand")
def read_expand(importer: Importer, node: OnnxNode) -> list[Value]:
    """Repetition along axes of length 1."""
    value, target = importer.value(node, 0), importer.integers(node, 1)
    shape = joint_shape(importer, node, value.shape, target)
    if isinstance(value, np.ndarray):
        return [np.broadcast_to(value, shape)]
    return [meets(importer, node, value, shape, "expand")]


@reads("ScatterND")
def read_scatter(importer: Importer, node: OnnxNode) -> list[Value]:
    """Entries of a constant overwritten at places that are constant, too."""
    data, index, fresh = (importer.constant(node, i) for i in range(3))
    if node.text("reduction", "none") != "none":
        raise node.unsupported("a reduction of entries that meet")
    depth = index.shape[-1] if index.ndim else 0
    if not 0 < depth <= data.ndim or index.dtype.kind not in "iu":
        raise node.invalid(f"indices of shape {index.shape} into {data.shape}")
    ends = np.asarray(data.shape[:depth])
    if index.size and not bool(((index >= -ends) & (index < ends)).all()):
        raise node.invalid(f"an index leaves a tensor of shape {data.shape}")
    wanted = (*index.shape[:-1], *data.shape[depth:])
    if fresh.shape != wanted:
        raise node.invalid(f"updates of shape {fresh.shape}, expected {wanted}")
    result = data.copy()
    result[tuple(np.moveaxis(index, -1, 0))] = fresh
    return [result]
