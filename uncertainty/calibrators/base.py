"""What a calibrator of class probabilities is: fitted to logits and labels, applied to logits."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from uncertainty.arrays import Array, Floats, Integers, as_labels, as_logits, needs_inputs
from uncertainty.errors import NotFittedError, UncertaintyInputError
from uncertainty.measures import log_softmax


class Calibrator(ABC):
    """Maps logits to better calibrated ones. Fit it to data that the model was not trained on.

    Attributes:
        classes_: number of classes it was fitted to.
        nll_before_: mean negative log-likelihood of the fitting data before, in nats.
        nll_after_: and after.
    """

    classes_: int
    nll_before_: float
    nll_after_: float

    def fit(self, logits: Array, labels: Array) -> Calibrator:
        """Fit to held-out logits of shape (inputs, classes) and labels of shape (inputs,).

        Returns:
            Itself.

        Raises:
            UncertaintyInputError: if they cannot be used.
        """
        z = as_logits(logits)
        y = as_labels(labels, inputs=len(z), classes=z.shape[1])
        needs_inputs(len(z), "calibration")
        self._fit(z, y)
        self.classes_ = z.shape[1]
        self.nll_before_ = mean_nll(z, y)
        self.nll_after_ = mean_nll(self._transform(z), y)
        return self

    def transform(self, logits: Array) -> Floats:
        """Calibrated logits of the same shape; their softmax is `predict_proba`.

        Raises:
            NotFittedError: before `fit`.
            UncertaintyInputError: if the logits have another number of classes.
        """
        if not hasattr(self, "classes_"):
            raise NotFittedError(f"{type(self).__name__} is not fitted; call fit first.")
        z = as_logits(logits)
        if z.shape[1] != self.classes_:
            raise UncertaintyInputError(
                f"logits have {z.shape[1]} classes, the calibrator was fitted to {self.classes_}."
            )
        return self._transform(z)

    def predict_proba(self, logits: Array) -> Floats:
        """Calibrated probabilities, shape (inputs, classes)."""
        return np.asarray(np.exp(log_softmax(self.transform(logits))))

    @abstractmethod
    def _fit(self, z: Floats, y: Integers) -> None: ...

    @abstractmethod
    def _transform(self, z: Floats) -> Floats: ...


def mean_nll(z: Floats, y: Integers) -> float:
    """Mean negative log-likelihood in nats."""
    return float(-log_softmax(z)[np.arange(len(z)), y].mean())
