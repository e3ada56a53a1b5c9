"""Layers: which nodes of a network are watched, and what counts as one neuron of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.errors import SettingError
from verify.graph.ir import Graph, Node
from verify.ops.registry import lookup
from verify.traverse import evaluate
from verify.values.bounds import Bounds

MOST_AT_ONCE = 1024
"""Inputs run at once, however small a network is: beyond it nothing gets faster."""
HELD = 2**21
"""Numbers that all nodes of a network may hold at once; 8 MiB stay near the processor."""
ELEMENTWISE = ("Relu", "TwoPiece", "Sigmoid", "Tanh", "Clip")
"""Operators whose outputs are called activations."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One watched node.

    Attributes:
        name: of the node; the ONNX output name where there is one.
        shape: of the node, without batch.
        channels: whether a feature map is one neuron, whose value is the mean over its positions
            (DeepXplore's reading of convolutions); otherwise every entry is a neuron.
    """

    name: str
    shape: tuple[int, ...]
    channels: bool

    @property
    def pooled(self) -> bool:
        """Whether positions are averaged."""
        return self.channels and len(self.shape) == 3

    @property
    def neurons(self) -> int:
        """How many neurons it has."""
        return self.shape[0] if self.pooled else torch.Size(self.shape).numel()

    def values(self, output: Tensor) -> Tensor:
        """The neurons' values from the node's, shape (batch, neurons)."""
        return output.mean(dim=(2, 3)) if self.pooled else output.flatten(1)

    def bounds(self, output: Bounds) -> Bounds:
        """Bounds of the neurons' values from the node's; a mean's rounding is charged."""
        if not self.pooled:
            return Bounds(output.lower.flatten(1), output.upper.flatten(1))
        positions = self.shape[1] * self.shape[2]
        # A float32 mean in any order: each of its terms may be off by this share of itself.
        slack = output.magnitude().mean(dim=(2, 3)) * (positions + 4) * 2.0**-24
        return Bounds(output.lower.mean(dim=(2, 3)) - slack, output.upper.mean(dim=(2, 3)) + slack)


def layers_of(
    graph: Graph, names: Sequence[str] | None = None, *, channels: bool = True
) -> tuple[Layer, ...]:
    """The layers to watch.

    Args:
        graph: the network.
        names: of nodes; by default every activation (Relu, Sigmoid, ...) or, where there is none,
            every layer with weights.
        channels: see `Layer`.

    Raises:
        SettingError: if a name is no node, or named twice.
    """
    inner = graph.nodes[1:]
    if names is None:
        chosen = [node for node in inner if node.op in ELEMENTWISE]
        chosen = chosen or [node for node in inner if lookup(node).mixes] or list(inner[-1:])
        return tuple(Layer(node.name, node.shape, channels) for node in chosen)
    known = {node.name: node for node in inner}
    if len(set(names)) < len(names):
        raise SettingError("a layer is named twice in --layers; name each once")
    for name in names:
        if name not in known:
            raise SettingError(
                f"there is no layer {name!r} in this network; there are "
                f"{', '.join(map(told, inner))}"
            )
    return tuple(Layer(name, known[name].shape, channels) for name in names)


def told(node: Node) -> str:
    """A node's name and operator."""
    return f"{node.name} ({node.op})"


def batch_for(graph: Graph) -> int:
    """Inputs to run at once: memory grows neither with their number nor with the network's size."""
    return max(16, min(MOST_AT_ONCE, HELD // sum(node.size for node in graph.nodes)))


def activations(
    graph: Graph, x: Tensor, layers: Sequence[Layer], *, at_once: int | None = None
) -> Iterator[dict[str, Tensor]]:
    """The neurons' values batch by batch, each of shape (some, neurons), by layer.

    Args:
        graph: the network; values come in the dtype of its weights.
        x: inputs of shape (batch, *input).
        layers: to watch.
        at_once: inputs run at once; by default as `batch_for` says.
    """
    for part in x.split(at_once or batch_for(graph)):
        if len(part):
            yield observed(graph, part, layers)


def observed(graph: Graph, x: Tensor, layers: Sequence[Layer]) -> dict[str, Tensor]:
    """The neurons' values at inputs, shape (batch, neurons), by layer; differentiable."""
    return of_nodes(evaluate(graph, x.to(graph.dtype)), layers)


def of_nodes(values: Mapping[str, Tensor], layers: Sequence[Layer]) -> dict[str, Tensor]:
    """The neurons' values from those of the nodes."""
    return {layer.name: layer.values(values[layer.name]) for layer in layers}
