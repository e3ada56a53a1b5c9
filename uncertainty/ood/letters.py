"""letters: capital letters as small grey pictures, drawn from fonts, for digits to be told from.

They are made the way scikit-learn's digits were: a black and white bitmap four times as wide as
the picture, of which every pixel counts a block of 4 x 4. Fonts, sizes, turns, slants and places
vary. The fonts (DejaVu, STIX, Computer Modern) come with matplotlib, so that nothing is downloaded.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uncertainty.errors import UncertaintyInputError

if TYPE_CHECKING:
    import PIL.Image

ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ"
"""Without I and O, which many fonts draw as they draw 1 and 0."""
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif",
    "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic",
    "cmr10", "cmss10", "cmb10",
)  # fmt: skip
BLOCK = 4  # bitmap pixels along each side of a picture's pixel
TURN, SLANT = 15.0, 0.2  # largest, in degrees and in widths per height
HEIGHT = (0.75, 1.0)  # of the letter, in heights of the picture
LARGE = 64  # font size that glyphs are drawn at before they are scaled, in points


def letters(
    count: int, *, side: int = 8, seed: int = 0, alphabet: str = ALPHABET
) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    """Pictures of letters, and which letter each shows.

    Args:
        count: how many; every letter of the alphabet equally often, to within one.
        side: of a picture, in pixels.
        seed: of fonts, sizes, turns, slants and places.
        alphabet: what is drawn.

    Returns:
        Pictures, shape (count, side, side), 0 background to 1 ink; letters, shape (count,).

    Raises:
        UncertaintyInputError: if there is nothing to draw.
    """
    if count < 0 or side < 2 or not alphabet.strip():
        raise UncertaintyInputError(
            f"letters got count {count}, side {side} and alphabet {alphabet!r}; expected a count "
            ">= 0, a side of at least 2 pixels and at least one character that leaves ink."
        )
    numbers = np.random.default_rng(seed)
    which = numbers.permutation(np.arange(count) % len(alphabet))
    pictures = np.zeros((count, side, side), dtype=np.float32)
    for i, index in enumerate(which):
        pictures[i] = drawn(alphabet[index], side, numbers)
    return pictures, np.array([alphabet[index] for index in which], dtype=np.str_)


def drawn(letter: str, side: int, numbers: np.random.Generator) -> NDArray[np.float32]:
    """One picture."""
    from PIL import Image

    glyph = glyph_of(letter, FONTS[numbers.integers(len(FONTS))])
    turn, slant = numbers.uniform(-TURN, TURN), numbers.uniform(-SLANT, SLANT)
    width, height = glyph.size
    room = width + int(SLANT * height) + 1
    # A point of the slanted picture is read at x + slant (y - height / 2).
    shift = -(room - width) / 2 - slant * height / 2
    leaning = glyph.transform(
        (room, height),
        Image.Transform.AFFINE,
        (1, slant, shift, 0, 1, 0),
        Image.Resampling.BILINEAR,
    )
    turned = leaning.rotate(turn, Image.Resampling.BILINEAR, expand=True)
    turned = turned.crop(turned.getbbox())
    whole = side * BLOCK
    tall = max(1, round(numbers.uniform(*HEIGHT) * whole))
    wide = max(1, min(whole, round(turned.width * tall / turned.height)))
    small = np.asarray(turned.resize((wide, tall), Image.Resampling.BILINEAR)) >= 128
    bitmap = np.zeros((whole, whole), dtype=np.float32)
    top, left = (int(numbers.integers(whole - size + 1)) for size in (tall, wide))
    # Digits stand in the middle; so do these, but for a pixel.
    middle = (whole - wide) // 2
    left = int(np.clip(left, max(0, middle - BLOCK), min(whole - wide, middle + BLOCK)))
    bitmap[top : top + tall, left : left + wide] = small
    return np.asarray(bitmap.reshape(side, BLOCK, side, BLOCK).mean(axis=(1, 3)), dtype=np.float32)


@lru_cache(maxsize=512)
def glyph_of(letter: str, font: str) -> PIL.Image.Image:
    """The letter large, white on black, cut to its ink.

    Raises:
        UncertaintyInputError: if the character leaves no ink.
    """
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    picture = Image.new("L", (3 * LARGE, 3 * LARGE))
    face = ImageFont.truetype(str(path), LARGE)
    ImageDraw.Draw(picture).text((LARGE, LARGE // 2), letter, font=face, fill=255)
    box = picture.getbbox()
    if box is None:
        raise UncertaintyInputError(f"{letter!r} leaves no ink; leave it out of the alphabet.")
    return picture.crop(box)
