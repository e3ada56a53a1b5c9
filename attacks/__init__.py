"""Attacks: looking for misclassified inputs near given ones, in plain torch.

    from attacks import PGD, Ball

    result = PGD()(model, x, labels, Ball(eps=0.03, lower=0.0, upper=1.0))
    result.found, result.candidate, result.distance

What is attacked is any callable from (batch, *input) to logits. What is found is a candidate:
inside the ball in exact arithmetic, misclassified in torch's. See `attacks.protocol` for the
interface, `attacks.registry` for the list.
"""

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
