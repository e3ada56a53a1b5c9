"""Sampling a network's exact posterior, as the reference for everything faster.

    HMC    Hamiltonian Monte Carlo on all data: exact but for the finite number of samples
    SGLD   stochastic gradient Langevin dynamics on minibatches: biased by its step size

Both are for networks of some thousand weights. The posterior is that of `uncertainty.models.map`:
normal prior of one variance on every weight, the likelihood of the outputs.

Source:
    Neal 2011 (HMC), arXiv:1206.1901; step size by dual averaging: Hoffman and Gelman 2014,
    arXiv:1111.4246, section 3.2; Welling and Teh 2011 (SGLD).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.func import grad_and_value, vmap

from uncertainty.errors import UncertaintyInputError
from uncertainty.models.base import Posterior, fitted
from uncertainty.models.likelihoods import CLASSES, Likelihood
from uncertainty.models.training import Build, Progress, batches, build_network, inputs, targets_for
from uncertainty.models.weights import WeightSpace
from uncertainty.seeding import generator

Density = Callable[[Tensor], Tensor]
"""Log density, up to a constant, of one vector of shape (P,); differentiable."""

TARGET = 0.8
"""Acceptance rate that the step size is tuned to."""


@dataclass(frozen=True, slots=True, eq=False)
class Chains:
    """What a sampler drew.

    Attributes:
        samples: shape (chains, draws, P).
        log_density: of each, shape (chains, draws).
        accepted: mean acceptance rate after the warm-up, shape (chains,).
        step: step size of each chain after the warm-up.
    """

    samples: Tensor
    log_density: Tensor
    accepted: Tensor
    step: Tensor

    def r_hat(self) -> NDArray[np.float64]:
        """Split potential scale reduction, shape (P,): near 1 where chains agree.

        For networks look at it for outputs, not weights: permuted neurons are the same function.
        """
        return r_hat(self.samples.numpy())


def r_hat(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Split R-hat of samples, shape (chains, draws, ...) -> (...).

    sqrt( ((n-1)/n W + B/n) / W ) over half-chains of length n.

    Raises:
        UncertaintyInputError: if a chain has fewer than four draws.

    Source:
        Gelman et al., Bayesian Data Analysis, 3rd edition, section 11.4.
    """
    half = samples.shape[1] // 2
    if half < 2:
        raise UncertaintyInputError(f"{samples.shape[1]} draws a chain are too few, give four.")
    parts = np.concatenate([samples[:, :half], samples[:, half : 2 * half]])
    within = parts.var(axis=1, ddof=1).mean(axis=0)
    between = half * parts.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = ((half - 1) / half * within + between / half) / within
    return np.asarray(np.sqrt(np.where(within > 0, ratio, np.where(between > 0, np.inf, 1.0))))


def sample_hmc(
    density: Density,
    start: Tensor,
    *,
    draws: int,
    warm_up: int,
    leapfrogs: int = 20,
    step: float = 0.01,
    seed: int = 0,
    progress: Progress | None = None,
) -> Chains:
    """Hamiltonian Monte Carlo with unit mass, one step size a chain, tuned in the warm-up.

    Args:
        start: shape (chains, P), float64 for exactness.
        draws: kept per chain, after `warm_up` that are not.
        leapfrogs: steps of a trajectory; their number is drawn from 1 to this, against resonance.
        step: to begin with.

    Raises:
        UncertaintyInputError: if a count is not positive, or the start has no finite density.
    """
    if min(draws, leapfrogs) < 1 or warm_up < 0 or not step > 0 or start.ndim != 2:
        raise UncertaintyInputError("draws, leapfrogs and step must be > 0, start (chains, P).")
    slope = vmap(grad_and_value(density))
    numbers = generator(seed, "hmc")
    position = start.detach().clone()
    pull, level = slope(position)
    if not bool(torch.isfinite(level).all()):
        raise UncertaintyInputError("the log density is not finite at the start; choose another.")
    tuning = DualAveraging(torch.full((len(start),), step, dtype=start.dtype))
    samples, levels, rates = [], [], []
    for i in range(warm_up + draws):
        momentum = torch.randn(position.shape, generator=numbers, dtype=position.dtype)
        length = int(torch.randint(1, leapfrogs + 1, (1,), generator=numbers))
        now = (tuning.step if i < warm_up else tuning.settled)[:, None]
        new, p, push = position, momentum + now / 2 * pull, pull
        for k in range(length):
            new = new + now * p
            push, reached = slope(new)
            p = p + (now if k < length - 1 else now / 2) * push
        gain = reached - (p**2).sum(1) / 2 - (level - (momentum**2).sum(1) / 2)
        rate = torch.exp(gain.clamp(max=0)).nan_to_num(0.0)  # a diverged trajectory is refused
        take = torch.rand(len(start), generator=numbers, dtype=start.dtype) < rate
        position = torch.where(take[:, None], new, position)
        pull = torch.where(take[:, None], push, pull)
        level = torch.where(take, reached, level)
        if i < warm_up:
            tuning.learn(rate)
        else:
            samples.append(position)
            levels.append(level)
            rates.append(rate)
        if progress is not None:
            progress(i + 1, warm_up + draws, -float(level.mean()))
    return Chains(
        torch.stack(samples, dim=1),
        torch.stack(levels, dim=1),
        torch.stack(rates).mean(0),
        tuning.settled,
    )


