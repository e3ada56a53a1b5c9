"""Bring stored rows into the shape of a model's input, never by guessing.

A reshape always succeeds when the number of elements fits, and scrambles an image whose axes are
in another order. So axes are only added, dropped where they have length 1, flattened, unfolded from
flat, or moved between channels first and last; anything else is refused.
"""

import math

import numpy as np

from verify.errors import DataError, SettingError

_CHANNEL_COUNTS = (1, 3, 4)  # grey, RGB, RGBA


def channel_axis(input_shape: tuple[int, ...]) -> int | None:
    """The axis of `input_shape` that counts channels; None for a flat input.

    Of three axes it is the last one if that alone is as long as images have channels (1, 3 or 4),
    and the first one otherwise, which is the ONNX convention. Leading axes of length 1 beyond three
    axes are skipped.
    """
    extra = max(len(input_shape) - 3, 0)
    if any(length != 1 for length in input_shape[:extra]):
        return 0
    shape = input_shape[extra:]
    if len(shape) < 2:
        return None
    if len(shape) == 3 and shape[0] not in _CHANNEL_COUNTS and shape[-1] in _CHANNEL_COUNTS:
        return extra + 2
    return extra


def arrange(
    values: np.ndarray, input_shape: tuple[int, ...], channels_last: bool | None, where: str
) -> np.ndarray:
    """Rows in the model's shape, (n, *input_shape).

    Args:
        values: stored rows, shape (n, ...).
        input_shape: without the batch axis.
        channels_last: whether the rows store channels last, as (height, width, channel). None:
            read off the rows' shape where it shows, else the model's own order.
        where: the source, for the message.

    Raises:
        DataError: if the rows do not hold one model input each, or their axes do not correspond.
        SettingError: if `channels_last` is given and the model's input has no channel axis.
    """
    stored, size = values.shape[1:], math.prod(input_shape)
    if math.prod(stored) != size:
        raise DataError(
            f"rows of {where} hold {math.prod(stored)} values each (shape {stored}), expected "
            f"{size} as the model's input has shape {input_shape}. "
            "Give data of the model's size; nothing is resized."
        )
    axis = channel_axis(input_shape)
    if channels_last is not None and axis is None:
        raise SettingError(
            f"channels_last says how {where} stores its channels, but the model's input of shape "
            f"{input_shape} has no channel axis. Leave it out."
        )
    if axis is None or len(_long_axes(input_shape)) < 2 or input_shape[axis] == 1:
        _agree(stored, input_shape, where)
        return values.reshape(len(values), *input_shape)
    model_last = axis == len(input_shape) - 1
    image = input_shape[-3:] if model_last else input_shape[axis:]  # without leading axes of 1
    other = (image[-1], *image[:-1]) if model_last else (*image[1:], image[0])
    if channels_last is None:
        # Only a shape that is the other order's and not the model's own says so by itself.
        swap = _long_axes(stored) == _long_axes(other) != _long_axes(image)
    else:
        swap = channels_last != model_last
    _agree(stored, other if swap else image, where)
    if not swap:
        return values.reshape(len(values), *input_shape)
    rows = values.reshape(len(values), *other)
    moved = np.moveaxis(rows, 1, -1) if model_last else np.moveaxis(rows, -1, 1)
    return np.ascontiguousarray(moved).reshape(len(values), *input_shape)


def _long_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)


def _agree(stored: tuple[int, ...], expected: tuple[int, ...], where: str) -> None:
    """Refuse two shapes whose axes differ, unless one of them is flat."""
    a, b = _long_axes(stored), _long_axes(expected)
    if a != b and len(a) > 1 and len(b) > 1:
        raise DataError(
            f"rows of {where} have shape {stored}, expected {expected} (the same number of values, "
            "but other axes). Transpose the data, or say whether channels come last."
        )
