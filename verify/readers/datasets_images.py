"""Read a folder of PNG, JPEG or BMP images; its subfolders or a labels.csv give the labels."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from verify.errors import DataError
from verify.readers.datasets_rows import Rows, Selection, whole_labels
from verify.readers.datasets_shape import channel_axis

DEFAULT_SCALE = 255.0
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
LABELS_FILE = "labels.csv"

_FORMATS = ("PNG", "JPEG", "BMP")
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # eight bits a channel or less
_MODE_OF_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True, slots=True)
class _Listing:
    paths: tuple[Path, ...]
    labels: Sequence[object] | None
    notes: tuple[str, ...] = ()


def read_images(folder: Path, selection: Selection, *, input_shape: tuple[int, ...]) -> Rows:
    """The chosen images, shape (n, height, width, channel), values 0..255; none is resized.

    `labels.csv` (lines `file name,label`) decides which images there are and in which order.
    Without it, the images come in the order of their names. Subfolders, if the images lie in such,
    label them: by name where every name is a whole number, else by place in the alphabet.

    Args:
        input_shape: of the model, without the batch axis; it decides the number of channels.

    Raises:
        DataError: if there are no images, one cannot be read or has another size than the model's
            input, or the labels do not fit.
    """
    from PIL import Image  # here for start-up: most commands read no image

    listing = _listed(folder) if (folder / LABELS_FILE).is_file() else _found(folder)
    chosen = selection.resolve(len(listing.paths), f"image folder {folder}")
    mode = _MODE_OF_CHANNELS[_channels(input_shape, folder)]
    sizes = _sizes(input_shape)
    images, converted = [], set()
    for path in (listing.paths[i] for i in chosen):
        try:
            with Image.open(path, formats=_FORMATS) as image:
                if image.mode not in _MODES:
                    raise DataError(
                        f"image {path} has pixels of mode {image.mode}, expected eight bits a "
                        f"channel ({', '.join(_MODES)}). Save it as an ordinary PNG."
                    )
                # Before the pixels are decoded, so that a huge image costs nothing.
                if (image.height, image.width) not in sizes:
                    raise DataError(
                        f"image {path} is {image.height} x {image.width} "
                        "(height x width), expected "
                        f"{' or '.join(f'{h} x {w}' for h, w in sizes)} as the model's input has "
                        f"shape {input_shape}. Resize it first; nothing is resized here."
                    )
                if image.mode != mode:
                    converted.add(f"{image.mode} to {mode}")
                pixels = np.asarray(image.convert(mode))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            # Pillow raises SyntaxError for a damaged PNG.
            raise DataError(f"image {path} cannot be read: {error}. Save it again.") from None
        images.append(pixels.reshape(*pixels.shape[:2], -1))
    notes = [f"images converted from {', '.join(sorted(converted))}"] if converted else []
    labels = None
    if listing.labels is not None:
        labels = whole_labels([listing.labels[i] for i in chosen], chosen, str(folder))
    return Rows(
        values=np.stack(images),
        labels=labels,
        indices=chosen,
        scale=DEFAULT_SCALE,
        channels_last=True if mode != "L" else None,
        notes=(*listing.notes, *notes),
    )


def _channels(input_shape: tuple[int, ...], folder: Path) -> int:
    axis = channel_axis(input_shape)
    if axis is None or sum(length != 1 for length in input_shape) <= 2:
        return 1  # a flat input or a plain height x width: grey
    if input_shape[axis] not in _MODE_OF_CHANNELS:
        raise DataError(
            f"image folder {folder} cannot feed a model whose input of shape {input_shape} has "
            f"{input_shape[axis]} channels, expected 1, 3 or 4. Give the data as .npz."
        )
    return input_shape[axis]


def _sizes(input_shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(height, width) pairs whose pixels make one input; a flat input takes any factorisation."""
    axis = channel_axis(input_shape)
    rest = [n for i, n in enumerate(input_shape) if i != axis]
    long = [length for length in input_shape if length != 1]
    if axis is not None and len(rest) >= 2:
        return ((rest[-2], rest[-1]),)
    if len(long) == 2:
        return ((long[0], long[1]),)
    size = max(long, default=1)
    return tuple((h, size // h) for h in range(1, size + 1) if size % h == 0)


def _found(folder: Path) -> _Listing:
    direct = _images_in(folder)
    classes = [sub for sub in sorted(folder.iterdir()) if sub.is_dir() and _images_in(sub)]
    if direct and classes:
        raise DataError(
            f"image folder {folder} holds images both itself and in subfolders "
            f"({classes[0].name}, ...), expected one or the other. "
            f"Move them, or list them with labels in {LABELS_FILE}."
        )
    if not direct and not classes:
        raise DataError(
            f"image folder {folder} holds no images, expected {', '.join(SUFFIXES)} in it or in "
            "one subfolder per class. Check the path."
        )
    if direct:
        return _Listing(tuple(direct), None)
    names = [sub.name for sub in classes]
    numbered = all(name.isascii() and name.isdigit() for name in names)
    labels = [int(name) for name in names] if numbered else list(range(len(names)))
    pairs = [
        (p, label) for sub, label in zip(classes, labels, strict=True) for p in _images_in(sub)
    ]
    mapping = ", ".join(f"{name} is {label}" for name, label in zip(names, labels, strict=True))
    return _Listing(
        tuple(path for path, _ in pairs),
        [label for _, label in pairs],
        () if numbered else (f"class numbers by the alphabet: {mapping}",),
    )


def _images_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def _listed(folder: Path) -> _Listing:
    """The images that labels.csv names; a first line without a number as label is a heading."""
    path = folder / LABELS_FILE
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = [(i, cells) for i, cells in enumerate(csv.reader(stream), start=1) if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}. Check the file.") from None
    paths, labels = [], []
    for line, cells in lines:
        if len(cells) != 2:
            raise DataError(
                f"line {line} of {path} has {len(cells)} cells, expected 2: file name and label. "
                "Correct it."
            )
        name, label = cells[0].strip(), cells[1].strip()
        if not (label.isascii() and label.isdigit()):
            if line == 1:
                continue
            raise DataError(
                f"line {line} of {path}: label {label!r} is no whole number from 0. Correct it."
            )
        image = folder / name
        # A list from elsewhere must not reach files outside the folder that it came with.
        if not image.resolve().is_relative_to(folder.resolve()):
            raise DataError(
                f"line {line} of {path} names {name!r}, which lies outside the folder. "
                "Name files within it."
            )
        if not image.is_file():
            raise DataError(
                f"line {line} of {path} names {name!r}, which is not there. Correct the name."
            )
        paths.append(image)
        labels.append(int(label))
    return _Listing(tuple(paths), labels)
