"""Each bad data source is refused in one clear line that says what to do."""

import gzip
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from verify.errors import DataError, InputError, SettingError
from verify.readers import datasets_arrays
from verify.readers.datasets import channel_values, default_source, load_dataset, parse_scale

Make = Callable[[Path], object]


def refused(
    source: object, match: str, kind: type[InputError] = DataError, **options: object
) -> str:
    """The message of the error that loading raises: one line, of the given kind."""
    options.setdefault("input_shape", (4,))
    with pytest.raises(kind, match=match) as caught:
        load_dataset(source, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def text(name: str, content: str) -> Make:
    return lambda folder: (folder / name).write_text(content)


def npz(**arrays: object) -> Make:
    return lambda folder: np.savez(folder / "d.npz", **arrays)  # type: ignore[arg-type]


def header(shape: str, descr: str = "'<f4'", version: bytes = b"\x01\x00") -> bytes:
    """A .npy file whose header claims `shape`, with 16 bytes of data behind it."""
    claim = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY" + version + len(claim).to_bytes(2, "little") + claim + bytes(16)


def save_image(path: Path, *size: int, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size[1], size[0])).save(path)


BAD_ARRAYS: list[tuple[str, Make, str]] = [
    (
        "no inputs",
        npz(weights=np.zeros(3), y=np.zeros(3)),
        r"expected one called x or X.*found weights, y\.",
    ),
    ("empty archive", npz(), "found nothing"),
    ("two inputs", npz(x=np.zeros(3), images=np.zeros(3)), "several candidates, x and images"),
    ("no rows", npz(x=np.zeros((0, 4))), "holds no rows"),
    ("single number", npz(x=np.float32(3)), "is a single number"),
    ("wrong size", npz(x=np.zeros((2, 5))), r"hold 5 values each \(shape \(5,\)\), expected 4"),
    ("objects", npz(x=np.array([{}, []], dtype=object)), "type object, expected plain numbers"),
    ("texts", npz(x=np.array(["a", "b"])), "expected plain numbers"),
    ("complex", npz(x=np.zeros((1, 4), dtype=complex)), "expected plain numbers"),
    ("nan", npz(x=[[0, 0, 0, 0], [0, 0, np.nan, 0]]), "row 1 of .*element 2, is nan"),
    ("infinite", npz(x=[[np.inf, 0, 0, 0]]), "row 0 of .*is inf"),
    ("too large for float32", npz(x=[[0, 1e39, 0, 0]]), "row 0 of .*element 1, is inf"),
    (
        "label count",
        npz(x=np.zeros((2, 4)), y=[1]),
        r"labels of .* have shape \(1,\), expected \(2,\)",
    ),
    ("one-hot", npz(x=np.zeros((2, 4)), y=np.eye(2)), "Turn one-hot labels into class numbers"),
    ("truth label", npz(x=np.zeros((1, 4)), y=[True]), "expected whole numbers from 0"),
    ("half label", npz(x=np.zeros((2, 4)), y=[0, 1.5]), "label of row 1 of .* is 1.5"),
    ("negative label", npz(x=np.zeros((2, 4)), y=[-1, 0]), "label of row 0 of .* is -1"),
    ("nan label", npz(x=np.zeros((2, 4)), y=[0, np.nan]), "label of row 1 of .* is nan"),
    ("huge label", npz(x=np.zeros((1, 4)), y=[1e30]), "label of row 0 of .* is 1e"),
    ("text label", npz(x=np.zeros((1, 4)), y=["cat"]), "expected plain numbers"),
    ("no archive", text("d.npz", "hello"), "cannot be read as a .npz archive"),
    ("empty file", text("d.npz", ""), "cannot be read as a .npz archive"),
]


