"""Lower bounds of z_label - z_j over a box: by intervals, and by CROWN back through them.

Both are differentiable in the weights, in the module's own dtype, without accounting for rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from attacks.defences.reach import SUMS, Reach, Traced, argument, unsupported


def worst_case_loss(margins: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of the worst logits that these margins allow: 0 at y, -margin elsewhere.

    Source:
        Wong, Kolter 2018, arXiv:1711.00851; Gowal et al. 2018, arXiv:1810.12715, equation 9.
    """
    return functional.cross_entropy(-margins, labels)


def interval_margins(traced: Traced, found: dict[fx.Node, Reach], labels: Tensor) -> Tensor:
    """z_y - z_j bounded from below, shape (batch, classes); 0 at the label itself.

    A last layer that is linear is merged with the difference ("elided"), which is exact for it:
        (W_y - W_j) c + b_y - b_j - |W_y - W_j| r
    Otherwise the ends of the logits' own intervals are subtracted.

    Source:
        Gowal et al. 2018, arXiv:1810.12715, section 3.
    """
    layer = traced.layer_of(traced.last)
    if isinstance(layer, nn.Linear):
        before = found[argument(traced.last)]
        difference = layer.weight[labels][:, None] - layer.weight  # (batch, classes, in)
        middle = torch.einsum("bki,bi->bk", difference, before.centre)
        spread = torch.einsum("bki,bi->bk", difference.abs(), before.radius)
        bias = 0.0 if layer.bias is None else layer.bias[labels][:, None] - layer.bias
        return middle - spread + bias
    logits = found[traced.last]
    own = logits.lower.gather(1, labels[:, None])
    return (own - logits.upper).scatter(1, labels[:, None], 0.0)


def crown_margins(traced: Traced, found: dict[fx.Node, Reach], labels: Tensor) -> Tensor:
    """The same by linear bounds pulled back to the input, between the interval bounds of `found`.

    Source:
        CROWN-IBP: Zhang et al. 2020, arXiv:1906.06316.
    """
    logits = found[traced.last].clean
    classes = logits.shape[1]
    one = torch.eye(classes, dtype=logits.dtype, device=logits.device)
    coeff = one[labels][:, None] - one  # (batch, rows, classes)
    pending, const = {traced.last: coeff}, logits.new_zeros(len(labels), classes)
    for node in reversed(traced.nodes):
        if node not in pending:
            continue
        form = pending[node]
        if node.op == "placeholder":
            box = found[node]
            middle = torch.einsum("brn,bn->br", form.flatten(2), box.centre.flatten(1))
            spread = torch.einsum("brn,bn->br", form.flatten(2).abs(), box.radius.flatten(1))
            return const + middle - spread
        layer = traced.layer_of(node)
        if layer is not None:
            source = argument(node)
            form, more = pulled(layer, form, found[source], found[node])
            pieces = {source: form}
        else:
            pieces, more = pulled_combination(traced, node, form, found)
        const = const + more
        for source, piece in pieces.items():
            pending[source] = pending[source] + piece if source in pending else piece
    raise unsupported("a module that ignores its input")


def pulled(layer: nn.Module, form: Tensor, x: Reach, y: Reach) -> tuple[Tensor, Tensor | float]:
    """A form at a layer's output as one at its input that is nowhere larger, and its constant.

    Args:
        form: coefficients, shape (batch, rows, *out).
        x, y: reach of the layer's input and output.
    """
    if isinstance(layer, nn.Linear):
        const = 0.0 if layer.bias is None else form @ layer.bias
        return form @ layer.weight, const
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        assert y.scale is not None
        assert y.shift is not None
        shift = (form * y.shift[:, None]).flatten(2).sum(dim=2)
        return form * y.scale[:, None], shift
    if isinstance(layer, nn.MaxPool2d | nn.Softplus):
        raise unsupported(f"{type(layer).__name__} by CROWN (interval methods have)")
    if isinstance(layer, nn.ReLU | nn.LeakyReLU | nn.Sigmoid | nn.Tanh):
        return through_lines(layer, form, x)
    return through_linear(layer, form, x)


def through_linear(layer: nn.Module, form: Tensor, x: Reach) -> tuple[Tensor, Tensor]:
    """Through a convolution, a pool or a flatten: by the adjoint that autograd knows."""
    flat = form.flatten(0, 1)
    with torch.enable_grad():
        zero = x.lower.new_zeros(len(flat), *x.lower.shape[1:]).requires_grad_()
        out = layer(zero)
        (back,) = torch.autograd.grad(out, zero, flat, create_graph=True)
    const = (flat * out).flatten(1).sum(dim=1)  # the layer at 0 is its bias
    return back.view(*form.shape[:2], *x.lower.shape[1:]), const.view(form.shape[:2])


def through_lines(layer: nn.Module, form: Tensor, x: Reach) -> tuple[Tensor, Tensor]:
    """Through an activation: its lower line under positive coefficients, its upper under others."""
    if isinstance(layer, nn.ReLU):
        low, high = x.lower.clamp(max=0), x.upper.clamp(min=0)
        # Guarded before the division: where() alone would leave a NaN gradient at 0 / 0.
        upper_slope = high / torch.where(high > low, high - low, 1.0)
        lower_slope = torch.where(x.lower >= 0, 1.0, (x.upper > -x.lower).to(high.dtype))
        lower_slope = torch.where(x.upper <= 0, 0.0, lower_slope)
        lower_const, upper_const = torch.zeros_like(low), -upper_slope * low
    else:
        # The slope is smallest at an end, so f grows at least that fast from either end:
        # f(l) + k (x - l) <= f(x) <= f(u) + k (x - u).
        low, high = layer(x.lower), layer(x.upper)
        lower_slope = upper_slope = torch.minimum(
            slope_at(layer, x.lower, low), slope_at(layer, x.upper, high)
        )
        lower_const, upper_const = low - lower_slope * x.lower, high - upper_slope * x.upper
    up, down = form.clamp(min=0), form.clamp(max=0)
    const = (up * lower_const[:, None] + down * upper_const[:, None]).flatten(2).sum(dim=2)
    return up * lower_slope[:, None] + down * upper_slope[:, None], const


def slope_at(layer: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The derivative at x of an activation with value y."""
    if isinstance(layer, nn.LeakyReLU):
        return torch.where(x > 0, 1.0, layer.negative_slope).to(x.dtype)
    return y * (1 - y) if isinstance(layer, nn.Sigmoid) else 1 - y.square()


def pulled_combination(
    traced: Traced, node: fx.Node, form: Tensor, found: dict[fx.Node, Reach]
) -> tuple[dict[fx.Node, Tensor], Tensor | float]:
    """Through a sum of branches, or a constant added or multiplied."""
    first, other = argument(node), node.args[1]
    if node.target in SUMS and other in found:
        if other is first:
            return {first: 2 * form}, 0.0
        return {first: form, other: form}, 0.0  # type: ignore[dict-item]  # a node, as it is found
    value = traced.constant(other)
    like = torch.as_tensor(value, dtype=form.dtype, device=form.device)
    name = getattr(node.target, "__name__", str(node.target))
    if name in {"add", "sub"}:
        sign = 1.0 if name == "add" else -1.0
        whole = like.expand_as(found[node].lower)[:, None]
        return {first: form}, sign * (form * whole).flatten(2).sum(dim=2)
    factor = like if name == "mul" else 1 / like
    return {first: form * factor.expand_as(found[node].lower)[:, None]}, 0.0
