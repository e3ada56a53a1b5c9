"""Foolbox, torchattacks, adv-lib and AutoAttack beside us: the same network, images and budget.

Nothing of them is in this repository. Clone each anywhere and name the clones by the environment
variables of `ENVIRONMENT`; what is not named or cannot be imported is absent from the tables.

Each attack is a function from (network, images, labels, budget) to images. Nothing a library says
about success is believed: the benchmark asks the network again and measures the distance itself.

Source:
    Rauber et al. 2020, doi:10.21105/joss.02607 (Foolbox); Kim 2020, arXiv:2010.01950
    (torchattacks); Rony, Ben Ayed, github.com/jeromerony/adversarial-library (adv-lib); Croce,
    Hein 2020, arXiv:2003.01690 (AutoAttack).
"""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

ENVIRONMENT = {
    "foolbox": "TASHIKA_FOOLBOX",
    "torchattacks": "TASHIKA_TORCHATTACKS",
    "adv_lib": "TASHIKA_ADV_LIB",
    "autoattack": "TASHIKA_AUTOATTACK",
}
NORM_NAMES = {math.inf: "Linf", 2.0: "L2", 1.0: "L1", 0.0: "L0"}
SEED = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """What an attack may spend and where it looks.

    Attributes:
        p: the norm.
        eps: the radius; inf for attacks that look for the nearest point.
        steps: gradient steps (queries for Square).
        early_stop: whether samples that are done may be left alone.
    """

    p: float
    eps: float
    steps: int
    early_stop: bool = True

    @property
    def norm(self) -> str:
        """As in AutoAttack: "Linf", "L2", "L1"."""
        return NORM_NAMES[self.p]


# From (network, images, labels, budget) to images of the same shape.
Run = Callable[[nn.Module, Tensor, Tensor, Budget], Tensor]


@dataclass(frozen=True, slots=True)
class Libraries:
    """The libraries that are there.

    Attributes:
        modules: by the keys of `ENVIRONMENT`.
        commits: likewise; "?" where the clone is not a git checkout.
    """

    modules: Mapping[str, Any]
    commits: Mapping[str, str]


def import_libraries() -> Libraries:
    """Whatever of the four can be imported from the clones that the environment names."""
    modules, commits = {}, {}
    for name, variable in ENVIRONMENT.items():
        clone = os.environ.get(variable)
        if clone and clone not in sys.path:
            sys.path.insert(0, clone)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                modules[name] = importlib.import_module(name)
                if name == "adv_lib":
                    importlib.import_module("adv_lib.attacks.auto_pgd")
        except ImportError:
            continue
        commits[name] = commit_of(clone) if clone else "?"
    return Libraries(modules, commits)


def commit_of(clone: str) -> str:
    """The commit that a clone, or the file COMMIT in an unpacked archive, names."""
    note = os.path.join(clone, "COMMIT")
    if os.path.exists(note):
        with open(note) as file:
            return file.read().strip()[:12]
    asked = ("git", "-C", clone, "rev-parse", "--short=12", "HEAD")
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "?"


