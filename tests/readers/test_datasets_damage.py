"""Damaged files of every kind: they load or they are refused, and nothing else happens."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from verify.errors import InputError
from verify.readers.datasets import load_dataset

X = np.arange(32, dtype=np.float32).reshape(2, 4, 4) / 32


def saved(save: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


WHOLE = {
    "d.npz": saved(lambda f: np.savez(f, x=X, y=np.array([0, 1]))),
    "packed.npz": saved(lambda f: np.savez_compressed(f, x=X, y=np.array([0, 1]))),
    "d.npy": saved(lambda f: np.save(f, X)),
    "d.csv": b"1," + b",".join([b"7"] * 16) + b"\n",
    "d.csv.gz": gzip.compress(b"1," + b",".join([b"7"] * 16) + b"\n", mtime=0),
    "images/a.png": saved(lambda f: Image.new("L", (4, 4), 9).save(f, "PNG")),
    "images/a.bmp": saved(lambda f: Image.new("L", (4, 4), 9).save(f, "BMP")),
    "images/a.jpg": saved(lambda f: Image.new("L", (4, 4), 9).save(f, "JPEG")),
}


def outcome(name: str, content: bytes) -> str:
    """Loaded or refused; any other exception, and any warning, is a failure of the test."""
    with TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        source = path.parent if name.startswith("images") else path
        try:
            load_dataset(source, input_shape=(16,))
        except InputError as error:
            return "refused" if "\n" not in str(error) else f"refused in several lines: {error}"
        return "loaded"


@pytest.mark.parametrize("name", WHOLE)
def test_the_undamaged_file_loads(name: str) -> None:
    """So the refusals below come from the damage."""
    assert outcome(name, WHOLE[name]) == "loaded"


@pytest.mark.parametrize("name", WHOLE)
@given(data=st.data())
@settings(max_examples=60)
def test_changed_bytes_are_no_traceback(name: str, data: st.DataObject) -> None:
    """One to four bytes of the file are other ones."""
    content = bytearray(WHOLE[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(name, bytes(content)) in {"loaded", "refused"}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_ends_early_is_no_traceback(name: str) -> None:
    """Cut off at every place."""
    step = max(1, len(WHOLE[name]) // 60)
    found = [outcome(name, WHOLE[name][:end]) for end in range(0, len(WHOLE[name]), step)]
    assert "refused" in found


@given(content=st.binary(max_size=200), name=st.sampled_from(sorted(WHOLE)))
@settings(max_examples=60)
def test_arbitrary_bytes_are_no_traceback(content: bytes, name: str) -> None:
    """A file that never was one of its kind."""
    assert outcome(name, content) in {"loaded", "refused"}
