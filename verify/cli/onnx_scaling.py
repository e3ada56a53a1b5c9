"""A calibrated copy of an ONNX file: its logits divided by a temperature, or scaled and shifted.

The nodes go where the logits are: before the file's final softmax, if it has one, else at its end.
All else of the file stays as it is, the names of its input and output too.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from verify.errors import ModelError

PREFIX = "tashika_calibration"
SOFTMAXES = ("Softmax", "LogSoftmax")
PASSING = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast")
"""Operators through which a softmax's output may still reach the end of the file."""

Vector = NDArray[np.float64]


def scaled_model(
    data: bytes, output: str, tail: str | None, scale: Vector, shift: Vector
) -> onnx.ModelProto:
    """The model with scale * logits + shift in place of its logits.

    Args:
        data: the serialised model.
        output: name of its output.
        tail: "Softmax" or "LogSoftmax" where the output is one, else None.
        scale: > 0 for each class; all equal for a temperature, which becomes one Div node.
        shift: for each class.

    Raises:
        ModelError: if the logits cannot be found, or the result is no valid ONNX model.
    """
    proto = onnx.ModelProto()
    proto.ParseFromString(data)
    original = onnx.ModelProto()
    original.CopyFrom(proto)
    target = softmax_node(proto, output) if tail else None
    logits = output if target is None else target.input[0]
    taken = {name for node in proto.graph.node for name in (*node.input, *node.output, node.name)}
    taken |= {tensor.name for tensor in proto.graph.initializer}

    def fresh(name: str) -> str:
        while name in taken:
            name += "_"
        taken.add(name)
        return name

    kind = output_type(proto, output)
    raw = fresh(f"{PREFIX}_logits") if target is None else logits
    if target is None:
        rename(proto, output, raw)
    end = output if target is None else fresh(f"{PREFIX}_scaled")
    steps = steps_of(scale, shift)
    current, made = raw, []
    for i, (operator, name, value) in enumerate(steps):
        constant = fresh(f"{PREFIX}_{name}")
        result = end if i == len(steps) - 1 else fresh(f"{PREFIX}_{name}_result")
        proto.graph.initializer.append(numpy_helper.from_array(value.astype(kind), constant))
        node = fresh(f"{PREFIX}_{operator}")
        made.append(helper.make_node(operator, [current, constant], [result], name=node))
        current = result
    # Nodes stand in the order in which they can be computed.
    place = len(proto.graph.node) if target is None else list(proto.graph.node).index(target)
    if target is not None:
        target.input[0] = end
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes[:place], *made, *nodes[place:]])
    # A file that never passed the checker is judged by ONNX Runtime alone, as it was before.
    before, after = complaint_of(original), complaint_of(proto)
    if after is not None and before is None:
        raise ModelError(
            f"the calibrated model is not valid ONNX: {after}. Please report this model."
        )
    return proto


def complaint_of(proto: onnx.ModelProto) -> str | None:
    """What ONNX's checker says against a model, in one line; None if it is valid."""
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, ValueError) as error:
        return " ".join(str(error).split())
    return None


def steps_of(scale: Vector, shift: Vector) -> list[tuple[str, str, Vector]]:
    """Operators in their order, each with the name and value of its constant."""
    if not shift.any() and (scale == scale[0]).all():
        return [("Div", "temperature", np.asarray(1 / scale[0]))]
    return [("Mul", "scale", scale), ("Add", "shift", shift)]


def softmax_node(proto: onnx.ModelProto, output: str) -> onnx.NodeProto:
    """The softmax whose output, perhaps reshaped, is the model's.

    Raises:
        ModelError: if there is none.
    """
    makers: dict[str, onnx.NodeProto] = {
        name: node for node in proto.graph.node for name in node.output
    }
    found: onnx.NodeProto | None = makers.get(output)
    while found is not None and found.op_type in PASSING:
        found = makers.get(found.input[0])
    if found is None or found.op_type not in SOFTMAXES:
        raise ModelError(
            f"the softmax before output {output!r} cannot be found in the file; export the model "
            "without it, and calibrate that."
        )
    return found


def rename(proto: onnx.ModelProto, old: str, new: str) -> None:
    """Give a tensor another name wherever it is made or read, but not as output of the model."""
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
    for value in proto.graph.value_info:
        if value.name == old:
            value.name = new


def output_type(proto: onnx.ModelProto, output: str) -> type[np.float32] | type[np.float64]:
    """The floating type that the model's output has."""
    for value in proto.graph.output:
        if value.name == output and value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            return np.float64
    return np.float32
