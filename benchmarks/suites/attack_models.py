"""Networks and images on which attacks are compared: pixels in [0, 1], shape (1 or 3, side, side).

Every attack library gets the same torch module, and several of them accept nothing but image
batches in [0, 1]; so a network's own layout and normalisation are put in front of it here.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.machine import ROOT
from benchmarks.peers.onnx_module import load_module
from benchmarks.suites.vnncomp import input_shape, stored, unpack

DATA = ROOT.parent / "shared" / "data"
EXAMPLES = ROOT / "examples"
UNIT = ((0.0,), (1.0,))
# What the competition's property files imply, per channel; see ../shared/data/images/README.md.
OVAL = ((0.485, 0.456, 0.406), (0.225, 0.225, 0.225))
RESNET = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))


@dataclass(frozen=True, slots=True)
class Source:
    """Where a network comes from.

    Attributes:
        folder: a category of VNN-COMP, or "" for the repository's own examples.
        file: the ONNX file in it.
        images: "digits", "mnist" or "cifar".
        normalisation: per channel, what is taken from the pixels and what divides them then.
        eps: L-inf radii in pixel units: one at which part of the images fall to any attack, and
            one at which the attacks differ.
    """

    folder: str
    file: str
    images: str
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]
    eps: tuple[float, float]


SOURCES = {
    "digits_dense": Source("", "digits_dense.onnx", "digits", UNIT, (0.1, 0.15)),
    "digits_conv": Source("", "digits_conv.onnx", "digits", UNIT, (0.1, 0.15)),
    "mnist_256x2": Source("mnist_fc", "mnist-net_256x2.onnx", "mnist", UNIT, (0.03, 0.05)),
    "mnist_256x4": Source("mnist_fc", "mnist-net_256x4.onnx", "mnist", UNIT, (0.03, 0.05)),
    "oval21_base": Source("oval21", "cifar_base_kw.onnx", "cifar", OVAL, (4 / 255, 8 / 255)),
    "resnet_2b": Source("cifar10_resnet", "resnet_2b.onnx", "cifar", RESNET, (2 / 255, 4 / 255)),
    "resnet_4b": Source("cifar10_resnet", "resnet_4b.onnx", "cifar", RESNET, (1 / 255, 2 / 255)),
}


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A network and images that it classifies correctly.

    Attributes:
        name: a key of `SOURCES`.
        net: from (batch, channels, side, side) in [0, 1] to logits.
        x: shape (batch, channels, side, side), float32.
        labels: shape (batch,), int64.
        eps: see `Source`.
    """

    name: str
    net: nn.Module
    x: Tensor
    labels: Tensor
    eps: tuple[float, float]


class OnPixels(nn.Module):
    """A network behind its normalisation and layout."""

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, ...],
        normalisation: tuple[tuple[float, ...], tuple[float, ...]],
    ) -> None:
        """`shape` is that of one input of `net`."""
        super().__init__()
        self.net, self.shape = net, shape
        mean, scale = (torch.tensor(values)[:, None, None] for values in normalisation)
        self.plain = normalisation == UNIT
        # A parameter, since some libraries ask the first one for the device.
        self.mean = nn.Parameter(mean, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of pixels, shape (batch, classes)."""
        if not self.plain:
            x = (x - self.mean) / self.scale
        logits: Tensor = self.net(x.reshape(len(x), *self.shape))
        return logits


def load_case(name: str, samples: int, scratch: Path, data: Path = DATA) -> Case:
    """One network and the first `samples` images that it classifies correctly.

    Args:
        name: a key of `SOURCES`.
        samples: how many images at most.
        scratch: an existing folder for unpacked models.
        data: the folder with vnncomp/ and images/.

    Raises:
        FileNotFoundError: if the data are not there.
    """
    source = SOURCES[name]
    path = EXAMPLES / source.file
    if source.folder:
        folder = data / "vnncomp" / source.folder / "onnx"
        path = unpack(stored(folder / source.file), scratch)
    x, labels = IMAGES[source.images](data / "images")
    shape = input_shape(path)
    probe = torch.zeros(1, *shape)
    net = OnPixels(load_module(path, probe, probe + 1), shape, source.normalisation).eval()
    net.requires_grad_(False)
    with torch.no_grad():
        right = (net(x).argmax(dim=1) == labels).nonzero().flatten()[:samples]
    return Case(name, net, x[right].clone(), labels[right].clone(), source.eps)


def digits(_: Path) -> tuple[Tensor, Tensor]:
    """The held-out digits of the embedded example."""
    with np.load(EXAMPLES / "digits.npz") as file:
        return torch.tensor(file["x"])[:, None], torch.tensor(file["y"])


def mnist(folder: Path) -> tuple[Tensor, Tensor]:
    """The first 100 MNIST test images."""
    table = read_table(folder / "mnist_test_100.csv")
    return table[:, 1:].float().view(-1, 1, 28, 28) / 255, table[:, 0]


def cifar(folder: Path) -> tuple[Tensor, Tensor]:
    """The first 100 CIFAR-10 test images; the file has the channels last."""
    table = read_table(folder / "cifar10_test_100.csv")
    pixels = table[:, 1:].float().view(-1, 32, 32, 3) / 255
    return pixels.permute(0, 3, 1, 2).contiguous(), table[:, 0]


IMAGES = {"digits": digits, "mnist": mnist, "cifar": cifar}


def read_table(path: Path) -> Tensor:
    """Rows of integers, label first; shape (images, 1 + pixels), int64."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="") as file:
        return torch.tensor([[int(entry) for entry in row] for row in csv.reader(file) if row])
