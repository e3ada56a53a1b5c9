"""Attacks: looking for misclassified inputs near given ones, in plain torch.

    from attacks import PGD, Ball

    result = PGD()(model, x, labels, Ball(eps=0.03, lower=0.0, upper=1.0))
    result.found, result.candidate, result.distance

What is attacked is any callable from (batch, *input) to logits. What is found is a candidate:
inside the ball in exact arithmetic, misclassified in torch's. See `attacks.protocol` for the
interface, `attacks.registry` for the list.
"""

from attacks.apgd import APGD
from attacks.ball import Ball
from attacks.bisection import Judge, minimal_radius
from attacks.errors import AttackError, AttackInputError
from attacks.fgsm import FGSM
from attacks.ifgsm import IFGSM
from attacks.losses import LOSSES
from attacks.pgd import PGD
from attacks.protocol import Attack, Model
from attacks.registry import ATTACKS, attack_named
from attacks.result import AttackResult, RadiusResult
from attacks.square import Square

__all__ = [
    "APGD",
    "ATTACKS",
    "FGSM",
    "IFGSM",
    "LOSSES",
    "PGD",
    "Attack",
    "AttackError",
    "AttackInputError",
    "AttackResult",
    "Ball",
    "Judge",
    "Model",
    "RadiusResult",
    "Square",
    "attack_named",
    "minimal_radius",
]
