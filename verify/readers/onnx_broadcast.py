"""Broadcasting: constants and variables of different shapes made to meet in one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from verify.readers.onnx_importer import Importer, Variable, leads_with_batch
from verify.readers.onnx_node import OnnxNode


def joint_shape(
    importer: Importer, node: OnnxNode, *shapes: tuple[int, ...] | torch.Size
) -> tuple[int, ...]:
    """The shape that all broadcast to (numpy's rules, which are ONNX's)."""
    try:
        shape = np.broadcast_shapes(*(tuple(s) for s in shapes))
    except ValueError as error:
        raise node.invalid(f"shapes {shapes} do not broadcast") from error
    importer.guard(node, shape)
    return tuple(shape)


def meets(
    importer: Importer,
    node: OnnxNode,
    value: Variable,
    shape: tuple[int, ...],
    step: str,
) -> Variable:
    """The variable repeated to a shape that it broadcasts to."""
    if value.shape == shape:
        return value
    return importer.expand(node, value, shape, batch=leads_with_batch(shape), step=step)


def beside(constant: Tensor, value: Variable) -> Tensor:
    """A constant that broadcasts to the variable, shaped to broadcast to its graph shape."""
    if value.batch and constant.ndim == len(value.shape):
        return constant[0]
    return constant


def scaled_and_shifted(
    importer: Importer,
    node: OnnxNode,
    value: Variable,
    scale: Tensor,
    shift: Tensor,
    *,
    step: str = "",
) -> Variable:
    """x·scale + shift with constants in the file's shapes; x itself where that changes nothing."""
    shape = joint_shape(importer, node, value.shape, scale.shape, shift.shape)
    value = meets(importer, node, value, shape, "expand")
    if bool((scale == 1).all()) and bool((shift == 0).all()):
        return value
    return importer.scale_shift(node, value, beside(scale, value), beside(shift, value), step=step)


def add_variables(
    importer: Importer,
    node: OnnxNode,
    values: list[Variable],
    signs: tuple[int, ...],
    *,
    step: str = "",
) -> Variable:
    """The signed sum of variables, broadcast to one shape."""
    shape = joint_shape(importer, node, *(v.shape for v in values))
    met = [meets(importer, node, v, shape, f"expand{i}") for i, v in enumerate(values)]
    batch = leads_with_batch(shape)
    met = [
        importer.viewed(node, v, shape, batch=batch, step=f"align{i}") for i, v in enumerate(met)
    ]
    return importer.emit("Add", tuple(met), node, batch=batch, settings={"signs": signs}, step=step)
