"""Inputs and labels from files: the embedded digits, .npz, .npy, CSV, a folder of images.

Values stay in the units of the input range, before any mean and standard deviation: those belong to
the network (the caller folds them into its graph), so that a radius is a radius in pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from verify.errors import DataError, SettingError
from verify.readers.datasets_arrays import read_npy, read_npz
from verify.readers.datasets_csv import read_csv
from verify.readers.datasets_images import read_images
from verify.readers.datasets_rows import Rows, Selection, whole_labels
from verify.readers.datasets_shape import arrange, channel_axis
from verify.readers.examples import example_path

DIGITS = "digits"

_KINDS = "'digits' (embedded), .npz, .npy, .csv, .csv.gz or a folder of images"


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The chosen rows of a data source, ready for a model.

    Attributes:
        x: float32, shape (n, *input), in units of the input range (before mean and std).
        labels: int64, shape (n,), or None where the source has none.
        indices: number of each row in the source, from 0; length n.
        source: what was read, for people.
        notes: what was assumed on the way, for people.
    """

    x: Tensor
    labels: Tensor | None
    indices: tuple[int, ...]
    source: str
    notes: tuple[str, ...] = ()


def load_dataset(
    source: str | Path,
    *,
    input_shape: Sequence[int],
    channels_last: bool | None = None,
    scale: float | None = None,
    input_range: tuple[float, float] | None = None,
    limit: int | None = None,
    indices: Sequence[int] | None = None,
    labels: Sequence[int] | None = None,
    classes: int | None = None,
) -> Dataset:
    """Read inputs, and labels where there are any, in the shape that a model takes.

    Args:
        source: "digits", or the path of a .npz (keys x and y), .npy, .csv or .csv.gz file (rows
            `label,value,value,...`), or of a folder of images.
        input_shape: of the model, without the batch axis.
        channels_last: whether the source stores an image as (height, width, channel). By default
            as its shape shows, else in the model's own order.
        scale: values are divided by it; by default 255 for CSV, images and arrays of bytes, else 1.
        input_range: (low, high) that every value must lie in after scaling.
        limit: at most this many rows.
        indices: numbers of the rows wanted, from 0; by default all.
        labels: one for each row that is read, in place of the source's own.
        classes: number of the model's classes; each label must lie below it.

    Raises:
        DataError: if the source cannot be read, or does not hold what was asked for.
        SettingError: if an argument is out of its range.
    """
    shape = tuple(int(length) for length in input_shape)
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise SettingError(f"scale must be positive, got {scale}. Values are divided by it.")
    if input_range is not None and not -math.inf < input_range[0] < input_range[1] < math.inf:
        raise SettingError(
            f"input range must be two finite numbers, the lower first, got {input_range}. "
            "Give for example 0 and 1."
        )
    selection = Selection(None if indices is None else tuple(indices), limit)
    rows, name = _read(source, selection, shape)
    divisor = rows.scale if scale is None else scale
    stated = channels_last if channels_last is not None else rows.channels_last
    # An overflow to infinity is refused in the next line, with the row named.
    with np.errstate(over="ignore"):
        x = (arrange(rows.values, shape, stated, name) / np.float64(divisor)).astype(np.float32)
    _check_values(x, rows.indices, input_range, name)
    own = rows.labels if labels is None else whole_labels(labels, rows.indices, name)
    _check_classes(own, rows.indices, classes, name)
    return Dataset(
        x=torch.from_numpy(x),
        labels=None if own is None else torch.from_numpy(own),
        indices=rows.indices,
        source=name,
        notes=(*rows.notes, *_assumptions(rows, shape, stated, divisor)),
    )


def default_source(model: str | Path, *, input_shape: Sequence[int]) -> str:
    """Where to take data from when none is named: the model's .npz beside it, or the digits.

    Raises:
        DataError: if there is neither; the message says how to give data.
    """
    beside = Path(model).with_suffix(".npz")
    if beside.is_file():
        return str(beside)
    if tuple(length for length in input_shape if length != 1) in {(64,), (8, 8)}:
        return DIGITS
    raise DataError(
        f"no data given for {model}: there is no {beside.name} beside it, and the embedded digits "
        f"(8 x 8) do not fit its input of shape {tuple(input_shape)}. "
        f"Name data with --data: {_KINDS}."
    )


def parse_scale(text: str) -> float:
    """What values are divided by, as an option says it: "none" (by nothing) or a positive number.

    Raises:
        SettingError: if it is neither.
    """
    if text.strip().lower() == "none":
        return 1.0
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not (math.isfinite(scale) and scale > 0):
        raise SettingError(
            f"scale must be 'none' or a positive number, got {text!r}. Values are divided by it."
        )
    return scale


