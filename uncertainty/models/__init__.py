"""Epistemic models: what would other networks, as plausible as this one, have predicted?

    DeepEnsemble   networks trained from different seeds
    MCDropout      one network, thinned at random
    MeanField      Bayes by backprop: every weight a normal distribution
    Laplace        a normal distribution around trained weights, from the curvature
    SWAG           a normal distribution from the path of SGD
    HMC, SGLD      samples of the posterior itself, for small networks
    MAP            its single most probable network
    OnnxEnsemble, OnnxDropout   the first two from ONNX files

All have `fit(x, y)` (but those of files), `predict`, `predict_proba`, `predict_distribution` and
`member_outputs`.
"""

from uncertainty.models.base import NotFitted, Posterior
from uncertainty.models.dropout import MCDropout
from uncertainty.models.ensemble import DeepEnsemble
from uncertainty.models.laplace import Laplace
from uncertainty.models.likelihoods import (
    Categorical,
    FixedGaussian,
    HeteroscedasticGaussian,
    Likelihood,
)
from uncertainty.models.map import MAP, prior_variance_of, weight_decay_of
from uncertainty.models.onnx_members import OnnxDropout, OnnxEnsemble
from uncertainty.models.sampling import HMC, SGLD, Chains, r_hat, sample_hmc
from uncertainty.models.swag import SWAG
from uncertainty.models.training import Training
from uncertainty.models.variational import MeanField

__all__ = [
    "HMC",
    "MAP",
    "SGLD",
    "SWAG",
    "Categorical",
    "Chains",
    "DeepEnsemble",
    "FixedGaussian",
    "HeteroscedasticGaussian",
    "Laplace",
    "Likelihood",
    "MCDropout",
    "MeanField",
    "NotFitted",
    "OnnxDropout",
    "OnnxEnsemble",
    "Posterior",
    "Training",
    "prior_variance_of",
    "r_hat",
    "sample_hmc",
    "weight_decay_of",
]
