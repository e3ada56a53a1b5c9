"""Network: a model ready for questions; its graph, its own runtime, and where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from verify.errors import SettingError
from verify.graph.ir import Graph, Node
from verify.protocols import Judge


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """What `certify`, `radius` and `compare` work on.

    Attributes:
        graph: as read, float64, with the normalisation in front if one was given.
        judge: the model's own runtime, with the same normalisation in front.
        path: of the file, or None for a model in memory.
        sha256: of the file's bytes, or None.
        notes: what was assumed while reading.
    """

    graph: Graph
    judge: Judge
    path: str | None
    sha256: str | None
    notes: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.graph.input.shape

    @property
    def classes(self) -> int:
        """Number of outputs."""
        return self.graph.output.size


@dataclass(frozen=True, slots=True, eq=False)
class NormalisedJudge:
    """A judge behind (x - mean) / std in float32, as a user's own code would normalise."""

    judge: Judge
    mean: Tensor
    std: Tensor

    def misclassified(self, x: Tensor, labels: Tensor) -> Tensor:
        """Ask the judge about the normalised inputs."""
        return self.judge.misclassified(self.normalise(x), labels)

    def predict(self, x: Tensor) -> Tensor:
        """The judge's answer at the normalised inputs."""
        return self.judge.predict(self.normalise(x))

    def normalise(self, x: Tensor) -> Tensor:
        """(x - mean) / std, each step rounded to float32."""
        return (x.to(torch.float32) - self.mean) / self.std


def with_normalisation(network: Network, mean: Tensor, std: Tensor) -> Network:
    """The network behind (x - mean) / std; regions and radii are then in units before it.

    Args:
        network: any.
        mean: broadcastable to the input shape; read as float32.
        std: likewise, > 0.

    Raises:
        SettingError: if a deviation is not positive.
    """
    mean, std = mean.to(torch.float32), std.to(torch.float32)
    if not bool((std > 0).all()):
        raise SettingError("a standard deviation is not > 0; check --std")
    first, *rest = network.graph.nodes
    wide_mean, wide_std = mean.to(torch.float64), std.to(torch.float64)
    name = f"{first.name}_normalised"
    while any(node.name == name for node in rest):
        name += "'"  # the file may have a tensor of that name, or the network a normalisation
    scaled = Node(
        name,
        "ScaleShift",
        (first.name,),
        first.shape,
        (first.shape,),
        {
            "scale": (1 / wide_std).expand(first.shape).clone(),
            "shift": (-wide_mean / wide_std).expand(first.shape).clone(),
        },
    )
    moved = tuple(
        replace(n, inputs=tuple(name if i == first.name else i for i in n.inputs)) for n in rest
    )
    graph = replace(network.graph, nodes=(first, scaled, *moved))
    return replace(network, graph=graph, judge=NormalisedJudge(network.judge, mean, std))


def load(
    model: str | Path | nn.Module | Network,
    *,
    input_shape: Sequence[int] | None = None,
    mean: Tensor | None = None,
    std: Tensor | None = None,
) -> Network:
    """A network from an ONNX file or a torch module, checked against its own runtime.

    Args:
        model: path of a .onnx or .onnx.gz file, a `torch.nn.Module`, or a network already loaded.
        input_shape: of one input, needed for a module only.
        mean, std: of a normalisation (x - mean) / std to put in front.

    Raises:
        ModelError: if the model cannot be read, or is not what its runtime computes.
        SettingError: if the arguments do not fit each other.
    """
    if isinstance(model, Network):
        network = model
    elif isinstance(model, nn.Module):
        from verify.readers.pytorch import read_module

        if input_shape is None:
            raise SettingError(
                "a torch module does not state its input; give input_shape, such as (3, 32, 32)"
            )
        seen = read_module(model, tuple(input_shape))
        network = Network(seen.graph, seen.judge, None, None, seen.notes)
    else:
        from verify.readers.onnx import read_onnx
        from verify.runtime import Runtime, cross_check

        read = read_onnx(model)
        judge = Runtime(read)
        cross_check(read, judge)
        network = Network(read.graph, judge, str(model), read.sha256, tuple(read.notes))
    if mean is None and std is None:
        return network
    zero, one = torch.zeros(()), torch.ones(())
    return with_normalisation(network, zero if mean is None else mean, one if std is None else std)
