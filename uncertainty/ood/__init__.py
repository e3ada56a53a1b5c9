"""Out-of-distribution detection: does this input look like what the network was trained on?

One sign for all: a higher score is more out of distribution.

    logits only       MSP, MaxLogit, Energy, Entropy
    features as well  Mahalanobis (and relative), Nearest, ViM, ReAct, ASH, GradNorm
    gradients         ODIN
    several members   `uncertainty.mutual_information`

Detectors take `Activations` (of a torch module or an ONNX file, see `uncertainty.ood.activations`),
are fitted on in-distribution data only, and `threshold` keeps a chosen share of that. `evaluate`
says how well two sets of scores are told apart, with intervals; `letters` draws inputs that no
network of digits has seen.
"""

from uncertainty.ood.activations import Activations, Head, OnnxActivations, TorchActivations
from uncertainty.ood.detectors import (
    DETECTORS,
    MSP,
    Detector,
    Energy,
    Entropy,
    GradNorm,
    MaxLogit,
    detector_named,
    threshold,
)
from uncertainty.ood.evaluation import Evaluation, Measured, evaluate
from uncertainty.ood.features import ASH, Mahalanobis, Nearest, ReAct, ViM
from uncertainty.ood.letters import letters
from uncertainty.ood.odin import odin

__all__ = [
    "ASH",
    "DETECTORS",
    "MSP",
    "Activations",
    "Detector",
    "Energy",
    "Entropy",
    "Evaluation",
    "GradNorm",
    "Head",
    "Mahalanobis",
    "MaxLogit",
    "Measured",
    "Nearest",
    "OnnxActivations",
    "ReAct",
    "TorchActivations",
    "ViM",
    "detector_named",
    "evaluate",
    "letters",
    "odin",
    "threshold",
]