@pytest.mark.parametrize(
    ("make", "match"), [b[1:] for b in BAD_ARRAYS], ids=[b[0] for b in BAD_ARRAYS]
)
def test_bad_archives(tmp_path: Path, make: Make, match: str) -> None:
    """What the archive lacks or holds too much of is named."""
    make(tmp_path)
    message = refused(tmp_path / "d.npz", match)
    assert str(tmp_path / "d.npz") in message


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "cannot be read as a .npy array"),
        (b"\x93NUMPY\x01\x00", "has a header that cannot be read"),
        (header("(2, 4)"), r"declares shape \(2, 4\) \(32 bytes\), but 16 bytes follow"),
        (header("(0, 4)"), "but 16 bytes follow"),
        (header("(-1, -4)"), r"declares shape \(-1, -4\)"),
        (header(f"({2**62}, {2**62}, 4)"), "but 16 bytes follow"),
        (header("(1, 4)", "'|O'"), "type object, expected plain numbers"),
        (header("(1,)", "[('a', '<f4', (4,))]"), "expected plain numbers"),
        (header("(1, 4)", "'<zz'"), "has a header that cannot be read"),
        (header("__import__('os').abort()"), "has a header that cannot be read"),
        (header("(1, 4), {"), "has a header that cannot be read"),
        (header("(1, 4, \\xff"), "has a header that cannot be read"),
        (header("(True, 4)"), "expected integers"),
        (header("(1, 4)", version=b"\x07\x00"), "in .npy version 7.0"),
    ],
)
def test_hostile_array_headers(tmp_path: Path, content: bytes, match: str) -> None:
    """A header is checked against what the file holds before anything is allocated or run."""
    (tmp_path / "d.npy").write_bytes(content)
    refused(tmp_path / "d.npy", match)


def test_a_bit_flipped_in_the_archive_is_noticed(tmp_path: Path) -> None:
    """The checksum of the entry no longer fits."""
    np.savez(tmp_path / "d.npz", x=np.zeros((50, 4)))
    content = bytearray((tmp_path / "d.npz").read_bytes())
    content[800] ^= 1
    (tmp_path / "d.npz").write_bytes(content)
    refused(tmp_path / "d.npz", "Bad CRC-32")


def test_a_zip_bomb_is_refused_by_its_declared_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive is a few kB, what it unpacks to is over the limit: nothing is unpacked."""
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((250_000, 4)))
    assert (tmp_path / "d.npz").stat().st_size < 20_000
    monkeypatch.setattr(datasets_arrays, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("unpacked"))
    refused(tmp_path / "d.npz", "declares 8000128 bytes .*more than the limit of 1000000")


def test_a_bomb_that_lies_about_its_size_is_refused_too(tmp_path: Path) -> None:
    """An entry that unpacks to more than it declares fails; no more than declared is read."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((100_000, 4), dtype=np.float32))
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", buffer.getvalue())
    content = (tmp_path / "d.npz").read_bytes()
    true_size = len(buffer.getvalue()).to_bytes(4, "little")
    assert content.count(true_size) == 2  # the local header and the directory
    (tmp_path / "d.npz").write_bytes(content.replace(true_size, (144).to_bytes(4, "little")))
    refused(tmp_path / "d.npz", "Bad CRC-32")


def test_an_npy_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds for a plain array too."""
    np.save(tmp_path / "d.npy", np.zeros((5, 4)))
    monkeypatch.setattr(datasets_arrays, "MAX_BYTES", 100)
    refused(tmp_path / "d.npy", "takes 160 bytes, more than the limit of 100")


def test_an_archive_of_too_many_entries_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither are entries without end gone through."""
    np.savez(tmp_path / "d.npz", x=[1], y=[1], z=[1])
    monkeypatch.setattr(datasets_arrays, "MAX_ENTRIES", 2)
    refused(tmp_path / "d.npz", "holds 3 entries, more than the limit of 2")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "holds no rows"),
        ("label,a,b,c,d\n", "holds no rows"),
        ("1,1,2,3\n", "line 1 of .* has 4 cells, expected 5: the label, then 4 values"),
        ("1,1,2,3,4\n\n1,1,2,3,4,5\n", "line 3 of .* has 6 cells, expected 5"),
        ("1,1,2,3,4\n1,1,2,x,4\n", "line 2 of .*, column 4: 'x' is no finite number"),
        ("1,1,2,3,\n", "line 1 of .*, column 5: '' is no finite number"),
        ("1,1,nan,3,4\n", "line 1 of .*, column 3: 'nan' is no finite number"),
        ("1,1,2,-inf,4\n", "column 4: '-inf' is no finite number"),
        ("1,1,2,1e999,4\n", "column 4: '1e999' is no finite number"),
        ("1.5,1,2,3,4\n", "column 1: label '1.5' is no whole number from 0"),
        ("-1,1,2,3,4\n", "column 1: label '-1' is no whole number"),
        ("1;1;2;3;4\n2;1;2;3;4\n", "line 2 of .* has 1 cells"),
        ("1,1,2,3,4\n" + 300 * "0,0,0,0,0,", "line 2 of .* is longer than 1200 characters"),
    ],
)
def test_bad_csv(tmp_path: Path, content: str, match: str) -> None:
    """Line and column are named as an editor counts them, from 1."""
    (tmp_path / "d.csv").write_text(content)
    refused(tmp_path / "d.csv", match)


