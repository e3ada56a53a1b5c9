"""Maximum a posteriori: regularised maximum likelihood, and the prior that weight decay is.

With a normal prior N(0, v) on every weight the negative log posterior of n samples is

    sum_i nll_i + |w|^2 / (2 v)  =  n * ( mean_i nll_i + lambda |w|^2 / 2 ),   lambda = 1 / (n v),

so torch's `weight_decay = lambda` on the mean loss (SGD, or Adam, which both add lambda * w to the
gradient) descends exactly the log posterior. AdamW does not: its decay is outside the gradient.
A loss with `lambda |w|^2` instead of half of it means v = 1 / (2 n lambda).

Source:
    MacKay 1992, doi:10.1162/neco.1992.4.3.448.
"""

from __future__ import annotations

import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from uncertainty.errors import UncertaintyInputError
from uncertainty.models.base import Posterior, fitted, run
from uncertainty.models.likelihoods import CLASSES, Likelihood
from uncertainty.models.training import Build, Progress, build_network, inputs, targets_for


def weight_decay_of(prior_variance: float, samples: int) -> float:
    """torch's `weight_decay` on the mean loss of `samples` that is this prior.

    Raises:
        UncertaintyInputError: if either is not positive.
    """
    if not prior_variance > 0 or samples < 1:
        raise UncertaintyInputError(
            f"prior variance is {prior_variance} and samples {samples}, expected both > 0."
        )
    return 1.0 / (samples * prior_variance)


def prior_variance_of(weight_decay: float, samples: int) -> float:
    """The prior that torch's `weight_decay` on the mean loss of `samples` is; inf without decay.

    Raises:
        UncertaintyInputError: if the decay is negative or there are no samples.
    """
    if not weight_decay >= 0 or samples < 1:
        raise UncertaintyInputError(
            f"weight decay is {weight_decay} and samples {samples}, expected >= 0 and > 0."
        )
    return math.inf if weight_decay == 0 else 1.0 / (samples * weight_decay)


def negative_log_prior(network: nn.Module, prior_variance: float) -> Tensor:
    """|w|^2 / (2 v) over all trainable weights: -log N(w; 0, v I) without its constant, in nats."""
    weights = [p for p in network.parameters() if p.requires_grad]
    return torch.stack([(p**2).sum() for p in weights]).sum() / (2 * prior_variance)


class MAP(Posterior):
    """The most probable weights under a normal prior, found by L-BFGS on all data: one member.

    Args:
        build: makes the network.
        prior_variance: of every weight, biases included.
        likelihood: what the outputs mean.
        iterations: of L-BFGS at most.
        seed: of the first weights.

    Attributes:
        network_: the fitted network.
        objective_: negative log posterior there without the prior's constant, in nats.
        gradient_: largest entry of its gradient: how nearly a minimum was reached.
    """

    def __init__(
        self,
        build: Build,
        *,
        prior_variance: float = 1.0,
        likelihood: Likelihood = CLASSES,
        iterations: int = 500,
        seed: int = 0,
    ) -> None:
        if not prior_variance > 0:
            raise UncertaintyInputError(f"prior variance is {prior_variance}, expected > 0.")
        self.build, self.prior_variance, self.seed = build, prior_variance, seed
        self.likelihood, self.iterations = likelihood, iterations
        self.network_: nn.Module | None = None
        self.objective_ = math.nan
        self.gradient_ = math.nan

    def fit(
        self, x: ArrayLike | Tensor, y: ArrayLike | Tensor, progress: Progress | None = None
    ) -> MAP:
        """Minimise the negative log posterior; the network is in eval mode throughout."""
        network = build_network(self.build, self.seed).eval()
        x = inputs(x, network)
        y = targets_for(network, self.likelihood, x, y)
        weights = [p for p in network.parameters() if p.requires_grad]
        optimiser = torch.optim.LBFGS(
            weights,
            max_iter=self.iterations,
            history_size=50,
            tolerance_grad=1e-9,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )
        calls = [0]

        def objective() -> Tensor:
            optimiser.zero_grad()
            # Divided by n, so that tolerances mean the same for many samples as for few.
            value = self.likelihood.nll(network(x), y).sum()
            value = (value + negative_log_prior(network, self.prior_variance)) / len(x)
            value.backward()
            calls[0] += 1
            if progress is not None:
                progress(min(calls[0], self.iterations), self.iterations, float(value.detach()))
            return value

        optimiser.step(objective)
        self.objective_ = float(objective().detach()) * len(x)
        self.gradient_ = max(
            float(p.grad.abs().max()) * len(x) for p in weights if p.grad is not None
        )
        if not math.isfinite(self.objective_):
            raise UncertaintyInputError(
                "the log posterior is not finite; standardise inputs and targets, or choose a "
                "smaller prior variance."
            )
        self.network_ = network
        return self

    def member_outputs(self, x: ArrayLike | Tensor) -> Tensor:
        """Outputs of the one network, shape (1, N, O)."""
        fitted(self.network_, "MAP")
        assert self.network_ is not None
        return run(self.network_, x)[None]
