"""Small random networks that tests of bounds, attacks and searches share."""

from __future__ import annotations

from collections.abc import Callable

import torch

from verify.graph.ir import Graph
from verify.readers.builder import GraphBuilder


def weights(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Gaussian weights scaled so that activations keep their size."""
    fan = max(1, torch.Size(shape[1:]).numel())
    return torch.randn(*shape, generator=generator, dtype=torch.float64) * (2 / fan) ** 0.5


def dense_net(seed: int, sizes: tuple[int, ...] = (4, 8, 8, 3), activation: str = "Relu") -> Graph:
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


def convolution(
    builder: GraphBuilder,
    source: str,
    out: int,
    wished: str,
    generator: torch.Generator,
    *,
    kernel: int = 3,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> str:
    """A square convolution with random weights."""
    channels = builder.shape(source)[0]
    return builder.add(
        "Conv",
        (source,),
        wished,
        tensors={
            "weight": weights(generator, out, channels // groups, kernel, kernel),
            "bias": 0.1 * torch.randn(out, generator=generator, dtype=torch.float64),
        },
        settings={
            "stride": (stride, stride),
            "padding": (padding, padding),
            "dilation": (1, 1),
            "groups": (groups,),
        },
    )


def head(builder: GraphBuilder, name: str, classes: int, generator: torch.Generator) -> Graph:
    """The network with a dense layer on top of whatever there is."""
    size = torch.Size(builder.shape(name)).numel()
    name = builder.add("Reshape", (name,), "flat", shape=(size,))
    constants = {"weight": weights(generator, classes, size), "bias": torch.zeros(classes)}
    return builder.build(builder.add("Gemm", (name,), "logits", tensors=constants))


def conv_net(seed: int, *, pool: bool = True, residual: bool = True) -> Graph:
    """A convolutional net with a residual branch, max pooling and a dense head; input (2, 6, 6)."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder("x", (2, 6, 6))

    def conv(source: str, out: int, wished: str, stride: int = 1) -> str:
        return convolution(builder, source, out, wished, generator, stride=stride, padding=1)

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
    return head(builder, name, 4, generator)


def preactivation_net(seed: int) -> Graph:
    """Relu, then a scaling that cannot be folded, then a convolution, twice; input (2, 7, 7)."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder("x", (2, 7, 7))
    name = "x"
    for i, stride in enumerate((1, 2)):
        name = convolution(builder, name, 3, f"conv{i}", generator, stride=stride, padding=1)
        name = builder.add("Relu", (name,), f"relu{i}")
        constants = {
            "scale": torch.randn(*builder.shape(name), generator=generator),
            "shift": torch.randn(3, 1, 1, generator=generator),
        }
        name = builder.add("ScaleShift", (name,), f"scaled{i}", tensors=constants)
    name = convolution(builder, name, 3, "last", generator, padding=1)
    return head(builder, builder.add("Relu", (name,), "relu"), 3, generator)


def branched_conv_net(seed: int) -> Graph:
    """Two convolutions, a nonlinearity each, and their difference; input (2, 6, 6)."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder("x", (2, 6, 6))
    trunk = convolution(builder, "x", 3, "trunk", generator, padding=1)
    trunk = builder.add("Relu", (trunk,), "trunk_relu")
    wide = convolution(builder, trunk, 3, "wide", generator, kernel=5, padding=2)
    wide = builder.add("Relu", (wide,), "wide_relu")
    narrow = convolution(builder, trunk, 3, "narrow", generator, kernel=1)
    narrow = activate(builder, narrow, "TwoPiece", "narrow_leaky")
    both = builder.add("Add", (wide, narrow), "both", settings={"signs": (1, -1)})
    last = convolution(builder, both, 2, "last", generator, stride=2)
    return head(builder, builder.add("Relu", (last,), "relu"), 3, generator)


def branched_net(seed: int, first: str = "Relu", second: str = "Tanh", join: str = "Add") -> Graph:
    """Two dense branches, a nonlinearity each, then their sum or concatenation; input (4,)."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder("x", (4,))

    def dense(source: str, out: int, wished: str) -> str:
        fan_in = builder.shape(source)[0]
        bias = 0.3 * torch.randn(out, generator=generator, dtype=torch.float64)
        constants = {"weight": weights(generator, out, fan_in), "bias": bias}
        return builder.add("Gemm", (source,), wished, tensors=constants)

    trunk = builder.add("Relu", (dense("x", 6, "trunk"),), "trunk_relu")
    left = activate(builder, dense(trunk, 6, "left"), first, "left_act")
    left = activate(builder, dense(left, 6, "left2"), first, "left_act2")
    right = activate(builder, dense(trunk, 6, "right"), second, "right_act")
    settings = {"signs": (1, -1)} if join == "Add" else {"axis": (0,)}
    both = builder.add(join, (left, right), "both", settings=settings)
    both = builder.add("Relu", (dense(both, 5, "mixed"),), "mixed_relu")
    return builder.build(dense(both, 3, "logits"))


def affine_net(seed: int) -> Graph:
    """Nothing but affine operators and data movement; input (2, 5, 5)."""
    generator = torch.Generator().manual_seed(seed)
    builder = GraphBuilder("x", (2, 5, 5))
    first = convolution(builder, "x", 3, "first", generator, padding=1)
    second = convolution(builder, "x", 3, "second", generator, kernel=1)
    name = builder.add("Add", (first, second), "sum", settings={"signs": (1, -1)})
    name = builder.add("Transpose", (name,), "turned", settings={"perm": (1, 2, 0)})
    index = torch.tensor([4, 0, 0, 2])
    picked = {"index": index}
    name = builder.add("Select", (name,), "few", tensors=picked, settings={"axis": (0,)})
    pads = {"pads": (1, 0, 0, 0, 0, 1)}
    name = builder.add(
        "Pad", (name,), "framed", tensors={"value": torch.tensor(0.7)}, settings=pads
    )
    scale = {"scale": torch.tensor(0.25)}
    name = builder.add("Reduce", (name,), "mean", tensors=scale, settings={"axes": (1,)})
    return head(builder, name, 3, generator)


FAMILIES: dict[str, Callable[[int], Graph]] = {
    "affine": affine_net,
    "relu": dense_net,
    "leaky": lambda seed: dense_net(seed, activation="TwoPiece"),
    "abs": lambda seed: dense_net(seed, activation="Abs"),
    "concave": lambda seed: dense_net(seed, activation="Concave"),
    "sigmoid": lambda seed: dense_net(seed, activation="Sigmoid"),
    "tanh": lambda seed: dense_net(seed, activation="Tanh"),
    "clip": lambda seed: dense_net(seed, activation="Clip"),
    "conv": lambda seed: conv_net(seed, pool=False, residual=False),
    "residual": lambda seed: conv_net(seed, pool=False),
    "pooled": conv_net,
    "preactivation": preactivation_net,
    "branched_conv": branched_conv_net,
    "branched": branched_net,
    "gated": lambda seed: branched_net(seed, "Sigmoid", "Tanh"),
    "concatenated": lambda seed: branched_net(seed, "TwoPiece", "Clip", join="Concat"),
}
"""One random net per seed of every kind that the bounders must handle."""
