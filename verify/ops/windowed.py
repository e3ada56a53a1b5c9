"""How forms kept as windows are pulled back; what has no rule here is laid out densely first.

The rules mirror the dense ones of each operator and are tested against them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from verify.graph.ir import Node
from verify.ops.conv import by_phases, is_single, phases_of, pulled_single, transposed
from verify.ops.registry import lookup
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.window import Phases, Window

DENSE_SHARE = 0.6
"""A patch that covers more of the map than this is laid out densely: nothing is saved."""


def dense(form: LinearForm, shape: tuple[int, ...]) -> LinearForm:
    """The same form with coefficients over the whole map."""
    if form.phases is not None:
        form = joined(form, shape)
    if form.window is None:
        return form
    return LinearForm(form.window.scatter(form.coeff, shape), form.const, form.error)


def joined(form: LinearForm, shape: tuple[int, ...]) -> LinearForm:
    """The same form with its phases interleaved again."""
    assert form.phases is not None
    whole = shape
    if form.window is not None:
        height, width = kernel_of(form.coeff)
        whole = (shape[0], height * form.phases.step, width * form.phases.step)
    coeff = form.phases.joined(form.coeff, whole)
    return LinearForm(coeff, form.const, form.error, form.window)


def blocks(coeff: Tensor, window: Window) -> Tensor:
    """Rows split into blocks: (batch, repeats, places, channels, *kernel)."""
    split: Tensor = coeff.unflatten(1, (window.repeats, window.place.shape[1]))
    return split


def kernel_of(coeff: Tensor) -> tuple[int, int]:
    """Height and width of the patches."""
    return coeff.shape[-2], coeff.shape[-1]


def total(product: Tensor) -> Tensor:
    """Sum over the patch: (batch, repeats, places, ...) -> (batch, row)."""
    return product.flatten(3).sum(dim=3).flatten(1)


def weighed_window(coeff: Tensor, window: Window, vector: Tensor) -> Tensor:
    """|A|·v for v over the map, shape (batch, *node); gives (batch, row)."""
    split = blocks(coeff, window).abs()
    values = window.gather(vector.expand(len(coeff), *vector.shape[1:]), kernel_of(coeff))
    return dotted(split, values)


def dotted(split: Tensor, values: Tensor) -> Tensor:
    """Sum over patches of split · values, values shared by the blocks; gives (batch, row)."""
    return torch.einsum("bkpn,bpn->bkp", split.flatten(3), values[:, 0].flatten(2)).flatten(1)


def pull_conv(node: Node, form: LinearForm, lines: Relaxation | None) -> LinearForm | None:
    """The transposed convolution on patches; they grow by the kernel."""
    assert form.window is not None
    weight, bias = node.tensors["weight"], node.tensors["bias"]
    if weight.ndim != 4 or node.settings["dilation"] != (1, 1):
        return None
    window, kernel = form.window, kernel_of(form.coeff)
    coeff = form.coeff
    if window.overhangs(node.shape, kernel):
        split = blocks(coeff, window)
        coeff = (split * window.inside(node.shape, kernel, coeff)).flatten(1, 2)
    const = form.const + torch.einsum("brcyx,c->br", coeff, bias)
    stride = (node.settings["stride"][0], node.settings["stride"][1])
    padding = (node.settings["padding"][0], node.settings["padding"][1])
    rows, groups = coeff.flatten(0, 1), node.scalar("groups")
    if is_single(node, rows):
        pulled = pulled_single(rows, node, stride=stride, groups=groups)
    else:
        pulled = transposed(rows, weight, stride, groups)
    return LinearForm(
        pulled.unflatten(0, coeff.shape[:2]), const, form.error, window.through(stride, padding)
    )


def pull_lines(node: Node, form: LinearForm, lines: Relaxation | None) -> LinearForm | None:
    """A+·lower + A-·upper on patches; overhanging cells meet slope 0 and offset 0."""
    assert form.window is not None
    assert lines is not None
    if lines.lower_source is not None or lines.second is not None or lines.mixed:
        return None
    if lines.lower_slope.shape[1] != 1:
        return None
    window, kernel = form.window, kernel_of(form.coeff)
    split = blocks(form.coeff, window)
    negative = split.clamp(max=0)
    const = form.const

    def patch(values: Tensor) -> Tensor:
        return window.gather(values[:, 0], kernel)

    if lines.upper_offset is not None:
        const = const + dotted(negative, patch(lines.upper_offset))
    if lines.lower_offset is not None:
        const = const + dotted(split - negative, patch(lines.lower_offset))
    lower = patch(lines.lower_slope)
    coeff = (split * lower).addcmul_(negative, patch(lines.upper_slope) - lower)
    return LinearForm(coeff.flatten(1, 2), const, form.error, window)


def pull_scale_shift(node: Node, form: LinearForm, lines: Relaxation | None) -> LinearForm | None:
    """A·diag(scale) on patches."""
    assert form.window is not None
    window, kernel = form.window, kernel_of(form.coeff)
    split = blocks(form.coeff, window)
    scale = node.tensors["scale"].expand(node.shape)[None]
    shift = node.tensors["shift"].expand(node.shape)[None]
    const = form.const + dotted(split, window.gather(shift, kernel))
    coeff = split * window.gather(scale, kernel)
    return LinearForm(coeff.flatten(1, 2), const, form.error, window)


def pull_into_box(node: Node, form: LinearForm) -> LinearForm | None:
    """A strided convolution at the input of a network, left as phases; None where that is not it.

    Whoever asks for this must minimise over a box, or join the phases again.
    """
    weight = node.tensors.get("weight")
    if node.op != "Conv" or weight is None or weight.ndim != 4 or weight.shape[2] == 1:
        return None
    stride, padding = node.settings["stride"], node.settings["padding"]
    if not by_phases(
        weight, stride, node.settings["dilation"], node.scalar("groups"), form.coeff.dtype
    ):
        return None
    window = form.window
    if window is not None and patch_share(form, node.shape) > DENSE_SHARE:
        form = dense(form, node.shape)
        window = None
    coeff = form.coeff
    if window is not None and window.overhangs(node.shape, kernel_of(coeff)):
        split = blocks(coeff, window)
        coeff = (split * window.inside(node.shape, kernel_of(coeff), coeff)).flatten(1, 2)
    const = form.const + torch.einsum("brcyx,c->br", coeff, node.tensors["bias"])
    step = stride[0]
    parts = phases_of(coeff.flatten(0, 1), weight, step).unflatten(0, coeff.shape[:2])
    if window is not None:
        window = window.through((step, step), (padding[0], padding[1]))
        return LinearForm(parts, const, form.error, window, Phases(step, 0, 0))
    return LinearForm(parts, const, form.error, None, Phases(step, padding[0], padding[1]))


Rule = Callable[[Node, LinearForm, Relaxation | None], LinearForm | None]

WINDOW_RULES: dict[str, Rule] = {"Conv": pull_conv, "ScaleShift": pull_scale_shift}
"""Operators with a rule of their own; elementwise nonlinear ones share `pull_lines`."""


def pull_back_window(
    node: Node, form: LinearForm, lines: Relaxation | None
) -> tuple[LinearForm, ...]:
    """Pull a form back through a node, as windows where that works and pays."""
    op = lookup(node)
    if form.window is None or patch_share(form, node.shape) > DENSE_SHARE:
        return op.pull_back(node, dense(form, node.shape), lines)
    if node.op == "Add":
        zeros = torch.zeros_like(form.const)
        parts = []
        for i, sign in enumerate(node.settings["signs"]):
            coeff = form.coeff if sign == 1 else -form.coeff
            const, error = (form.const, form.error) if i == 0 else (zeros, None)
            parts.append(LinearForm(coeff, const, error, form.window))
        return tuple(parts)
    rule = WINDOW_RULES.get(node.op)
    if rule is None and op.relax is not None:
        rule = pull_lines
    found = None if rule is None else rule(node, form, lines)
    return op.pull_back(node, dense(form, node.shape), lines) if found is None else (found,)


def patch_share(form: LinearForm, shape: tuple[int, ...]) -> float:
    """How much of the map a patch covers."""
    height, width = kernel_of(form.coeff)
    return height * width / (shape[1] * shape[2])


def aligned(old: LinearForm, new: LinearForm, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Coefficients of two forms in one common layout: `common_window` says which."""
    window = common_window(old, new)
    if window is None:
        return dense(old, shape).coeff, dense(new, shape).coeff
    assert old.window is not None
    assert new.window is not None
    first = old.window.grown(old.coeff, new.window, kernel_of(new.coeff))
    second = new.window.grown(new.coeff, old.window, kernel_of(old.coeff))
    return first, second


def common_window(old: LinearForm, new: LinearForm) -> Window | None:
    """The window that covers both forms, or None if they are best added densely."""
    if old.window is None or new.window is None or old.window.stride != new.window.stride:
        return None
    return old.window.union(new.window)
