"""Every kind of data source, read as it should be."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from verify.readers.datasets import channel_values, default_source, load_dataset, parse_scale
from verify.readers.datasets_shape import arrange, channel_axis

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "images"
RNG = np.random.default_rng(0)


def write_csv(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(rows) + "\n")
    return path


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.mark.parametrize("shape", [(64,), (1, 8, 8), (8, 8), (8, 8, 1), (1, 1, 64)])
def test_the_digits_fit_every_shape_of_sixty_four(shape: tuple[int, ...]) -> None:
    """The embedded images come in row order whatever the model calls its axes."""
    data = load_dataset("digits", input_shape=shape, input_range=(0, 1))
    flat = load_dataset("digits", input_shape=(64,))
    assert data.x.shape == (360, *shape)
    assert data.x.dtype == torch.float32
    assert data.labels is not None
    assert data.labels.dtype == torch.int64
    assert torch.equal(data.x.reshape(360, 64), flat.x)
    assert data.indices == tuple(range(360))


def test_limit_and_indices_choose_rows() -> None:
    """Rows come in the order asked for, with their numbers in the source, then the limit cuts."""
    every = load_dataset("digits", input_shape=(64,))
    some = load_dataset("digits", input_shape=(64,), indices=[7, 3, 300], limit=2)
    assert some.indices == (7, 3)
    assert torch.equal(some.x, every.x[[7, 3]])
    assert every.labels is not None
    assert some.labels is not None
    assert torch.equal(some.labels, every.labels[[7, 3]])
    assert load_dataset("digits", input_shape=(64,), limit=1000).indices == every.indices


@pytest.mark.parametrize(("x_key", "y_key"), [("x", "y"), ("X", "labels"), ("images", "targets")])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_keys_go_by_several_names(tmp_path: Path, x_key: str, y_key: str, save) -> None:  # noqa: ANN001
    """Inputs and labels are found under the usual names, compressed or not."""
    x, y = RNG.random((5, 12)), np.array([0, 1, 2, 1, 0])
    save(tmp_path / "d.npz", **{x_key: x, y_key: y, "comment": np.array(3)})
    data = load_dataset(tmp_path / "d.npz", input_shape=(3, 2, 2), classes=3)
    np.testing.assert_array_equal(data.x.numpy(), x.astype(np.float32).reshape(5, 3, 2, 2))
    assert data.labels is not None
    assert data.labels.tolist() == y.tolist()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", ">f4", "u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_number_type_and_order(tmp_path: Path, dtype: str, order: str) -> None:
    """What NumPy wrote comes back as float32, also big-endian and column by column."""
    x = np.asarray(RNG.integers(0, 9, (3, 2, 4)), dtype=dtype, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "d.npy", x)
    data = load_dataset(tmp_path / "d.npy", input_shape=(2, 4))
    np.testing.assert_array_equal(data.x.numpy(), x.astype(np.float32))
    assert data.labels is None


def test_bytes_are_scaled_and_the_note_says_so(tmp_path: Path) -> None:
    """An array of unsigned bytes holds pixels 0..255; `scale` overrides that."""
    np.save(tmp_path / "d.npy", np.array([[0, 51, 255]], dtype=np.uint8))
    data = load_dataset(tmp_path / "d.npy", input_shape=(3,))
    np.testing.assert_allclose(data.x.numpy(), [[0, 0.2, 1]], rtol=1e-7)
    assert data.notes == ("values divided by 255",)
    raw = load_dataset(tmp_path / "d.npy", input_shape=(3,), scale=1)
    assert raw.x.tolist() == [[0, 51, 255]]
    assert raw.notes == ()


def test_labels_given_beside_take_the_place_of_the_sources_own() -> None:
    """One label for each row that is read."""
    data = load_dataset("digits", input_shape=(64,), indices=[4, 2], labels=[9, 8])
    assert data.labels is not None
    assert data.labels.tolist() == [9, 8]


@pytest.mark.parametrize("packed", [False, True])
def test_csv_rows_are_label_then_pixels(tmp_path: Path, packed: bool) -> None:
    """Pixels 0..255 become [0, 1]; heading, empty lines and byte-order mark are fine."""
    text = "\ufefflabel,p1,p2\n7, 0,255\n\n3.0,51,102\n"
    path = tmp_path / ("d.csv.gz" if packed else "d.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    data = load_dataset(path, input_shape=(2,), input_range=(0, 1))
    np.testing.assert_allclose(data.x.numpy(), [[0, 1], [0.2, 0.4]], rtol=1e-7)
    assert data.labels is not None
    assert data.labels.tolist() == [7, 3]
    assert data.notes == ("values divided by 255",)


def test_csv_is_read_only_as_far_as_needed(tmp_path: Path) -> None:
    """A broken line after the last wanted row does no harm; the wanted rows keep their numbers."""
    path = write_csv(tmp_path / "d.csv", ["1,1", "2,2", "3,3", "broken"])
    data = load_dataset(path, input_shape=(1,), scale=1, indices=[2, 0])
    assert data.indices == (2, 0)
    assert data.x.tolist() == [[3], [1]]
    assert load_dataset(path, input_shape=(1,), limit=2).indices == (0, 1)


def test_channels_last_rows_are_turned_to_the_models_order(tmp_path: Path) -> None:
    """RGBRGB rows for a channels-first model, and the other way round, are transposed."""
    image = RNG.integers(0, 256, (2, 4, 3))  # height, width, channel
    path = write_csv(tmp_path / "d.csv", ["1," + ",".join(map(str, image.ravel()))])
    first = load_dataset(path, input_shape=(3, 2, 4), channels_last=True, scale=1)
    np.testing.assert_array_equal(first.x[0].numpy(), image.transpose(2, 0, 1))
    last = load_dataset(path, input_shape=(2, 4, 3), channels_last=True, scale=1)
    np.testing.assert_array_equal(last.x[0].numpy(), image)
    np.save(tmp_path / "d.npy", image.transpose(2, 0, 1)[None])
    turned = load_dataset(tmp_path / "d.npy", input_shape=(2, 4, 3), channels_last=False)
    np.testing.assert_array_equal(turned.x[0].numpy(), image)


def test_a_stored_shape_shows_the_channel_order_by_itself(tmp_path: Path) -> None:
    """(n, h, w, 3) for a (3, h, w) model can only mean channels last."""
    image = RNG.random((1, 2, 4, 3))
    np.save(tmp_path / "d.npy", image)
    data = load_dataset(tmp_path / "d.npy", input_shape=(3, 2, 4))
    np.testing.assert_array_equal(data.x.numpy(), image.transpose(0, 3, 1, 2).astype(np.float32))


def test_flat_colour_rows_are_noted(tmp_path: Path) -> None:
    """Nothing shows the order of flat colour rows, so the assumption is stated."""
    np.save(tmp_path / "d.npy", RNG.random((1, 12)))
    data = load_dataset(tmp_path / "d.npy", input_shape=(3, 2, 2))
    assert data.notes == ("flat rows read in the model's own order, channels first",)
    assert load_dataset(tmp_path / "d.npy", input_shape=(3, 2, 2), channels_last=True).notes == ()


@given(
    channels=st.sampled_from([1, 3, 4]), height=st.integers(5, 7), width=st.integers(5, 7),
    flat=st.booleans(), leading=st.integers(0, 1),
)  # fmt: skip
def test_both_channel_orders_name_the_same_pixel(
    channels: int, height: int, width: int, flat: bool, leading: int
) -> None:
    """Element (c, i, j) of the model's input is the pixel stored at (i, j, c)."""
    stored = np.arange(2 * height * width * channels).reshape(2, height, width, channels)
    rows = stored.reshape(2, -1) if flat else stored
    shape = (1,) * leading + (channels, height, width)
    found = arrange(rows, shape, True, "test").reshape(2, channels, height, width)
    for c in range(channels):
        np.testing.assert_array_equal(found[:, c], stored[..., c])


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((64,), None), ((1, 1, 64), 0), ((3, 32, 32), 0), ((32, 32, 3), 2), ((1, 28, 28), 0),
     ((28, 28, 1), 2), ((3, 32, 3), 0), ((6, 5, 7), 0), ((2, 9), 0), ((1, 3, 8, 8), 1),
     ((1, 8, 8, 3), 3), ((2, 3, 8, 8), 0), ((), None)],
)  # fmt: skip
def test_the_channel_axis_of_a_shape(shape: tuple[int, ...], axis: int | None) -> None:
    """First by the ONNX convention, last where only that can count channels, none if flat."""
    assert channel_axis(shape) == axis


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_subfolders_of_images_are_labels(tmp_path: Path, suffix: str) -> None:
    """Numbered folders give their number; the order is that of the names."""
    pixels = RNG.integers(0, 256, (3, 4, 5))
    for name, image in zip(["3/a", "3/b", "10/a"], pixels, strict=True):
        save_image(tmp_path / f"{name}.{suffix}", image)
    data = load_dataset(tmp_path, input_shape=(1, 4, 5), input_range=(0, 1))
    assert data.labels is not None
    assert data.labels.tolist() == [10, 3, 3]
    expected = pixels[[2, 0, 1], None].astype(np.float32) / np.float32(255)
    np.testing.assert_allclose(data.x.numpy(), expected, rtol=1e-6)


