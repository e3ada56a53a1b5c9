"""Mean-field variational inference: every weight a normal distribution of its own.

Training descends the negative ELBO  E_q[sum_i nll_i] + KL(q | prior), with the noise drawn for the
layers' outputs instead of their weights (local reparametrisation), which has far lower variance:
for a linear layer they are normal with mean x.mu + b and variance x^2.sigma^2 + b's.

Source:
    Blundell et al. 2015 (Bayes by backprop), arXiv:1505.05424; Kingma, Salimans, Welling 2015
    (local reparametrisation), arXiv:1506.02557.
"""

from __future__ import annotations

import copy
import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from uncertainty.errors import UncertaintyInputError
from uncertainty.models.base import Posterior, fitted
from uncertainty.models.likelihoods import CLASSES, Likelihood
from uncertainty.models.training import (
    STANDARD,
    Build,
    Progress,
    Training,
    batches,
    build_network,
    inputs,
    targets_for,
)
from uncertainty.models.weights import WeightSpace
from uncertainty.seeding import generator, seeded


def normal_kl(mean: Tensor, deviation: Tensor, prior_deviation: float) -> Tensor:
    """KL( N(mean, deviation^2) | N(0, prior^2) ), summed over the entries, in nats.

    sum  log(prior / deviation) + (deviation^2 + mean^2) / (2 prior^2) - 1/2
    """
    ratio = (deviation / prior_deviation) ** 2
    return 0.5 * (ratio + (mean / prior_deviation) ** 2 - 1 - torch.log(ratio)).sum()


class _BayesLayer(nn.Module):
    """A Linear or Conv2d layer whose weights are normal; its outputs are drawn, not its weights."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, deviation: float) -> None:
        super().__init__()
        raw = math.log(math.expm1(deviation))  # softplus(raw) = deviation
        self.layer = layer
        self.raw = nn.ParameterDict(
            {name: torch.full_like(value.detach(), raw) for name, value in layer.named_parameters()}
        )

    def deviation(self, name: str) -> Tensor:
        """Standard deviation of one of the layer's parameters."""
        return F.softplus(self.raw[name])

    def forward(self, x: Tensor) -> Tensor:
        bias = self.deviation("bias") ** 2 if "bias" in self.raw else None
        if isinstance(self.layer, nn.Linear):
            variance = F.linear(x**2, self.deviation("weight") ** 2, bias)
        else:
            layer = self.layer
            variance = F.conv2d(
                x**2,
                self.deviation("weight") ** 2,
                bias,
                layer.stride,
                layer.padding,
                layer.dilation,
                layer.groups,
            )
        # The square root's slope is infinite at 0, where x is 0 and there is no bias.
        mean: Tensor = self.layer(x)
        return mean + torch.sqrt(variance + 1e-12) * torch.randn_like(variance)

    def kl(self, prior_deviation: float) -> Tensor:
        """Of this layer's weights."""
        terms = [
            normal_kl(value, self.deviation(name), prior_deviation)
            for name, value in self.layer.named_parameters()
        ]
        return torch.stack(terms).sum()


def _made_bayesian(network: nn.Module, deviation: float) -> list[_BayesLayer]:
    """Put a Bayesian layer in place of every Linear and Conv2d; returns them.

    Raises:
        UncertaintyInputError: if there are none, or a convolution pads with other than zeros.
    """
    found: list[_BayesLayer] = []
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear | nn.Conv2d) and not isinstance(parent, _BayesLayer):
                if isinstance(child, nn.Conv2d) and child.padding_mode != "zeros":
                    raise UncertaintyInputError("only convolutions padded with zeros have a rule.")
                found.append(_BayesLayer(child, deviation))
                setattr(parent, name, found[-1])
    if not found:
        raise UncertaintyInputError(
            "the network holds no torch.nn.Linear or Conv2d as a part; wrap a single layer in "
            "torch.nn.Sequential."
        )
    return found


