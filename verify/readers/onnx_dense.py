"""Gemm and MatMul by constants."""

from __future__ import annotations

import torch
from torch import Tensor

from verify.readers.onnx_broadcast import add_variables, joint_shape, scaled_and_shifted
from verify.readers.onnx_importer import Importer, Value, Variable, reads
from verify.readers.onnx_node import OnnxNode
from verify.readers.onnx_product import matrix_product


@reads("Gemm")
def read_gemm(importer: Importer, node: OnnxNode) -> list[Value]:
    """alpha·A'·B' + beta·C, where A or B is constant."""
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    flip_a, flip_b = node.flag("transA", False), node.flag("transB", False)
    left, right = importer.value(node, 0), importer.value(node, 1)
    for matrix in (left, right):
        if len(matrix.shape) != 2:
            raise node.invalid(f"its matrices have shapes {left.shape} and {right.shape}")
    if isinstance(left, Variable):
        weight = importer.weights(node, 1) * alpha
        x = transposed(importer, node, left) if flip_a else left
        product = right_product(importer, node, x, weight.T if flip_b else weight, "product")
    else:
        x = importer.variable(node, 1)
        x = transposed(importer, node, x) if flip_b else x
        weight = importer.weights(node, 0) * alpha
        product = left_product(importer, node, weight.T if flip_a else weight, x)
    if not node.has(2) or beta == 0.0:
        return [product]
    added = importer.value(node, 2)
    if isinstance(added, Variable):
        if beta != 1.0:
            factor = torch.tensor(beta, dtype=torch.float64)
            added = importer.scale_shift(node, added, factor, torch.zeros_like(factor), step="beta")
        return [add_variables(importer, node, [product, added], (1, 1))]
    shift = importer.weights(node, 2) * beta
    if joint_shape(importer, node, shift.shape, product.shape) != product.shape:
        raise node.invalid(f"its C of shape {tuple(shift.shape)} does not fit {product.shape}")
    one = torch.ones((), dtype=torch.float64)
    return [scaled_and_shifted(importer, node, product, one, shift)]


@reads("MatMul")
def read_matmul(importer: Importer, node: OnnxNode) -> list[Value]:
    """A product of matrices, at most one of them constant.

    A product of constants is not folded, because its last bits depend on the machine.
    """
    left, right = importer.value(node, 0), importer.value(node, 1)
    if isinstance(left, Variable) and isinstance(right, Variable):
        return [matrix_product(importer, node, left, right)]
    if not isinstance(left, Variable) and not isinstance(right, Variable):
        left = importer.standing(node, 0)
    if isinstance(left, Variable):
        return [right_product(importer, node, left, importer.weights(node, 1), "")]
    return [left_product(importer, node, importer.weights(node, 0), importer.variable(node, 1))]


def matrix(node: OnnxNode, weight: Tensor) -> Tensor:
    """A constant with axes of length 1 in front dropped down to rank 2 (or 1)."""
    while weight.ndim > 2 and weight.shape[0] == 1:
        weight = weight[0]
    if weight.ndim not in (1, 2):
        raise node.unsupported(f"a stack of matrices, shape {tuple(weight.shape)}")
    return weight


def right_product(
    importer: Importer, node: OnnxNode, x: Variable, weight: Tensor, step: str
) -> Variable:
    """x·W on the last axis; W of shape (in, out), or (in,) which drops the axis."""
    lead = weight.ndim - len(x.shape)
    weight = matrix(node, weight)
    if x.batch and len(x.shape) == 1 or not x.shape or x.shape[-1] != weight.shape[0]:
        raise node.invalid(f"shapes {x.shape} and {tuple(weight.shape)} do not multiply")
    columns = weight if weight.ndim == 2 else weight[:, None]
    product = gemm(importer, node, x, columns.T, step if weight.ndim == 2 else "columns")
    shape = product.shape if weight.ndim == 2 else product.shape[:-1]
    if lead > 0:
        # The constant's own leading axes of length 1 are part of the result's shape.
        shape = (1,) * lead + shape
    return product if shape == product.shape else importer.reshape(node, product, shape)


def left_product(importer: Importer, node: OnnxNode, weight: Tensor, x: Variable) -> Variable:
    """W·x on the last axis but one; W of shape (out, in), or (in,) which drops the axis."""
    lead = weight.ndim - len(x.shape)
    weight = matrix(node, weight)
    if len(x.shape) == 1:
        product = gemm(importer, node, x, weight if weight.ndim == 2 else weight[None], "rows")
        shape = product.shape if weight.ndim == 2 else ()
        return product if shape == product.shape else importer.reshape(node, product, shape)
    if x.shape[-2] != weight.shape[-1]:
        raise node.invalid(f"shapes {tuple(weight.shape)} and {x.shape} do not multiply")
    if len(x.shape) == 2:
        x = importer.whole(node, x, "a product from the left")
    rows = weight if weight.ndim == 2 else weight[None]
    flipped = transposed(importer, node, x)
    product = transposed(importer, node, gemm(importer, node, flipped, rows, "rows"))
    shape = product.shape
    if weight.ndim == 1:
        shape = (*shape[:-2], shape[-1])
    if lead > 0:
        shape = (1,) * lead + shape
    return product if shape == product.shape else importer.reshape(node, product, shape)


def gemm(importer: Importer, node: OnnxNode, x: Variable, weight: Tensor, step: str) -> Variable:
    """A dense layer on the last axis; weight of shape (out, in)."""
    importer.guard(node, (*x.shape[:-1], len(weight)))
    tensors = {"weight": weight.contiguous(), "bias": weight.new_zeros(len(weight))}
    return importer.emit("Gemm", (x,), node, batch=x.batch, tensors=tensors, step=step)


def transposed(importer: Importer, node: OnnxNode, x: Variable) -> Variable:
    """The last two axes swapped."""
    if len(x.shape) == 2:
        x = importer.whole(node, x, "a transposition")
    rank = len(x.inner)
    perm = (*range(rank - 2), rank - 1, rank - 2)
    return importer.emit(
        "Transpose", (x,), node, batch=x.batch, settings={"perm": perm}, step="flip"
    )
