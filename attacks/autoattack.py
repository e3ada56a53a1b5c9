"""AutoAttack: ensembles of attacks, each on the samples that withstood those before it."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor

from attacks.apgd import APGD
from attacks.ball import Ball
from attacks.diagnosis import SCORES_WIN, signs_of
from attacks.errors import AttackInputError
from attacks.expectation import averaged
from attacks.fab import FAB
from attacks.oracle import Oracle
from attacks.protocol import Attack, Model
from attacks.result import AttackResult
from attacks.square import Square

VERSIONS = ("standard", "plus", "rand")


@dataclass(frozen=True, slots=True, eq=False)
class EnsembleResult(AttackResult):
    """What an ensemble hands back; `attack` names the member that found each candidate.

    Attributes:
        flags: signs that gradients mislead, over the whole batch; see `attacks.diagnosis`.
        settings: hash of everything that decides the result besides model and inputs.
    """

    flags: tuple[str, ...]
    settings: str


@dataclass(frozen=True, slots=True)
class AutoAttack:
    """The ensembles of Croce and Hein; parameter-free but for the budgets.

    "standard": APGD-CE, APGD-T, FAB-T, Square. "plus": APGD-CE and FAB with five restarts, APGD-DLR
    with five, Square, APGD-T, FAB-T. "rand", for models that answer at random: APGD-CE and
    APGD-DLR, each evaluation the mean of `average` answers.

    Attributes:
        version: "standard", "plus" or "rand".
        steps: of the gradient attacks, each.
        queries: of Square.
        classes: how many of the likeliest other classes APGD-T and FAB-T move to. Under L1 APGD-T
            moves to five at most and APGD-CE starts five times, as their authors have it.
        average: answers per evaluation in "rand".
        seed: of all members.
        max_lanes: paths walked at once; bounds memory, changes no result.

    Source:
        Croce, Hein 2020, arXiv:2003.01690; L1: Croce, Hein 2021, arXiv:2103.01208. The members
        depart from the papers as their own pages say.
    """

    version: str = "standard"
    steps: int = 100
    queries: int = 5000
    classes: int = 9
    average: int = 20
    seed: int = 0
    max_lanes: int = 1024

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        if self.version not in VERSIONS:
            raise AttackInputError(
                f"AutoAttack got version = {self.version!r}; expected one of "
                f"{', '.join(VERSIONS)}. Correct that setting."
            )
        for name in ("steps", "queries", "classes", "average", "max_lanes"):
            if getattr(self, name) < 1:
                raise AttackInputError(
                    f"AutoAttack got {name} = {getattr(self, name)}; expected at least 1. "
                    "Correct that setting."
                )

    def members(self, p: float) -> tuple[Attack, ...]:
        """The attacks in their order for that norm."""
        steps, seed, lanes = self.steps, self.seed, self.max_lanes
        restarts = 5 if self.version == "plus" or (self.version == "standard" and p == 1) else 1
        average = self.average if self.version == "rand" else 1

        def apgd(loss: str, targeted: int | None = None) -> APGD:
            return APGD(
                steps,
                1 if targeted else restarts,
                loss,
                targeted,
                average=average,
                seed=seed,
                max_lanes=lanes,
            )

        def fab(restarts: int, targeted: int | None) -> FAB:
            return FAB(steps, restarts, targeted, seed=seed, max_lanes=lanes)

        if self.version == "rand":
            return (apgd("ce"), apgd("dlr"))
        square = Square(self.queries, seed=seed, max_lanes=lanes)
        aimed = apgd("dlr", min(self.classes, 5) if p == 1 else self.classes)
        if self.version == "standard":
            return (apgd("ce"), aimed, fab(1, self.classes), square)
        return (apgd("ce"), apgd("dlr"), fab(5, None), square, aimed, fab(5, self.classes))

    def settings(self, ball: Ball) -> str:
        """A hash of all members' settings, the norm, the radii and the range: 16 hex digits."""
        members = [[type(member).__name__, asdict(member)] for member in self.members(ball.p)]  # type: ignore[call-overload]  # every member is a dataclass
        ends = {
            field.name: torch.as_tensor(getattr(ball, field.name), dtype=torch.float64).tolist()
            for field in fields(ball)
        }
        text = json.dumps([self.version, members, ends], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __call__(
        self,
        model: Model,
        x: Tensor,
        labels: Tensor,
        ball: Ball,
        *,
        targets: Tensor | None = None,
        start: Tensor | None = None,
        sample_keys: Tensor | None = None,
    ) -> EnsembleResult:
        """Run the members one after the other; only the first begins at `start`. See `Attack`."""
        average = self.average if self.version == "rand" else 1
        oracle = Oracle(
            averaged(model, average), x, labels, ball, targets=targets, sample_keys=sample_keys
        )
        rows = oracle.open_rows()
        flags = signs_of(oracle, rows)
        best = oracle.result("clean")
        forward, backward = best.forward * average, best.backward * average
        names = list(best.attack)
        for member in self.members(ball.p):
            rows = (~best.found).nonzero().flatten()
            if not len(rows):
                break
            result = member(
                model,
                x[rows],
                oracle.labels[rows],
                ball.rows(rows, x),
                targets=None if oracle.targets is None else oracle.targets[rows],
                start=None if start is None else start[rows],
                sample_keys=oracle.keys[rows],
            )
            start = None
            forward[rows] += result.forward
            backward[rows] += result.backward
            lower = result.found | (result.margin < best.margin[rows])
            chosen = rows[lower]
            for tensor in ("candidate", "found", "margin", "distance"):
                getattr(best, tensor)[chosen] = getattr(result, tensor)[lower]
            for row, name in zip(rows.tolist(), result.attack, strict=True):
                names[row] = name
            if isinstance(member, Square) and bool(result.found.any()):
                flags = (*flags, SCORES_WIN)
        return EnsembleResult(
            candidate=best.candidate,
            found=best.found,
            margin=best.margin,
            distance=best.distance,
            forward=forward,
            backward=backward,
            attack=tuple(names),
            flags=flags,
            settings=self.settings(ball),
        )
