"""Read CSV rows `label,value,value,...`, plain or gzipped, only as far as they are wanted."""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np

from verify.errors import DataError
from verify.readers.datasets_rows import Rows, Selection

DEFAULT_SCALE = 255.0  # image pixels are written as 0..255

# No number needs more characters than this: a longer line is no line of such a file, and reading
# on could fill the memory (a gzip file of a few kB can hold a gigabyte without a line end).
_CHARACTERS_PER_CELL = 40
_CHARACTERS_BESIDE = 1000


def read_csv(path: Path, selection: Selection, *, size: int) -> Rows:
    """The chosen rows of a CSV file; lines after the last wanted one are not looked at.

    A first line without any number is a heading and is skipped; so are empty lines.

    Args:
        size: values expected after the label, the number of elements of one model input.

    Raises:
        DataError: if a row has another number of cells, a cell is no finite number, a label is no
            whole number from 0, a wanted row is missing, or the file cannot be read.
    """
    wanted = None if selection.wanted is None else frozenset(selection.wanted)
    stop = selection.stop
    kept: dict[int, list[float]] = {}
    row = 0
    with _open(path) as stream:
        for line, cells in _lines(stream, path, size):
            if stop is not None and row >= stop:
                break
            if wanted is None or row in wanted:
                kept[row] = _parse(cells, f"line {line} of {path}", size)
            row += 1
    # When reading stopped early, `row` equals `stop`, and every wanted row lies before it.
    chosen = selection.resolve(row, str(path))
    table = np.array([kept[i] for i in chosen])
    return Rows(
        values=table[:, 1:],
        labels=table[:, 0].astype(np.int64),
        indices=chosen,
        scale=DEFAULT_SCALE,
    )


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig") as stream:
            yield stream
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as {'gzipped ' * (path.suffix == '.gz')}CSV text: {error}. "
            "Check the file."
        ) from None


def _lines(stream: TextIO, path: Path, size: int) -> Iterator[tuple[int, list[str]]]:
    """Line number (from 1) and cells of each line that holds a row."""
    most = _CHARACTERS_PER_CELL * (size + 1) + _CHARACTERS_BESIDE
    number = 0
    while text := stream.readline(most):
        number += 1
        if len(text) == most:
            raise DataError(
                f"line {number} of {path} is longer than {most} characters, expected a label and "
                f"{size} values. Write one input per line, in the model's size."
            )
        if not text.strip():
            continue
        cells = text.strip().split(",")
        if number > 1 or any(_number(cell) is not None for cell in cells):
            yield number, cells


def _parse(cells: list[str], where: str, size: int) -> list[float]:
    if len(cells) != size + 1:
        raise DataError(
            f"{where} has {len(cells)} cells, expected {size + 1}: the label, then {size} values "
            "(the size of the model's input). Without labels, save the inputs as .npy."
        )
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        column = next(i for i, cell in enumerate(cells) if _number(cell) is None)
        raise DataError(
            f"{where}, column {column + 1}: {cells[column].strip()[:40]!r} is no finite number. "
            "Cells hold numbers separated by commas: correct it."
        )
    if numbers[0] < 0 or numbers[0] >= 2**31 or numbers[0] != int(numbers[0]):
        raise DataError(
            f"{where}, column 1: label {cells[0].strip()!r} is no whole number from 0. "
            "The class number comes first in each row."
        )
    return numbers


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