def fixed_radius(libraries: Libraries) -> dict[str, dict[str, Run]]:
    """The attacks within a radius: by kind, then by "library: attack"."""
    found: dict[str, dict[str, Run]] = {}
    modules = libraries.modules

    def add(kind: str, name: str, run: Run) -> None:
        found.setdefault(kind, {})[name] = run

    if "autoattack" in modules:
        base = "autoattack.autopgd_base"
        apgd = importlib.import_module(base).APGDAttack
        aimed = importlib.import_module(base).APGDAttack_targeted
        fab = importlib.import_module("autoattack.fab_pt").FABAttack_PT
        square = importlib.import_module("autoattack.square").SquareAttack
        whole = importlib.import_module("autoattack.autoattack").AutoAttack

        def original_apgd(loss: str) -> Run:
            def run(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
                attack = apgd(
                    net, budget.steps, budget.norm, 1, budget.eps, SEED, loss, device="cpu"
                )
                return checked(attack.perturb(x, labels))

            return run

        def original_aimed(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
            attack = aimed(net, budget.steps, budget.norm, 1, budget.eps, SEED, device="cpu")
            return checked(attack.perturb(x, labels))

        def original_fab(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
            attack = fab(net, budget.norm, 1, budget.steps, budget.eps, seed=SEED, targeted=True)
            attack.device = "cpu"
            return checked(attack.perturb(x, labels))

        def original_square(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
            attack = square(net, budget.norm, budget.steps, budget.eps, seed=SEED, device="cpu")
            return checked(attack.perturb(x, labels))

        def original_whole(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
            attack = whole(net, budget.norm, budget.eps, SEED, verbose=False, device="cpu")
            return checked(attack.run_standard_evaluation(x, labels, bs=len(x)))

        add("apgd-ce", "autoattack", original_apgd("ce"))
        add("apgd-dlr", "autoattack", original_apgd("dlr"))
        add("apgd-t", "autoattack", original_aimed)
        add("fab-t", "autoattack", original_fab)
        add("square", "autoattack", original_square)
        add("autoattack", "autoattack", original_whole)
    if "torchattacks" in modules:
        package = modules["torchattacks"]

        def simple_pgd(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
            attack = package.PGD if budget.p == math.inf else package.PGDL2
            return checked(
                attack(net, budget.eps, alpha=budget.eps / 8, steps=budget.steps)(x, labels)
            )

        def simple(name: str, **settings: object) -> Run:
            def run(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
                count = "n_queries" if name == "Square" else "steps"
                given = {"eps": budget.eps, count: budget.steps, "seed": SEED, **settings}
                return checked(getattr(package, name)(net, norm=budget.norm, **given)(x, labels))

            return run

        add("pgd", "torchattacks", simple_pgd)
        add("apgd-ce", "torchattacks", simple("APGD"))
        add("apgd-dlr", "torchattacks", simple("APGD", loss="dlr"))
        add("apgd-t", "torchattacks", simple("APGDT"))
        add("fab-t", "torchattacks", simple("FAB", multi_targeted=True))
        add("square", "torchattacks", simple("Square"))
    if "foolbox" in modules:
        attacks = modules["foolbox"].attacks
        rate = 0.01 / 0.3  # its default, relative to eps

        def foolbox_pgd(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
            kinds = {math.inf: attacks.LinfPGD, 2.0: attacks.L2PGD, 1.0: attacks.L1PGD}
            attack = kinds[budget.p](steps=budget.steps, rel_stepsize=rate)
            _, clipped, _ = attack(foolbox_model(modules, net), x, labels, epsilons=budget.eps)
            return checked(clipped)

        add("pgd", "foolbox", foolbox_pgd)
    if "adv_lib" in modules:
        attacks_of = modules["adv_lib"].attacks

        def adv_pgd(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
            return checked(attacks_of.pgd_linf(net, x, labels, budget.eps, steps=budget.steps))

        def adv_apgd(loss: str) -> Run:
            def run(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
                return checked(
                    attacks_of.apgd(
                        net,
                        x,
                        labels,
                        budget.eps,
                        budget.p,
                        n_iter=budget.steps,
                        loss_function=loss,
                        use_large_reps=budget.p == 1,
                    )
                )

            return run

        def adv_aimed(net: nn.Module, x: Tensor, labels: Tensor, budget: Budget) -> Tensor:
            return checked(
                attacks_of.apgd_targeted(
                    net, x, labels, budget.eps, budget.p, n_iter=budget.steps, num_targets=9
                )
            )

        add("pgd", "adv-lib", adv_pgd)
        add("apgd-ce", "adv-lib", adv_apgd("ce"))
        add("apgd-dlr", "adv-lib", adv_apgd("dlr"))
        add("apgd-t", "adv-lib", adv_aimed)
    return found


def foolbox_model(modules: Mapping[str, Any], net: nn.Module) -> object:
    """A network as Foolbox wants it."""
    return modules["foolbox"].PyTorchModel(net, bounds=(0, 1), device="cpu")


def checked(images: object) -> Tensor:
    """What a library returned, cut to the range; some leave it by a rounding."""
    assert isinstance(images, Tensor)
    return images.detach().clamp(0, 1)