class MeanField(Posterior):
    """A Bayesian neural network with a factorised normal posterior.

    Args:
        build: makes the network; its Linear and Conv2d layers become Bayesian, others are fitted.
        prior_deviation: of every weight.
        initial_deviation: of the posterior at the start.
        kl_weight: 1 is the ELBO; less gives a colder posterior, which should be said.
        draws: of weights in prediction.
        likelihood: what the outputs mean.
        training: weight decay must be 0, the prior does that.
        seed: of everything random.

    Attributes:
        mean_, deviation_: of the posterior, shape (P,), in the order of the network's parameters.
        elbo_: of the last epoch, per sample, in nats.
    """

    def __init__(
        self,
        build: Build,
        *,
        prior_deviation: float = 1.0,
        initial_deviation: float = 0.05,
        kl_weight: float = 1.0,
        draws: int = 50,
        likelihood: Likelihood = CLASSES,
        training: Training = STANDARD,
        seed: int = 0,
    ) -> None:
        if not (prior_deviation > 0 and initial_deviation > 0 and kl_weight >= 0 and draws > 0):
            raise UncertaintyInputError("deviations, KL weight and draws must be positive.")
        if training.weight_decay:
            raise UncertaintyInputError("weight decay would count the prior twice; set it to 0.")
        self.build, self.seed, self.draws = build, seed, draws
        self.prior_deviation, self.initial_deviation = prior_deviation, initial_deviation
        self.kl_weight, self.likelihood, self.training = kl_weight, likelihood, training
        self.mean_: Tensor | None = None
        self.deviation_: Tensor | None = None
        self.elbo_ = math.nan
        self._space: WeightSpace | None = None

    def fit(
        self, x: ArrayLike | Tensor, y: ArrayLike | Tensor, progress: Progress | None = None
    ) -> MeanField:
        """Maximise the ELBO."""
        plain = build_network(self.build, self.seed)
        noisy = copy.deepcopy(plain)
        layers = _made_bayesian(noisy, self.initial_deviation)
        x = inputs(x, plain)
        y = targets_for(plain, self.likelihood, x, y)
        optimiser = self.training.optimiser_of(noisy)
        steps = self.training.epochs * math.ceil(len(x) / self.training.batch)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            lambda done: (
                0.5 * (1 + math.cos(math.pi * done / max(steps, 1)))
                if self.training.cosine
                else 1.0
            ),
        )
        order = generator(self.seed, "order")
        with seeded(self.seed, "noise"):
            for epoch in range(self.training.epochs):
                noisy.train()
                total = 0.0
                for rows in batches(len(x), self.training.batch, order):
                    loss = self.likelihood.training_loss(noisy(x[rows]), y[rows]).mean()
                    kl = torch.stack([layer.kl(self.prior_deviation) for layer in layers]).sum()
                    objective = loss + self.kl_weight * kl / len(x)
                    optimiser.zero_grad()
                    objective.backward()
                    optimiser.step()
                    schedule.step()
                    total += float(objective.detach()) * len(rows)
                self.elbo_ = -total / len(x)
                if not math.isfinite(self.elbo_):
                    raise UncertaintyInputError(
                        f"the ELBO is {self.elbo_} after epoch {epoch + 1}; lower the learning "
                        "rate, or standardise inputs and targets."
                    )
                if progress is not None:
                    progress(epoch + 1, self.training.epochs, -self.elbo_)
        self._keep(plain, noisy)
        return self

    def _keep(self, plain: nn.Module, noisy: nn.Module) -> None:
        """Means and deviations as vectors over the plain network's weights."""
        means, deviations = dict[str, Tensor](), dict[str, Tensor]()
        inside = {m: n for n, m in noisy.named_modules()}
        for module, name in inside.items():
            if isinstance(module, _BayesLayer):
                for own, value in module.layer.named_parameters():
                    means[f"{name}.{own}"] = value.detach()
                    deviations[f"{name}.{own}"] = module.deviation(own).detach()
        others = {n: p.detach() for n, p in noisy.named_parameters()}
        with torch.no_grad():
            for name, buffer in plain.named_buffers():
                buffer.copy_(dict(noisy.named_buffers())[name])
        space = WeightSpace(plain.eval())
        self.mean_ = torch.cat([means.get(n, others.get(n)).reshape(-1) for n in space.names])  # type: ignore[union-attr]
        zeros = dict(plain.named_parameters())
        self.deviation_ = torch.cat(
            [
                deviations.get(n, torch.zeros_like(zeros[n])).detach().reshape(-1)
                for n in space.names
            ]
        )
        self._space = space

    def weights(self, count: int) -> Tensor:
        """Draws from the posterior, shape (count, P); draw i depends on (seed, i) only."""
        fitted(self._space, "network")
        assert self.mean_ is not None
        assert self.deviation_ is not None
        noise = [
            torch.randn(self.mean_.shape, generator=generator(self.seed, "draw", i))
            for i in range(count)
        ]
        return self.mean_ + self.deviation_ * torch.stack(noise).to(self.mean_)

    def member_outputs(self, x: ArrayLike | Tensor) -> Tensor:
        """Outputs of every drawn network, shape (draws, N, O)."""
        weights = self.weights(self.draws)
        assert self._space is not None
        return self._space.outputs(weights, inputs(x, self._space.network))
