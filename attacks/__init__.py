"""Attacks: looking for misclassified inputs near given ones, in plain torch.

    from attacks import PGD, Ball

    result = PGD()(model, x, labels, Ball(eps=0.03, lower=0.0, upper=1.0))
    result.found, result.candidate, result.distance

What is attacked is any callable from (batch, *input) to logits. What is found is a candidate:
inside the ball in exact arithmetic, misclassified in torch's. See `attacks.protocol` for the
interface, `attacks.registry` for the list. Each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attacks.apgd import APGD
    from attacks.autoattack import AutoAttack, EnsembleResult
    from attacks.ball import Ball
    from attacks.bisection import Judge, minimal_radius
    from attacks.board import PortfolioResult
    from attacks.boundary import Boundary
    from attacks.budget import Budget, spending
    from attacks.carlini_wagner import CarliniWagner
    from attacks.confidence import Attained, ConfidenceAttack
    from attacks.ddn import DDN
    from attacks.deepfool import DeepFool
    from attacks.ead import EAD
    from attacks.errors import AttackError, AttackInputError
    from attacks.fab import FAB
    from attacks.fgsm import FGSM
    from attacks.fmn import FMN
    from attacks.gama import GAMA
    from attacks.hopskipjump import HopSkipJump
    from attacks.ifgsm import IFGSM
    from attacks.losses import LOSSES
    from attacks.minimal import Minimiser
    from attacks.minimisers import MINIMISERS, minimiser_named
    from attacks.momentum import MIFGSM
    from attacks.pdpgd import PDPGD
    from attacks.pgd import PGD
    from attacks.portfolio import portfolio_radius
    from attacks.protocol import Attack, Model
    from attacks.registry import ATTACKS, attack_named
    from attacks.result import AttackResult, RadiusResult
    from attacks.sigma_zero import SigmaZero
    from attacks.sparse import SparseBall
    from attacks.spatial import (
        SPATIAL_ATTACKS,
        ParameterDescent,
        SpatialAttack,
        SpatialResult,
        WorstOfGrid,
        WorstOfRandom,
    )
    from attacks.spatial_radius import smallest_transformation
    from attacks.spsa import SPSA
    from attacks.square import Square
    from attacks.targeted_l1 import TargetedL1
    from attacks.transfer import Transfer, mean_logits, transfer_attack, transfer_matrix
    from attacks.transforms import TransformBox

_HOMES = {
    "APGD": "attacks.apgd",
    "ATTACKS": "attacks.registry",
    "Attack": "attacks.protocol",
    "AttackError": "attacks.errors",
    "AttackInputError": "attacks.errors",
    "AttackResult": "attacks.result",
    "Attained": "attacks.confidence",
    "AutoAttack": "attacks.autoattack",
    "Ball": "attacks.ball",
    "Boundary": "attacks.boundary",
    "Budget": "attacks.budget",
    "CarliniWagner": "attacks.carlini_wagner",
    "ConfidenceAttack": "attacks.confidence",
    "DDN": "attacks.ddn",
    "DeepFool": "attacks.deepfool",
    "EAD": "attacks.ead",
    "EnsembleResult": "attacks.autoattack",
    "FAB": "attacks.fab",
    "FGSM": "attacks.fgsm",
    "FMN": "attacks.fmn",
    "GAMA": "attacks.gama",
    "HopSkipJump": "attacks.hopskipjump",
    "IFGSM": "attacks.ifgsm",
    "Judge": "attacks.bisection",
    "LOSSES": "attacks.losses",
    "MIFGSM": "attacks.momentum",
    "MINIMISERS": "attacks.minimisers",
    "Minimiser": "attacks.minimal",
    "Model": "attacks.protocol",
    "PDPGD": "attacks.pdpgd",
    "PGD": "attacks.pgd",
    "ParameterDescent": "attacks.spatial",
    "PortfolioResult": "attacks.board",
    "RadiusResult": "attacks.result",
    "SPATIAL_ATTACKS": "attacks.spatial",
    "SPSA": "attacks.spsa",
    "SigmaZero": "attacks.sigma_zero",
    "SparseBall": "attacks.sparse",
    "SpatialAttack": "attacks.spatial",
    "SpatialResult": "attacks.spatial",
    "Square": "attacks.square",
    "TargetedL1": "attacks.targeted_l1",
    "Transfer": "attacks.transfer",
    "TransformBox": "attacks.transforms",
    "WorstOfGrid": "attacks.spatial",
    "WorstOfRandom": "attacks.spatial",
    "attack_named": "attacks.registry",
    "mean_logits": "attacks.transfer",
    "minimal_radius": "attacks.bisection",
    "minimiser_named": "attacks.minimisers",
    "portfolio_radius": "attacks.portfolio",
    "smallest_transformation": "attacks.spatial_radius",
    "spending": "attacks.budget",
    "transfer_attack": "attacks.transfer",
    "transfer_matrix": "attacks.transfer",
}

__all__ = [
    "APGD",
    "ATTACKS",
    "DDN",
    "EAD",
    "FAB",
    "FGSM",
    "FMN",
    "GAMA",
    "IFGSM",
    "LOSSES",
    "MIFGSM",
    "MINIMISERS",
    "PDPGD",
    "PGD",
    "SPATIAL_ATTACKS",
    "SPSA",
    "Attack",
    "AttackError",
    "AttackInputError",
    "AttackResult",
    "Attained",
    "AutoAttack",
    "Ball",
    "Boundary",
    "Budget",
    "CarliniWagner",
    "ConfidenceAttack",
    "DeepFool",
    "EnsembleResult",
    "HopSkipJump",
    "Judge",
    "Minimiser",
    "Model",
    "ParameterDescent",
    "PortfolioResult",
    "RadiusResult",
    "SigmaZero",
    "SparseBall",
    "SpatialAttack",
    "SpatialResult",
    "Square",
    "TargetedL1",
    "Transfer",
    "TransformBox",
    "WorstOfGrid",
    "WorstOfRandom",
    "attack_named",
    "mean_logits",
    "minimal_radius",
    "minimiser_named",
    "portfolio_radius",
    "smallest_transformation",
    "spending",
    "transfer_attack",
    "transfer_matrix",
]


def __getattr__(name: str) -> object:
    """A public name, from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """What `dir` and completion show."""
    return sorted(__all__)
