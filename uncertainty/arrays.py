"""What this package takes and gives: any kind of array in, numpy float64 out.

Conventions, the same everywhere:

* In: numpy arrays, torch tensors (on any device, with or without gradient) or nested lists. Out:
  numpy arrays of float64, and plain floats where there is one number. Wrap a result in
  `torch.from_numpy` where a tensor is wanted. Nothing here can be differentiated.
* Shapes: logits and probabilities (inputs, classes); those of several members (members, inputs,
  classes), member first as `torch.stack` gives them; regression (inputs,) and (members, inputs);
  labels (inputs,), whole numbers from 0. What is a logit and what a probability is said by the
  name of the function or argument, and never guessed from the values.
* Units: entropies and log-likelihoods in nats. An uncertainty is higher where a prediction is less
  to be trusted.
* NaN and infinity are refused, as are rows of probabilities that do not sum to 1.

Whatever cannot be used raises `UncertaintyInputError`.
"""

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from uncertainty.errors import UncertaintyInputError

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]
Numbers: TypeAlias = NDArray[np.float64 | np.float32 | np.int64 | np.bool_]
Array: TypeAlias = ArrayLike | torch.Tensor

SUM_TOLERANCE = 1e-4
"""How far a row of probabilities may be from the sum 1: float32 softmax over 10^5 classes, or
values printed with five digits, stay within it."""

BLOCK = 2**20
"""Numbers looked at at once where a whole array need not be copied."""

_AXES = {1: "(inputs,)", 2: "(inputs, classes)", 3: "(members, inputs, classes)"}


