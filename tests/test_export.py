"""What is written as ONNX computes what the module computes, and `verify` reads it."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from tests.attacks.defences.nets import BUILDERS, SHAPE, inputs, made
from verify.errors import ModelError, UnsupportedOperator
from verify.export import onnx_bytes
from verify.network import load

ROUNDING = 1e-5  # float32 logits of size ~5, summed in two orders by two programs
POOLED = nn.Sequential(
    nn.MaxPool2d(2, stride=1, padding=1), nn.AvgPool2d(2, padding=1), nn.Flatten(), nn.Linear(16, 4)
)


def computed(model: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input": x})[0]


@pytest.mark.parametrize("name", [*BUILDERS, "pooled"])
def test_onnx_runtime_computes_what_torch_does(name: str, tmp_path: Path) -> None:
    """For batches of five and of one; and the file is a network to `verify`."""
    net = POOLED.eval() if name == "pooled" else made(name, torch.float32)
    x = inputs(dtype=torch.float32)
    model = onnx_bytes(net, SHAPE, 4, name)
    with torch.no_grad():
        expected = net(x).numpy()
    np.testing.assert_allclose(computed(model, x.numpy()), expected, atol=ROUNDING)
    np.testing.assert_allclose(computed(model, x[:1].numpy()), expected[:1], atol=ROUNDING)
    path = tmp_path / "net.onnx"
    path.write_bytes(model)
    network = load(path)
    assert (network.input_shape, network.classes) == (SHAPE, 4)


def test_a_module_in_training_mode_is_exported_as_it_will_be_used() -> None:
    """By the running statistics, and its mode is left alone."""
    net = made("conv", torch.float32).train()
    model, x = onnx_bytes(net, SHAPE, 4, "net"), inputs(dtype=torch.float32)
    assert net.training
    with torch.no_grad():
        np.testing.assert_allclose(computed(model, x.numpy()), net.eval()(x).numpy(), atol=ROUNDING)


class Branching(nn.Module):
    """Its forward depends on values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_layers_without_an_onnx_form_are_refused_by_name() -> None:
    """Nothing is left out in silence."""
    with pytest.raises(UnsupportedOperator, match="layer 1, a GELU"):
        onnx_bytes(nn.Sequential(nn.Flatten(), nn.GELU()), SHAPE, 36, "net")
    with pytest.raises(ModelError, match="cannot be traced"):
        onnx_bytes(Branching(), SHAPE, 36, "net")
