"""Reference: what criteria know of the training data, computed when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from verify.coverage.layers import Layer, batch_for, of_nodes
from verify.coverage.profile import Profile, profile_of
from verify.errors import DataError
from verify.graph.ir import Graph
from verify.traverse import evaluate


class Reference:
    """Training data seen through the watched layers.

    Attributes:
        graph: the network, in the dtype to run it in.
        x: training inputs, shape (n, *input).
        layers: that are watched.
    """

    def __init__(self, graph: Graph, x: Tensor, layers: Sequence[Layer]) -> None:
        """Nothing is computed yet."""
        self.graph, self.x, self.layers = graph, x, tuple(layers)

    @property
    def output(self) -> Layer:
        """The network's output as a layer, whose values say which class is predicted."""
        node = self.graph.output
        return Layer(node.name, node.shape, False)

    @cached_property
    def profile(self) -> Profile:
        """The range of every neuron."""
        return profile_of(self.graph, self.x, self.layers)

    @cached_property
    def traces(self) -> Tensor:
        """The watched neurons side by side, shape (n, neurons), float64: memory grows with n."""
        return torch.cat([part for part, _ in self._walk(with_relevance=False)]).double()

    @cached_property
    def predicted(self) -> Tensor:
        """The class the network gives each training input; int64, (n,)."""
        parts = self.x.to(self.graph.dtype).split(batch_for(self.graph))
        outputs = [evaluate(self.graph, part)[self.graph.output.name] for part in parts]
        return torch.cat(outputs).flatten(1).argmax(dim=1)

    @cached_property
    def relevance(self) -> Tensor:
        """How much each watched neuron contributes to the predicted logits; float64, (neurons,).

        The mean over the training inputs of activation times gradient of the predicted logit, which
        for ReLU networks is layer-wise relevance propagation with the epsilon rule at epsilon = 0
        (Ancona et al. 2018, arXiv:1711.06104, proposition 1).
        """
        parts = [part for _, part in self._walk(with_relevance=True)]
        return torch.cat(parts).double().mean(dim=0)

    def _walk(self, *, with_relevance: bool) -> list[tuple[Tensor, Tensor]]:
        if not len(self.x):
            raise DataError("criteria that refer to training data need at least one input of it")
        found = []
        for part in self.x.to(self.graph.dtype).split(batch_for(self.graph)):
            if not with_relevance:
                values = of_nodes(evaluate(self.graph, part), self.layers)
                found.append((side_by_side(values, self.layers), torch.zeros(0)))
                continue
            # A layer that takes the input's gradient away would hide the ones before it.
            nodes = evaluate(self.graph, part.detach().requires_grad_())
            top = nodes[self.graph.output.name].flatten(1).amax(dim=1).sum()
            slopes = torch.autograd.grad(top, [nodes[layer.name] for layer in self.layers])
            shares = [
                contribution(layer, nodes[layer.name].detach(), slope)
                for layer, slope in zip(self.layers, slopes, strict=True)
            ]
            found.append((torch.zeros(0), torch.cat(shares, dim=1)))
        return found


def contribution(layer: Layer, value: Tensor, slope: Tensor) -> Tensor:
    """Activation times gradient per neuron; a channel's is the sum over its positions."""
    product = value * slope
    return product.sum(dim=(2, 3)) if layer.pooled else product.flatten(1)


def side_by_side(values: dict[str, Tensor], layers: Sequence[Layer]) -> Tensor:
    """The values of all layers as one matrix, shape (batch, neurons)."""
    return torch.cat([values[layer.name] for layer in layers], dim=1)
