"""Dense layers, convolutions and batch normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

from verify.readers.pytorch_importer import Call, Value, Variable, reads
from verify.readers.pytorch_nonlinear import matrix_product


@reads("aten.linear")
def read_linear(call: Call) -> Value:
    """x·W' + b on the last axis."""
    return dense(call, call.variable("input"), call.constant("weight"), call.optional("bias"))


def dense(
    call: Call, x: Variable, weight: Tensor, bias: Tensor | None, *, step: str = ""
) -> Variable:
    """A Gemm node; weight of shape (out, in)."""
    shift = weight.new_zeros(len(weight)) if bias is None else bias.reshape(-1).expand(len(weight))
    tensors = {"weight": weight.contiguous(), "bias": shift.contiguous()}
    return call.emit("Gemm", (x,), tensors=tensors, step=step)


@reads("aten.addmm")
def read_addmm(call: Call) -> Value:
    """beta·b + alpha·(x·W), W constant."""
    weight = call.constant("mat2") * call.constant("alpha")
    bias = call.constant("self") * call.constant("beta")
    if bias.ndim > 1 and bias.shape[0] != 1:
        raise call.unsupported(f"its first argument has shape {tuple(bias.shape)}")
    return dense(call, call.variable("mat1"), weight.T, bias)


@reads("aten.mm", "aten.matmul")
def read_matmul(call: Call) -> Value:
    """A product of matrices, at most one of them constant."""
    right = "mat2" if call.op == "aten.mm" else "other"
    first, second = call.arguments["self"], call.arguments[right]
    if isinstance(first, Variable) and isinstance(second, Variable):
        return matrix_product(call, first, second)
    if isinstance(call.arguments["self"], Variable):
        x, weight = call.variable("self"), call.constant(right)
        if weight.ndim == 2:
            return dense(call, x, weight.T, None)
        if weight.ndim == 1:
            column = dense(call, x, weight[None], None, step="column")
            return call.reshape(column, call.inner(x)[:-1])
        raise call.unsupported(f"a stack of matrices, shape {tuple(weight.shape)}")
    x, weight = call.variable(right), call.constant("self")
    rank = len(call.inner(x))
    if weight.ndim != 2 or rank < 2:
        raise call.unsupported("a product from the left that mixes samples, or of no matrix")
    flip = {"perm": (*range(rank - 2), rank - 1, rank - 2)}
    turned = call.emit("Transpose", (x,), settings=flip, step="flip")
    product = dense(call, turned, weight, None, step="product")
    return call.emit("Transpose", (product,), settings=flip)


@reads("aten.convolution")
def read_convolution(call: Call) -> Value:
    """Convolution in one, two or three dimensions with constant weights."""
    x, weight = call.variable("input"), call.constant("weight")
    rank = weight.ndim - 2
    if call.flag("transposed"):
        raise call.unsupported("a transposed convolution")
    if rank not in (1, 2, 3) or len(call.inner(x)) != rank + 1:
        raise call.unsupported(f"weights of shape {tuple(weight.shape)} on {call.inner(x)}")
    bias = call.optional("bias")
    return call.emit(
        "Conv",
        (x,),
        tensors={"weight": weight, "bias": weight.new_zeros(len(weight)) if bias is None else bias},
        settings={
            "stride": call.integers("stride", rank),
            "padding": call.integers("padding", rank),
            "dilation": call.integers("dilation", rank),
            "groups": (call.integer("groups"),),
        },
    )


@reads("aten._native_batch_norm_legit_no_training")
def read_batch_norm(call: Call) -> Value:
    """(x - mean)·weight/sqrt(var + eps) + bias, per channel; the result is the first of three."""
    x = call.variable("input")
    mean, variance = call.constant("running_mean"), call.constant("running_var")
    weight, bias = call.optional("weight"), call.optional("bias")
    weight = torch.ones_like(mean) if weight is None else weight
    bias = torch.zeros_like(mean) if bias is None else bias
    epsilon = call.arguments["eps"]
    assert isinstance(epsilon, float)
    factor = weight / (variance + epsilon).sqrt()
    shape = (-1, *[1] * (len(call.inner(x)) - 1))
    tensors = {
        "scale": factor.view(shape),
        "shift": (bias - mean * factor).view(shape),
        "shift_magnitude": (bias.abs() + mean.abs() * factor.abs()).view(shape),
    }
    return [call.emit("ScaleShift", (x,), tensors=tensors), None, None]