def test_named_subfolders_are_numbered_by_the_alphabet(tmp_path: Path) -> None:
    """The note gives the mapping."""
    for name in ["dog", "cat"]:
        save_image(tmp_path / name / "a.png", RNG.integers(0, 256, (2, 2)))
    data = load_dataset(tmp_path, input_shape=(4,))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1]
    assert data.notes[0] == "class numbers by the alphabet: cat is 0, dog is 1"


@pytest.mark.parametrize("shape", [(3, 2, 5), (2, 5, 3)])
def test_colour_images_take_the_models_channel_order(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    """A PNG stores channels last; a channels-first model gets them first."""
    pixels = RNG.integers(0, 256, (2, 5, 3))
    save_image(tmp_path / "a.png", pixels)
    data = load_dataset(tmp_path, input_shape=shape, scale=1)
    expected = pixels.transpose(2, 0, 1) if shape[0] == 3 else pixels
    np.testing.assert_array_equal(data.x[0].numpy(), expected)
    assert data.labels is None


def test_images_convert_to_the_models_channels(tmp_path: Path) -> None:
    """Grey pixels become equal red, green and blue ones, and the note says so."""
    pixels = RNG.integers(0, 256, (2, 2))
    save_image(tmp_path / "a.png", pixels)
    data = load_dataset(tmp_path, input_shape=(3, 2, 2), scale=1)
    np.testing.assert_array_equal(data.x[0].numpy(), np.stack([pixels] * 3))
    assert "images converted from L to RGB" in data.notes


def test_labels_csv_lists_the_images(tmp_path: Path) -> None:
    """It decides which images there are and their order and labels; a heading is skipped."""
    for name in ["a", "sub/b", "unlisted"]:
        save_image(tmp_path / f"{name}.png", np.full((2, 2), ord(name[-1])))
    (tmp_path / "labels.csv").write_text("file,label\nsub/b.png,4\na.png,2\n")
    data = load_dataset(tmp_path, input_shape=(2, 2), scale=1)
    assert data.labels is not None
    assert data.labels.tolist() == [4, 2]
    assert data.x[:, 0, 0].tolist() == [ord("b"), ord("a")]


@pytest.mark.parametrize(("text", "scale"), [("none", 1), ("None ", 1), ("255", 255), ("0.5", 0.5)])
def test_a_scale_as_an_option_says_it(text: str, scale: float) -> None:
    """A word for leaving the values alone, or the divisor."""
    assert parse_scale(text) == scale


def test_data_beside_the_model_comes_first(tmp_path: Path) -> None:
    """The model's own .npz, else the digits where they fit."""
    assert default_source(tmp_path / "m.onnx", input_shape=(1, 8, 8)) == "digits"
    np.savez(tmp_path / "m.npz", x=np.zeros((1, 2)))
    assert default_source(tmp_path / "m.onnx", input_shape=(2,)) == str(tmp_path / "m.npz")


@pytest.mark.parametrize(
    ("values", "shape", "expected"),
    [([0.5], (3, 4, 4), (1, 1, 1)), ([1, 2, 3], (3, 4, 4), (3, 1, 1)),
     ([1, 2, 3], (5, 5, 3), (1, 1, 3)), ([1, 2], (2,), (2,)),
     ([0.5], (7,), (1,))],
)  # fmt: skip
def test_channel_values_broadcast_along_the_channels(
    values: list[float], shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """One value serves all; several stand along the channel axis."""
    found = channel_values(values, shape, name="mean")
    assert found.shape == expected
    assert found.flatten().tolist() == values
    assert torch.broadcast_shapes(found.shape, shape) == shape


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not on this machine")
@pytest.mark.parametrize("packed", [False, True])
def test_real_mnist_rows(packed: bool) -> None:
    """The plain and the gzipped file share their first hundred rows; the first digit is a 7."""
    plain = load_dataset(SHARED / "mnist_test_100.csv", input_shape=(1, 28, 28), input_range=(0, 1))
    name = "mnist_test_500.csv.gz" if packed else "mnist_test_100.csv"
    data = load_dataset(SHARED / name, input_shape=(784,), limit=100, classes=10)
    assert torch.equal(data.x, plain.x.flatten(1))
    assert data.labels is not None
    assert data.labels[0] == 7


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not on this machine")
def test_real_cifar_rows_are_turned() -> None:
    """RGBRGB rows, as NumPy's own reader and a transpose see them."""
    path = SHARED / "cifar10_test_100.csv"
    data = load_dataset(path, input_shape=(3, 32, 32), channels_last=True, limit=3)
    table = np.loadtxt(path, delimiter=",", max_rows=3)
    images = table[:, 1:].reshape(3, 32, 32, 3).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(data.x.numpy(), images, rtol=1e-6)
    assert data.labels is not None
    assert data.labels.tolist() == table[:, 0].tolist()
