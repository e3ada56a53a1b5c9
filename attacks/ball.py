"""What an attacker may do: stay within `eps` of the input in the p-norm, and in the input range.

The norm is a value, not a class per norm: an attack asks its region to project, to sample, or for
a direction, and never looks at p.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attacks.errors import AttackInputError
from attacks.region import Region
from attacks.rounding import highest_within

NORMS = (1.0, 2.0, math.inf)


@dataclass(frozen=True, slots=True, eq=False)
class Ball:
    """An Lp ball of radius `eps` around each input, cut by the input range.

    Attributes:
        eps: radius in model input units; a number, or one per sample, shape (batch,). inf means
            that only the range limits the attacker.
        p: inf, 2 or 1.
        lower: least value of the range: a number, or a tensor broadcastable to (batch, *input).
        upper: greatest value, likewise. Both are read in the dtype of the input: for float32
            inputs, a range that ends at 0.1 ends at float32(0.1).

    Raises:
        AttackInputError: if `p` is another norm, or `eps` is negative or NaN.
    """

    eps: float | Tensor
    p: float = math.inf
    lower: float | Tensor = -math.inf
    upper: float | Tensor = math.inf

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        if self.p not in NORMS:
            raise AttackInputError(
                f"Ball has no norm p = {self.p!r}; expected one of inf, 2, 1. "
                "Choose one of these, or write the set as a range with eps = inf."
            )
        if not bool((torch.as_tensor(self.eps) >= 0).all()):
            raise AttackInputError(
                f"Ball needs a radius eps >= 0 in model input units, got {self.eps!r}. "
                "Give a non-negative number, or a tensor of them with shape (batch,)."
            )

    def with_eps(self, eps: float | Tensor) -> "Ball":
        """The same norm and range with another radius."""
        return replace(self, eps=eps)

    def rows(self, index: Tensor, x: Tensor) -> "Ball":
        """The ball of the chosen samples of the batch `x`, which this ball was made for."""

        def chosen(value: float | Tensor, dims: int) -> float | Tensor:
            if isinstance(value, Tensor) and value.dim() == dims and len(value) == len(x):
                return value[index]
            return value

        lower, upper = chosen(self.lower, x.dim()), chosen(self.upper, x.dim())
        return replace(self, eps=chosen(self.eps, 1), lower=lower, upper=upper)

    def around(self, centre: Tensor) -> Region:
        """The set that this ball describes at each of the given inputs.

        Args:
            centre: shape (batch, *input), float32 or float64, within the range.

        Raises:
            AttackInputError: if `centre` is no such batch, or leaves the range, or `eps` or the
                range do not fit its shape.
        """
        check_batch(centre)
        batch = len(centre)
        eps = torch.as_tensor(self.eps, dtype=torch.float64, device=centre.device)
        if eps.shape not in ((), (1,), (batch,)):
            raise AttackInputError(
                f"Ball.eps has shape {tuple(eps.shape)}, but the batch has {batch} samples. "
                f"Give one number, or a tensor of shape ({batch},)."
            )
        eps = eps.expand(batch)
        lower, upper = self.range_like(centre)
        outside = ~((centre >= lower) & (centre <= upper))
        if outside.any():
            row = int(outside.flatten(1).any(dim=1).nonzero()[0])
            worst = torch.maximum(lower - centre, centre - upper).max().item()
            raise AttackInputError(
                f"Ball.around: {int(outside.sum())} input values lie outside the input range, "
                f"first in sample {row}, by {worst:.3g} at most. Expected lower <= x <= upper. "
                "Correct the range, or clamp the inputs to it."
            )
        wide = eps.reshape(batch, *[1] * (centre.dim() - 1))
        return Region(
            centre=centre,
            eps=eps,
            p=float(self.p),
            low=torch.maximum(-highest_within(-centre, wide), lower),
            high=torch.minimum(highest_within(centre, wide), upper),
        )

    def range_like(self, centre: Tensor) -> tuple[Tensor, Tensor]:
        """`lower` and `upper` with the shape and dtype of `centre`."""
        ends = []
        for name, end in (("lower", self.lower), ("upper", self.upper)):
            tensor = torch.as_tensor(end, dtype=centre.dtype, device=centre.device)
            try:
                ends.append(tensor.expand_as(centre))
            except RuntimeError:
                raise AttackInputError(
                    f"Ball.{name} has shape {tuple(tensor.shape)}, which does not broadcast to "
                    f"the inputs' shape {tuple(centre.shape)}. Give a number or a tensor like one "
                    "input; per-channel values need shape (channels, 1, 1)."
                ) from None
        return ends[0], ends[1]

    def project(self, x: Tensor, centre: Tensor) -> Tensor:
        """The nearest point of the set around `centre` to `x`; see `Region.project`."""
        return self.around(centre).project(x)

    def contains(self, x: Tensor, centre: Tensor) -> Tensor:
        """Whether each `x` certainly lies in the set around `centre`; see `Region.contains`."""
        return self.around(centre).contains(x)

    def distance(self, x: Tensor, centre: Tensor) -> Tensor:
        """The p-norm of x - centre, rounded up; shape (batch,), float64."""
        return self.around(centre).distance(x)


def check_batch(x: Tensor) -> None:
    """Refuse what cannot be attacked: integers, half precision, no batch axis, NaN, infinity."""
    if x.dtype not in (torch.float32, torch.float64):
        raise AttackInputError(
            f"An attack needs float32 or float64 inputs, got {x.dtype}. "
            "Convert them to the dtype that the model is fed, scaled as it expects."
        )
    if x.dim() < 2 or x.shape[1:].numel() == 0:
        raise AttackInputError(
            f"An attack needs inputs of shape (batch, *input), got {tuple(x.shape)}. "
            "Add the batch axis: x[None] for one sample, x[:, None] for scalars."
        )
    if not bool(x.isfinite().all()):
        row = int((~x.isfinite()).flatten(1).any(dim=1).nonzero()[0])
        raise AttackInputError(
            f"An attack needs finite inputs, but sample {row} holds NaN or infinity. "
            "Clean the data, or drop that sample."
        )
