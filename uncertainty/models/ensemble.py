"""Deep ensembles: the same network trained from different seeds.

Source:
    Lakshminarayanan, Pritzel, Blundell 2017, arXiv:1612.01474.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from uncertainty.errors import UncertaintyInputError
from uncertainty.models.base import Posterior, fitted, run
from uncertainty.models.likelihoods import CLASSES, Likelihood
from uncertainty.models.training import STANDARD, Build, Progress, Training, build_network, train
from uncertainty.seeding import derived_seed


class DeepEnsemble(Posterior):
    """Networks that differ in their first weights and in the order of the data.

    Args:
        build: makes one network; called once for each member.
        members: how many.
        likelihood: what the outputs mean.
        training: how each is fitted.
        seed: member i depends on (seed, i) only, so a larger ensemble begins with a smaller one.

    Attributes:
        networks_: the fitted members, in eval mode.
        losses_: per member, the training loss of each epoch.
    """

    def __init__(
        self,
        build: Build,
        *,
        members: int = 5,
        likelihood: Likelihood = CLASSES,
        training: Training = STANDARD,
        seed: int = 0,
    ) -> None:
        if members < 1:
            raise UncertaintyInputError(f"members is {members}, expected at least 1.")
        self.build, self.members, self.seed = build, members, seed
        self.likelihood, self.training = likelihood, training
        self.networks_: list[nn.Module] | None = None
        self.losses_: list[list[float]] = []

    @classmethod
    def of(cls, networks: Sequence[nn.Module], likelihood: Likelihood = CLASSES) -> DeepEnsemble:
        """An ensemble of networks that are trained already.

        Raises:
            UncertaintyInputError: if there are none, or one stands there twice.
        """
        if not networks or len({id(network) for network in networks}) < len(networks):
            raise UncertaintyInputError(
                f"got {len(networks)} networks, expected at least one and each only once."
            )
        made = cls(lambda: networks[0], members=len(networks), likelihood=likelihood)
        made.networks_ = list(networks)
        return made

    def fit(
        self, x: ArrayLike | Tensor, y: ArrayLike | Tensor, progress: Progress | None = None
    ) -> DeepEnsemble:
        """Train all members, one after the other.

        Args:
            progress: called after every epoch with the epochs done and left of the whole ensemble.
        """
        networks: list[nn.Module] = []
        self.losses_ = []
        for i in range(self.members):
            network = build_network(self.build, self.seed, "member", i)
            if any(network is other for other in networks):
                raise UncertaintyInputError(
                    "build returned the same module twice, so all members would be one; make a "
                    "new network in it."
                )
            self.losses_.append(
                train(
                    network,
                    self.likelihood,
                    x,
                    y,
                    self.training,
                    seed=derived_seed(self.seed, "member", i),
                    progress=of_all(progress, i, self.members),
                )
            )
            networks.append(network)
        self.networks_ = networks
        return self

    def member_outputs(self, x: ArrayLike | Tensor) -> Tensor:
        """Outputs of every network, shape (I, N, O)."""
        fitted(self.networks_, "ensemble")
        assert self.networks_ is not None
        return torch.stack([run(network, x) for network in self.networks_])


def of_all(progress: Progress | None, index: int, members: int) -> Progress | None:
    """The progress of one member, told as the progress of all."""
    if progress is None:
        return None
    tell = progress
    return lambda done, epochs, loss: tell(index * epochs + done, members * epochs, loss)
