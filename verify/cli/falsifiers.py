"""The attacks package behind `verify.protocols.Falsifier`: the one place where the two meet."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from attacks import (
    ATTACKS,
    MINIMISERS,
    PGD,
    Attack,
    Ball,
    Minimiser,
    minimal_radius,
    portfolio_radius,
)
from attacks import Judge as Confirm
from verify.cli.options import AttackOptions
from verify.errors import SettingError
from verify.protocols import Judge, Model, Proposal
from verify.values.question import Question

# Names that are no single attack.
AUTO, PORTFOLIO, NONE = "auto", "portfolio", "none"


class Searcher(Protocol):
    """A way of looking for the nearest misclassified point of each input."""

    def __call__(self, model: Model, asked: Question, judge: Confirm | None = None) -> Proposal:
        """Candidates at most eps away, as near as possible.

        Args:
            model: see `verify.protocols.Model`.
            asked: the inputs, their labels, and how far to look.
            judge: decides which candidates count; None leaves it to the model's own arithmetic.
        """
        ...


@dataclass(frozen=True, slots=True)
class Portfolio:
    """The least of what several minimal-norm attacks find; see `attacks.portfolio_radius`.

    Attributes:
        effort: "quick", or "full" with more and longer searches.
        seed: of its random points.
    """

    effort: str = "quick"
    seed: int = 0

    def __call__(self, model: Model, asked: Question, judge: Confirm | None = None) -> Proposal:
        """The nearest misclassified points that any member finds."""
        found = portfolio_radius(
            model,
            asked.x,
            asked.labels,
            ball_of(asked),
            judge=judge,
            effort=self.effort,
            seed=self.seed,
        )
        return Proposal(found.candidate, found.attack)


@dataclass(frozen=True, slots=True)
class Bisection:
    """An attack at one radius after another; see `attacks.minimal_radius`.

    Attributes:
        attack: run in each round.
        name: of the attack.
    """

    attack: Attack
    name: str

    def __call__(self, model: Model, asked: Question, judge: Confirm | None = None) -> Proposal:
        """The nearest misclassified points that the rounds find."""
        ball = ball_of(asked)
        found = minimal_radius(model, asked.x, asked.labels, ball, attack=self.attack, judge=judge)
        return Proposal(found.candidate, named(self.name, found.found))


@dataclass(frozen=True, slots=True)
class Nearest:
    """One minimal-norm attack.

    Attributes:
        minimiser: the attack.
        name: of the attack.
    """

    minimiser: Minimiser
    name: str

    def __call__(self, model: Model, asked: Question, judge: Confirm | None = None) -> Proposal:
        """The nearest misclassified points that it finds; whoever asked pushes what is refused."""
        found = self.minimiser(model, asked.x, asked.labels, ball_of(asked))
        return Proposal(found.candidate, named(self.name, found.found))


@dataclass(frozen=True, slots=True)
class AttackFalsifier:
    """Attacks that propose candidates: one for a given radius, one for the nearest.

    Random starts are keyed by each input's own values, so that a result does not depend on the
    batch that the input came in.

        from verify.cli.falsifiers import AttackFalsifier
        verify.radius("model.onnx", x, labels, falsifier=AttackFalsifier())

    Attributes:
        attack: run at the radius asked for; any attack of `attacks`, of either kind.
        searcher: looks for the nearest.
        judge: confirms candidates while the nearest is searched, so that the search does not close
            in on a point that only our own arithmetic finds misclassified.
    """

    attack: Attack | Nearest | Portfolio = PGD()
    searcher: Searcher = Portfolio()
    judge: Judge | None = None

    def propose(self, model: Model, asked: Question) -> Proposal:
        """A candidate inside each neighbourhood."""
        if isinstance(self.attack, Nearest | Portfolio):
            return self.attack(model, asked, self.confirming(asked))
        found = self.attack(model, asked.x, asked.labels, ball_of(asked))
        return Proposal(found.candidate, found.attack)

    def nearest(self, model: Model, asked: Question) -> Proposal:
        """A misclassified candidate as near as possible, at most eps away."""
        return self.searcher(model, asked, self.confirming(asked))

    def confirming(self, asked: Question) -> Confirm | None:
        """The judge, as the searches call it: a nearest point lies where rounding decides."""
        judge = self.judge
        if judge is None:
            return None
        return lambda points, rows: judge.misclassified(points, asked.labels[rows])


def named(name: str, found: Tensor) -> tuple[str, ...]:
    """The attack's name where it found something, else ""."""
    return tuple(name if ok else "" for ok in found.tolist())


def ball_of(asked: Question) -> Ball:
    """The neighbourhoods of a question as the attacks know them."""
    return Ball(asked.eps, asked.p, asked.lower, asked.upper)


def fields(attack: Attack | Minimiser) -> set[str]:
    """The names of its settings."""
    settings: Any = attack  # the protocols do not say that every attack is a dataclass
    return {field.name for field in dataclasses.fields(settings)}


def falsifier_of(options: AttackOptions, judge: Judge | None) -> AttackFalsifier | None:
    """The falsifier that the options ask for; None for `--attack none`.

    Raises:
        SettingError: if there is no such attack, or it has no such setting.
        AttackInputError: if a setting is out of its range.
    """
    name = options.attack.lower().replace("_", "-")
    if name == NONE:
        refuse_settings(name, options, set())
        return None
    if name == PORTFOLIO:
        refuse_settings(name, options, set())
        search = Portfolio("full", options.seed)
        return AttackFalsifier(search, search, judge)
    if name == AUTO:
        attack = configured(PGD(), "pgd", options)
        return AttackFalsifier(attack, Portfolio(seed=options.seed), judge)
    if name in ATTACKS:
        attack = configured(ATTACKS[name].make(), name, options)
        # The rounds of the search are restarts themselves, each from the last find.
        single: Any = attack
        if options.restarts is None and "restarts" in fields(attack):
            single = dataclasses.replace(single, restarts=1)
        return AttackFalsifier(attack, Bisection(single, name), judge)
    if name in MINIMISERS:
        made = MINIMISERS[name].make()
        nearest = Nearest(configured(made, name, options), name)
        return AttackFalsifier(nearest, nearest, judge)
    raise SettingError(
        f"there is no attack {options.attack!r}; choose {AUTO}, {PORTFOLIO}, {NONE}, "
        f"{', '.join((*ATTACKS, *MINIMISERS))}"
    )


def configured(attack: Any, name: str, options: AttackOptions) -> Any:
    """The attack with the options' settings, refused where it has no such setting."""
    known = fields(attack)
    refuse_settings(name, options, known)
    wanted = {"steps": options.attack_steps, "restarts": options.restarts, "seed": options.seed}
    given = {key: value for key, value in wanted.items() if value is not None and key in known}
    return dataclasses.replace(attack, **given)


def refuse_settings(name: str, options: AttackOptions, known: set[str]) -> None:
    """Refuse what the attack would ignore; a seed does no harm."""
    for option, field, value in (
        ("--attack-steps", "steps", options.attack_steps),
        ("--restarts", "restarts", options.restarts),
    ):
        if value is not None and field not in known:
            raise SettingError(f"attack {name!r} takes no {option}; leave it out, or choose pgd")
