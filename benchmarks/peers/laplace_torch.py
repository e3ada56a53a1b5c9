"""laplace-torch beside us: the same trained network and data, largest relative difference.

Compared are the mean and covariance of the linearised outputs and the log marginal likelihood, at
a prior precision of 1, with every weight or the last layer's, by the full matrix or by Kronecker
factors. All in float64. Kronecker factors of a layer with a bias are another matter of definition:
ours has the bias as one more input of the layer (Martens, Grosse 2015), theirs a block of its own,
so only layers without one can agree; the last case shows how far the two choices are apart.
"""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from uncertainty.models import DeepEnsemble, Laplace, Training

CASES = (
    ("last_layer", "full", True),
    ("all", "full", True),
    ("last_layer", "kron", False),
    ("all", "kron", False),
    ("all", "kron", True),
)


def build(bias: bool = True) -> nn.Module:
    """Small enough for a full matrix over all weights."""
    return nn.Sequential(nn.Linear(64, 8, bias), nn.Tanh(), nn.Linear(8, 8, bias))


def differences(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Largest |ours - theirs| / max |theirs| of each quantity."""
    from laplace import Laplace as Other

    torch.set_default_dtype(torch.float64)
    inputs, labels = torch.as_tensor(x[:300]).double(), torch.as_tensor(y[:300]).long()
    new = torch.rand(40, 64, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=300)
    found: dict[str, float] = {}
    for subset, structure, bias in CASES:
        fitted = DeepEnsemble(partial(build, bias), members=1, training=Training(epochs=30))
        fitted.fit(x, y)
        assert fitted.networks_ is not None
        network = fitted.networks_[0].double()
        own = Laplace(network, subset=subset, structure=structure, prior_precision=1.0)
        own.fit(inputs, labels)
        mean, covariance = own.predict_function(new)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = Other(
                network,
                "classification",
                subset_of_weights=subset,
                hessian_structure=structure,
                prior_precision=1.0,
            )
            other.fit(loader)
            their_mean, their_covariance = other._glm_predictive_distribution(new)
            evidence = float(other.log_marginal_likelihood())
        name = f"{subset}, {structure}" + (", with biases" if bias else "")
        found[f"{name}: mean"] = apart(mean, their_mean)
        found[f"{name}: covariance"] = apart(covariance, their_covariance)
        found[f"{name}: evidence"] = abs(own.log_marginal_ - evidence) / abs(evidence)
    return found


def apart(own: np.ndarray, other: torch.Tensor) -> float:
    """Largest difference in units of the largest value."""
    theirs = other.detach().numpy()
    return float(np.abs(own - theirs).max() / np.abs(theirs).max())