class DualAveraging:
    """Step sizes that reach the target acceptance rate; Hoffman and Gelman's constants."""

    def __init__(self, step: Tensor) -> None:
        self._centre, self._error = torch.log(10 * step), torch.zeros_like(step)
        self._log, self._mean, self._count = torch.log(step), torch.log(step), 0

    @property
    def step(self) -> Tensor:
        """To use while learning."""
        return torch.exp(self._log)

    @property
    def settled(self) -> Tensor:
        """To use afterwards."""
        return torch.exp(self._mean)

    def learn(self, rate: Tensor) -> None:
        """Take in one acceptance rate a chain."""
        self._count += 1
        n = self._count
        self._error += ((TARGET - rate) - self._error) / (n + 10)
        self._log = self._centre - math.sqrt(n) / 0.05 * self._error
        weight = n**-0.75
        self._mean = weight * self._log + (1 - weight) * self._mean


class _Sampled(Posterior):
    """A network whose weights are samples; the posterior that both samplers share."""

    def __init__(
        self, build: Build, prior_variance: float, likelihood: Likelihood, seed: int
    ) -> None:
        if not prior_variance > 0:
            raise UncertaintyInputError(f"prior variance is {prior_variance}, expected > 0.")
        self.build, self.prior_variance = build, prior_variance
        self.likelihood, self.seed = likelihood, seed
        self.weights_: Tensor | None = None
        self.space_: WeightSpace | None = None

    def _density(self, space: WeightSpace, x: Tensor, y: Tensor, scale: float = 1.0) -> Density:
        def density(vector: Tensor) -> Tensor:
            fit = -scale * self.likelihood.nll(space.call(vector, x), y).sum()
            return fit - (vector**2).sum() / (2 * self.prior_variance)

        return density

    def member_outputs(self, x: ArrayLike | Tensor) -> Tensor:
        """Outputs for every kept sample of the weights, shape (I, N, O)."""
        fitted(self.weights_, "sampler")
        assert self.weights_ is not None
        assert self.space_ is not None
        return self.space_.outputs(self.weights_, inputs(x, self.space_.network))


