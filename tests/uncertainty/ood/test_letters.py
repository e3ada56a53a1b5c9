"""Letters: pictures like digits', the same for the same seed, and no digits."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from uncertainty.errors import UncertaintyInputError
from uncertainty.ood import letters
from uncertainty.ood.letters import ALPHABET


def test_a_seed_gives_the_same_pictures_and_another_gives_others() -> None:
    """Byte for byte."""
    first, names = letters(30, seed=1)
    again, same = letters(30, seed=1)
    other, _ = letters(30, seed=2)
    assert first.tobytes() == again.tobytes()
    assert (names == same).all()
    assert (first != other).any(axis=(1, 2)).all()


def test_pixels_count_a_block_as_the_digits_do() -> None:
    """Values are sixteenths in [0, 1], letters are tall, and every one occurs."""
    pictures, names = letters(2 * len(ALPHABET), side=8)
    assert pictures.shape == (2 * len(ALPHABET), 8, 8)
    assert ((pictures * 16) % 1 == 0).all()
    assert 0 <= pictures.min() < pictures.max() == 1
    assert sorted(names) == sorted(2 * ALPHABET)
    heights = (pictures.max(axis=2) > 0).sum(axis=1)
    assert heights.min() >= 6
    # About as much ink as digits have, which are bolder.
    assert 0.5 < pictures.mean() / (load_digits().images.mean() / 16) < 1


def test_letters_are_further_from_digits_than_digits_are() -> None:
    """By the nearest of the digits: the source is another one."""
    digits = load_digits().data / 16
    drawn = letters(100)[0].reshape(-1, 64)
    own = [np.sort(((digits - x) ** 2).sum(1))[1] for x in digits[:100]]
    other = [((digits - x) ** 2).sum(1).min() for x in drawn]
    assert np.median(other) > 2 * np.median(own)


@pytest.mark.parametrize(
    "given", [{"count": -1}, {"count": 1, "side": 1}, {"count": 1, "alphabet": ""}]
)
def test_what_cannot_be_drawn_is_refused(given: dict[str, object]) -> None:
    """With what was expected."""
    with pytest.raises(UncertaintyInputError, match="letters got"):
        letters(**given)  # type: ignore[arg-type]
