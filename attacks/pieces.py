"""The linear pieces of a ReLU net, of any callable: kinks are watched where torch computes them.

A piece is named by its pattern: which units are active. On its pattern the net is affine, and that
affine function can be evaluated anywhere, also outside the piece, by holding the pattern fast. What
is not watched (max pooling, code outside torch) stays as it is; then pieces are only approximately
affine, and whoever uses them must ask the model itself about what they suggest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# (batch, *input) -> logits, as in `attacks.protocol`, which imports nothing from here.
Callee = Callable[[Tensor], Tensor]
RELUS = frozenset(
    (torch.relu, torch.relu_, functional.relu, functional.relu_, Tensor.relu, Tensor.relu_)
)
CLAMPS = frozenset((torch.clamp, torch.clip, Tensor.clamp, Tensor.clip))
LEAST = frozenset((torch.clamp_min, Tensor.clamp_min))
LEAKY = frozenset((functional.leaky_relu,))
ABSOLUTES = frozenset((torch.abs, torch.absolute, Tensor.abs, Tensor.absolute))


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What a net computes, and on which side of its kinks.

    Attributes:
        logits: shape (rows, classes).
        kinks: shape (rows, units): the value before each ReLU; a unit is active where positive.
    """

    logits: Tensor
    kinks: Tensor


class Watch(TorchFunctionMode):
    """Records what enters each kink, and may hold the kinks on given sides.

    Attributes:
        seen: the tensors, in the order in which the model computes them.
    """

    def __init__(self, rows: int, active: Tensor | None = None) -> None:
        """With `active`, bool of shape (rows, units), each unit is linear: as it is on that side.

        Args:
            rows: of the batch; a kink whose tensor has another first axis is not watched.
            active: None to let the model be itself.
        """
        super().__init__()
        self.rows = rows
        self.active = active
        self.seen: list[Tensor] = []
        self.place = 0

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Let every function be, but those with a kink."""
        named = dict(kwargs or {})
        slope = slope_below(func, args, named)
        z = args[0] if args else None
        if slope is None or not isinstance(z, Tensor) or not z.is_floating_point():
            return func(*args, **named)
        if z.dim() < 2 or len(z) != self.rows:
            return func(*args, **named)
        # A copy: the function may work in place.
        self.seen.append(z.flatten(1).clone())
        if self.active is None:
            return func(*args, **named)
        size = z[0].numel()
        side = self.active[:, self.place : self.place + size].view_as(z)
        self.place += size
        return torch.where(side, z, slope * z if slope else torch.zeros_like(z))


def slope_below(func: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> float | None:
    """The slope below 0 of a function that is the identity above it; None for other functions."""
    if func in RELUS:
        return 0.0
    if func in LEAKY:
        return float(named.get("negative_slope", args[1] if len(args) > 1 else 0.01))
    if func in ABSOLUTES:
        return -1.0
    if func in CLAMPS | LEAST:
        low = named.get("min", args[1] if len(args) > 1 else None)
        high = named.get("max", args[2] if len(args) > 2 else None)
        is_zero = isinstance(low, int | float) and low == 0
        return 0.0 if is_zero and high is None else None
    return None


def trace(model: Callee, points: Tensor, active: Tensor | None = None) -> Trace:
    """The model at some points, or the affine function of a pattern.

    Args:
        model: see `attacks.protocol.Model`.
        points: shape (rows, *input); gradients flow to it if it requires them.
        active: shape (rows, units), bool: the pattern to hold; None for the model itself.
    """
    with Watch(len(points), active) as watch:
        logits = model(points)
    if not watch.seen:
        return Trace(logits, logits.new_zeros(len(points), 0))
    return Trace(logits, torch.cat(watch.seen, dim=1))
