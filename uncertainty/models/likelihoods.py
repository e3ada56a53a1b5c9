"""What a network's outputs mean: the likelihood that training, posteriors and predictions share.

Categorical              outputs (N, K): logits
HeteroscedasticGaussian  outputs (N, 2 D): means, then log-variances
FixedGaussian            outputs (N, D): means; the noise is given
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from uncertainty.errors import UncertaintyInputError
from uncertainty.heads import gaussian_nll, split_gaussian
from uncertainty.predictions import CategoricalMixture, GaussianMixture


class Likelihood(Protocol):
    """Of targets, given a network's outputs."""

    def targets(self, y: ArrayLike | Tensor, outputs: Tensor) -> Tensor:
        """The targets as the loss takes them, checked against outputs of one sample or more."""

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Negative log-likelihood of each sample, shape (N,), in nats."""

    def training_loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """What training descends, shape (N,); the nll unless the likelihood says otherwise."""

    def curvature(self, outputs: Tensor) -> Tensor:
        """Fisher information in the outputs, shape (N, O, O): what Laplace's GGN needs."""

    def mixture(self, members: Tensor) -> CategoricalMixture | GaussianMixture:
        """Predictive distribution of members' outputs, shape (I, N, O)."""


def target_tensor(y: ArrayLike | Tensor) -> Tensor:
    """Targets as a tensor.

    Raises:
        UncertaintyInputError: if they are not finite numbers.
    """
    try:
        tensor = torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError):
        raise UncertaintyInputError("y must hold numbers only; convert it first.") from None
    if not bool(torch.isfinite(tensor).all()):
        raise UncertaintyInputError("y holds NaN or infinity; drop those samples.")
    return tensor


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of K classes; the network's outputs are logits, shape (N, K)."""

    def targets(self, y: ArrayLike | Tensor, outputs: Tensor) -> Tensor:
        """Labels as int64, shape (N,), each from 0 to K - 1."""
        labels, classes = target_tensor(y), outputs.shape[-1]
        whole = labels.to(torch.int64)
        if labels.ndim != 1 or not bool((whole == labels).all()):
            raise UncertaintyInputError(
                f"y has shape {tuple(labels.shape)} or is not whole; expected one class number "
                "for each sample."
            )
        if classes < 2 or (len(whole) and not 0 <= int(whole.min()) <= int(whole.max()) < classes):
            raise UncertaintyInputError(
                f"y has labels outside 0 to {classes - 1}, but the network has {classes} outputs; "
                "give the network one output for each class (at least two)."
            )
        return whole

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of each sample."""
        return F.cross_entropy(outputs, y, reduction="none")

    def training_loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The nll."""
        return self.nll(outputs, y)

    def curvature(self, outputs: Tensor) -> Tensor:
        """diag(p) - p p^T."""
        p = torch.softmax(outputs, dim=-1)
        return torch.diag_embed(p) - p[..., :, None] * p[..., None, :]

    def mixture(self, members: Tensor) -> CategoricalMixture:
        """Mean of the members' probabilities."""
        return CategoricalMixture.from_logits(members)


CLASSES = Categorical()
"""The likelihood where none is named."""


def numbers_like(y: ArrayLike | Tensor, outputs: Tensor, dims: int) -> Tensor:
    """Targets in the dtype of the outputs, shape (N, D)."""
    tensor = target_tensor(y).to(outputs.dtype)
    tensor = tensor[:, None] if tensor.ndim == 1 and dims == 1 else tensor
    if tensor.ndim != 2 or tensor.shape[1] != dims:
        raise UncertaintyInputError(
            f"y has shape {tuple(tensor.shape)}, but the network predicts {dims} number(s) for "
            f"each sample; expected shape (N, {dims})."
        )
    return tensor


@dataclass(frozen=True, slots=True)
class HeteroscedasticGaussian:
    """A number with noise that depends on the input; outputs are (means, log-variances).

    Attributes:
        beta: of the beta-NLL that training descends; 0 is the likelihood.
    """

    beta: float = 0.0

    def targets(self, y: ArrayLike | Tensor, outputs: Tensor) -> Tensor:
        """Numbers, shape (N, D)."""
        return numbers_like(y, outputs, split_gaussian(outputs)[0].shape[-1])

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Summed over the D targets of a sample."""
        mean, log_variance = split_gaussian(outputs)
        return gaussian_nll(mean, log_variance, y).sum(dim=-1)

    def training_loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The beta-NLL."""
        mean, log_variance = split_gaussian(outputs)
        return gaussian_nll(mean, log_variance, y, beta=self.beta).sum(dim=-1)

    def curvature(self, outputs: Tensor) -> Tensor:
        """diag(exp(-s), 1/2): the Fisher information of a normal in its mean and log-variance."""
        _, log_variance = split_gaussian(outputs)
        halves = torch.full_like(log_variance, 0.5)
        return torch.diag_embed(torch.cat((torch.exp(-log_variance), halves), dim=-1))

    def mixture(self, members: Tensor) -> GaussianMixture:
        """The mixture of the members' normals; shape (I, N) where D is 1."""
        mean, log_variance = split_gaussian(members.double())
        return gaussians(mean, torch.exp(log_variance))


@dataclass(frozen=True, slots=True)
class FixedGaussian:
    """A number with known noise; the network's outputs are means.

    Attributes:
        noise: standard deviation, > 0, in units of the target.
    """

    noise: float

    def __post_init__(self) -> None:
        if not (self.noise > 0 and math.isfinite(self.noise)):
            raise UncertaintyInputError(f"noise is {self.noise}, expected a deviation > 0.")

    def targets(self, y: ArrayLike | Tensor, outputs: Tensor) -> Tensor:
        """Numbers, shape (N, D)."""
        return numbers_like(y, outputs, outputs.shape[-1])

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Summed over the D targets of a sample."""
        log_variance = torch.full_like(outputs, 2 * math.log(self.noise))
        return gaussian_nll(outputs, log_variance, y).sum(dim=-1)

    def training_loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The nll."""
        return self.nll(outputs, y)

    def curvature(self, outputs: Tensor) -> Tensor:
        """1 / noise^2 on the diagonal."""
        return torch.diag_embed(torch.full_like(outputs, self.noise**-2))

    def mixture(self, members: Tensor) -> GaussianMixture:
        """The mixture of equally wide normals; shape (I, N) where D is 1."""
        members = members.double()
        return gaussians(members, torch.full_like(members, self.noise**2))


def gaussians(means: Tensor, variances: Tensor) -> GaussianMixture:
    """A mixture without the last axis where it is 1."""
    if means.shape[-1] == 1:
        means, variances = means[..., 0], variances[..., 0]
    return GaussianMixture(means.detach().cpu().numpy(), variances.detach().cpu().numpy())
