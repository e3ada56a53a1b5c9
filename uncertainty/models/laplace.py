"""Laplace: a normal posterior around trained weights, with the curvature as its precision.

    precision = sum_n J_n^T C_n J_n + delta I

J_n are the outputs' derivatives in the weights, C_n the Fisher information of the likelihood in
the outputs (so this is the generalised Gauss-Newton matrix), delta the prior's precision. Outputs
are linearised around the trained weights, which keeps this consistent with the curvature:
f(x) ~ N(f_map(x), J Sigma J^T).

Source:
    MacKay 1992; Ritter et al. 2018 (Kronecker factors); Immer et al. 2021, arXiv:2008.08400
    (linearised predictions); Daxberger et al. 2021, arXiv:2106.14806 (last layer).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.func import jacrev, vmap

from uncertainty.errors import UncertaintyInputError
from uncertainty.models.base import Posterior, evaluating, fitted, run
from uncertainty.models.curvature import FullCurvature, KroneckerCurvature
from uncertainty.models.likelihoods import CLASSES, Likelihood
from uncertainty.models.training import Progress, inputs, targets_for
from uncertainty.models.weights import WeightSpace, last_layer_names, linear_layers
from uncertainty.seeding import generator

PRECISION_RANGE = (math.log(1e-6), math.log(1e6))
"""Of log delta in the search for the most probable prior."""

JACOBIANS = 256
"""Samples whose Jacobians are held at once."""

Structure = Literal["full", "kron"]
Subset = Literal["last_layer", "all"]


class Laplace(Posterior):
    """The posterior of a trained network's weights, approximated after the fact.

    Args:
        network: trained; never changed.
        subset: "last_layer" (the last Linear layer) or "all" weights.
        structure: "full", exact for the subset, with a P x P matrix; or "kron", Kronecker factors
            of each Linear layer, for subsets too large for that.
        prior_precision: delta, or None to take the one with the largest marginal likelihood.
        likelihood: what the outputs mean.
        draws: of outputs in prediction.
        seed: of those.

    Attributes:
        prior_precision_: the one that is used.
        at_bound_: whether the search for it ended at the edge of its range.
        log_marginal_: log marginal likelihood there, in nats, with the trained weights' own fit.
        curvature_: eigenvalues and all; see `uncertainty.models.curvature`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        subset: Subset = "last_layer",
        structure: Structure = "full",
        prior_precision: float | None = None,
        likelihood: Likelihood = CLASSES,
        draws: int = 200,
        seed: int = 0,
    ) -> None:
        if subset not in {"last_layer", "all"} or structure not in {"full", "kron"}:
            raise UncertaintyInputError(
                f"subset is {subset!r} and structure {structure!r}, expected 'last_layer' or "
                "'all', and 'full' or 'kron'."
            )
        if prior_precision is not None and not prior_precision > 0:
            raise UncertaintyInputError(f"prior precision is {prior_precision}, expected > 0.")
        if draws < 1:
            raise UncertaintyInputError(f"draws is {draws}, expected at least 1.")
        names = last_layer_names(network) if subset == "last_layer" else None
        self.network, self.structure, self.prior_precision = network, structure, prior_precision
        self.likelihood, self.draws, self.seed = likelihood, draws, seed
        self.space = WeightSpace(network, names)
        if structure == "kron":
            refuse_other_layers(network, self.space)
        self.prior_precision_ = math.nan
        self.log_marginal_ = math.nan
        self.at_bound_ = False
        self.curvature_: FullCurvature | KroneckerCurvature | None = None

    def fit(
        self, x: ArrayLike | Tensor, y: ArrayLike | Tensor, progress: Progress | None = None
    ) -> Laplace:
        """Sum the curvature over the training data, and choose the prior."""
        x = inputs(x, self.network)
        y = targets_for(self.network, self.likelihood, x, y)
        maker = FullCurvature if self.structure == "full" else KroneckerCurvature
        curvature = maker(self.space)
        parts = x.split(JACOBIANS)
        for i, part in enumerate(parts):
            outputs = run(self.network, part).double()
            curvature.add(part, self.jacobians(part), self.likelihood.curvature(outputs))
            if progress is not None:
                progress(i + 1, len(parts), math.nan)
        curvature.finish()
        self.curvature_ = curvature
        fit = -float(self.likelihood.nll(run(self.network, x).double(), as_double(y)).sum())
        square = float((self.space.vector().double() ** 2).sum())
        values = curvature.eigenvalues()

        def log_marginal(delta: float) -> float:
            # log p(D|w) + log N(w; 0, 1/delta) + (P log 2 pi - log det(H + delta)) / 2
            grown = np.log1p(values / delta).sum()
            return float(fit - delta * square / 2 - grown / 2)

        if self.prior_precision is None:
            found = minimize_scalar(
                lambda log: -log_marginal(math.exp(log)), bounds=PRECISION_RANGE, method="bounded"
            )
            self.prior_precision_ = math.exp(found.x)
            self.at_bound_ = bool(min(abs(found.x - end) for end in PRECISION_RANGE) < 1e-2)
        else:
            self.prior_precision_ = float(self.prior_precision)
        self.log_marginal_ = log_marginal(self.prior_precision_)
        return self

    def jacobians(self, x: Tensor) -> Tensor:
        """Derivatives of the outputs in the weights, shape (N, O, P), float64."""
        with evaluating(self.network):
            of_one = jacrev(lambda vector, one: self.space.call(vector, one[None])[0])
            found: Tensor = vmap(of_one, in_dims=(None, 0))(self.space.vector(), x)
        return found.detach().double()

    def predict_function(
        self, x: ArrayLike | Tensor
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean, shape (N, O), and covariance, shape (N, O, O), of the outputs: no noise in it."""
        mean, covariance = self._function(inputs(x, self.network))
        return mean.numpy(), covariance.numpy()

    def member_outputs(self, x: ArrayLike | Tensor) -> Tensor:
        """Draws of the linearised outputs, shape (draws, N, O).

        Every input gets the same underlying normal numbers, so the result for one does not depend
        on what stands beside it; draws are therefore not joint samples over inputs.
        """
        mean, covariance = self._function(inputs(x, self.network))
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp(min=0).sqrt()[:, None, :]
        noise = torch.randn(
            (self.draws, mean.shape[1]),
            generator=generator(self.seed, "laplace"),
            dtype=torch.float64,
        )
        # Antithetic: the mean over the draws is the mean itself.
        noise = torch.cat((noise[: (self.draws + 1) // 2], -noise[: self.draws // 2]))
        return mean + torch.einsum("nop,ip->ino", root, noise)

    def _function(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fitted(self.curvature_, "Laplace")
        assert self.curvature_ is not None
        parts = [
            self.curvature_.function_covariance(self.jacobians(part), self.prior_precision_)
            for part in x.split(JACOBIANS)
        ]
        return run(self.network, x).double().cpu(), torch.cat(parts).cpu()


def as_double(y: Tensor) -> Tensor:
    """Numbers as float64; labels as they are."""
    return y.double() if y.is_floating_point() else y


def refuse_other_layers(network: nn.Module, space: WeightSpace) -> None:
    """Raise if a weight of the space belongs to no Linear layer, which has no Kronecker factors.

    Raises:
        UncertaintyInputError: if so.
    """
    known = {
        f"{name}.{own}" if name else own
        for name, layer in linear_layers(network).items()
        for own, _ in layer.named_parameters()
    }
    others = [name for name in space.names if name not in known]
    if others:
        raise UncertaintyInputError(
            f"Kronecker factors are there for Linear layers only, not for {', '.join(others)}; "
            "use subset='last_layer', or structure='full' on a small network."
        )