def test_csv_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, or no gzip, or cut off, are no traceback."""
    (tmp_path / "d.csv").write_bytes(b"\xff\xfe\x00\x01")
    refused(tmp_path / "d.csv", "cannot be read as CSV text")
    (tmp_path / "d.csv.gz").write_bytes(b"1,2,3,4,5\n")
    refused(tmp_path / "d.csv.gz", "cannot be read as gzipped CSV text")
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"1,2,3,4,5\n" * 1000)[:40])
    refused(tmp_path / "d.csv.gz", "cannot be read as gzipped CSV text")


def test_a_gzip_bomb_without_line_ends_is_not_unpacked(tmp_path: Path) -> None:
    """Ten megabytes of one line are given up after about a kilobyte."""
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"0" * 10_000_000))
    refused(tmp_path / "d.csv.gz", "line 1 of .* is longer than")


BAD_FOLDERS: list[tuple[str, Make, str]] = [
    ("empty", lambda _: None, "holds no images"),
    ("other files only", text("a.txt", "x"), "holds no images"),
    (
        "size",
        lambda f: save_image(f / "a.png", 3, 5),
        r"is 3 x 5 \(height x width\), expected 2 x 2",
    ),
    ("no image", text("a.png", "hello"), "a.png cannot be read"),
    (
        "disguised",
        lambda f: Image.new("L", (2, 2)).save(f / "a.png", format="GIF"),
        "cannot be read",
    ),
    (
        "16 bits",
        lambda f: save_image(f / "a.png", 2, 2, mode="I;16"),
        "mode I;16, expected eight bits",
    ),
    (
        "mixed",
        lambda f: (save_image(f / "a.png", 2, 2), save_image(f / "1/b.png", 2, 2)),
        "both itself and in sub",
    ),
    (
        "listed cells",
        text("labels.csv", "a.png,1,2\n"),
        "line 1 of .*labels.csv has 3 cells, expected 2",
    ),
    (
        "listed label",
        text("labels.csv", "f,l\na.png,x\n"),
        "line 2 of .*label 'x' is no whole number",
    ),
    ("listed absent", text("labels.csv", "a.png,1\n"), "names 'a.png', which is not there"),
    ("listed outside", text("labels.csv", "../a.png,1\n"), "which lies outside the folder"),
    ("listed none", text("labels.csv", "file,label\n"), "holds no rows"),
    (
        "listed bytes",
        lambda f: (f / "labels.csv").write_bytes(b"\xff\xff"),
        "labels.csv cannot be read",
    ),
]


@pytest.mark.parametrize(
    ("make", "match"), [b[1:] for b in BAD_FOLDERS], ids=[b[0] for b in BAD_FOLDERS]
)
def test_bad_image_folders(tmp_path: Path, make: Make, match: str) -> None:
    """The image or the line of labels.csv is named; nothing is resized in silence."""
    make(tmp_path)
    refused(tmp_path, match, input_shape=(1, 2, 2))


def test_a_truncated_image_is_refused(tmp_path: Path) -> None:
    """An image that ends early is not padded."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    refused(tmp_path, "a.png cannot be read", input_shape=(1, 40, 40))


def test_images_do_not_feed_a_model_of_many_channels(tmp_path: Path) -> None:
    """Images have 1, 3 or 4 channels."""
    save_image(tmp_path / "a.png", 5, 5)
    refused(tmp_path, "has 6 channels, expected 1, 3 or 4", input_shape=(6, 5, 5))


def test_a_missing_source_names_the_kinds_there_are(tmp_path: Path) -> None:
    """So does a file of another kind."""
    refused(tmp_path / "gone.npz", "is not there; expected 'digits'")
    (tmp_path / "d.mat").write_text("x")
    refused(tmp_path / "d.mat", "is of no known kind; expected 'digits'")
    (tmp_path / "d.csv").mkdir()
    refused(tmp_path / "d.csv", "holds no images")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("name", ["d.npz", "d.npy", "d.csv"])
