"""One file per operator family, all its rules together; importing the package fills the table."""

from verify.ops import (
    arithmetic,
    clip,
    conv,
    conv_transpose,
    counting,
    curves,
    gemm,
    matmul,
    max_pool,
    movement,
    product,
    relu,
    s_shaped,
    softmax,
    step,
    two_piece,
)

__all__ = [
    "arithmetic",
    "clip",
    "conv",
    "conv_transpose",
    "counting",
    "curves",
    "gemm",
    "matmul",
    "max_pool",
    "movement",
    "product",
    "relu",
    "s_shaped",
    "softmax",
    "step",
    "two_piece",
]
