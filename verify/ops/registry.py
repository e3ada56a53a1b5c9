"""Op: everything that is known of one operator; and the table of them all.

Rules work on whole batches. They bound from below only; upper bounds are negated lower bounds of
the negation. Rounding is kept out of the rules: an operator states one vector, `noise`, and the
walks in `verify.traverse` charge it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.errors import UnsupportedOperator
from verify.graph.ir import Node
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding


@dataclass(frozen=True, slots=True)
class Op:
    """The rules of one operator.

    Attributes:
        name: as in `Node.op`.
        forward: (node, *inputs) -> output; inputs of shape (any, *node).
        interval: (node, *bounds) -> Bounds of the output, before rounding.
        pull_back: (node, form, lines) -> one form per input; constants are in the first.
        noise: (node, rounding, dtype, *input bounds) -> shape (batch, *node): how far one entry of
            the executed output, or of a row's entry pulled back through it in `dtype`, can be off.
            None where both are exact (data movement).
        rounds: whether executing the operator rounds at all; Relu, say, does not.
        relax: (node, bounds, alpha) -> lines, for nonlinear operators; None for affine ones.
            alpha has shape (free, batch, row, *node) with entries in [0, 1], or is None. The bounds
            of further inputs follow alpha.
        undecided: (node, *bounds) -> mask like the bounds: entries whose tightening may help; for
            several inputs a tuple of masks.
        free: how many lines (0, 1 or 2) alpha moves.
        initial: (node, *bounds) -> the alpha of the smallest relaxation, (free, batch, 1, *node).
        ascend: (node, bounds, alpha, coeff, value) -> d bound / d alpha, shape of alpha, where
            coeff and value, shape (batch, row, *node), are a row's coefficient at the node's output
            and its input's value at the row's minimiser. Of further inputs, bounds and values
            follow, alternating.
        along: (node, lines, coeff, *values) -> each row's own line at its input's values, shape
            (batch, row, *node); None where lines are elementwise in the first input.
        rows: (node, index) -> coefficients over the input of the output entries named by `index`,
            shape (*index, *input); a short cut for pulling back one-hot rows, or None.
        absolute: (node, *inputs) -> |W|·x, of affine operators that round.
        fan: node -> (terms of one output's sum, terms of one pulled-back entry), of the same.
        mixes: whether an output entry reads several input entries; if not, interval bounds of it
            are as exact as those of its input.
    """

    name: str
    forward: Callable[..., Tensor]
    interval: Callable[..., Bounds]
    pull_back: Callable[[Node, LinearForm, Relaxation | None], tuple[LinearForm, ...]]
    noise: Callable[..., Tensor | None] | None = None
    rounds: bool = False
    relax: Callable[..., Relaxation] | None = None
    undecided: Callable[..., Tensor | tuple[Tensor, ...]] | None = None
    free: int = 0
    initial: Callable[..., Tensor] | None = None
    ascend: Callable[..., Tensor] | None = None
    along: Callable[..., Tensor] | None = None
    rows: Callable[[Node, Tensor], Tensor] | None = None
    absolute: Callable[..., Tensor] | None = None
    fan: Callable[[Node], tuple[int, int]] | None = None
    mixes: bool = False


REGISTRY: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Enter an operator into the table; names are unique."""
    if op.name in REGISTRY:
        raise ValueError(f"operator {op.name!r} is registered twice; give it another name")
    REGISTRY[op.name] = op
    return op


def lookup(node: Node) -> Op:
    """The rules of `node`'s operator; raises UnsupportedOperator if there are none."""
    try:
        return REGISTRY[node.op]
    except KeyError:
        raise UnsupportedOperator(
            f"no rule for operator {node.op!r} at node {node.name!r} (output shape {node.shape}); "
            f"known operators: {', '.join(sorted(REGISTRY))}; "
            "to add one, write a file in verify/ops (docs/architecture.md)"
        ) from None


def lines_of(node: Node, bounds: tuple[Bounds, ...], alpha: Tensor | None = None) -> Relaxation:
    """The lines of a nonlinear node between the bounds of its inputs."""
    rule = lookup(node).relax
    assert rule is not None
    return rule(node, bounds[0], alpha, *bounds[1:])


def undecided_of(node: Node, bounds: tuple[Bounds, ...], position: int) -> Tensor | None:
    """Mask of one input's entries whose tightening may help, or None where none may."""
    rule = lookup(node).undecided
    if rule is None:
        return None
    found = rule(node, *bounds)
    return found[position] if isinstance(found, tuple) else found


def noise_of(
    node: Node, rounding: Rounding, dtype: torch.dtype, inputs: tuple[Bounds, ...]
) -> Tensor | None:
    """The noise vector of one node, or None where nothing is rounded."""
    rule = lookup(node).noise
    return None if rule is None else rule(node, rounding, dtype, *inputs)
