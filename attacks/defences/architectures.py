"""Small networks to train: presets, and the normalisation that may stand in front of one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attacks.errors import AttackInputError

ARCHITECTURES = ("dense", "conv")
DENSE_WIDTHS = (128, 64)
CONV_WIDTHS = (16, 32, 100)
SMALL = 16
"""Pixels a side, up to which the first convolution keeps the size."""


class Normalise(nn.Module):
    """(x - mean) / std, so that the radius stays in the units of x.

    Args:
        mean: broadcastable to one input.
        std: likewise, > 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        if not bool((std > 0).all()):
            raise AttackInputError(f"Normalise needs std > 0, got {std.tolist()}. Correct it.")
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        """Shape as given."""
        return (x - self.mean) / self.std


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Shape as given."""
        change: Tensor = self.body(x)
        return x + change


def build(
    name: str,
    input_shape: Sequence[int],
    classes: int,
    *,
    widths: Sequence[int] | None = None,
    seed: int = 0,
) -> nn.Sequential:
    """A new network with random weights, the same for the same seed.

    Args:
        name: "dense": linear layers with ReLU between, on the flattened input. "conv": 3 x 3
            convolutions of stride 2 (the first keeps the size of images up to 16 x 16), then a
            dense layer, then the logits.
        input_shape: of one input; (channels, height, width) for "conv".
        classes: number of logits, at least 2.
        widths: of the hidden layers; for "conv" the channels, and last the dense layer's width.

    Raises:
        AttackInputError: if there is no such preset, or it does not fit the shape.
    """
    shape = tuple(int(length) for length in input_shape)
    widths = tuple(widths or (CONV_WIDTHS if name == "conv" else DENSE_WIDTHS))
    if name not in ARCHITECTURES:
        raise AttackInputError(
            f"There is no architecture {name!r}; expected one of {', '.join(ARCHITECTURES)}."
        )
    if classes < 2 or min((*widths, *shape), default=0) < 1:
        raise AttackInputError(
            f"{name} got {classes} classes, widths {widths} and an input of shape {shape}; "
            "expected at least 2 classes and lengths of at least 1. Correct them."
        )
    if name == "conv" and (len(shape) != 3 or len(widths) < 2):
        raise AttackInputError(
            f"conv got an input of shape {shape} and widths {widths}; expected (channels, height, "
            "width), and channels of at least one convolution before the dense layer's width. "
            "Correct them, or take dense."
        )
    # Modules draw from the global generator; the caller's is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return conv(shape, classes, widths) if name == "conv" else dense(shape, classes, widths)


def dense(shape: Sequence[int], classes: int, widths: Sequence[int]) -> nn.Sequential:
    """Flatten (where there is anything to flatten), then linear layers with ReLU between."""
    sizes = (math.prod(shape), *widths)
    layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], classes))


def conv(shape: Sequence[int], classes: int, widths: Sequence[int]) -> nn.Sequential:
    """Convolutions with ReLU, a hidden dense layer, the logits."""
    channels, *size = shape
    layers: list[nn.Module] = []
    for i, width in enumerate(widths[:-1]):
        stride = 1 if i == 0 and max(size) <= SMALL else 2
        layers += [nn.Conv2d(channels, width, 3, stride=stride, padding=1), nn.ReLU()]
        channels, size = width, [math.ceil(length / stride) for length in size]
    entries = channels * math.prod(size)
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(entries, widths[-1]),
        nn.ReLU(),
        nn.Linear(widths[-1], classes),
    )


def ibp_initialise(net: nn.Module, seed: int = 0) -> None:
    """Draw weights anew so that interval bounds keep their width from layer to layer.

    The variance is 2 pi / fan_in^2: with PyTorch's own the width grows like the square root of
    each layer's fan-in, and deep networks do not learn from bounds that wide. Biases become 0.

    Source:
        Shi et al. 2021, arXiv:2103.17268, section 3.1.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, math.sqrt(2 * math.pi) / fan_in)
                if module.bias is not None:
                    module.bias.zero_()
