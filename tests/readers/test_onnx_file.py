"""A hostile or damaged file ends in one clear ModelError, and external data stay in its folder."""

from __future__ import annotations

import gzip
import hashlib
import os
import random as random_module
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from tests.readers.onnx_models import chain, dense, integers, random, read_back, saved
from verify.errors import ModelError, VerifyError
from verify.readers import onnx_file
from verify.readers.onnx import read_onnx


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"not a model, but a letter", "not an ONNX model|no ONNX graph"),
        (b"\x80\x04\x95pickle", "not an ONNX model|no ONNX graph"),
        (dense().SerializeToString()[:60], "cut short"),
        (dense().SerializeToString().replace(b"Relu", b"\xff\xfe\xfd\xfc"), "no text"),
        (b"\x1f\x8b\x08 damaged", "damaged gzip"),
        (gzip.compress(dense().SerializeToString())[:-30], "damaged gzip"),
    ],
)
def test_a_damaged_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    """Whatever the bytes are, the message is one line about the file."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        read_onnx(path)
    assert "\n" not in str(caught.value)


def test_folders_missing_files_and_pipes_are_refused(tmp_path: Path) -> None:
    """None of them is opened for reading a model."""
    with pytest.raises(ModelError, match="is a folder"):
        read_onnx(tmp_path)
    with pytest.raises(ModelError, match="there is no file"):
        read_onnx(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="not a regular file"):
        read_onnx("/dev/zero")
    with pytest.raises(ModelError, match="null byte"):
        read_onnx("a\0b")


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    """A named pipe without a writer would otherwise wait for ever."""
    pipe = tmp_path / "model.onnx"
    os.mkfifo(pipe)
    with pytest.raises(ModelError, match="not a regular file"):
        read_onnx(pipe)


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    """The name does not matter, and the hash is that of the file on disk."""
    packed = gzip.compress(dense().SerializeToString())
    path = tmp_path / "model.onnx"
    path.write_bytes(packed)
    read = read_onnx(path)
    assert read.sha256 == hashlib.sha256(packed).hexdigest()
    assert read.data == dense().SerializeToString()


def test_a_gzip_bomb_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacking ends as soon as the limit is passed."""
    monkeypatch.setattr(onnx_file, "KIND", replace(onnx_file.KIND, most=2**22))
    path = tmp_path / "model.onnx.gz"
    path.write_bytes(gzip.compress(b"\0" * 2**25))
    with pytest.raises(ModelError, match="too large"):
        read_onnx(path)


def external(folder: Path, location: str, **entries: int) -> Path:
    """The small model with its weights in another file."""
    proto = dense()
    tensor = proto.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    if not Path(location).is_absolute() and ".." not in location:
        (folder / location).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / location).exists():
            (folder / location).write_bytes(data)
    return saved(proto, folder)


def test_external_data_in_the_folder_are_brought_in(tmp_path: Path) -> None:
    """The graph is the same, and the runtime's bytes hold the weights themselves."""
    read = read_onnx(external(tmp_path, "weights/w.bin", offset=0, length=48))
    inner = read_back(dense(), tmp_path)
    ours, theirs = (m.graph.nodes[1].tensors["weight"] for m in (read, inner))
    assert ours.equal(theirs)
    assert onnx.load_model_from_string(read.data).graph.initializer[0].raw_data
    assert any("weights/w.bin" in note for note in read.notes)


@pytest.mark.parametrize("location", ["/etc/passwd", "../w.bin", "a/../../w.bin", "", ".", "..\\w"])
def test_external_data_outside_the_folder_are_not_opened(location: str, tmp_path: Path) -> None:
    """Absolute paths and parent folders are refused, whether or not the file exists."""
    (tmp_path / "w.bin").write_bytes(b"\0" * 48)
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(ModelError, match="outside the model's folder"):
        read_onnx(outside(folder, location))


def outside(folder: Path, location: str) -> Path:
    """The small model pointing to a location that is not created."""
    proto = dense()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return saved(proto, folder)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    """The real place of the file counts."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"\0" * 48)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").symlink_to(secret)
    with pytest.raises(ModelError, match="outside the model's folder"):
        read_onnx(outside(folder, "w.bin"))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": 8}, "end too early"),
        ({"length": 47}, "needs 48 bytes"),
        ({"offset": -1}, "needs 48 bytes"),
        ({"offset": 2**40}, "end too early"),
    ],
)
def test_external_data_of_another_size_are_refused(
    entries: dict[str, int], message: str, tmp_path: Path
) -> None:
    """The bytes must be there, and be as many as the shape needs."""
    with pytest.raises(ModelError, match=message):
        read_onnx(external(tmp_path, "w.bin", **entries))


def test_missing_external_data_are_named(tmp_path: Path) -> None:
    """The message says which file belongs beside the model."""
    with pytest.raises(ModelError, match=r"no external data file 'w\.bin'"):
        read_onnx(outside(tmp_path, "w.bin"))


def test_damage_ends_in_a_verify_error_or_in_a_model(tmp_path: Path) -> None:
    """150 flipped, cut and overwritten copies of a model raise nothing else."""
    proto = chain(
        (1, 1, 6, 6),
        ("Conv", ["x", "w"], "h", {"pads": [1, 1, 1, 1]}),
        ("Relu", ["h"], "r"),
        ("AveragePool", ["r"], "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Reshape", ["p", "s"], "f"),
        ("Gemm", ["f", "v"], "y"),
        w=random(2, 1, 3, 3),
        v=random(18, 3),
        s=integers(0, -1),
    )
    original = proto.SerializeToString()
    dice = random_module.Random(0)
    path, refused = tmp_path / "model.onnx", 0
    for _ in range(150):
        data = bytearray(original)
        for _ in range(dice.choice((1, 1, 2, 8))):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        if dice.random() < 0.2:
            del data[dice.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            read_onnx(path)
        except VerifyError:
            refused += 1
    assert refused > 30  # else the damage never reaches the reader