def test_a_file_that_may_not_be_read(tmp_path: Path, name: str) -> None:
    """Permission denied is an error of the data, not a traceback."""
    (tmp_path / name).write_text("1,1,2,3,4")
    (tmp_path / name).chmod(0)
    refused(tmp_path / name, "cannot be read")


@pytest.mark.parametrize("name", ["d.npz", "d.npy", "d.csv"])
def test_rows_beyond_the_last_are_refused(tmp_path: Path, name: str) -> None:
    """The message says which rows there are."""
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 4)))
    np.save(tmp_path / "d.npy", np.zeros((2, 4)))
    (tmp_path / "d.csv").write_text("1,1,1,1,1\n1,1,1,1,1\n")
    refused(tmp_path / name, "has no row 5: it holds 2 rows, 0 to 1", indices=[0, 5])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"indices": []}, "indices names no row"),
        ({"indices": [2, -1]}, "row numbers from 0, got -1"),
        ({"indices": [2, 3, 2]}, "names row 2 more than once"),
        ({"scale": 0}, "scale must be positive, got 0"),
        ({"scale": float("nan")}, "scale must be positive, got nan"),
        ({"input_range": (1, 0)}, "the lower first, got"),
        ({"input_range": (0, float("nan"))}, "two finite numbers"),
        ({"channels_last": True}, "has no channel axis"),
    ],
)
def test_settings_out_of_range(options: dict[str, object], match: str) -> None:
    """An option that cannot be meant is an error of the setting."""
    refused("digits", match, SettingError, input_shape=(64,), **options)


@pytest.mark.parametrize("text", ["", "half", "0", "-255", "inf", "nan"])
def test_a_scale_that_is_no_number_is_refused(text: str) -> None:
    """The option is checked before any data are read."""
    with pytest.raises(SettingError, match="scale must be 'none' or a positive number"):
        parse_scale(text)


def test_values_outside_the_input_range_are_named() -> None:
    """The digits reach 1, so a range up to 0.5 does not hold them."""
    message = refused(
        "digits", "after scaling, outside the input range", input_shape=(64,), input_range=(0, 0.5)
    )
    assert "row 0 of digits" in message


def test_axes_that_do_not_correspond_are_not_reshaped(tmp_path: Path) -> None:
    """The same number of values is not enough: (2, 6) is not a (3, 4) image."""
    np.save(tmp_path / "d.npy", np.zeros((1, 2, 6)))
    refused(tmp_path / "d.npy", r"rows of .* have shape \(2, 6\), expected", input_shape=(1, 3, 4))
    np.save(tmp_path / "d.npy", np.zeros((1, 5, 6, 3)))
    refused(
        tmp_path / "d.npy",
        "say whether channels come last",
        input_shape=(3, 5, 6),
        channels_last=False,
    )


def test_a_label_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    """The row is named by its number in the source."""
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 4)), y=[0, 1, 7])
    refused(
        tmp_path / "d.npz", "label of row 2 of .* is 7, expected 0 to 4", indices=[0, 2], classes=5
    )
    assert load_dataset(tmp_path / "d.npz", input_shape=(4,), limit=2, classes=5).indices == (0, 1)


def test_labels_beside_must_be_one_for_each_row() -> None:
    """Their number is that of the rows that are read."""
    refused(
        "digits",
        r"have shape \(3,\), expected \(2,\)",
        input_shape=(64,),
        limit=2,
        labels=[1, 2, 3],
    )


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ([1, 2], "std has 2 values, expected 1 or 3, one for each channel"),
        ([], "std has 0 values"),
        ([1, 0, 1], "std must be positive, got 0"),
        ([1, -1, 1], "std must be positive, got -1"),
        ([float("nan")], "std must be positive, got nan"),
    ],
)
def test_bad_channel_values(values: list[float], match: str) -> None:
    """The number and the sign of mean and std values are checked before they are used."""
    with pytest.raises(SettingError, match=match):
        channel_values(values, (3, 8, 8), name="std", positive=True)


def test_without_data_the_ways_to_give_some_are_named(tmp_path: Path) -> None:
    """No archive beside the model, and digits do not fit: the message says what --data takes."""
    with pytest.raises(DataError, match=r"no m\.npz beside it.*Name data with --data: 'digits'"):
        default_source(tmp_path / "m.onnx", input_shape=(3, 32, 32))
