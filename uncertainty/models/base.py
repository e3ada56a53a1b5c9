"""What every epistemic model can do once it has members: the scikit-learn side of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from uncertainty.errors import UncertaintyError, UncertaintyInputError
from uncertainty.models.likelihoods import Likelihood
from uncertainty.models.training import inputs
from uncertainty.predictions import CategoricalMixture, GaussianMixture

CHUNK = 4096
"""Inputs run through a network at once in prediction."""


class NotFitted(UncertaintyError):
    """A prediction was asked of a model that has not been fitted."""


class Posterior(ABC):
    """A predictive distribution as the average over members: networks, or samples of weights.

    Attributes:
        likelihood: what the networks' outputs mean.
    """

    likelihood: Likelihood

    @abstractmethod
    def member_outputs(self, x: ArrayLike | Tensor) -> Tensor:
        """Outputs of every member, shape (I, N, O).

        The same for an input whatever stands beside it in the batch.
        """

    def predict_distribution(self, x: ArrayLike | Tensor) -> CategoricalMixture | GaussianMixture:
        """The predictive distribution of each input."""
        return self.likelihood.mixture(self.member_outputs(x))

    def predict_proba(self, x: ArrayLike | Tensor) -> NDArray[np.float64]:
        """Class probabilities, shape (N, K): the mean of the members'.

        Raises:
            UncertaintyInputError: if the model predicts numbers, not classes.
        """
        found = self.predict_distribution(x)
        if not isinstance(found, CategoricalMixture):
            raise UncertaintyInputError(
                "this model predicts numbers, so it has no class probabilities; use "
                "predict_distribution."
            )
        return found.probs

    def predict(self, x: ArrayLike | Tensor) -> NDArray[np.float64] | NDArray[np.int64]:
        """Class of each input, shape (N,), or mean, shape (N,) or (N, D)."""
        found = self.predict_distribution(x)
        return found.labels if isinstance(found, CategoricalMixture) else found.mean


@contextmanager
def evaluating(network: nn.Module) -> Iterator[nn.Module]:
    """The network in eval mode inside the block; every module's own mode is put back after it."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield network
    finally:
        for module, mode in modes.items():
            module.training = mode


def run(network: nn.Module, x: ArrayLike | Tensor) -> Tensor:
    """Outputs in eval mode, without gradients, a chunk at a time; shape (N, O)."""
    x = inputs(x, network)
    with evaluating(network), torch.no_grad():
        return torch.cat([network(part) for part in x.split(CHUNK)])


def fitted(value: object | None, who: str) -> None:
    """Raise unless there is something to predict with.

    Raises:
        NotFitted: if `value` is None.
    """
    if value is None:
        raise NotFitted(f"this {who} has not been fitted; call fit(x, y) first.")
