"""Affine maps of logits: vector, matrix and Dirichlet scaling, fitted by L-BFGS with its gradient.

Each adds a penalty, as the likelihood alone has no optimum where a class can be told apart
without a mistake. It pulls towards leaving the logits as they are.

Source:
    Guo et al. 2017, arXiv:1706.04599 (vector, matrix); Kull et al. 2019, arXiv:1910.12656
    (Dirichlet calibration, off-diagonal and intercept regularisation: ODIR).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from uncertainty.arrays import Floats, Integers
from uncertainty.calibrators.base import Calibrator
from uncertainty.errors import UncertaintyInputError
from uncertainty.measures import log_softmax

ITERATIONS = 1000
VECTOR_RIDGE, ODIR = 1e-4, 1e-2


class VectorScaling(Calibrator):
    """z_k -> w_k z_k + b_k.

    Args:
        ridge: of the penalty ridge mean_k ((w_k - 1)^2 + b_k^2), beside the mean NLL in nats.

    Attributes:
        scale_: w, shape (classes,).
        shift_: b, shape (classes,).
        converged_: whether the optimiser said so.
    """

    scale_: Floats
    shift_: Floats
    converged_: bool

    def __init__(self, ridge: float = VECTOR_RIDGE) -> None:
        self.ridge = checked_penalty(ridge, "ridge")

    def _fit(self, z: Floats, y: Integers) -> None:
        classes, hot = z.shape[1], one_hot(y, z.shape[1])

        def loss(theta: Floats) -> tuple[float, Floats]:
            w, b = theta[:classes], theta[classes:]
            value, residual = nll_and_residual(z * w + b, hot)
            penalty = self.ridge * (((w - 1) ** 2).mean() + (b**2).mean())
            pull = 2 * self.ridge / classes * np.concatenate((w - 1, b))
            gradient = np.concatenate(((residual * z).sum(axis=0), residual.sum(axis=0)))
            return value + float(penalty), gradient + pull

        start = np.concatenate((np.ones(classes), np.zeros(classes)))
        theta, self.converged_ = minimised(loss, start)
        self.scale_, self.shift_ = theta[:classes], theta[classes:]

    def _transform(self, z: Floats) -> Floats:
        return z * self.scale_ + self.shift_

    def affine(self) -> tuple[Floats, Floats]:
        """Scale and shift of each class's logit, shape (classes,) each."""
        return self.scale_, self.shift_


class MatrixScaling(Calibrator):
    """z -> W z + b, with ODIR. K (K + 1) numbers: it overfits unless inputs by far outnumber them.

    Args:
        off_diagonal: of the penalty off_diagonal mean_{i != j} W_ij^2.
        intercept: of the penalty intercept mean_i b_i^2.

    Attributes:
        weight_: W, shape (classes, classes).
        shift_: b, shape (classes,).
        converged_: whether the optimiser said so.
    """

    weight_: Floats
    shift_: Floats
    converged_: bool

    def __init__(self, off_diagonal: float = ODIR, intercept: float = ODIR) -> None:
        self.off_diagonal = checked_penalty(off_diagonal, "off_diagonal")
        self.intercept = checked_penalty(intercept, "intercept")

    def _features(self, z: Floats) -> Floats:
        return z

    def _fit(self, z: Floats, y: Integers) -> None:
        x, classes, hot = self._features(z), z.shape[1], one_hot(y, z.shape[1])
        off = 1 - np.eye(classes)
        size = max(1, classes * (classes - 1))

        def loss(theta: Floats) -> tuple[float, Floats]:
            table = theta.reshape(classes, classes + 1)
            w, b = table[:, :-1], table[:, -1]
            value, residual = nll_and_residual(x @ w.T + b, hot)
            penalty = self.off_diagonal * ((w * off) ** 2).sum() / size
            penalty += self.intercept * (b**2).mean()
            gradient = np.empty_like(table)
            gradient[:, :-1] = residual.T @ x + 2 * self.off_diagonal / size * w * off
            gradient[:, -1] = residual.sum(axis=0) + 2 * self.intercept / classes * b
            return value + float(penalty), gradient.ravel()

        start = np.hstack((np.eye(classes), np.zeros((classes, 1)))).ravel()
        theta, self.converged_ = minimised(loss, start)
        table = theta.reshape(classes, classes + 1)
        self.weight_, self.shift_ = table[:, :-1], table[:, -1]

    def _transform(self, z: Floats) -> Floats:
        return np.asarray(self._features(z) @ self.weight_.T + self.shift_)


class DirichletCalibration(MatrixScaling):
    """log p -> W log p + b, with ODIR: calibration maps between Dirichlet distributions.

    As `MatrixScaling`, but of log-probabilities, so a constant added to the logits does nothing.
    """

    def _features(self, z: Floats) -> Floats:
        return log_softmax(z)


def one_hot(y: Integers, classes: int) -> Floats:
    """Labels as rows of the identity."""
    return np.asarray(np.eye(classes)[y])


def nll_and_residual(z: Floats, hot: Floats) -> tuple[float, Floats]:
    """Mean NLL, and its gradient in the logits: (softmax - one-hot) / inputs."""
    log_p = log_softmax(z)
    residual = (np.exp(log_p) - hot) / len(z)
    return float(-(log_p * hot).sum() / len(z)), residual


def minimised(loss: object, start: Floats) -> tuple[Floats, bool]:
    """The minimiser by L-BFGS-B with analytic gradient, and whether it converged."""
    options = {"maxiter": ITERATIONS, "maxfun": 2 * ITERATIONS, "ftol": 1e-14, "gtol": 1e-9}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, dtype=np.float64), bool(found.success)


def checked_penalty(value: float, name: str) -> float:
    """A number >= 0.

    Raises:
        UncertaintyInputError: if it is none.
    """
    if not 0 <= value < np.inf:
        raise UncertaintyInputError(f"{name} is {value}, expected a finite number >= 0.")
    return float(value)