class HMC(_Sampled):
    """The exact posterior of a small network by Hamiltonian Monte Carlo, in float64.

    Args:
        build: makes the network; each chain starts at weights of its own.
        prior_variance: of every weight.
        likelihood: what the outputs mean.
        chains, draws, warm_up, leapfrogs, step: see `sample_hmc`.
        keep: weights kept for predictions, evenly over all draws.
        seed: of everything random.

    Attributes:
        chains_: all draws and the acceptance rates.
        weights_: those kept, shape (keep, P).
    """

    def __init__(
        self,
        build: Build,
        *,
        prior_variance: float = 1.0,
        likelihood: Likelihood = CLASSES,
        chains: int = 4,
        draws: int = 200,
        warm_up: int = 200,
        leapfrogs: int = 50,
        step: float = 1e-3,
        keep: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__(build, prior_variance, likelihood, seed)
        if chains < 1 or keep < 1:
            raise UncertaintyInputError(f"chains is {chains} and keep {keep}, expected >= 1.")
        self.chains, self.draws, self.warm_up, self.keep = chains, draws, warm_up, keep
        self.leapfrogs, self.step = leapfrogs, step
        self.chains_: Chains | None = None

    def fit(
        self, x: ArrayLike | Tensor, y: ArrayLike | Tensor, progress: Progress | None = None
    ) -> HMC:
        """Sample."""
        networks = [
            build_network(self.build, self.seed, "chain", i).double().eval()
            for i in range(self.chains)
        ]
        space = WeightSpace(networks[0])
        x = inputs(x, networks[0])
        y = targets_for(networks[0], self.likelihood, x, y)
        self.chains_ = sample_hmc(
            self._density(space, x, y),
            torch.stack([WeightSpace(network).vector() for network in networks]),
            draws=self.draws,
            warm_up=self.warm_up,
            leapfrogs=self.leapfrogs,
            step=self.step,
            seed=self.seed,
            progress=progress,
        )
        every = self.chains_.samples.flatten(0, 1)
        chosen = torch.linspace(0, len(every) - 1, min(self.keep, len(every))).round().long()
        self.weights_, self.space_ = every[chosen], space
        return self


class SGLD(_Sampled):
    """Langevin dynamics with minibatch gradients: cheap, and biased by step size and batch noise.

    w <- w + step/2 * gradient + N(0, step),  the gradient being that of the log posterior,
    estimated from a batch.

    Args:
        build: makes the network.
        prior_variance: of every weight.
        likelihood: what the outputs mean.
        step: variance of the noise put in at each step; constant, so this samples a neighbour of
            the posterior, nearer for smaller steps.
        batch: samples per step.
        warm_up: steps that are not kept.
        thin: steps from one kept sample to the next.
        keep: samples kept.
        seed: of everything random.

    Attributes:
        weights_: the samples, shape (keep, P).
    """

    def __init__(
        self,
        build: Build,
        *,
        prior_variance: float = 1.0,
        likelihood: Likelihood = CLASSES,
        step: float = 1e-4,
        batch: int = 64,
        warm_up: int = 2000,
        thin: int = 20,
        keep: int = 200,
        seed: int = 0,
    ) -> None:
        super().__init__(build, prior_variance, likelihood, seed)
        if not step > 0 or min(batch, thin, keep) < 1 or warm_up < 0:
            raise UncertaintyInputError("step, batch, thin and keep must be positive.")
        self.step, self.batch, self.warm_up = step, batch, warm_up
        self.thin, self.keep = thin, keep

    def fit(
        self, x: ArrayLike | Tensor, y: ArrayLike | Tensor, progress: Progress | None = None
    ) -> SGLD:
        """Sample."""
        network = build_network(self.build, self.seed).eval()
        space = WeightSpace(network)
        x = inputs(x, network)
        y = targets_for(network, self.likelihood, x, y)
        vector, numbers = space.vector(), generator(self.seed, "sgld")
        kept: list[Tensor] = []
        steps, left = self.warm_up + self.thin * self.keep, list[Tensor]()
        for i in range(steps):
            left = left or batches(len(x), self.batch, numbers)
            rows = left.pop()
            slope, level = grad_and_value(
                self._density(space, x[rows], y[rows], len(x) / len(rows))
            )(vector)
            noise = torch.randn(vector.shape, generator=numbers, dtype=vector.dtype)
            vector = vector + self.step / 2 * slope + math.sqrt(self.step) * noise
            if i >= self.warm_up and (i - self.warm_up) % self.thin == self.thin - 1:
                kept.append(vector)
            if progress is not None and (i + 1) % 100 == 0:
                progress(i + 1, steps, -float(level))
        if not bool(torch.isfinite(vector).all()):
            raise UncertaintyInputError("the chain diverged; make the step smaller.")
        self.weights_, self.space_ = torch.stack(kept), space
        return self
