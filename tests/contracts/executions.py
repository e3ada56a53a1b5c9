"""Float32 executions of a dot product: orders, trees, fused or not, denormals flushed or not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Single = NDArray[np.float32]
Double = NDArray[np.float64]
SMALLEST = np.float32(2.0**-126)


def flushed(values: Single) -> Single:
    """Denormals as zero."""
    return np.where(np.abs(values) < SMALLEST, np.float32(0), values).astype(np.float32)


def sequential(products: Single, *, flush: bool = False) -> Single:
    """Term after term along the last axis, rounded to float32 each time."""
    total = np.zeros(products.shape[:-1], dtype=np.float32)
    for k in range(products.shape[-1]):
        total = (total + products[..., k]).astype(np.float32)
        total = flushed(total) if flush else total
    return total


def fused(weight: Single, x: Single, bias: Single) -> Single:
    """Fused multiply-adds: one rounding per term, emulated through float64 (x·w is exact there)."""
    total = np.broadcast_to(bias, np.broadcast_shapes(weight.shape[:-1], x.shape[:-1]))
    total = total.astype(np.float32)
    for k in range(weight.shape[-1]):
        wide = weight[..., k].astype(np.float64) * x[..., k].astype(np.float64)
        total = (wide + total.astype(np.float64)).astype(np.float32)
    return total


def pairwise(terms: Single) -> Single:
    """A balanced tree of sums."""
    while terms.shape[-1] > 1:
        if terms.shape[-1] % 2:
            terms = np.concatenate((terms, np.zeros_like(terms[..., :1])), axis=-1)
        terms = (terms[..., ::2] + terms[..., 1::2]).astype(np.float32)
    return terms[..., 0]


def executions(weight: Double, bias: Double, x: Double, seed: int) -> Iterator[Single]:
    """Many float32 values of W·x + b.

    Args:
        weight: shape (out, in), float32 numbers.
        bias: shape (out,).
        x: shape (points, in), float32 numbers.
        seed: of the orders.

    Yields:
        Arrays of shape (points, out).
    """
    generator = np.random.default_rng(seed)
    w, b, points = weight.astype(np.float32), bias.astype(np.float32), x.astype(np.float32)
    size = np.abs(w)[None] * np.abs(points)[:, None]
    mean = size.mean(axis=(0, 1))
    orders = [np.argsort(mean), np.argsort(-mean)]
    orders += [generator.permutation(w.shape[1]) for _ in range(4)]
    for order in orders:
        products = (w[None] * points[:, None]).astype(np.float32)[..., order]
        yield (sequential(products) + b).astype(np.float32)
        first = np.broadcast_to(b[None, :, None], (*products.shape[:2], 1))
        yield sequential(np.concatenate((first, products), axis=-1))
        yield (pairwise(products) + b).astype(np.float32)
        yield fused(w[None][..., order], points[:, None][..., order], b)
        small = flushed((flushed(w)[None] * flushed(points)[:, None]).astype(np.float32))
        yield flushed((sequential(small[..., order], flush=True) + flushed(b)).astype(np.float32))
