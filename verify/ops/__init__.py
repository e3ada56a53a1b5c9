"""One file per operator family, all its rules together; importing the package fills the table."""

from verify.ops import (
    arithmetic,
    clip,
    conv,
    gemm,
    max_pool,
    movement,
    relu,
    s_shaped,
    two_piece,
)

__all__ = [
    "arithmetic",
    "clip",
    "conv",
    "gemm",
    "max_pool",
    "movement",
    "relu",
    "s_shaped",
    "two_piece",
]
