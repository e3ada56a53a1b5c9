"""The attacks package behind `verify.protocols.Falsifier`: the one place where the two meet."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from attacks import FGSM, IFGSM, PGD, Attack, Ball, minimal_radius
from verify.cli.options import ATTACK_NAMES, AttackOptions
from verify.errors import SettingError
from verify.protocols import Judge, Model, Proposal
from verify.values.question import Question


@dataclass(frozen=True, slots=True)
class AttackFalsifier:
    """An attack that proposes candidates, for one radius or for the nearest.

    Random starts are keyed by each input's own values, so that a result does not depend on the
    batch that the input came in.

        from verify.cli.falsifiers import AttackFalsifier
        verify.radius("model.onnx", x, labels, falsifier=AttackFalsifier())

    Attributes:
        attack: run at the radius asked for.
        searcher: run in each round of the search for the nearest.
        name: of the attack.
        judge: confirms candidates while the nearest is searched, so that the search does not close
            in on a point that only our own arithmetic finds misclassified.
    """

    attack: Attack = PGD()
    searcher: Attack = PGD(restarts=1)
    name: str = "pgd"
    judge: Judge | None = None

    def propose(self, model: Model, asked: Question) -> Proposal:
        """A candidate inside each neighbourhood."""
        found = self.attack(model, asked.x, asked.labels, ball_of(asked))
        return Proposal(found.candidate, found.attack)

    def nearest(self, model: Model, asked: Question) -> Proposal:
        """A misclassified candidate as near as possible, at most eps away."""
        judge = self.judge

        def confirmed(points: Tensor, rows: Tensor) -> Tensor:
            assert judge is not None
            return judge.misclassified(points, asked.labels[rows])

        found = minimal_radius(
            model,
            asked.x,
            asked.labels,
            ball_of(asked),
            attack=self.searcher,
            judge=None if judge is None else confirmed,
        )
        names = ["" if not ok else self.name for ok in found.found.tolist()]
        return Proposal(found.candidate, tuple(names))


def ball_of(asked: Question) -> Ball:
    """The neighbourhoods of a question as the attacks know them."""
    return Ball(asked.eps, asked.p, asked.lower, asked.upper)


def falsifier_of(options: AttackOptions, judge: Judge | None) -> AttackFalsifier | None:
    """The falsifier that the options ask for; None for `--attack none`.

    Raises:
        SettingError: if there is no such attack, or it has no such setting.
        AttackInputError: if a setting is out of its range.
    """
    name = options.attack.lower()
    steps, restarts = options.attack_steps, options.restarts
    if name == "pgd":
        attack = PGD(seed=options.seed)
        attack = attack if steps is None else replace(attack, steps=steps)
        attack = attack if restarts is None else replace(attack, restarts=restarts)
        # The rounds of the search are restarts themselves, each from the last find.
        searcher = attack if restarts is not None else replace(attack, restarts=1)
        return AttackFalsifier(attack, searcher, name, judge)
    if name not in ("ifgsm", "fgsm", "none"):
        raise SettingError(f"there is no attack {options.attack!r}; choose {ATTACK_NAMES}")
    for option, value in {"--restarts": restarts, "--attack-steps": steps}.items():
        if value is not None and (name, option) != ("ifgsm", "--attack-steps"):
            raise SettingError(f"attack {name!r} takes no {option}; leave it out, or choose pgd")
    if name == "none":
        return None
    single: Attack = FGSM() if name == "fgsm" else IFGSM() if steps is None else IFGSM(steps=steps)
    return AttackFalsifier(single, single, name, judge)
