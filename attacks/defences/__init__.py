"""Defences: training that makes a network robust, or provably so, in plain torch.

    from attacks import Ball
    from attacks.defences import Plan, Split, build, fit, method_named

    net = build("dense", (64,), classes=10)
    plan = Plan(method_named("mtl-ibp"), Ball(0.1, lower=0.0, upper=1.0), epochs=60)
    history = fit(net, plan, Split(x, labels), Split(x_held_out, labels_held_out))

Adversarial methods take any differentiable module; certified ones need the layers that
`attacks.defences.reach` has bounds for. The bounds here steer training and prove nothing: certify
the trained network with `verify`.
"""

from attacks.defences.adversarial import (
    TRADES,
    AttackTraining,
    FastTraining,
    PGDTraining,
    Standard,
)
from attacks.defences.architectures import (
    ARCHITECTURES,
    Normalise,
    Residual,
    build,
    ibp_initialise,
)
from attacks.defences.batch import Batch, Ramp
from attacks.defences.certified import IBP, MTLIBP, SABR, CrownIBP
from attacks.defences.figures import Figures, Split, figures
from attacks.defences.fitting import Epoch, History, Plan, fit
from attacks.defences.margins import crown_margins, interval_margins, worst_case_loss
from attacks.defences.methods import METHODS, Method, method_named
from attacks.defences.reach import Reach, Traced

__all__ = [
    "ARCHITECTURES",
    "IBP",
    "METHODS",
    "MTLIBP",
    "SABR",
    "TRADES",
    "AttackTraining",
    "Batch",
    "CrownIBP",
    "Epoch",
    "FastTraining",
    "Figures",
    "History",
    "Method",
    "Normalise",
    "PGDTraining",
    "Plan",
    "Ramp",
    "Reach",
    "Residual",
    "Split",
    "Standard",
    "Traced",
    "build",
    "crown_margins",
    "figures",
    "fit",
    "ibp_initialise",
    "interval_margins",
    "method_named",
    "worst_case_loss",
]
