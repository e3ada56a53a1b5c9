"""Expectation over transformation: a model that answers at random, asked several times at once."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from attacks.errors import AttackInputError
from attacks.protocol import Model
from attacks.result import AttackResult


@dataclass(frozen=True, slots=True, eq=False)
class Averaged:
    """The mean of a random model's logits over several calls.

    Attributes:
        model: may answer differently each time, by a dropout layer in training mode for instance.
        times: calls per evaluation.

    Raises:
        AttackInputError: if the model normalises by the statistics of its batch: then its answers
            about one sample depend on the others, and averaging does not cure that.

    Source:
        Athalye et al. 2018, arXiv:1707.07397. Logits are averaged before the loss, not gradients
        after it, so that what counts as found does not hang on one lucky draw either.
    """

    model: Model
    times: int

    def __post_init__(self) -> None:
        """Refuse batch normalisation in training mode."""
        if not isinstance(self.model, nn.Module):
            return
        for name, module in self.model.named_modules():
            if module.training and isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise AttackInputError(
                    f"The model is in training mode: its layer {name or 'itself'!r} "
                    f"({type(module).__name__}) makes each answer depend on the whole batch. "
                    "Put that layer into evaluation mode; layers that are merely random may stay."
                )

    def __call__(self, x: Tensor) -> Tensor:
        """Mean logits, shape (batch, classes)."""
        return torch.stack([self.model(x) for _ in range(self.times)]).mean(dim=0)


def averaged(model: Model, times: int) -> Model:
    """The model itself for `times` = 1, which must then be steady; see `Averaged`."""
    return model if times == 1 else Averaged(model, times)


def counted(result: AttackResult, times: int) -> AttackResult:
    """A result with queries counted as calls of the model itself, not of its average."""
    return replace(result, forward=result.forward * times, backward=result.backward * times)
