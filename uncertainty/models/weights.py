"""A network's trainable weights as one vector, and its outputs as a function of that vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from uncertainty.errors import UncertaintyInputError
from uncertainty.models.base import CHUNK, evaluating


class WeightSpace:
    """Vectors of weights for one network, which itself is never changed.

    Args:
        network: gives the architecture, the weights that are not named, and the buffers.
        names: of the parameters in the vector, in order; by default all that are trainable.

    Attributes:
        size: length P of the vector.

    Raises:
        UncertaintyInputError: if there is no such parameter.
    """

    def __init__(self, network: nn.Module, names: Sequence[str] | None = None) -> None:
        own = {n: p for n, p in network.named_parameters() if p.requires_grad}
        self.network = network
        self.names = tuple(own if names is None else names)
        missing = [name for name in self.names if name not in own]
        if missing or not self.names:
            raise UncertaintyInputError(
                f"the network has no trainable weights {missing or ''}; it has: {', '.join(own)}."
            )
        self.shapes = [own[name].shape for name in self.names]
        self.size = sum(shape.numel() for shape in self.shapes)

    def vector(self) -> Tensor:
        """The network's present weights, shape (P,)."""
        own = dict(self.network.named_parameters())
        return torch.cat([own[name].detach().reshape(-1) for name in self.names])

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """The named weights in a vector."""
        parts = vector.split([shape.numel() for shape in self.shapes])
        return {n: p.view(s) for n, p, s in zip(self.names, parts, self.shapes, strict=True)}

    def call(self, vector: Tensor, x: Tensor) -> Tensor:
        """Outputs with these weights, in the network's present mode; differentiable in both."""
        found: Tensor = functional_call(self.network, self.split(vector), (x,))
        return found

    def outputs(self, vectors: Tensor, x: Tensor) -> Tensor:
        """Outputs in eval mode for many vectors, shape (I, P) -> (I, N, O); without gradients."""
        with evaluating(self.network), torch.no_grad():
            many = vmap(self.call, in_dims=(0, None))
            # A bounded part of members times inputs at a time.
            step = max(1, CHUNK // max(1, len(vectors)))
            return torch.cat([many(vectors, part) for part in x.split(step)], dim=1)

    def write(self, vector: Tensor, network: nn.Module) -> None:
        """Copy a vector's weights into a network of this architecture."""
        own = dict(network.named_parameters())
        with torch.no_grad():
            for name, value in self.split(vector).items():
                own[name].copy_(value)


def last_layer_names(network: nn.Module) -> list[str]:
    """Names of the weights of the last Linear layer, in the order the module lists them.

    Raises:
        UncertaintyInputError: if there is no Linear layer.
    """
    layers = linear_layers(network)
    if not layers:
        raise UncertaintyInputError("the network has no torch.nn.Linear layer to take as the last.")
    name, layer = list(layers.items())[-1]
    prefix = f"{name}." if name else ""
    return [prefix + own for own, _ in layer.named_parameters()]


def linear_layers(network: nn.Module) -> Mapping[str, nn.Linear]:
    """The Linear layers by name, in the order the module lists them."""
    return {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear)}
