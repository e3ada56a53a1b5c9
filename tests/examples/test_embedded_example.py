"""The embedded example: its files, its accuracies and the script that wrote them."""

import re
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from verify.errors import DataError
from verify.readers import examples
from verify.readers.examples import EXAMPLE_FILES, example_path

FOLDER = Path(__file__).resolve().parents[2] / "examples"
NETS = {"digits_dense": (64,), "digits_conv": (1, 8, 8)}
ROUNDING = 2e-4  # float32 logits of size ~20, summed in two orders by two programs


@cache
def train_script() -> ModuleType:
    pytest.importorskip("sklearn")
    spec = spec_from_file_location("train_example", FOLDER / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(name: str) -> nn.Sequential:
    script = train_script()
    return script.dense_net() if name == "digits_dense" else script.conv_net()


def logits(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"input": x})[0]


def held_out(name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(example_path("digits.npz"), allow_pickle=False) as data:
        return data["x"].reshape(-1, *NETS[name]), data["y"]


@pytest.mark.parametrize("name", NETS)
def test_the_committed_net_is_as_accurate_as_the_readme_says(name: str) -> None:
    """ONNX Runtime on the held-out split counts the hits that examples/README.md states."""
    x, y = held_out(name)
    hits = int((logits(onnx.load(example_path(f"{name}.onnx")), x).argmax(axis=1) == y).sum())
    row = re.search(
        rf"`{name}\.onnx` .*?\| (\d\.\d+) \((\d+) of (\d+)\)", (FOLDER / "README.md").read_text()
    )
    assert row is not None
    assert (hits, len(y)) == (int(row[2]), int(row[3]))
    assert hits / len(y) == pytest.approx(float(row[1]), abs=5e-5)
    assert hits / len(y) > 0.95


@pytest.mark.parametrize("name", NETS)
def test_the_committed_net_computes_what_torch_computes(name: str) -> None:
    """The ONNX weights, put back into the torch net, give ONNX Runtime's logits."""
    model = onnx.load(example_path(f"{name}.onnx"))
    net = build(name).eval()
    with torch.no_grad():
        state = [torch.from_numpy(numpy_helper.to_array(w).copy()) for w in model.graph.initializer]
        targets = [v for k, v in net.state_dict().items() if "num_batches" not in k]
        assert len(state) == len(targets)
        for target, value in zip(targets, state, strict=True):
            target.copy_(value)
        x, _ = held_out(name)
        expected = net(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(logits(model, x), expected, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_the_export_of_any_weights_computes_what_torch_computes(name: str) -> None:
    """Random weights and BatchNorm statistics: ONNX Runtime agrees with torch on random inputs."""
    rng = torch.Generator().manual_seed(3)
    net = build(name).eval()
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if "num_batches" not in key:
                value.copy_(torch.rand(value.shape, generator=rng) + 0.1)
        x = torch.rand((5, *NETS[name]), generator=rng)
        expected = net(x).numpy()
    found = logits(train_script().onnx_model(net, NETS[name], name), x.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_layer_without_an_onnx_form_is_refused() -> None:
    """The exporter names the layer that it does not know instead of leaving it out."""
    with pytest.raises(TypeError, match="layer 0, a Tanh"):
        train_script().onnx_model(nn.Sequential(nn.Tanh()), (4,), "t")


def test_the_held_out_split_is_stratified_and_unseen() -> None:
    """Every class is there in its share, and no held-out image is among the training images."""
    train, test = train_script().load_splits()
    x, y = held_out("digits_dense")
    np.testing.assert_array_equal(x, test.x.reshape(-1, 64))
    np.testing.assert_array_equal(y, test.y)
    assert x.min() >= 0
    assert x.max() <= 1
    assert np.bincount(y).min() >= 34
    seen = {image.tobytes() for image in train.x.reshape(-1, 64)}
    assert not any(image.tobytes() in seen for image in x)


def test_the_files_are_small() -> None:
    """Each of the files is below 300 kB, as fits a repository."""
    assert all(example_path(name).stat().st_size < 300_000 for name in EXAMPLE_FILES)


def test_an_unknown_example_is_refused_by_name() -> None:
    """The message lists the examples that there are."""
    with pytest.raises(DataError, match=r"no embedded example called 'cats'.*digits_dense\.onnx"):
        example_path("cats")


def test_a_broken_installation_says_where_it_looked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file that is not installed is an error with the folders, not a bare FileNotFoundError."""
    monkeypatch.setattr(examples, "_FOLDERS", (tmp_path / "gone",))
    with pytest.raises(DataError, match="missing from this installation"):
        example_path("digits.npz")


def test_the_package_carries_every_example_file() -> None:
    """pyproject.toml's wheel section names each of `EXAMPLE_FILES`."""
    text = (FOLDER.parent / "pyproject.toml").read_text()
    for name in EXAMPLE_FILES:
        assert f'"examples/{name}" = "verify/_examples/{name}"' in text