def as_numpy(values: Array, name: str) -> Numbers:
    """The values as a numpy array of numbers, without a copy where that is possible.

    Raises:
        UncertaintyInputError: if they are ragged, or no real numbers.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = values.float() if values.dtype == torch.bfloat16 else values  # unknown to numpy
    try:
        found = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UncertaintyInputError(
            f"{name} cannot be made an array: {error}. Give an array of one shape."
        ) from None
    if found.dtype.kind not in "fiub":
        raise UncertaintyInputError(
            f"{name} has dtype {found.dtype}, expected real numbers; convert it."
        )
    return found


def as_floats(values: Array, name: str, *, axes: int | None = None) -> Floats:
    """Finite numbers as float64.

    Args:
        values: of any shape, unless `axes` says how many axes there are to be.
        name: of the argument, for messages.
        axes: number of axes.

    Raises:
        UncertaintyInputError: if they have another number of axes, or one is NaN or infinite.
    """
    found = as_numpy(values, name).astype(np.float64, copy=False)
    if axes is not None and found.ndim != axes:
        raise UncertaintyInputError(
            f"{name} has shape {found.shape}, expected {_AXES[axes]}; reshape it."
        )
    finite = np.isfinite(found)
    if not finite.all():
        where = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise UncertaintyInputError(
            f"{name} has {found[where]} at {where}, expected finite numbers; leave such inputs "
            "out, or mend what made them."
        )
    return found


def as_logits(values: Array, name: str = "logits") -> Floats:
    """Logits, shape (inputs, classes), at least one class."""
    found = as_floats(values, name, axes=2)
    needs_classes(found, name)
    return found


def as_probabilities(values: Array, name: str = "probabilities") -> Floats:
    """Probabilities, shape (inputs, classes): each in [0, 1], each row summing to 1.

    They are returned as given, not divided by their sum.
    """
    found = as_floats(values, name, axes=2)
    check_probabilities(found, name)
    return found


def as_members(values: Array, name: str = "members") -> Floats:
    """Probabilities of several members, shape (members, inputs, classes)."""
    found = as_floats(values, name, axes=3)
    if not len(found):
        raise UncertaintyInputError(
            f"{name} has no members (shape {found.shape}); give one or more."
        )
    check_probabilities(found, name)
    return found


def as_labels(values: Array, *, inputs: int | None = None, classes: int | None = None) -> Integers:
    """Labels, shape (inputs,), as int64.

    Raises:
        UncertaintyInputError: if they are not whole numbers in 0 ... classes - 1, one an input.
    """
    found = as_numpy(values, "labels")
    if found.ndim != 1:
        raise UncertaintyInputError(f"labels have shape {found.shape}, expected (inputs,).")
    if inputs is not None and len(found) != inputs:
        raise UncertaintyInputError(
            f"there are {len(found)} labels for {inputs} inputs; give one for each."
        )
    check_whole(found, "labels", classes)
    return found.astype(np.int64)


def check_whole(found: Numbers, name: str, classes: int | None) -> None:
    """Refuse what is no class number.

    Raises:
        UncertaintyInputError: if a value is not whole, below 0, or not below `classes`.
    """
    whole = found.dtype.kind != "f" or bool((np.isfinite(found) & (np.rint(found) == found)).all())
    if not whole:
        raise UncertaintyInputError(f"{name} are not whole numbers; give class numbers from 0.")
    if not found.size:
        return
    low, high = int(found.min()), int(found.max())
    if low < 0 or (classes is not None and high >= classes):
        upper = "" if classes is None else f" to {classes - 1}"
        raise UncertaintyInputError(
            f"{name} reach from {low} to {high}, expected 0{upper}; number the classes from 0."
        )


def as_outcomes(values: Array, inputs: int, name: str = "outcomes") -> Floats:
    """Events that happened (1) or not (0), shape (inputs,); booleans or numbers."""
    found = as_floats(values, name, axes=1)
    if len(found) != inputs:
        raise UncertaintyInputError(f"there are {len(found)} {name} for {inputs} inputs.")
    if not np.isin(found, (0.0, 1.0)).all():
        raise UncertaintyInputError(f"{name} have values other than 0 and 1; give one of the two.")
    return found


def as_confidences(values: Array, name: str = "confidences") -> Floats:
    """Numbers in [0, 1], shape (inputs,)."""
    found = as_floats(values, name, axes=1)
    if found.size and not (found.min() >= 0 and found.max() <= 1):
        raise UncertaintyInputError(
            f"{name} reach from {found.min():g} to {found.max():g}, expected 0 to 1; "
            "give probabilities, not logits."
        )
    return found


def as_positive(values: Array, name: str) -> Floats:
    """Finite numbers > 0 of any shape: variances and standard deviations."""
    found = as_floats(values, name)
    if found.size and not found.min() > 0:
        raise UncertaintyInputError(
            f"{name} has {found.min():g}, expected numbers > 0; clamp it from below."
        )
    return found


def check_probabilities(found: Floats, name: str) -> None:
    """Refuse what is no distribution over the last axis.

    Raises:
        UncertaintyInputError: if there is no class, a value outside [0, 1], or a sum that is not 1.
    """
    needs_classes(found, name)
    if not found.size:
        return
    low, high = found.min(), found.max()
    worst = np.abs(found.sum(axis=-1) - 1).max()
    if not (low >= 0 and high <= 1 + SUM_TOLERANCE and worst <= SUM_TOLERANCE):
        raise UncertaintyInputError(
            f"{name} reach from {low:g} to {high:g} and their sums are up to {worst:.2g} from 1, "
            "expected distributions over the last axis; apply softmax, or use the function for "
            "logits."
        )


def needs_classes(found: NDArray[np.generic], name: str) -> None:
    """Refuse an array without classes.

    Raises:
        UncertaintyInputError: if the last axis is empty.
    """
    if not found.shape[-1]:
        raise UncertaintyInputError(
            f"{name} has shape {found.shape}: no classes; give one or more."
        )


def same_shape(first: NDArray[np.generic], second: NDArray[np.generic], names: str) -> None:
    """Refuse arrays of two shapes.

    Raises:
        UncertaintyInputError: if they differ.
    """
    if first.shape != second.shape:
        raise UncertaintyInputError(
            f"{names} have shapes {first.shape} and {second.shape}, expected one; reshape one."
        )


def needs_inputs(count: int, what: str, least: int = 1) -> None:
    """Refuse too few inputs.

    Raises:
        UncertaintyInputError: if there are fewer than `least`.
    """
    if count < least:
        raise UncertaintyInputError(
            f"{what} needs at least {least} inputs, got {count}; give more."
        )


def choose(value: str, known: tuple[str, ...], name: str) -> str:
    """The value, if it is one of the known ones.

    Raises:
        UncertaintyInputError: if not.
    """
    if value not in known:
        raise UncertaintyInputError(
            f"{name} is {value!r}, expected {', '.join(known)}; choose one."
        )
    return value
