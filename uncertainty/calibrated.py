"""A classifier of any kind, its logits, and the same with a calibrator behind it.

A model is a `torch.nn.Module`, an ONNX file (path or bytes), a function from inputs to logits, or
None: then what is given as inputs are the logits themselves. So one object serves all four.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uncertainty.arrays import Array, as_logits
from uncertainty.calibrators import Calibrator, TemperatureScaling

if TYPE_CHECKING:
    from torch import nn

    Model = nn.Module | str | Path | bytes | Callable[[Array], Array] | None

Floats = NDArray[np.float64]


def logits_of(model: Model, x: Array) -> Floats:
    """Logits of each input, shape (inputs, classes), as float64.

    A module is run in eval mode and put back; a file in ONNX Runtime on the CPU.

    Raises:
        UncertaintyInputError: if the model cannot be run, or gives no finite logits.
    """
    from torch import nn

    if model is None:
        return as_logits(x)
    if isinstance(model, nn.Module):
        from uncertainty.models.base import run

        return as_logits(run(model, x))
    if isinstance(model, str | Path | bytes):
        from uncertainty.onnx_network import OnnxNetwork

        return as_logits(OnnxNetwork(model).run(x)[0])
    return as_logits(model(x))


class CalibratedModel:
    """A classifier with a calibrator behind its logits, in scikit-learn's habit.

    Args:
        model: see the module's docstring; never changed.
        calibrator: what is fitted; by default a temperature.
    """

    def __init__(self, model: Model, calibrator: Calibrator | None = None) -> None:
        self.model = model
        self.calibrator = TemperatureScaling() if calibrator is None else calibrator

    def fit(self, x: Array, y: Array) -> CalibratedModel:
        """Fit the calibrator on inputs that the model was not trained on, and their labels."""
        self.calibrator.fit(logits_of(self.model, x), y)
        return self

    def transform(self, x: Array) -> Floats:
        """Calibrated logits, shape (inputs, classes)."""
        return self.calibrator.transform(logits_of(self.model, x))

    def predict_proba(self, x: Array) -> Floats:
        """Calibrated class probabilities, shape (inputs, classes)."""
        return self.calibrator.predict_proba(logits_of(self.model, x))

    def predict(self, x: Array) -> NDArray[np.int64]:
        """The likeliest class of each input by them."""
        return np.asarray(self.predict_proba(x).argmax(axis=1), dtype=np.int64)
