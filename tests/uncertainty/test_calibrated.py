"""One object for logits, modules, ONNX files and functions: they agree, and the model stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from uncertainty import (
    CalibratedModel,
    TemperatureScaling,
    UncertaintyInputError,
    VectorScaling,
    logits_of,
)
from verify.export import onnx_bytes

DIGITS = load_digits()
X, Y = (DIGITS.data[:300] / 16).astype(np.float32), DIGITS.target[:300]


def module() -> nn.Module:
    """With dropout, which must be off."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10)).train()


def test_every_kind_of_model_gives_the_same_logits(tmp_path: Path) -> None:
    """Up to float32 rounding; and the module is still in training mode afterwards."""
    network = module()
    found = logits_of(network, X)
    assert network.training
    assert all(part.training for part in network)
    path = tmp_path / "net.onnx"
    path.write_bytes(
        onnx_bytes(nn.Sequential(network[0], network[1], network[3]), (64,), 10, "net")
    )
    w1, b1, w2, b2 = (p.detach().numpy() for p in network.parameters())
    by_hand = np.maximum(X @ w1.T + b1, 0) @ w2.T + b2
    np.testing.assert_allclose(found, by_hand, atol=1e-5)
    for model, given in (
        (str(path), X),
        (path.read_bytes(), X),
        (lambda x: by_hand[: len(x)], X),
        (None, by_hand),
    ):
        np.testing.assert_allclose(logits_of(model, given), found, atol=1e-5)


@pytest.mark.parametrize("calibrator", [None, VectorScaling()])
def test_a_calibrated_model_is_the_calibrator_behind_the_logits(
    calibrator: VectorScaling | None,
) -> None:
    """The same numbers as by hand, and no worse NLL on the inputs it was fitted on."""
    network = module()
    model = CalibratedModel(network, calibrator).fit(X, Y)
    by_hand = (TemperatureScaling() if calibrator is None else VectorScaling()).fit(
        logits_of(network, X), Y
    )
    np.testing.assert_allclose(
        model.predict_proba(X), by_hand.predict_proba(logits_of(network, X)), atol=1e-9
    )
    p = model.predict_proba(X)
    assert (model.predict(X) == p.argmax(1)).all()
    np.testing.assert_allclose(p.sum(1), 1)
    raw = torch.tensor(logits_of(network, X)).softmax(1).numpy()
    before = -np.log(raw[np.arange(300), Y]).mean()
    assert -np.log(p[np.arange(300), Y]).mean() <= before + 1e-9


def test_what_is_no_logits_is_refused() -> None:
    """NaN from a function."""
    with pytest.raises(UncertaintyInputError):
        logits_of(lambda x: np.full((len(x), 3), np.nan), X)
