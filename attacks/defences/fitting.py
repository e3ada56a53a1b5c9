"""The training loop: one for all methods.

Everything random depends on the seed, the epoch and the sample, and on nothing else, so a run that
was stopped and resumed ends with the same bits as one that was not (on the same machine, with as
many threads).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attacks.ball import Ball
from attacks.defences import checkpoints
from attacks.defences.adversarial import PGDTraining
from attacks.defences.batch import Batch, check_finite
from attacks.defences.figures import Split, figures
from attacks.defences.guard import Guard, shuffled, withhold
from attacks.defences.methods import Method
from attacks.defences.reach import Traced
from attacks.errors import AttackInputError
from attacks.randomness import derive_keys
from attacks.region import Region


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What to do; together with network and data it decides the outcome.

    Attributes:
        method: the loss.
        ball: the threat model: one radius for all, in units of the input.
        epochs: passes over the training samples.
        batch_size: samples per step.
        learning_rate: of Adam, falling to 0 along half a cosine.
        weight_decay: of Adam.
        clip: largest norm of a step's gradient, as CTBench has it.
        seed: of order, starting points and withheld samples.

    Raises:
        AttackInputError: if a number cannot be meant.
    """

    method: Method
    ball: Ball
    epochs: int
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    clip: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        if self.epochs < 1 or self.batch_size < 1:
            raise AttackInputError(
                f"Training got epochs = {self.epochs} and batch_size = {self.batch_size}; "
                "expected at least 1 of each. Correct them."
            )
        if isinstance(self.ball.eps, Tensor) and self.ball.eps.numel() != 1:
            raise AttackInputError("Training needs one radius for all samples. Give a number.")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise AttackInputError(f"{name} is {getattr(self, name)}; expected a number > 0.")

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))

    def fingerprint(self, train: Split, held_out: Split) -> dict[str, str]:
        """Each thing that decides the outcome, as text."""
        found = {
            name: repr(getattr(self, name)) for name in self.__slots__ if isinstance(name, str)
        }
        for name, split in (("training data", train), ("held-out data", held_out)):
            digest = hashlib.sha256()
            for tensor in (split.x, split.labels):
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
            found[name] = digest.hexdigest()[:16]
        return found


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch did.

    Attributes:
        epoch: counted from 1.
        learning_rate: of its steps.
        loss: mean over its steps, as the method defines it.
        clean, adversarial, certified: shares of the held-out samples after it; see `Figures`.
        guard: accuracy under PGD of the samples that a guarded method withholds; NaN for others.
        note: what happened besides, for people.
    """

    epoch: int
    learning_rate: float
    loss: float
    clean: float
    adversarial: float
    certified: float
    guard: float = math.nan
    note: str = ""


History = tuple[Epoch, ...]


def fit(
    net: nn.Module,
    plan: Plan,
    train: Split,
    held_out: Split,
    *,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Epoch], None] | None = None,
) -> History:
    """Train `net` in place and leave it in evaluation mode.

    Args:
        net: on the device of the data, in their dtype.
        held_out: only looked at, never trained on; nothing is chosen by it.
        checkpoint: folder that holds the state after each epoch. An interrupt loses no more than
            the epoch that it falls into.
        resume: go on from what the folder holds.
        progress: called after each epoch, when its checkpoint is written.

    Raises:
        AttackInputError: if method, network and data do not fit each other, training diverges, or
            the folder does not hold what is needed (or, without `resume`, holds a checkpoint).
    """
    loop = Loop(net, plan, train, held_out)
    if checkpoint is not None:
        if resume:
            loop.restore(checkpoints.load(checkpoint, loop.fingerprint))
        elif checkpoints.path_in(checkpoint).exists():
            raise AttackInputError(
                f"{checkpoints.path_in(checkpoint)} is there already. Resume it, remove it, or "
                "name another folder."
            )
    elif resume:
        raise AttackInputError("There is no folder to resume from. Give checkpoint.")
    while len(loop.history) < plan.epochs:
        done = loop.epoch()
        if checkpoint is not None:
            checkpoints.save(checkpoint, loop.state())
        if progress is not None:
            progress(done)
    net.eval()
    return tuple(loop.history)


class Loop:
    """The state between two epochs."""

    def __init__(self, net: nn.Module, plan: Plan, train: Split, held_out: Split) -> None:
        self.net, self.plan, self.held_out = net, plan, held_out
        self.fingerprint = plan.fingerprint(train, held_out)
        self.train, self.withheld = train, train
        if plan.method.guarded:
            self.train, self.withheld = withhold(train, plan.seed)
        self.traced: Traced | nn.Module = Traced(net) if plan.method.certified else net
        # Once for all samples: it costs as much as a small network's forward pass.
        self.region: Region = plan.ball.around(self.train.x)
        self.optimiser = torch.optim.Adam(
            net.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay
        )
        self.guard = Guard()
        self.history: list[Epoch] = []

    @property
    def method(self) -> Method:
        """The plan's, or what the guard fell back to."""
        return PGDTraining() if self.guard.fallen else self.plan.method

    def epoch(self) -> Epoch:
        """One pass over the training samples, then the figures."""
        plan, number = self.plan, len(self.history)
        for group in self.optimiser.param_groups:
            group["lr"] = plan.rate(number)
        loss = self.steps(number)
        accuracy, note = math.nan, ""
        if plan.method.guarded:
            accuracy, collapsed = self.guard.watch(self.net, self.withheld, plan.ball, plan.seed)
            if collapsed:
                self.optimiser.state.clear()
                note = (
                    f"overfitted to single steps (PGD {accuracy:.1%}, was {self.guard.best:.1%}): "
                    "best weights restored, PGD from here on"
                )
        found = figures(self.net, self.held_out, plan.ball, seed=plan.seed)
        done = Epoch(
            epoch=number + 1,
            learning_rate=plan.rate(number),
            loss=loss,
            clean=found.clean,
            adversarial=found.adversarial,
            certified=found.certified,
            guard=accuracy,
            note=note,
        )
        self.history.append(done)
        return done

    def steps(self, number: int) -> float:
        """The steps of one epoch; their mean loss."""
        plan, device = self.plan, self.train.x.device
        order = shuffled(len(self.train.x), plan.seed, number).to(device)
        batches = order.split(plan.batch_size)
        keys = derive_keys(torch.arange(len(order), device=device), "train", plan.seed, number)
        self.net.train()
        total = 0.0
        for i, rows in enumerate(batches):
            if len(rows) < 2 < len(order):  # BatchNorm cannot normalise a batch of one
                continue
            share = (number * len(batches) + i + 1) / (plan.epochs * len(batches))
            batch = Batch(self.train.labels[rows], self.region.rows(rows), keys[rows], share)
            loss = self.method.loss(self.traced, batch)
            check_finite(loss, f"epoch {number + 1}")
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), plan.clip)
            self.optimiser.step()
            total += float(loss.detach()) * len(rows)
        return total / len(order)

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on, as plain values."""
        return {
            "plan": self.fingerprint,
            "epoch": len(self.history),
            "model": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "guard": {
                "best": self.guard.best,
                "weights": self.guard.weights,
                "fallen": self.guard.fallen,
            },
            "history": [asdict(done) for done in self.history],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` told.

        Raises:
            AttackInputError: if it belongs to a network of another shape.
        """
        try:
            self.net.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.guard = Guard(**state["guard"])
            self.history = [Epoch(**done) for done in state["history"]]
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise AttackInputError(
                f"The checkpoint does not fit this network: {first} Give the same architecture."
            ) from None
