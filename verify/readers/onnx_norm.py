"""LayerNormalization, LogSoftmax inside a network, ReduceMax, ReduceMin: put together of others."""

from __future__ import annotations

from math import prod

import torch

from verify.readers.onnx_broadcast import add_variables, meets, scaled_and_shifted
from verify.readers.onnx_importer import Importer, Value, Variable, reads
from verify.readers.onnx_node import OnnxNode
from verify.readers.onnx_pool import reduced
from verify.readers.onnx_product import product

ONE = torch.ones((), dtype=torch.float64)
ZERO = torch.zeros((), dtype=torch.float64)
MOST_CLASSES = 256
"""Of a LogSoftmax inside a network: it is computed from all differences of two of them."""


@reads("LayerNormalization")
def read_layer_norm(importer: Importer, node: OnnxNode) -> list[Value]:
    """(x - mean) / sqrt(variance + epsilon) · scale + bias, over the axes from one on.

    Executions may compute the variance in one pass, which loses more than the two passes here; a
    Blurred node pays for that.
    """
    value = importer.variable(node, 0)
    rank = len(value.shape)
    axis = node.axis(node.integer("axis", -1), rank)
    if axis == 0:
        value = importer.whole(node, value, "a normalisation over axis 0")
    scale = importer.weights(node, 1)
    bias = importer.weights(node, 2) if node.has(2) else ZERO
    lead, entries = value.shape[:axis], prod(value.shape[axis:])
    flat = importer.viewed(node, value, (*lead, entries), batch=value.batch, step="flat")
    mean = reduced(importer, node, flat, (axis,), mean=True, keep=True, step="mean")
    wide = meets(importer, node, mean, flat.shape, "mean_wide")
    wide = importer.viewed(node, wide, flat.shape, batch=flat.batch, step="mean_seen")
    centred = add_variables(importer, node, [flat, wide], (1, -1), step="centred")
    square = importer.emit(
        "Power", (centred,), node, batch=flat.batch, settings={"exponent": (2,)}, step="square"
    )
    spread = reduced(importer, node, square, (axis,), mean=True, keep=True, step="spread")
    spread = importer.viewed(node, spread, (*lead, 1), batch=flat.batch, step="spread_seen")
    blurred = importer.emit("Blurred", (spread, flat), node, batch=flat.batch, step="blurred")
    epsilon = torch.tensor(node.number("epsilon", 1e-5), dtype=torch.float64)
    safe = importer.scale_shift(node, blurred, ONE, epsilon, step="safe")
    root = importer.emit("Sqrt", (safe,), node, batch=flat.batch, step="root")
    inverse = importer.emit("Reciprocal", (root,), node, batch=flat.batch, step="inverse")
    inverse = meets(importer, node, inverse, flat.shape, "inverse_wide")
    inverse = importer.viewed(node, inverse, flat.shape, batch=flat.batch, step="inverse_seen")
    normal = product(importer, node, centred, inverse, step="normal")
    shaped = importer.viewed(node, normal, value.shape, batch=value.batch, step="shaped")
    return [scaled_and_shifted(importer, node, shaped, scale, bias)]


def log_softmax(importer: Importer, node: OnnxNode, value: Variable, axis: int) -> Variable:
    """-log sum_j exp(x_j - x_i): every sum holds a 1, so nothing is lost in the logarithm."""
    rank = len(value.shape)
    classes = value.shape[axis]
    if node.opset < 13 or axis != rank - 1:
        raise node.unsupported("a LogSoftmax inside a network over an axis that is not the last")
    if classes > MOST_CLASSES:
        raise node.unsupported(f"a LogSoftmax inside a network over {classes} classes")
    every = torch.eye(classes, dtype=torch.float64)
    # Row (i, j) of the matrix is e_j - e_i.
    weight = (every[None, :] - every[:, None]).reshape(classes * classes, classes)
    gaps = importer.emit(
        "Gemm",
        (value,),
        node,
        batch=value.batch,
        tensors={"weight": weight, "bias": weight.new_zeros(len(weight))},
        step="gaps",
    )
    shape = (*value.shape[:-1], classes, classes)
    pairs = importer.viewed(node, gaps, shape, batch=value.batch, step="pairs")
    powers = importer.emit("Exp", (pairs,), node, batch=value.batch, step="powers")
    sums = reduced(importer, node, powers, (rank,), mean=False, keep=False, step="sums")
    sums = importer.viewed(node, sums, value.shape, batch=value.batch, step="sums_seen")
    logs = importer.emit("Log", (sums,), node, batch=value.batch, step="logs")
    return importer.scale_shift(node, logs, -ONE, ZERO)


@reads("ReduceMax", "ReduceMin")
def read_reduce_extremum(importer: Importer, node: OnnxNode) -> list[Value]:
    """The largest over axes, as pooling with one window; the smallest is that of -x, negated."""
    value = importer.variable(node, 0)
    rank = len(value.shape)
    given = importer.listed(node, "axes", 1) or ()
    if not given and node.flag("noop_with_empty_axes", False):
        return [value]
    axes = node.axes(given, rank) if given else tuple(range(rank))
    if 0 in axes:
        value = importer.whole(node, value, "a reduction over axis 0")
    keep = node.flag("keepdims", True)
    shape = tuple(
        1 if axis in axes else n for axis, n in enumerate(value.shape) if keep or axis not in axes
    )
    first, inner = int(value.batch), value.inner
    rest = [i for i in range(len(value.shape)) if i not in axes and i >= first]
    order = tuple(i - first for i in (*rest, *axes))
    if node.op == "ReduceMin":
        value = importer.scale_shift(node, value, -ONE, ZERO, step="negated")
    if order != tuple(range(len(order))):
        value = importer.emit(
            "Transpose", (value,), node, batch=value.batch, settings={"perm": order}, step="last"
        )
    count = prod(inner[axis - first] for axis in axes)
    lines = prod(inner) // count
    seen = (1, lines, count) if value.batch else (lines, count)
    value = importer.viewed(node, value, seen, batch=value.batch, step="rows")
    settings = {"kernel": (count,), "stride": (count,), "pads": (0, 0), "dilation": (1,)}
    best = importer.emit(
        "MaxPool", (value,), node, batch=value.batch, settings=settings, step="best"
    )
    if node.op == "ReduceMin":
        best = importer.scale_shift(node, best, -ONE, ZERO, step="back")
    return [importer.reshape(node, best, shape, step="shape")]
