"""The only walks over a graph: run it, propagate intervals, pull linear forms back.

The walks know no method. Rounding is charged here and nowhere else: intervals are widened by each
node's noise, and a pulled-back row A pays |A|·noise at every node it passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from verify.graph.ir import Graph, Node
from verify.ops.registry import lookup, noise_of
from verify.ops.windowed import (
    aligned,
    common_window,
    dense,
    pull_back_window,
    pull_into_box,
    weighed_window,
)
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding, unit
from verify.values.window import Window


def evaluate(graph: Graph, x: Tensor) -> dict[str, Tensor]:
    """The value of every node at inputs of shape (batch, *input)."""
    values = {graph.input.name: x}
    for node in graph.nodes[1:]:
        values[node.name] = lookup(node).forward(node, *(values[i] for i in node.inputs))
    return values


def run(graph: Graph, x: Tensor) -> Tensor:
    """The network's output, shape (batch, *output), in the dtype of its weights."""
    return evaluate(graph, x.to(graph.dtype))[graph.output.name]


def interval_step(node: Node, rounding: Rounding | None, inputs: tuple[Bounds, ...]) -> Bounds:
    """Bounds of one node from those of its inputs, widened for rounding unless that is None."""
    op = lookup(node)
    found = op.interval(node, *inputs)
    if rounding is None or not op.rounds:
        return found
    noise = noise_of(node, rounding, found.lower.dtype, inputs)
    return found if noise is None else Bounds(found.lower - noise, found.upper + noise)


def propagate(graph: Graph, start: Bounds, rounding: Rounding | None = None) -> dict[str, Bounds]:
    """Interval bounds of every node (IBP).

    Args:
        graph: the network.
        start: bounds of the input, shape (batch, *input).
        rounding: which executions the bounds must hold for; None for plain arithmetic.

    Source:
        Gowal et al. 2018, arXiv:1810.12715.
    """
    bounds = {graph.input.name: start}
    for node in graph.nodes[1:]:
        bounds[node.name] = interval_step(node, rounding, tuple(bounds[i] for i in node.inputs))
    return bounds


def merged(
    old: LinearForm, new: LinearForm, shape: tuple[int, ...], size: Tensor | None
) -> LinearForm:
    """The sum of two forms at one node; `size` (|x| there) pays for rounding the sum."""
    if old.window is None and new.window is None:
        window, coeff = None, old.coeff + new.coeff
    else:
        window = common_window(old, new)
        first, second = aligned(old, new, shape)
        coeff = first + second
    const = old.const + new.const
    if old.error is None and new.error is None:
        return LinearForm(coeff, const, None, window)
    error = torch.zeros_like(const)
    for part in (old.error, new.error):
        if part is not None:
            error = error + part
    if size is not None:
        error = error + weighed(coeff, window, size) * (2 * unit(coeff.dtype))
    return LinearForm(coeff, const, error + const.abs() * (2 * unit(coeff.dtype)), window)


def weighed(coeff: Tensor, window: Window | None, vector: Tensor) -> Tensor:
    """|A|·v for v of shape (batch, *node); gives (batch, row)."""
    if window is not None:
        return weighed_window(coeff, window, vector)
    return torch.matmul(coeff.flatten(2).abs(), vector.flatten(1)[:, :, None])[:, :, 0]


def pull_back(
    graph: Graph,
    start: str,
    form: LinearForm,
    lines: Mapping[str, Relaxation],
    *,
    noise: Mapping[str, Tensor] | None = None,
    sizes: Mapping[str, Tensor] | None = None,
    record: dict[str, Tensor] | None = None,
    into_box: bool = False,
    added: Mapping[str, LinearForm] | None = None,
    instead: Mapping[str, Callable[[LinearForm], LinearForm]] | None = None,
    check: Callable[[], None] | None = None,
) -> LinearForm:
    """A linear form in the network's input that lower-bounds `form`, stated at node `start`.

    Args:
        graph: the network.
        start: name of the node that the form is over.
        form: coefficients of shape (batch, row, *start).
        lines: the chosen relaxation of each nonlinear node. Choosing is the bounder's business.
        noise: per node, how far an executed entry can be off, shape (batch, *node); a row pays
            |A|·noise. None to leave rounding out; then the form must carry no error.
        sizes: per node, the largest |value|, shape (batch, *node); needed with noise.
        into_box: whether the caller only minimises over a box; then the form may come back as
            phases, see `verify.values.window`.
        record: if given, filled with the coefficients met at the output of each nonlinear node.
        added: forms to add on the way, by the node they are over, each an ancestor of `start` or
            `start` itself: multipliers of constraints on nodes, or rows of another node.
        instead: what takes a dense row past a node with one input, in place of its own rule.
        check: called at every node that a row meets; raises where time is over.

    Returns:
        Coefficients of shape (batch, row, *input), or a window over the input.
    """
    pending = {start: form}
    readers = sum(graph.input.name in node.inputs for node in graph.nodes)
    for node in reversed(graph.nodes[1:]):
        if node.name not in pending:
            continue  # after `start`, or not an ancestor of it
        if check is not None:
            check()
        here = pending.pop(node.name)
        if added is not None and node.name in added:
            size = sizes[node.name] if sizes else None
            here = merged(here, added[node.name], node.shape, size)
        op = lookup(node)
        if record is not None and op.relax is not None:
            record[node.name] = dense(here, node.shape).coeff
        if into_box and readers == 1 and node.inputs == (graph.input.name,) and noise is None:
            whole = pull_into_box(node, here)
            if whole is not None:
                return whole
        if instead is not None and node.name in instead:
            taken = instead[node.name](dense(here, node.shape))
            pieces: tuple[LinearForm, ...] = (taken,)
            # What the rule charges itself: operators leave all charging to `charged`.
            here = LinearForm(here.coeff, here.const, taken.error, here.window)
        else:
            pieces = pull_back_window(node, here, lines.get(node.name))
        if noise is not None:
            pieces = charged(here, pieces, noise.get(node.name))
        for name, shape, piece in zip(node.inputs, node.input_shapes, pieces, strict=True):
            if name in pending:
                size = sizes[name] if sizes else None
                pending[name] = merged(pending[name], piece, shape, size)
            else:
                pending[name] = piece
    return pending[graph.input.name]


def charged(
    here: LinearForm, pieces: tuple[LinearForm, ...], noise: Tensor | None
) -> tuple[LinearForm, ...]:
    """The pulled-back forms with this node's rounding added to the first one's error."""
    first, *rest = pieces
    error = here.error if here.error is not None else torch.zeros_like(here.const)
    error = error + (first.const.abs() + here.const.abs()) * (4 * unit(first.const.dtype))
    if noise is not None:
        error = error + weighed(here.coeff, here.window, noise)
    others = (LinearForm(p.coeff, p.const, torch.zeros_like(p.const), p.window) for p in rest)
    return (LinearForm(first.coeff, first.const, error, first.window), *others)
