"""ArgMax, OneHot, Equal: what turns numbers into whole numbers."""

from __future__ import annotations

import torch

from verify.readers.onnx_broadcast import beside, joint_shape, meets
from verify.readers.onnx_fold import fold
from verify.readers.onnx_importer import Importer, Value, Variable, leads_with_batch, reads
from verify.readers.onnx_node import OnnxNode


@reads("ArgMax")
def read_argmax(importer: Importer, node: OnnxNode) -> list[Value]:
    """The first place of the largest entry along one axis."""
    value = importer.variable(node, 0)
    axis = node.axis(node.integer("axis", 0), len(value.shape))
    if node.flag("select_last_index", False):
        raise node.unsupported("the last of equal entries")
    if axis == 0:
        value = importer.whole(node, value, "an argmax over axis 0")
    shape = list(value.shape)
    shape[axis : axis + 1] = [1] if node.flag("keepdims", True) else []
    if len(value.inner) == 1:
        value = importer.viewed(node, value, (1, *value.inner), batch=False, step="row")
        axis = 1
    found = importer.emit(
        "ArgMax",
        (value,),
        node,
        batch=value.batch,
        settings={"axis": (axis - value.batch,)},
        step="place",
    )
    return [importer.reshape(node, found, tuple(shape))]


def level(
    importer: Importer, node: OnnxNode, value: Variable, at: torch.Tensor, *, step: str = ""
) -> Variable:
    """1 where the value is a constant, else 0; the constant broadcasts to the file's shape."""
    shape = joint_shape(importer, node, value.shape, at.shape)
    value = meets(importer, node, value, shape, f"{step}expand")
    tensors = {"level": beside(at, value)}
    return importer.emit("Level", (value,), node, batch=value.batch, tensors=tensors, step=step)


@reads("OneHot")
def read_one_hot(importer: Importer, node: OnnxNode) -> list[Value]:
    """A new axis with the value `on` at the index, and `off` elsewhere."""
    value = importer.variable(node, 0)
    depth, (off, on) = int(importer.scalar(node, 1)), importer.weights(node, 2).tolist()
    rank = len(value.shape)
    axis = node.axis(node.integer("axis", -1), rank + 1)
    importer.guard(node, (*value.shape, depth))
    if axis == 0:
        value = importer.whole(node, value, "a new axis 0")
    wide = importer.reshape(node, value, (*value.shape[:axis], 1, *value.shape[axis:]), step="axis")
    places = torch.arange(depth, dtype=torch.float64).view(depth, *[1] * (rank - axis))
    found = level(importer, node, wide, places, step="hot")
    if (off, on) == (0.0, 1.0):
        return [found]
    scale, shift = (torch.tensor(v, dtype=torch.float64) for v in (on - off, off))
    return [importer.scale_shift(node, found, scale, shift)]


@reads("Equal")
def read_equal(importer: Importer, node: OnnxNode) -> list[Value]:
    """1 where two tensors agree, else 0."""
    left, right = importer.value(node, 0), importer.value(node, 1)
    if isinstance(left, Variable) and isinstance(right, Variable):
        shape = joint_shape(importer, node, left.shape, right.shape)
        batch = leads_with_batch(shape)
        both = []
        for i, v in enumerate((left, right)):
            v = meets(importer, node, v, shape, f"expand{i}")
            both.append(importer.viewed(node, v, shape, batch=batch, step=f"align{i}"))
        return [importer.emit("Equal", tuple(both), node, batch=batch)]
    if isinstance(left, Variable):
        return [level(importer, node, left, importer.weights(node, 1))]
    if isinstance(right, Variable):
        return [level(importer, node, right, importer.weights(node, 0))]
    return fold(importer, node)
