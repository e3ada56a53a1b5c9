"""What all affine operators share: interval, pull-back and noise from three primitives.

An affine operator z = W·x + b is given by its forward map, by |W|·x (`absolute`) and by the
adjoint A -> A·W. Everything else follows, whether W is a matrix, a convolution or a permutation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from verify.graph.ir import Node
from verify.ops.registry import Op, register
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import SMALLEST_FLOAT32, UNIT_FLOAT32, Rounding, gamma, unit

EXTRA_ROUNDINGS = 10
"""Roundings beyond the dot product that an execution may add: a separate or folded bias (1), Gemm's
alpha and beta (2), batch normalisation folded into the weights or not (up to 8)."""

Fan = Callable[[Node], tuple[int, int]]


def dot_constant(coeff: Tensor, vector: Tensor) -> Tensor:
    """Rows times a constant vector; coeff (batch, row, *node), vector broadcastable to the node."""
    node_shape = coeff.shape[2:]
    return torch.mv(
        coeff.reshape(-1, node_shape.numel()), vector.expand(node_shape).reshape(-1)
    ).view(coeff.shape[:2])


def affine(
    name: str,
    *,
    forward: Callable[..., Tensor],
    absolute: Callable[..., Tensor],
    adjoint: Callable[[Node, Tensor], tuple[Tensor, ...]],
    fan: Fan,
    bias: str | None = None,
    rows: Callable[[Node, Tensor], Tensor] | None = None,
    mixes: bool = True,
) -> Op:
    """Register an affine operator that rounds.

    Args:
        name: of the operator.
        forward: (node, *inputs) -> W·x + b.
        absolute: (node, *inputs) -> |W|·x, without the bias.
        adjoint: (node, coeff of shape (any, *node)) -> A·W per input, shape (any, *input).
        fan: node -> (terms of one output's sum, terms of one pulled-back entry's sum).
        bias: name of the constant b among the node's tensors, broadcastable to the node after
            `channel_shape`; `<bias>_magnitude` may hold what stands for |b| in error bounds.
        rows: see `Op.rows`.
        mixes: see `Op.mixes`.
    """

    def interval(node: Node, *inputs: Bounds) -> Bounds:
        # centre +- radius:  W·c + b +- |W|·r; the traversal pays for the rounding of both.
        centres = tuple((x.lower + x.upper) / 2 for x in inputs)
        radii = tuple((x.upper - x.lower) / 2 for x in inputs)
        middle, spread = forward(node, *centres), absolute(node, *radii)
        return Bounds(middle - spread, middle + spread)

    def pull_back(node: Node, form: LinearForm, lines: Relaxation | None) -> tuple[LinearForm, ...]:
        # A·(W·x + b) + c  =  (A·W)·x + (A·b + c)
        batch, row = form.coeff.shape[:2]
        first, *rest = adjoint(node, form.coeff.flatten(0, 1))
        const = form.const
        if bias is not None:
            const = const + dot_constant(form.coeff, channelwise(node, node.tensors[bias]))
        head = LinearForm(first.unflatten(0, (batch, row)), const, form.error)
        zeros = torch.zeros_like(const)
        return (head, *(LinearForm(p.unflatten(0, (batch, row)), zeros) for p in rest))

    def noise(node: Node, rounding: Rounding, dtype: torch.dtype, *inputs: Bounds) -> Tensor:
        # (2·gamma_{k+8}(ours) + gamma_{n+extra}(theirs)) · v  with  v = |W|·X + |b|, and underflow.
        forward_terms, backward_terms = fan(node)
        magnitudes = tuple(x.magnitude() for x in inputs)
        reach = absolute(node, *magnitudes)
        if bias is not None:
            size = node.tensors.get(f"{bias}_magnitude", node.tensors[bias].abs())
            reach = reach + channelwise(node, size)
        # A·b sums over the whole node, hence its size.
        ours = 2 * gamma(max(forward_terms, backward_terms, node.size) + 8, unit(dtype))
        theirs = gamma(forward_terms + EXTRA_ROUNDINGS, rounding.execution)
        charge = reach * (ours + theirs)
        if rounding.partial:
            # P = max(sum of positive terms, of negative ones) = (|W|·(p + q) + |W·(p - q)|) / 2
            up = tuple(x.upper.clamp(min=0) for x in inputs)
            down = tuple((-x.lower).clamp(min=0) for x in inputs)
            whole = absolute(node, *(p + q for p, q in zip(up, down, strict=True)))
            zero = forward(node, *(torch.zeros_like(p[:1]) for p in up))
            net = forward(node, *(p - q for p, q in zip(up, down, strict=True))) - zero
            parts = (whole + net.abs()) / 2 + reach * ours
            if bias is not None:
                parts = parts + channelwise(node, size)
            masks = tuple((m > 0).to(m.dtype) for m in magnitudes)
            terms = nonzero_terms(node, absolute, masks, forward_terms)
            closer = by_parts(torch.minimum(parts, reach), reach, terms, rounding.execution)
            charge = torch.minimum(charge, closer + reach * ours)
        # Each of the n products, sums and inputs may lose one smallest normal number; what is lost
        # in an input is multiplied by the largest weight, hence the factor.
        largest = 1.0 + max((float(t.abs().max()) for t in node.tensors.values()), default=1.0)
        biggest = torch.stack([m.flatten(1).amax(dim=1) for m in magnitudes]).amax(dim=0)
        flushed = 2 * (forward_terms + EXTRA_ROUNDINGS) * rounding.smallest * (biggest + largest)
        # Past the largest float32 an execution holds infinity or NaN, not a rounded number.
        safe = forward_terms * (biggest + 1.0) * largest < rounding.largest
        flushed = torch.where(safe, flushed, torch.inf)
        charge = charge + flushed.view(-1, *[1] * len(node.shape))
        if "single" in node.settings:
            charge = charge + single_noise(node, reach, biggest, backward_terms)
        return charge

    return register(
        Op(
            name=name,
            forward=forward,
            interval=interval,
            pull_back=pull_back,
            noise=noise,
            rounds=True,
            rows=rows,
            absolute=absolute,
            fan=fan,
            mixes=mixes,
        )
    )


def single_noise(node: Node, reach: Tensor, biggest: Tensor, terms: int) -> Tensor:
    """What pulling rows back in float32 costs, as if an executed entry were off by it.

    A sum of n products in float32, of rows and weights that were rounded to float32, is off by
    gamma_{n+2}·(|A|·|W|), and each of 2n operations and 2n roundings may lose one smallest normal
    number, times the other factor. Rows are scaled so that max |A| >= 1/2: the sum over all inputs
    of what is lost, times X, is |A|·noise if each entry of the noise holds twice of it.

    Args:
        node: a convolution whose rows are pulled back so.
        reach: |W|·X + |b|, shape (batch, *node).
        biggest: max X, shape (batch,).
        terms: n.
    """
    largest = 1.0 + float(node.tensors["weight"].abs().max())
    inputs = sum(torch.Size(shape).numel() for shape in node.input_shapes)
    lost = 16.0 * terms * SMALLEST_FLOAT32 * largest * inputs * biggest
    # 8 roundings more than there are pay for the few operations of this charge itself.
    return reach * gamma(terms + 10, UNIT_FLOAT32) + lost.view(-1, *[1] * len(node.shape))


def nonzero_terms(
    node: Node, absolute: Callable[..., Tensor], masks: tuple[Tensor, ...], most: int
) -> Tensor:
    """How many terms of a sum may be other than 0, at most `most`; broadcastable to the node.

    Args:
        node: affine.
        absolute: its |W|·x.
        masks: 1 where an input may be other than 0, shape (batch, *input).
        most: the terms of one sum.
    """
    weight = node.tensors.get("weight")
    if weight is None:
        return masks[0].new_full((), most)
    tensors = {**node.tensors, "weight": torch.ones_like(weight)}
    return absolute(replace(node, tensors=tensors), *masks).round().clamp(max=most)


def by_parts(parts: Tensor, reach: Tensor, terms: Tensor, roundoff: float) -> Tensor:
    """What an execution of sums may be off by, where no part of a sum is larger than `parts`.

    Each of n + c roundings is of one partial sum, of at most `parts` and what it is off by itself;
    or it is of one term, at most c of those each. Terms that are 0 add nothing and round nothing.

    Args:
        parts: bounds what any of the terms sum to.
        reach: |W|·X + |b|.
        terms: n, broadcastable to both.
        roundoff: u of the execution.
    """
    product = (terms + EXTRA_ROUNDINGS) * roundoff
    steps = torch.where(product < 0.5, product / (1 - product) * (1 + 2.0**-40), torch.inf)
    return steps * parts + (gamma(EXTRA_ROUNDINGS, roundoff) + steps.square()) * reach


MAGNITUDES: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""|W| of weights in use, kept as long as they are: taking it anew costs as much as using it."""


def magnitude_of(weight: Tensor) -> Tensor:
    """|W|, computed once per weight."""
    if weight not in MAGNITUDES:
        MAGNITUDES[weight] = weight.abs()
    found: Tensor = MAGNITUDES[weight]
    return found


def channelwise(node: Node, constant: Tensor) -> Tensor:
    """A per-channel constant of a convolution, shaped to broadcast over its positions."""
    if node.op in ("Conv", "ConvTranspose"):
        return constant.view(-1, *[1] * (len(node.shape) - 1))
    return constant
