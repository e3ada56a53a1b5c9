"""Whole numbers that depend on the input: what may be done with them in the graph's arithmetic.

The graph computes in decimals. Quotients and means of whole numbers are cut off in the file, and
what leaves their range wraps around, so only what cannot do either is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from verify.readers.onnx_node import OnnxNode

if TYPE_CHECKING:
    from verify.readers.onnx_importer import Importer, Value

    Reader = Callable[[Importer, OnnxNode], list[Value]]

INT32, INT64 = 6, 7
"""Element types of ONNX."""
MOVES = (
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout", "Slice",
    "Split", "Gather", "Pad", "Concat", "Expand", "ScatterND", "Where", "Max", "Min", "ReduceMax",
    "ReduceMin", "Relu", "Clip",
)  # fmt: skip
"""Operators whose results are among their operands: as whole as they are."""
SUMS = ("Add", "Sub", "Sum", "Neg", "Abs", "ReduceSum")
"""In 64 bits nothing wraps around: numbers cast from decimals are known below 2^30 only."""
ENDS = ("Cast", "ArgMax", "OneHot", "Equal", "Shape", "Size")
"""Their results are of another type, or of a type that they state."""


def read_typed(importer: Importer, node: OnnxNode, reader: Reader) -> list[Value]:
    """What a reader makes of a node; notes which results are whole numbers.

    Raises:
        UnsupportedOperator: where whole numbers would be computed with in decimals.
    """
    known = importer.counted.whole
    kinds = {known[name] for name in node.inputs if name in known}
    if kinds and node.op not in (*MOVES, *ENDS):
        if node.op not in SUMS:
            raise node.unsupported("computing with whole numbers that depend on the input")
        if INT32 in kinds:
            raise node.unsupported("sums of int32 numbers that depend on the input")
    found = reader(importer, node)
    if node.op == "Cast" and node.integer("to", 0) in (INT32, INT64):
        kinds = {node.integer("to", 0)}
    elif node.op == "ArgMax":
        kinds = {INT64}
    elif node.op in ENDS:
        kinds = set()
    if kinds:
        for name, value in zip(node.outputs, found, strict=False):
            if not isinstance(value, np.ndarray):
                known[name] = min(kinds)
    return found
