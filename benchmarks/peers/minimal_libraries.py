"""The peers' minimal-norm attacks; see `attack_libraries`, whose conventions hold here too.

A budget counts gradient steps; an attack with rounds of its own gets them so that the product
comes to about as many. What each truly spends is counted by the benchmark.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.attack_libraries import (
    SEED,
    Budget,
    Libraries,
    Run,
    checked,
    foolbox_model,
)

# Rounds of Carlini-Wagner and of the elastic net within the budget.
ROUNDS = 5


def minimal_norm(libraries: Libraries, p: float) -> dict[str, Run]:
    """The attacks that look for the nearest point in the p-norm, by "library: attack"."""
    modules = libraries.modules
    found: dict[str, Run] = {}
    if "adv_lib" in modules:
        found.update(of_adv_lib(modules["adv_lib"].attacks, p))
    if "foolbox" in modules:
        found.update(of_foolbox(modules, p))
    if "torchattacks" in modules and p == 2:
        package = modules["torchattacks"]

        def cw(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
            return checked(package.CW(net, steps=budget.steps)(x, labels))

        found["torchattacks: cw"] = cw
    if "autoattack" in modules and p >= 1:
        fab = importlib.import_module("autoattack.fab_pt").FABAttack_PT

        def fab_t(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
            # Its radius only says where to stop restarting, and where these begin.
            attack = fab(
                net, budget.norm, 1, max(1, budget.steps // 9), 1e9, seed=SEED, targeted=True
            )
            attack.device = "cpu"
            return checked(attack.perturb(x, labels))

        found["autoattack: fab-t"] = fab_t
    return found


def of_adv_lib(attacks: Any, p: float) -> dict[str, Run]:  # noqa: ANN401  # an untyped library
    """Those of adv-lib that know the norm."""
    apgd = importlib.import_module("adv_lib.attacks.auto_pgd").minimal_apgd

    def fmn(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        first = 10.0 if p == math.inf else 1.0  # as AttackBench has it
        return checked(attacks.fmn(net, x, labels, p, steps=budget.steps, α_init=first))

    def ddn(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        return checked(attacks.ddn(net, x, labels, steps=budget.steps, levels=None))

    def pdgd(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        return checked(attacks.pdgd(net, x, labels, num_steps=budget.steps))

    def pdpgd(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        return checked(attacks.pdpgd(net, x, labels, p, num_steps=budget.steps))

    def alma(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        distance = "l1" if p == 1 else "l2"
        first = 0.5 if p == 1 else 0.1
        return checked(
            attacks.alma(
                net,
                x,
                labels,
                num_steps=budget.steps,
                distance=distance,
                init_lr_distance=first,
                α=0.5 if p == 1 else 0.9,
            )
        )

    def sigma_zero(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        return checked(attacks.sigma_zero(net, x, labels, num_steps=budget.steps))

    def vfga(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        return checked(attacks.vfga(net, x, labels, targeted=False))

    def bisected(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
        largest = {math.inf: 0.5, 2.0: 5.0, 1.0: 50.0}[p]
        return checked(
            apgd(
                net,
                x,
                labels,
                p,
                largest,
                binary_search_steps=10,
                n_iter=max(2, budget.steps // 10),
                loss_function="ce",
                use_large_reps=p == 1,
            )
        )

    kinds: Mapping[float, dict[str, Run]] = {
        math.inf: {"fmn": fmn, "pdpgd": pdpgd, "apgd": bisected},
        2.0: {"fmn": fmn, "ddn": ddn, "pdgd": pdgd, "pdpgd": pdpgd, "alma": alma, "apgd": bisected},
        1.0: {"fmn": fmn, "pdpgd": pdpgd, "alma": alma, "apgd": bisected},
        0.0: {"fmn": fmn, "sigma-zero": sigma_zero, "vfga": vfga},
    }
    return {f"adv-lib: {name}": run for name, run in kinds[p].items()}


def of_foolbox(modules: Mapping[str, Any], p: float) -> dict[str, Run]:
    """Those of Foolbox that know the norm. Brendel-Bethge needs numba, and is absent without."""
    attacks = modules["foolbox"].attacks

    def wrapped(name: str, start_from_noise: bool = False, **settings: object) -> Run:
        def run(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
            given = dict(settings)
            rounds = ROUNDS if "binary_search_steps" in given and not start_from_noise else 1
            given["steps"] = max(2, budget.steps // rounds)
            if start_from_noise:
                blended = attacks.LinearSearchBlendedUniformNoiseAttack(steps=50)
                given["init_attack"] = blended
            attack = getattr(attacks, name)(**given)
            _, clipped, _ = attack(foolbox_model(modules, net), x, labels, epsilons=None)
            return checked(clipped)

        return run

    boundary = {math.inf: "LinfinityBrendelBethgeAttack"} | {
        float(q): f"L{q}BrendelBethgeAttack" for q in (0, 1, 2)
    }
    names = {math.inf: "LInfFMNAttack", 2.0: "L2FMNAttack", 1.0: "L1FMNAttack", 0.0: "L0FMNAttack"}
    found = {"foolbox: fmn": wrapped(names[p])}
    if importlib.util.find_spec("numba"):
        found["foolbox: bb"] = wrapped(boundary[p], start_from_noise=True)
    if p == 2:
        found["foolbox: ddn"] = wrapped("DDNAttack")
        found["foolbox: cw"] = wrapped("L2CarliniWagnerAttack", binary_search_steps=ROUNDS)
    if p == 1:
        found["foolbox: ead"] = wrapped("EADAttack", binary_search_steps=ROUNDS, decision_rule="L1")
    return found


def largest_norm(x: Tensor, p: float) -> Tensor:
    """The p-norm of each row of a difference, float64; p = 0 counts entries."""
    length: Tensor = torch.linalg.vector_norm(x.flatten(1).double(), ord=p, dim=1)
    return length
