"""Operators that move entries: views, permutations, slices, padding, concatenation."""

from __future__ import annotations

import torch

from verify.readers.pytorch_importer import BATCH, Call, Value, Variable, reads

FLOATS = (None, torch.float32)
"""Types that a cast may ask for: ours, or none in particular."""


@reads(
    "aten.view",
    "aten._unsafe_view",
    "aten.reshape",
    "aten.flatten",
    "aten.squeeze",
    "aten.unsqueeze",
)
def read_view(call: Call) -> Value:
    """The same entries in the shape that the program states."""
    return call.reshape(call.variable("self", tail=True), call.result_shape())


@reads(
    "aten.clone",
    "aten.detach",
    "aten.alias",
    "aten.contiguous",
    "aten.lift_fresh_copy",
    "aten.dropout",
    "aten._to_copy",
    "aten.to",
)
def read_identity(call: Call) -> Value:
    """The tensor itself, in float32."""
    if call.arguments.get("dtype") not in FLOATS:
        raise call.unsupported(f"a cast to {call.arguments['dtype']}")
    if call.flag("train"):
        raise call.unsupported("it draws random numbers, so the module has no fixed function")
    return call.variable("self" if "self" in call.arguments else "input", tail=True)


@reads("aten.permute", "aten.transpose", "aten.t")
def read_permute(call: Call) -> Value:
    """Axes in another order, the batch in front."""
    x = call.variable("self")
    rank = len(call.inner(x)) + 1
    order = list(range(rank))
    if call.op == "aten.permute":
        order = [axis % rank for axis in call.integers("dims")]
    elif call.op == "aten.transpose":
        first, second = call.integer("dim0") % rank, call.integer("dim1") % rank
        order[first], order[second] = second, first
    else:
        order.reverse()
    if order[0] != 0:
        raise call.unsupported("it moves the batch axis")
    perm = tuple(axis - 1 for axis in order[1:])
    return call.emit("Transpose", (x,), settings={"perm": perm})


@reads("aten.slice")
def read_slice(call: Call) -> Value:
    """Every step-th entry of one axis; a slice of the whole batch is the tensor itself."""
    x = call.variable("self")
    rank = len(call.inner(x)) + 1
    axis = call.integer("dim") % rank
    length = BATCH if axis == 0 else call.inner(x)[axis - 1]
    start, end = (
        None if call.arguments.get(key) is None else call.integer(key) for key in ("start", "end")
    )
    index = list(range(length))[slice(start, end, call.integer("step"))]
    if axis == 0 and index == list(range(BATCH)):
        return x
    return call.select(x, call.axis(axis, rank), index)


@reads("aten.select")
def read_select(call: Call) -> Value:
    """One entry of an axis, which disappears."""
    x = call.variable("self")
    shape = call.inner(x)
    axis = call.axis(call.integer("dim"), len(shape) + 1)
    picked = call.select(x, axis, [call.integer("index") % shape[axis]], step="entry")
    return call.reshape(picked, call.result_shape())


@reads("aten.index_select")
def read_index_select(call: Call) -> Value:
    """Entries of one axis by a constant list."""
    x = call.variable("self")
    axis = call.axis(call.integer("dim"), len(call.inner(x)) + 1)
    return call.select(x, axis, [int(i) for i in call.constant("index").tolist()])


@reads("aten.flip")
def read_flip(call: Call) -> Value:
    """Axes read backwards."""
    x = call.variable("self")
    for number, given in enumerate(call.integers("dims")):
        axis = call.axis(given, len(call.inner(x)) + 1)
        x = call.select(x, axis, list(range(call.inner(x)[axis]))[::-1], step=f"axis{number}")
    return x


@reads("aten.split_with_sizes", "aten.split", "aten.unbind", "aten.chunk")
def read_split(call: Call) -> Value:
    """One axis in pieces, one after the other."""
    x = call.variable("self")
    shape = call.inner(x)
    axis = call.axis(call.integer("dim"), len(shape) + 1)
    if call.op == "aten.split_with_sizes":
        sizes = call.integers("split_sizes")
    elif call.op == "aten.unbind":
        sizes = (1,) * shape[axis]
    elif call.op == "aten.split":
        size = call.integer("split_size")
        sizes = tuple(min(size, shape[axis] - begin) for begin in range(0, shape[axis], size))
    else:
        size = -(-shape[axis] // call.integer("chunks"))
        sizes = tuple(min(size, shape[axis] - begin) for begin in range(0, shape[axis], size))
    pieces: list[Variable] = []
    begin = 0
    for number, size in enumerate(sizes):
        index = list(range(begin, begin + size))
        piece = call.select(x, axis, index, step=f"piece{number}")
        if call.op == "aten.unbind":
            shorter = (*shape[:axis], *shape[axis + 1 :])
            piece = call.reshape(piece, shorter, step=f"entry{number}")
        pieces.append(piece)
        begin += size
    return pieces


@reads("aten.cat")
def read_cat(call: Call) -> Value:
    """Tensors side by side; constants among them are not supported."""
    parts = call.arguments["tensors"]
    assert isinstance(parts, list)
    if not all(isinstance(part, Variable) for part in parts):
        raise call.unsupported("some of its parts do not depend on the input")
    axis = call.axis(call.integer("dim"), len(call.result_shape()) + 1)
    return call.emit("Concat", tuple(parts), settings={"axis": (axis,)})


@reads("aten.constant_pad_nd")
def read_pad(call: Call) -> Value:
    """Constant padding; torch states it from the last axis on, before and after paired."""
    x = call.variable("self")
    rank, pads = len(call.inner(x)), call.integers("pad")
    count = len(pads) // 2
    if count > rank:
        raise call.unsupported("it pads the batch axis")
    before = [0] * (rank - count) + [pads[2 * i] for i in reversed(range(count))]
    after = [0] * (rank - count) + [pads[2 * i + 1] for i in reversed(range(count))]
    return call.emit(
        "Pad",
        (x,),
        tensors={"value": call.constant("value")},
        settings={"pads": (*before, *after)},
    )


@reads("aten.expand")
def read_expand(call: Call) -> Value:
    """Axes of length 1 repeated."""
    return call.expand(call.variable("self"), call.result_shape(), step="")


@reads("aten.full_like", "aten.zeros_like", "aten.ones_like")
def read_constant_like(call: Call) -> Value:
    """A constant of the shape of something that depends on the input."""
    fill = {"aten.zeros_like": 0.0, "aten.ones_like": 1.0}.get(call.op)
    value = call.number("fill_value") if fill is None else fill
    return torch.full((1, *call.result_shape()), value)
