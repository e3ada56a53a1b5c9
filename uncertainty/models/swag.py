"""SWAG: a normal distribution with the moments of SGD's path through weight space.

Source:
    Maddox et al. 2019, arXiv:1902.02476, algorithm 1.
"""

from __future__ import annotations

import copy
import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from uncertainty.errors import UncertaintyInputError
from uncertainty.models.base import Posterior, fitted, run
from uncertainty.models.likelihoods import CLASSES, Likelihood
from uncertainty.models.training import (
    BATCH_NORMS,
    STANDARD,
    Build,
    Progress,
    Training,
    build_network,
    inputs,
    train,
)
from uncertainty.models.weights import WeightSpace
from uncertainty.seeding import derived_seed, generator, seeded

COLLECTING = Training(epochs=40, rate=1e-3, optimiser="sgd")

WORST_RISE = 1.0
"""Nats per sample that the loss may rise while weights are collected: a path that leaves the
minimum it is meant to describe has no moments worth taking."""


class WeightMoments:
    """Mean, diagonal variance and the last deviations of a sequence of weight vectors.

    Args:
        size: length P of the vectors.
        rank: deviations kept.
    """

    def __init__(self, size: int, rank: int) -> None:
        self.count, self.rank = 0, rank
        self.mean = torch.zeros(size, dtype=torch.float64)
        self._spread = torch.zeros(size, dtype=torch.float64)  # sum of squared deviations
        self._deviations: list[Tensor] = []

    def add(self, vector: Tensor) -> None:
        """Take one more vector, shape (P,). Welford's update: E[w^2] - E[w]^2 would cancel."""
        w = vector.detach().double().cpu()
        self.count += 1
        before = w - self.mean
        self.mean = self.mean + before / self.count
        self._spread += before * (w - self.mean)
        # The deviation from the mean so far, as algorithm 1 has it.
        self._deviations = [*self._deviations, w - self.mean][-self.rank :]

    @property
    def variance(self) -> Tensor:
        """Diagonal variance (divisor: the number of vectors), shape (P,)."""
        return self._spread / max(self.count, 1)

    @property
    def deviations(self) -> Tensor:
        """The last deviations as columns, shape (P, at most rank)."""
        return torch.stack(self._deviations, dim=1)

    def covariance(self) -> Tensor:
        """diag(variance)/2 + D D^T / (2 (K - 1)), shape (P, P)."""
        low = self.deviations
        return torch.diag(self.variance) / 2 + low @ low.T / (2 * max(low.shape[1] - 1, 1))

    def draw(self, numbers: torch.Generator) -> Tensor:
        """One vector from the normal distribution with that mean and covariance."""
        low = self.deviations
        wide = torch.randn(len(self.mean), generator=numbers, dtype=torch.float64)
        thin = torch.randn(low.shape[1], generator=numbers, dtype=torch.float64)
        noise = self.variance.clamp(min=0).sqrt() * wide
        return (
            self.mean + noise / math.sqrt(2) + low @ thin / math.sqrt(2 * max(low.shape[1] - 1, 1))
        )


class SWAG(Posterior):
    """Stochastic weight averaging with a normal distribution around the average.

    After ordinary training, SGD goes on at a constant rate and its weights are collected.

    Args:
        build: makes the network.
        training: of the first phase.
        collect: of the second: SGD at a constant rate, weights taken after every epoch.
        rank: deviations kept, at least 2.
        draws: of weights in prediction.
        likelihood: what the outputs mean.
        seed: of everything random.

    Attributes:
        moments_: of the collected weights.
    """

    def __init__(
        self,
        build: Build,
        *,
        training: Training = STANDARD,
        collect: Training = COLLECTING,
        rank: int = 20,
        draws: int = 50,
        likelihood: Likelihood = CLASSES,
        seed: int = 0,
    ) -> None:
        if rank < 2 or draws < 1 or collect.epochs < 2:
            raise UncertaintyInputError(
                f"rank is {rank}, draws {draws} and collecting epochs {collect.epochs}; expected "
                "at least 2, 1 and 2."
            )
        self.build, self.training, self.collect = build, training, collect
        self.rank, self.draws, self.seed, self.likelihood = rank, draws, seed, likelihood
        self.moments_: WeightMoments | None = None
        self._space: WeightSpace | None = None
        self._data: Tensor | None = None

    def fit(
        self, x: ArrayLike | Tensor, y: ArrayLike | Tensor, progress: Progress | None = None
    ) -> SWAG:
        """Train, then collect."""
        network = build_network(self.build, self.seed)
        first = self.training.epochs
        both = first + self.collect.epochs
        shift = None if progress is None else lambda d, _, loss: progress(d, both, loss)
        later = None if progress is None else lambda d, _, loss: progress(first + d, both, loss)
        before = train(
            network, self.likelihood, x, y, self.training, seed=self.seed, progress=shift
        )
        space = WeightSpace(network)
        moments = WeightMoments(space.size, self.rank)
        during = train(
            network,
            self.likelihood,
            x,
            y,
            self.collect,
            seed=derived_seed(self.seed, "collect"),
            progress=later,
            after_epoch=lambda _: moments.add(space.vector()),
        )
        if before and during and during[-1] > before[-1] + WORST_RISE:
            raise UncertaintyInputError(
                f"the loss rose from {before[-1]:.3g} to {during[-1]:.3g} nats while weights were "
                f"collected; lower the rate of `collect`, now {self.collect.rate:g}."
            )
        self.moments_, self._space = moments, space
        self._data = inputs(x, network)
        return self

    def member_outputs(self, x: ArrayLike | Tensor) -> Tensor:
        """Outputs of every drawn network, shape (draws, N, O)."""
        fitted(self.moments_, "SWAG")
        assert self.moments_ is not None
        assert self._space is not None
        space, like = self._space, self._space.vector()
        vectors = torch.stack(
            [
                self.moments_.draw(generator(self.seed, "draw", i)).to(like)
                for i in range(self.draws)
            ]
        )
        if not any(isinstance(module, BATCH_NORMS) for module in space.network.modules()):
            return space.outputs(vectors, inputs(x, space.network))
        return torch.stack([run(self._refreshed(vector), x) for vector in vectors])

    def _refreshed(self, vector: Tensor) -> nn.Module:
        """A copy with these weights and BatchNorm statistics of the training data under them."""
        assert self._space is not None
        assert self._data is not None
        network = copy.deepcopy(self._space.network)
        self._space.write(vector, network)
        norms = [m for m in network.modules() if isinstance(m, BATCH_NORMS)]
        network.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average
            norm.train()
        with torch.no_grad(), seeded(self.seed, "statistics"):
            for part in self._data.split(256):
                if len(part) > 1:
                    network(part)
        return network.eval()
