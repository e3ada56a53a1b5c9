"""Inputs for commands that only run a model: which, in which units, behind which normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verify.cli import parsing
from verify.errors import DataError, ModelError, SettingError

if TYPE_CHECKING:
    from torch import Tensor

    from verify.readers.datasets import Dataset
    from verify.runs.identity import Instance

PANEL = "Data"


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How to read whatever data are named."""

    limit: Annotated[
        int | None,
        typer.Option(
            help="At most this many inputs of a source.", show_default=False, rich_help_panel=PANEL
        ),
    ] = None
    indices: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Rows of a source, from 0: '0,3,5-9'.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="Per channel, comma between: the model gets (x - mean) / std.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="See --mean.", show_default=False, rich_help_panel=PANEL),
    ] = None
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="S",
            help="Values of a source are divided by it. Default: 255 for CSV, images and arrays "
            "of bytes, else 1.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None
    channels_last: Annotated[
        bool | None,
        typer.Option(
            "--channels-last/--channels-first",
            help="How sources store images. Default: as their shape shows, else as the model.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ] = None

    def settings(self) -> dict[str, object]:
        """As the record holds them."""
        return {
            "limit": self.limit,
            "indices": self.indices,
            "mean": list(parsing.numbers(self.mean, "--mean") or ()) or None,
            "std": list(parsing.numbers(self.std, "--std") or ()) or None,
            "scale": self.scale,
            "channels_last": self.channels_last,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The rows of one source.

    Attributes:
        data: as read, in units of the source.
        x: what the model gets, shape (N, *input).
    """

    data: Dataset
    x: Tensor


def read_inputs(
    source: str | None,
    model: Path,
    shape: tuple[int, ...],
    options: SourceOptions,
    classes: int | None = None,
) -> Inputs:
    """Read a source, or the model's default one, and normalise it.

    Raises:
        InputError: if it cannot be read, does not fit the model, or is empty.
    """
    from verify.readers.datasets import default_source, load_dataset

    if options.limit is not None and options.limit < 1:
        raise SettingError(f"--limit is {options.limit}, expected at least 1; correct it")
    data = load_dataset(
        source or default_source(model, input_shape=shape),
        input_shape=shape,
        channels_last=options.channels_last,
        scale=parsing.positive(options.scale, "--scale"),
        limit=options.limit,
        indices=parsing.indices(options.indices),
        classes=classes,
    )
    if not len(data.x):
        raise DataError(f"{data.source} has no rows; choose others")
    return Inputs(data, normalised(data.x, shape, options))


def instances_from(inputs: Inputs) -> list[Instance]:
    """The inputs of a source, as a run tells them apart."""
    import numpy as np

    from verify.runs.identity import Instance

    labels = inputs.data.labels
    rows = inputs.data.x.numpy().astype("<f4", copy=False)
    return [
        Instance(
            index,
            None if labels is None else int(labels[i]),
            None,
            np.ascontiguousarray(rows[i]).tobytes(),
        )
        for i, index in enumerate(inputs.data.indices)
    ]


def normalised(x: Tensor, shape: tuple[int, ...], options: SourceOptions) -> Tensor:
    """(x - mean) / std where either was given."""
    from verify.readers.datasets import channel_values

    mean, std = parsing.numbers(options.mean, "--mean"), parsing.numbers(options.std, "--std")
    if mean is None and std is None:
        return x
    middle = channel_values(mean or (0.0,), shape, name="mean")
    return (x - middle) / channel_values(std or (1.0,), shape, name="std", positive=True)


def fixed_shape(model: Path, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """The model's input shape, if the file says all of it.

    Raises:
        ModelError: if it leaves a length open.
    """
    known = tuple(length for length in shape if length is not None)
    if len(known) < len(shape) or not known:
        raise ModelError(
            f"{model} leaves the shape of its input open ({shape}); export it with fixed lengths "
            "behind the batch axis"
        )
    return known


def check_picture(path: Path | None) -> None:
    """Refuse a picture that cannot be drawn, before the work.

    Raises:
        SettingError: if its ending is unknown or its folder is not there.
    """
    from verify.report.plots import FORMATS

    if path is not None and (
        path.suffix.lower().removeprefix(".") not in FORMATS or not path.parent.is_dir()
    ):
        raise SettingError(
            f"picture {path} cannot be drawn, expected a file ending in {', '.join(FORMATS)} in a "
            "folder that is there; name another"
        )


def refuse_softmax(data: bytes, path: Path, *kinds: str) -> None:
    """Refuse a file that ends in one of these operators: its outputs would be taken for logits.

    Args:
        data: the serialised model.
        path: for the message.
        kinds: "Softmax" unless others are named.
    """
    import onnx

    graph = onnx.load_model_from_string(data).graph
    for node in graph.node:
        if node.op_type in (kinds or ("Softmax",)) and graph.output[0].name in node.output:
            raise SettingError(
                f"{path} ends in a {node.op_type}, but its outputs are taken for logits; "
                "export the model without it"
            )
