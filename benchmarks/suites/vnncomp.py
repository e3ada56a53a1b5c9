"""L-infinity classification instances of VNN-COMP on which bounds are compared.

Source: the benchmark repositories of VNN-COMP 2021 and 2022, as kept in ../shared/data/vnncomp
(its README names commits); they carry no licence, so nothing of them is in this repository.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import onnx
import torch
from torch import Tensor

from benchmarks.suites.box_property import read_box_property

DEFAULT_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "vnncomp"

# Category and model file of every network, in the order of the tables.
NETWORKS = {
    "mnist-net_256x2": "mnist_fc",
    "mnist-net_256x4": "mnist_fc",
    "mnist-net_256x6": "mnist_fc",
    "cifar_base_kw": "oval21",
    "cifar_wide_kw": "oval21",
    "cifar_deep_kw": "oval21",
    "resnet_2b": "cifar10_resnet",
    "resnet_4b": "cifar10_resnet",
    "ffnnSIGMOID__Point_6x200": "eran",
    "mnist_relu_9_200": "eran",
    "Convnet_avgpool": "verivital",
    "Convnet_maxpool": "verivital",
}


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One input box of one network, and the label that must hold in it.

    Attributes:
        network: a key of `NETWORKS`.
        name: the property file's name without its suffixes.
        model: the unpacked ONNX file.
        lower: shape (1, *input), float32, in model input units.
        upper: the same shape.
        label: the output that must stay above all others.
    """

    network: str
    name: str
    model: Path
    lower: Tensor
    upper: Tensor
    label: int


def stored(path: Path) -> Path:
    """The file itself, or its packed twin: the lists name files without .gz."""
    return path if path.exists() else path.with_name(f"{path.name}.gz")


def unpack(path: Path, scratch: Path) -> Path:
    """An ONNX file that any tool can read: `path` itself, or its content unpacked in `scratch`."""
    if path.suffix != ".gz":
        return path
    target = scratch / path.stem
    if not target.exists():
        target.write_bytes(gzip.decompress(path.read_bytes()))
    return target


def input_shape(model: Path) -> tuple[int, ...]:
    """Shape of one input of the model, without the batch axis."""
    graph = onnx.load(model).graph
    constants = {tensor.name for tensor in graph.initializer}
    (entry,) = (value for value in graph.input if value.name not in constants)
    return tuple(axis.dim_value for axis in entry.type.tensor_type.shape.dim[1:])


def instances(
    network: str, scratch: Path, *, folder: Path = DEFAULT_FOLDER, limit: int | None = None
) -> Iterator[Instance]:
    """The instances of one network, in the order of the competition's list.

    Args:
        network: a key of `NETWORKS`.
        scratch: an existing folder for unpacked models.
        folder: the folder of the categories.
        limit: how many at most; None for all.

    Raises:
        KeyError: if the network is not one of `NETWORKS`.
        FileNotFoundError: if the category is not in `folder`.
    """
    category = folder / NETWORKS[network]
    with (category / "instances.csv").open(newline="") as listing:
        rows = [row for row in csv.reader(listing) if Path(row[0]).stem == network]
    model = unpack(stored(category / rows[0][0]), scratch)
    shape = (1, *input_shape(model))
    for _, vnnlib, *_ in islice(rows, limit):
        box = read_box_property(stored(category / vnnlib))
        yield Instance(
            network=network,
            name=Path(vnnlib).stem,
            model=model,
            lower=box.lower.to(torch.float32).reshape(shape),
            upper=box.upper.to(torch.float32).reshape(shape),
            label=box.label,
        )
