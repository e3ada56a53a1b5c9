"""What every data reader is asked for and what it hands back: chosen rows, not yet shaped."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verify.errors import DataError, SettingError


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of a source are wanted.

    Attributes:
        indices: row numbers from 0, in the order wanted; None means all rows.
        limit: keep at most this many of them; None means no limit.

    Raises:
        SettingError: if `limit` is below 1, or an index is negative or given twice.
    """

    indices: tuple[int, ...] | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise SettingError(
                f"limit must be at least 1, got {self.limit}. Leave it out to take every row."
            )
        if self.indices is None:
            return
        if not self.indices:
            raise SettingError("indices names no row. Leave it out to take every row.")
        if min(self.indices) < 0:
            raise SettingError(
                f"indices must be row numbers from 0, got {min(self.indices)}. "
                "Count rows from the beginning of the data."
            )
        if len(set(self.indices)) < len(self.indices):
            twice = next(i for i in self.indices if self.indices.count(i) > 1)
            raise SettingError(f"indices names row {twice} more than once. Name each row once.")

    @property
    def wanted(self) -> tuple[int, ...] | None:
        """The named rows after the limit; None if rows were not named."""
        return None if self.indices is None else self.indices[: self.limit]

    @property
    def stop(self) -> int | None:
        """No row from this number on is wanted; None if that is not known beforehand."""
        return self.limit if self.wanted is None else max(self.wanted) + 1

    def resolve(self, count: int, where: str) -> tuple[int, ...]:
        """The chosen row numbers of a source of `count` rows.

        Raises:
            DataError: if the source is empty, or has no row of a wanted number.
        """
        if count == 0:
            raise DataError(f"{where} holds no rows; expected at least one. Check the file.")
        if self.wanted is None:
            return tuple(range(count if self.limit is None else min(count, self.limit)))
        if max(self.wanted) >= count:
            raise DataError(
                f"{where} has no row {max(self.wanted)}: it holds {count} rows, 0 to {count - 1}. "
                "Choose indices within them."
            )
        return self.wanted


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The chosen rows of a source, as stored: unscaled, in the source's own shape.

    Attributes:
        values: real numbers, shape (n, ...), in the units of the file.
        labels: int64, shape (n,), or None where the source has none.
        indices: number of each row in the source, from 0.
        scale: what the values are divided by unless the user says otherwise.
        channels_last: whether the source is known to store channels last; None if not known.
        notes: what a reader of the result should be told.
    """

    values: np.ndarray
    labels: np.ndarray | None
    indices: tuple[int, ...]
    scale: float = 1.0
    channels_last: bool | None = None
    notes: tuple[str, ...] = ()


def whole_labels(
    labels: np.ndarray | Sequence[object], indices: Sequence[int], where: str
) -> np.ndarray:
    """Labels as int64, shape (n,); a column of shape (n, 1) counts as (n,).

    Args:
        labels: one for each row.
        indices: number of each row in the source, for the message.
        where: the source, for the message.

    Raises:
        DataError: if a label is not a whole number from 0, or their number differs from the rows'.
    """
    given = np.asarray(labels)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.shape != (len(indices),):
        raise DataError(
            f"labels of {where} have shape {tuple(given.shape)}, expected ({len(indices)},): "
            "one class number for each row. Turn one-hot labels into class numbers first."
        )
    if given.dtype.kind not in "iuf":
        raise DataError(
            f"labels of {where} are of type {given.dtype}, expected whole numbers from 0. "
            "Number the classes and store those numbers."
        )
    # Written so that NaN is refused too; 2**31 classes are more than any classifier has.
    fine = (given >= 0) & (given < 2**31) & (given == np.floor(given))
    if not fine.all():
        at = int(np.flatnonzero(~fine)[0])
        raise DataError(
            f"label of row {indices[at]} of {where} is {given[at]}, "
            "expected a whole number from 0. Correct it in the file."
        )
    return given.astype(np.int64)
