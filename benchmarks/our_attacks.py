"""Our attacks in the shape in which `benchmarks.attacks` runs its peers: from images to images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from attacks import (
    APGD,
    DDN,
    EAD,
    FAB,
    FMN,
    PDPGD,
    PGD,
    AutoAttack,
    Ball,
    CarliniWagner,
    DeepFool,
    SigmaZero,
    Square,
    TargetedL1,
    portfolio_radius,
)
from attacks.minimal import Minimiser
from attacks.protocol import Attack
from attacks.sparse import SparseBall
from benchmarks.peers.attack_libraries import Budget, Run

# Rounds of the attacks that search for a weight, within the budget.
ROUNDS = 5

WITHIN: Mapping[str, Callable[[int, bool], Attack]] = {
    # One path from a random point, as the peers have it.
    "pgd": lambda steps, early: PGD(steps, 1, targeted=None, start="random", early_stop=early),
    "apgd-ce": lambda steps, early: APGD(steps, early_stop=early),
    "apgd-dlr": lambda steps, early: APGD(steps, loss="dlr", early_stop=early),
    "apgd-t": lambda steps, early: APGD(steps, loss="dlr", targeted=9, early_stop=early),
    "fab-t": lambda steps, early: FAB(steps),
    "square": lambda steps, early: Square(steps, early_stop=early),
    "autoattack": lambda steps, early: AutoAttack(steps=steps),
}


def within(kind: str) -> Run:
    """One of our attacks within a radius."""

    def run(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        attack = WITHIN[kind](budget.steps, budget.early_stop)
        return attack(net, x, labels, Ball(budget.eps, budget.p, 0.0, 1.0)).candidate

    return run


def nearest(p: float) -> dict[str, Run]:
    """Our minimal-norm attacks for the p-norm, and the portfolio."""
    kinds: dict[str, Callable[[int], Minimiser]] = {
        "deepfool": lambda steps: DeepFool(),
        "fmn": lambda steps: FMN(steps),
        "fmn, 3 aims": lambda steps: FMN(max(2, steps // 3), classes=3),
    }
    if p >= 1:
        kinds["pdpgd"] = lambda steps: PDPGD(steps)
    if p == 2:
        kinds["ddn"] = lambda steps: DDN(steps)
        kinds["cw"] = lambda steps: CarliniWagner(ROUNDS, max(2, steps // ROUNDS))
    if p in (1, 2):
        kinds["ead"] = lambda steps: EAD(ROUNDS, max(2, steps // ROUNDS))
    if p == 1:
        kinds["targeted-l1"] = lambda steps: TargetedL1(classes=3)
    if p == 0:
        kinds["sigma-zero"] = lambda steps: SigmaZero(steps)
    runs = {f"ours: {name}": minimised(make, p) for name, make in kinds.items()}

    def portfolio(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        return portfolio_radius(net, x, labels, ball_of(p)).candidate

    return {**runs, "ours: portfolio": portfolio}


def minimised(make: Callable[[int], Minimiser], p: float) -> Run:
    """A minimiser of ours with the budget's steps."""

    def run(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        return make(budget.steps)(net, x, labels, ball_of(p)).candidate

    return run


def ball_of(p: float) -> Ball:
    """All of the input range, measured in the p-norm."""
    return SparseBall(math.inf, 0.0, 0.0, 1.0) if p == 0 else Ball(math.inf, p, 0.0, 1.0)
