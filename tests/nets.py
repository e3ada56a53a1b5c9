"""Small random networks that tests of bounds, attacks and searches share."""

from __future__ import annotations

import torch

from verify.graph.ir import Graph
from verify.readers.builder import GraphBuilder


def weights(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Gaussian weights scaled so that activations keep their size."""
    fan = max(1, torch.Size(shape[1:]).numel())
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * (2 / fan) ** 0.5


def dense_net(
    seed: int, sizes: tuple[int, ...] = (4, 8, 8, 3), activation: str = "Relu"
) -> Graph:
    """A dense net; `sizes` from input to output."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder("x", (sizes[0],))
    name = "x"
    for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        constants = {
            "weight": weights(generator, fan_out, fan_in),
            "bias": 0.3 * torch.randn(fan_out, generator=generator, dtype=torch.float64),
        }
        name = builder.add("Gemm", (name,), f"gemm{i}", tensors=constants)
        if i < len(sizes) - 2:
            name = activate(builder, name, activation, f"act{i}")
    return builder.build(name)


def activate(builder: GraphBuilder, name: str, activation: str, wished: str) -> str:
    """An activation node with its constants."""
    tensors = {
        "TwoPiece": {"below": torch.tensor(0.1), "above": torch.tensor(1.0)},
        "Concave": {"below": torch.tensor(1.0), "above": torch.tensor(0.2)},
        "Abs": {"below": torch.tensor(-1.0), "above": torch.tensor(1.0)},
        "Clip": {"low": torch.tensor(-0.3), "high": torch.tensor(0.8)},
    }.get(activation, {})
    op = "TwoPiece" if activation in ("Concave", "Abs") else activation
    return builder.add(op, (name,), wished, tensors=tensors)


def conv_net(seed: int, *, pool: bool = True, residual: bool = True) -> Graph:
    """A convolutional net with a residual branch, max pooling and a dense head; input (2, 6, 6)."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder("x", (2, 6, 6))

    def conv(source: str, out: int, wished: str, stride: int = 1) -> str:
        channels = builder.shape(source)[0]
        return builder.add(
            "Conv",
            (source,),
            wished,
            tensors={
                "weight": weights(generator, out, channels, 3, 3),
                "bias": 0.1 * torch.randn(out, generator=generator, dtype=torch.float64),
            },
            settings={
                "stride": (stride, stride),
                "padding": (1, 1),
                "dilation": (1, 1),
                "groups": (1,),
            },
        )

    name = builder.add("Relu", (conv("x", 3, "conv1"),), "relu1")
    if residual:
        branch = builder.add("Relu", (conv(name, 3, "conv2"),), "relu2")
        branch = conv(branch, 3, "conv3")
        name = builder.add("Add", (branch, name), "add", settings={"signs": (1, 1)})
        name = builder.add("Relu", (name,), "relu3")
    if pool:
        settings = {"kernel": (2, 2), "stride": (2, 2), "pads": (0, 0, 0, 0), "dilation": (1, 1)}
        name = builder.add("MaxPool", (name,), "pool", settings=settings)
    else:
        name = builder.add("Relu", (conv(name, 3, "conv4", stride=2),), "relu4")
    size = torch.Size(builder.shape(name)).numel()
    name = builder.add("Reshape", (name,), "flat", shape=(size,))
    constants = {"weight": weights(generator, 4, size), "bias": torch.zeros(4)}
    return builder.build(builder.add("Gemm", (name,), "logits", tensors=constants))
