"""MC-Dropout: dropout left on in prediction, as an approximate posterior.

A pass draws one mask for each dropout layer and applies it to every input: it is one thinned
network, a sample of the (approximate) posterior. So a prediction does not depend on what stands
beside it in the batch, passes can be verified one by one, and no generator state is touched.

Source:
    Gal and Ghahramani 2016, arXiv:1506.02142.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from uncertainty.errors import UncertaintyInputError
from uncertainty.models.base import Posterior, run
from uncertainty.models.likelihoods import CLASSES, Likelihood
from uncertainty.models.training import STANDARD, Progress, Training, train
from uncertainty.seeding import generator

CHANNELWISE = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
UNSUPPORTED = (nn.AlphaDropout, nn.FeatureAlphaDropout)


class MCDropout(Posterior):
    """A network with torch.nn.Dropout layers, and `passes` thinned versions of it.

    Everything else, BatchNorm above all, stays in eval mode. The network is left as it was.

    Args:
        network: holds at least one torch.nn.Dropout (or Dropout1d, 2d, 3d) that drops something.
            Functional dropout is invisible from outside: put a module in its place.
        passes: networks drawn.
        likelihood: what the outputs mean.
        training: of `fit`.
        seed: pass t depends on (seed, t) only.

    Raises:
        UncertaintyInputError: if there is no dropout layer with a rate above 0.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        passes: int = 50,
        likelihood: Likelihood = CLASSES,
        training: Training = STANDARD,
        seed: int = 0,
    ) -> None:
        if passes < 2:
            raise UncertaintyInputError(f"passes is {passes}, expected at least 2.")
        dropout_layers(network)
        self.network, self.passes, self.seed = network, passes, seed
        self.likelihood, self.training = likelihood, training
        self.losses_: list[float] = []

    def fit(
        self, x: ArrayLike | Tensor, y: ArrayLike | Tensor, progress: Progress | None = None
    ) -> MCDropout:
        """Train the network in place, with ordinary dropout."""
        self.losses_ = train(
            self.network, self.likelihood, x, y, self.training, seed=self.seed, progress=progress
        )
        return self

    def member_outputs(self, x: ArrayLike | Tensor) -> Tensor:
        """Outputs of every pass, shape (passes, N, O).

        Raises:
            UncertaintyInputError: if all passes give the same: nothing was dropped on the way.
        """
        passes = []
        for t in range(self.passes):
            with thinned(self.network, self.seed, t):
                passes.append(run(self.network, x))
        return refuse_no_spread(torch.stack(passes))


def refuse_no_spread(outputs: Tensor) -> Tensor:
    """The outputs, shape (passes, N, O), if any two passes differ.

    Raises:
        UncertaintyInputError: if none do.
    """
    if outputs.numel() and bool((outputs == outputs[:1]).all()):
        raise UncertaintyInputError(
            "all passes gave the same outputs: no dropout layer lies on the way from the input to "
            "the output. Functional dropout (torch.nn.functional.dropout) cannot be switched on "
            "from outside; use a torch.nn.Dropout module."
        )
    return outputs


def dropout_layers(network: nn.Module) -> list[nn.Module]:
    """The layers that drop something.

    Raises:
        UncertaintyInputError: if there are none, or one is of an unsupported kind.
    """
    if any(isinstance(module, UNSUPPORTED) for module in network.modules()):
        raise UncertaintyInputError(
            "AlphaDropout is not supported: its masks keep mean and variance by an affine map. "
            "Use torch.nn.Dropout."
        )
    kinds = (nn.Dropout, *CHANNELWISE)
    found: list[nn.Module] = [m for m in network.modules() if isinstance(m, kinds) and 0 < m.p < 1]
    if not found:
        raise UncertaintyInputError(
            "the network has no torch.nn.Dropout layer with a rate between 0 and 1, so its passes "
            "would all be the same; functional dropout cannot be seen. Add a module, or use "
            "another model."
        )
    return found


@contextmanager
def thinned(network: nn.Module, seed: int, which: int) -> Iterator[nn.Module]:
    """The network with the dropout masks of (seed, which) inside the block, whatever its mode.

    A layer that is called twice gets two masks. Masks are applied by hooks, which leave with the
    block; the layers themselves stay in eval mode.
    """
    numbers = generator(seed, "dropout", which)
    hooks = []
    masks: dict[tuple[int, int], Tensor] = {}
    calls = [0]

    def hook_of(rate: float, channelwise: bool) -> Callable[..., Tensor]:
        def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            value = given[0]
            # One mask for all rows; a channel is dropped as a whole where the layer says so.
            shape = (1, *value.shape[1:])
            if channelwise:
                shape = (1, value.shape[1], *(1 for _ in value.shape[2:]))
            key = (id(module), calls[0])
            calls[0] += 1
            if key not in masks:
                kept = torch.rand(shape, generator=numbers) >= rate
                masks[key] = (kept.double() / (1 - rate)).to(value.device)
            return value * masks[key].to(value.dtype)

        return hook

    def start(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        calls[0] = 0  # the next chunk of the same inputs gets the same masks

    hooks.append(network.register_forward_pre_hook(start))
    for layer in dropout_layers(network):
        rate = float(layer.p)  # type: ignore[arg-type]
        hooks.append(layer.register_forward_hook(hook_of(rate, isinstance(layer, CHANNELWISE))))
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield network
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
