"""Training one network by minibatches: the loop that ensembles, dropout, MAP and SWAG share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from uncertainty.errors import UncertaintyInputError
from uncertainty.models.likelihoods import Likelihood
from uncertainty.seeding import generator, seeded

Build = Callable[[], nn.Module]
"""Makes a network with fresh random weights; called with torch's generator seeded."""

Progress = Callable[[int, int, float], None]
"""Called after every epoch: epochs done, epochs in all, mean training loss (nats)."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True, slots=True)
class Training:
    """How a network is fitted.

    Attributes:
        epochs: passes over the data.
        batch: samples per step.
        rate: learning rate.
        weight_decay: torch's, on the mean loss: lambda adds lambda * w to the gradient, which is
            a normal prior of variance 1 / (n lambda) on every weight (`uncertainty.models.map`).
        optimiser: "adam" or "sgd" (momentum 0.9); both take weight decay as L2 in the gradient.
        cosine: let the learning rate fall to 0 along a half cosine.
    """

    epochs: int = 100
    batch: int = 64
    rate: float = 1e-3
    weight_decay: float = 0.0
    optimiser: Literal["adam", "sgd"] = "adam"
    cosine: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch < 1:
            raise UncertaintyInputError(
                f"epochs is {self.epochs} and batch {self.batch}, expected >= 0 and >= 1."
            )
        for name, value, least in (("rate", self.rate, True), ("decay", self.weight_decay, False)):
            if not math.isfinite(value) or value < 0 or (least and value == 0):
                raise UncertaintyInputError(f"{name} is {value}, expected a finite number > 0.")
        if self.optimiser not in {"adam", "sgd"}:
            raise UncertaintyInputError(
                f"optimiser is {self.optimiser!r}, expected 'adam' or 'sgd'. Decoupled decay "
                "(AdamW) is left out: it is the MAP of no Gaussian prior."
            )

    def optimiser_of(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimiser for a network's trainable weights."""
        weights = [p for p in network.parameters() if p.requires_grad]
        if self.optimiser == "adam":
            return torch.optim.Adam(weights, lr=self.rate, weight_decay=self.weight_decay)
        return torch.optim.SGD(weights, lr=self.rate, momentum=0.9, weight_decay=self.weight_decay)


STANDARD = Training()
"""How a network is fitted where nothing is said."""


def inputs(x: ArrayLike | Tensor, network: nn.Module) -> Tensor:
    """Inputs in the dtype and on the device of the network.

    Raises:
        UncertaintyInputError: if they are not finite numbers with a batch axis.
    """
    tensor = torch.as_tensor(np.asarray(x) if not isinstance(x, Tensor) else x)
    like = next((p for p in network.parameters()), torch.zeros(()))
    if tensor.ndim < 1:
        raise UncertaintyInputError("x is one number; expected shape (N, *input).")
    if not bool(torch.isfinite(tensor).all()):
        raise UncertaintyInputError("x holds NaN or infinity; drop those samples.")
    return tensor.to(device=like.device, dtype=like.dtype)


def build_network(build: Build, seed: int, *labels: int | str) -> nn.Module:
    """A network whose first weights depend on (seed, labels) only.

    Raises:
        UncertaintyInputError: if `build` returns no module, or a module it already holds (given as
            `lambda: net`, all members would be one).
    """
    with seeded(seed, *labels, "weights"):
        network = build()
    if not isinstance(network, nn.Module):
        raise UncertaintyInputError(
            f"build returned a {type(network).__name__}, expected a new torch.nn.Module each time."
        )
    return network


def targets_for(
    network: nn.Module, likelihood: Likelihood, x: Tensor, y: ArrayLike | Tensor
) -> Tensor:
    """The targets, checked against the number of samples and of the network's outputs.

    Raises:
        UncertaintyInputError: if there are no samples, or the two do not fit.
    """
    if not len(x):
        raise UncertaintyInputError("there are no samples to fit; give at least one.")
    was = network.training
    network.eval()
    with torch.no_grad():
        outputs = network(x[:1])
    network.train(was)
    if outputs.ndim != 2:
        raise UncertaintyInputError(
            f"the network gives shape {tuple(outputs.shape)} for one sample, expected (1, outputs)."
        )
    targets = likelihood.targets(y, outputs).to(x.device)
    if len(targets) != len(x):
        raise UncertaintyInputError(f"x has {len(x)} samples and y {len(targets)}; give one each.")
    return targets


def batches(count: int, size: int, order: torch.Generator) -> list[Tensor]:
    """A random order of `count` samples, cut into batches."""
    return list(torch.randperm(count, generator=order).split(size))


def train(
    network: nn.Module,
    likelihood: Likelihood,
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    training: Training,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    after_epoch: Callable[[int], None] | None = None,
) -> list[float]:
    """Fit a network in place; it is left in eval mode.

    Args:
        penalty: added to the mean loss of each batch.
        after_epoch: called with the number of epochs done.

    Returns:
        Mean training loss of each epoch, in nats.

    Raises:
        UncertaintyInputError: if data and network do not fit, or the loss becomes NaN.
    """
    x = inputs(x, network)
    y = targets_for(network, likelihood, x, y)
    optimiser = training.optimiser_of(network)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda done: (
            0.5 * (1 + math.cos(math.pi * done / max(training.epochs, 1)))
            if training.cosine
            else 1.0
        ),
    )
    normalised = any(isinstance(m, BATCH_NORMS) for m in network.modules())
    order, history = generator(seed, "order"), list[float]()
    with seeded(seed, "noise"):
        for epoch in range(training.epochs):
            network.train()
            total, seen = 0.0, 0
            for rows in batches(len(x), training.batch, order):
                if normalised and len(rows) < 2 < len(x):  # BatchNorm cannot normalise one
                    continue
                loss = likelihood.training_loss(network(x[rows]), y[rows]).mean()
                objective = loss if penalty is None else loss + penalty(network)
                optimiser.zero_grad()
                objective.backward()
                optimiser.step()
                total, seen = total + float(loss.detach()) * len(rows), seen + len(rows)
            schedule.step()
            history.append(total / max(seen, 1))
            if not math.isfinite(history[-1]):
                raise UncertaintyInputError(
                    f"the training loss is {history[-1]} after epoch {epoch + 1}; lower the "
                    "learning rate, or standardise inputs and targets."
                )
            network.eval()
            if after_epoch is not None:
                after_epoch(epoch + 1)
            if progress is not None:
                progress(epoch + 1, training.epochs, history[-1])
    network.eval()
    return history
