"""Constants that the file computes from constants and shapes, in the file's own arithmetic.

Only operators whose floating-point result is the same on every IEEE machine are folded, so that a
folded weight is bit for bit the one that the runtime uses.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from verify.readers.onnx_file import array_of
from verify.readers.onnx_importer import MAX_ENTRIES, Importer, Value, reads
from verify.readers.onnx_node import Attribute, OnnxNode


def quotient(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x / y; integers are cut towards zero, as ONNX says."""
    if x.dtype.kind in "iu":
        whole = np.abs(x) // np.abs(y)
        return np.asarray(np.sign(x) * np.sign(y) * whole, dtype=x.dtype)
    return np.asarray(x / y)


FOLDS: dict[str, Callable[..., np.ndarray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": quotient,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sqrt": np.sqrt,
    "Floor": np.floor,
    "Sign": np.sign,
    "Ceil": np.ceil,
    "Reciprocal": np.reciprocal,
    "Equal": np.equal,
    "Less": np.less,
    "Greater": np.greater,
    "Not": np.logical_not,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Where": np.where,
}

VARIADIC: dict[str, Callable[..., np.ndarray]] = {
    "Sum": np.add,
    "Min": np.minimum,
    "Max": np.maximum,
}


@reads("Less", "Greater", "Not", "And", "Or")
def read_foldable(importer: Importer, node: OnnxNode) -> list[Value]:
    """Operators that are only known for constants."""
    return fold(importer, node)


def fold(importer: Importer, node: OnnxNode) -> list[Value]:
    """The result of a node whose inputs are all constant.

    Raises:
        UnsupportedOperator: if an input depends on the network's input, or the operator's result
            may depend on the machine.
        ModelError: if the operands do not fit each other.
    """
    operands = [importer.constant(node, i) for i in range(len(node.inputs))]
    function, chain = FOLDS.get(node.op), VARIADIC.get(node.op)
    try:
        importer.guard(node, np.broadcast_shapes(*(o.shape for o in operands)))
        with np.errstate(all="ignore"):
            if function is not None:
                result = np.asarray(function(*operands))
            elif chain is not None and operands:
                result = operands[0]
                for operand in operands[1:]:
                    result = np.asarray(chain(result, operand))
            else:
                raise node.unsupported("folding it for constant inputs")
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise node.invalid(f"it cannot be applied to its constants: {error}") from error
    return [result]


@reads("Constant")
def read_constant(importer: Importer, node: OnnxNode) -> list[Value]:
    """The value in whichever attribute holds it."""
    known = [name for name in node.attributes if name.startswith("value")]
    if len(known) != 1:
        raise node.unsupported(f"its attributes are {sorted(node.attributes)}")
    (name,) = known
    attribute = node.attributes[name]
    if attribute.type == Attribute.TENSOR:
        array = array_of(attribute.t)
    elif attribute.type in (Attribute.FLOAT, Attribute.FLOATS):
        numbers = attribute.f if attribute.type == Attribute.FLOAT else list(attribute.floats)
        array = np.asarray(numbers, dtype=np.float32)
    elif attribute.type in (Attribute.INT, Attribute.INTS):
        whole = attribute.i if attribute.type == Attribute.INT else list(attribute.ints)
        array = np.asarray(whole, dtype=np.int64)
    else:
        raise node.unsupported(f"a constant given as {name!r}")
    return [array]


@reads("ConstantOfShape")
def read_constant_of_shape(importer: Importer, node: OnnxNode) -> list[Value]:
    """One value repeated."""
    shape = importer.integers(node, 0)
    attribute = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if attribute is None else array_of(attribute.t)
    if fill.size != 1:
        raise node.invalid(f"its value has shape {fill.shape}, expected one entry")
    importer.guard(node, shape)
    return [np.full(shape, fill.reshape(-1)[0], dtype=fill.dtype)]


@reads("Range")
def read_range(importer: Importer, node: OnnxNode) -> list[Value]:
    """start, start + delta, ... below the limit."""
    start, limit, delta = (importer.constant(node, i) for i in range(3))
    ends = [importer.scalar(node, i) for i in range(3)]
    if ends[2] == 0.0 or not np.isfinite(ends).all():
        raise node.invalid(f"its range is {ends}")
    count = max(0, int(np.ceil((ends[1] - ends[0]) / ends[2])))
    if count > MAX_ENTRIES:
        raise node.invalid(f"it produces {count} entries, at most {MAX_ENTRIES} are allowed")
    steps = np.arange(count).astype(start.dtype)
    return [(start.reshape(()) + steps * delta.reshape(())).astype(limit.dtype)]


@reads("Shape")
def read_shape(importer: Importer, node: OnnxNode) -> list[Value]:
    """The shape for one sample."""
    shape = importer.value(node, 0).shape
    start, end = node.integer("start", 0), node.integer("end", len(shape))
    return [np.asarray(shape[start:end], dtype=np.int64)]


@reads("Size")
def read_size(importer: Importer, node: OnnxNode) -> list[Value]:
    """The number of entries for one sample."""
    return [np.asarray(np.prod(importer.value(node, 0).shape, dtype=np.int64))]
