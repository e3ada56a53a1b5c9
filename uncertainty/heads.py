"""Heads that predict a distribution: a mean and a log-variance for each target, and their losses.

The network's last axis holds D means, then D log-variances s = log sigma^2. Losses keep the
constant log 2 pi, so that numbers compare with a density's.
"""

import math

import torch
from torch import Tensor, nn

from uncertainty.errors import UncertaintyInputError

LOG_VARIANCE_RANGE = (math.log(1e-6), math.log(1e6))
"""Of a standardised target. Without a lower end one repeated target drives the loss to -inf."""


def split_gaussian(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Means and clamped log-variances from a network's output, each of shape (..., D).

    Raises:
        UncertaintyInputError: if the last axis cannot be halved.
    """
    if outputs.ndim < 1 or outputs.shape[-1] % 2 or not outputs.shape[-1]:
        raise UncertaintyInputError(
            f"outputs have shape {tuple(outputs.shape)}, expected (..., 2 D): D means, then D "
            "log-variances. End the network in uncertainty.GaussianHead."
        )
    mean, log_variance = outputs.chunk(2, dim=-1)
    return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)


class GaussianHead(nn.Module):
    """A linear layer to D means and D log-variances, the latter clamped.

    Args:
        features: number of inputs of the head.
        targets: D.

    Source:
        Nix and Weigend 1994; s = log sigma^2 as in Kendall and Gal 2017, arXiv:1703.04977.
    """

    def __init__(self, features: int, targets: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 2 * targets)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., features) -> (..., 2 D)."""
        return torch.cat(split_gaussian(self.linear(x)), dim=-1)


def gaussian_nll(mean: Tensor, log_variance: Tensor, y: Tensor, *, beta: float = 0.0) -> Tensor:
    """Negative log-likelihood of each target, in nats, same shape as `y`.

    (s + (y - mu)^2 exp(-s) + log 2 pi) / 2, times stop_gradient(sigma^(2 beta)).

    Args:
        mean: mu, any shape.
        log_variance: s, same shape.
        y: targets, same shape.
        beta: 0 is the likelihood; 0.5 keeps the mean from being given up where the variance is
            large (the value is then no log-likelihood any more; only its gradient is of use).

    Raises:
        UncertaintyInputError: if the shapes differ, or beta is not in [0, 1].

    Source:
        beta-NLL: Seitzer et al. 2022, arXiv:2203.09168.
    """
    if not mean.shape == log_variance.shape == y.shape:
        raise UncertaintyInputError(
            f"mean {tuple(mean.shape)}, log-variance {tuple(log_variance.shape)} and y "
            f"{tuple(y.shape)} differ in shape; give y one value for each mean."
        )
    if not 0 <= beta <= 1:
        raise UncertaintyInputError(f"beta is {beta}, expected 0 to 1; 0 is the likelihood itself.")
    loss = 0.5 * (log_variance + (y - mean) ** 2 * torch.exp(-log_variance) + math.log(2 * math.pi))
    if beta == 0:
        return loss
    return loss * torch.exp(beta * log_variance).detach()