def channel_values(
    values: Sequence[float], input_shape: Sequence[int], *, name: str, positive: bool = False
) -> Tensor:
    """A mean or standard deviation per channel, as float32 that broadcasts to the input's shape.

    Args:
        values: one for all, or one for each channel (for each element of a flat input).
        input_shape: of the model, without the batch axis.
        name: "mean" or "std", for the message.
        positive: refuse values that are not above 0.

    Raises:
        SettingError: if their number does not fit, or a value is not finite or not positive.
    """
    shape = tuple(int(length) for length in input_shape)
    axis = channel_axis(shape)
    axis = int(np.argmax(shape)) if axis is None and shape else axis
    channels = 1 if axis is None else shape[axis]
    if len(values) not in {1, channels}:
        raise SettingError(
            f"{name} has {len(values)} values, expected 1 or {channels}, one for each channel of "
            f"the model's input of shape {shape}. Give as many."
        )
    wrong = [v for v in values if not math.isfinite(v) or (positive and v <= 0)]
    if wrong:
        raise SettingError(
            f"{name} must be {'positive' if positive else 'finite'}, got {wrong[0]}. Correct it."
        )
    tensor = torch.tensor([float(v) for v in values], dtype=torch.float32)
    return tensor.reshape([len(values) if i == axis else 1 for i in range(len(shape))])


def _read(source: str | Path, selection: Selection, shape: tuple[int, ...]) -> tuple[Rows, str]:
    if str(source) == DIGITS:
        name = "digits (embedded: held-out split of scikit-learn's digits)"
        return read_npz(example_path("digits.npz"), selection), name
    path = Path(source)
    if not path.exists():
        raise DataError(f"data {path} is not there; expected {_KINDS}. Check the path.")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if path.is_dir():
        rows = read_images(path, selection, input_shape=shape)
    elif suffixes[-1:] == [".npz"]:
        rows = read_npz(path, selection)
    elif suffixes[-1:] == [".npy"]:
        rows = read_npy(path, selection)
    elif suffixes[-1:] == [".csv"] or suffixes[-2:] == [".csv", ".gz"]:
        rows = read_csv(path, selection, size=math.prod(shape))
    else:
        raise DataError(
            f"data {path} is of no known kind; expected {_KINDS}. Convert it, or rename it."
        )
    return rows, str(path)


def _check_values(
    x: np.ndarray, indices: tuple[int, ...], allowed: tuple[float, float] | None, where: str
) -> None:
    """Refuse a value that is not finite or outside `allowed`, naming the first."""
    low, high = allowed if allowed is not None else (-math.inf, math.inf)
    # The ends as float32, like the values: 0.1 as float32 lies above 0.1. NaN fails both.
    fine = np.isfinite(x) & (x >= np.float32(low)) & (x <= np.float32(high))
    if fine.all():
        return
    flat = fine.reshape(len(x), -1)
    row, element = (int(i) for i in np.argwhere(~flat)[0])
    value = x.reshape(len(x), -1)[row, element]
    if not np.isfinite(value):
        raise DataError(
            f"row {indices[row]} of {where}, element {element}, is {value}, "
            "expected a finite number of float32's range. Correct the data."
        )
    raise DataError(
        f"row {indices[row]} of {where}, element {element}, is {value:g} after scaling, outside "
        f"the input range [{low:g}, {high:g}]. Give another input range or scale."
    )


def _check_classes(
    labels: np.ndarray | None, indices: tuple[int, ...], classes: int | None, where: str
) -> None:
    if labels is None or classes is None or (labels < classes).all():
        return
    at = int(np.flatnonzero(labels >= classes)[0])
    raise DataError(
        f"label of row {indices[at]} of {where} is {labels[at]}, expected 0 to {classes - 1}: "
        f"the model has {classes} classes. Correct the labels, or take the model they belong to."
    )


def _assumptions(
    rows: Rows, shape: tuple[int, ...], channels_last: bool | None, divisor: float
) -> tuple[str, ...]:
    """What was done without being asked for."""
    notes = [f"values divided by {divisor:g}"] if divisor != 1 else []
    axis = channel_axis(shape)
    colour = axis is not None and len(shape) - shape.count(1) > 2 and shape[axis] > 1
    if colour and channels_last is None and rows.values.ndim == 2:
        order = "last" if axis == len(shape) - 1 else "first"
        notes.append(f"flat rows read in the model's own order, channels {order}")
    return tuple(notes)
