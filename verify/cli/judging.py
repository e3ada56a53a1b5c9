"""What `verify confidence` finds out about a batch of inputs, and how a run keeps it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks import Ball
from attacks.confidence import QUANTITIES, Attained, ConfidenceAttack
from verify.api import granted
from verify.cli import parsing
from verify.cli.confidence import ConfidenceOptions, PushOptions
from verify.cli.judged import Judged, blobs_of, judged_of
from verify.cli.session import BoundArguments
from verify.cli.working import InputWork, SentModel
from verify.confidence import (
    BY_PART,
    Scores,
    certify_scores,
    ensemble_scores,
    split_scores,
    splittable,
)
from verify.confidence.calibration import check_bins
from verify.confidence.conformal import check_alpha
from verify.confidence.differences import check_temperature
from verify.errors import InternalError, SettingError
from verify.graph.ir import Graph
from verify.network import Network
from verify.recipes import recipe
from verify.report.records import plain_row
from verify.runs.answers import Answer
from verify.runs.engine import Solver
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.question import Question
from verify.values.result import StopReason, Verdict, norm_name
from verify.values.semantics import EXECUTED, Semantics, semantics_of


@dataclass(frozen=True, slots=True)
class Aim:
    """The options as numbers, checked."""

    temperature: float
    threshold: float
    bins: int
    alpha: float
    seed: int
    splits: int
    attack: ConfidenceAttack | None
    semantics: Semantics = EXECUTED

    @staticmethod
    def read(wanted: ConfidenceOptions, push: PushOptions) -> Aim:
        """Refuse what cannot be meant, before any work is done."""
        temperature = parsing.number(wanted.temperature, "--temperature")
        check_temperature(temperature)
        threshold = parsing.number(wanted.threshold, "--threshold")
        if not 0 < threshold <= 1:
            raise SettingError(
                f"--threshold is {wanted.threshold}, expected a confidence in (0, 1]; try 0.9"
            )
        alpha = parsing.number(wanted.alpha, "--alpha")
        check_alpha(alpha)
        check_bins(wanted.bins)
        if push.attack_steps < 0:
            raise SettingError(f"--attack-steps is {push.attack_steps}, expected at least 0")
        attack = None
        if push.attack_steps:
            attack = ConfidenceAttack(push.attack_steps, push.restarts, seed=push.seed)
        if wanted.splits < 0:
            raise SettingError(f"--splits is {wanted.splits}, expected at least 0")
        figures = temperature, threshold, wanted.bins, alpha
        return Aim(*figures, push.seed, wanted.splits, attack, semantics_of(wanted.semantics))

    def settings(self) -> dict[str, object]:
        """As the record holds them."""
        return {
            "temperature": self.temperature,
            "threshold": self.threshold,
            "bins": self.bins,
            "alpha": self.alpha,
            "seed": self.seed,
            "splits": self.splits,
            "semantics": self.semantics.name,
            "attack": "none" if self.attack is None else "confidence",
            "attack_steps": 0 if self.attack is None else self.attack.steps,
            "restarts": 0 if self.attack is None else self.attack.restarts,
            "threads": torch.get_num_threads(),
        }


def judge(
    networks: Sequence[Network], few: Question, aim: Aim, arguments: BoundArguments
) -> list[Judged]:
    """Certified, attacked and clean scores of one batch."""
    started = time.monotonic()
    iterations, semantics = arguments.iterations, aim.semantics
    strategy = recipe(arguments.method, iterations=iterations, semantics=semantics.name)
    bounder = strategy.stages[-1].bounder
    by_part = dataclasses.replace(BY_PART, rounding=semantics.rounding)
    timeout = None if arguments.timeout is None else arguments.timeout * len(few.x)
    budget = Budget(memory=granted(arguments.memory)).within(timeout)
    graphs = [splittable(n.graph) if aim.splits else n.graph for n in networks]
    certified = [
        certify_scores(
            graph,
            few,
            bounder,
            predicted=network.judge.predict(few.x),
            temperature=aim.temperature,
            budget=budget,
        )
        for network, graph in zip(networks, graphs, strict=True)
    ]
    tight = [
        split_scores(
            graph,
            few,
            by_part,
            found.scores,
            temperature=aim.temperature,
            rounds=aim.splits,
            budget=budget,
            neurons=found.neurons,
        )
        for graph, found in zip(graphs, certified, strict=True)
    ]
    late = any(found.late for found in certified)
    return judged(networks, few, aim, ensemble_scores(tight), late, started)


def judged(
    networks: Sequence[Network],
    few: Question,
    aim: Aim,
    scores: Scores,
    late: bool,
    started: float,
) -> list[Judged]:
    """One batch: clean and attacked values beside the certified ones, which must hold them.

    Both are executed, so that bounds of the real-valued network need not: rounding may be more than
    they leave.
    """
    graphs = [network.graph.to(torch.float32) for network in networks]

    def model(x: Tensor) -> Tensor:
        return mean_logits(graphs, x, aim.temperature)

    with torch.no_grad():
        logits = model(few.x).double()
    clean = {name: quantity(logits, few.labels) for name, quantity in QUANTITIES.items()}
    found = None
    if aim.attack is not None:
        ball = Ball(few.eps, few.p, few.lower, few.upper)
        found = dataclasses.replace(aim.attack)(model, few.x, few.labels, ball)
    if aim.semantics.executed:
        check(scores, clean, clean)
    if aim.semantics.executed and found is not None:
        check(scores, found.low, found.high)
    wrong = confirmed(networks, few, aim, found, model)
    share = (time.monotonic() - started) / max(1, len(few.x))
    predicted = networks[0].judge.predict(few.x) if len(networks) == 1 else logits.argmax(dim=1)
    probability = [logits.softmax(dim=1)]
    for points in () if found is None else (found.high_at["entropy"], found.low_at["confidence"]):
        with torch.no_grad():
            probability.append(model(points).double().softmax(dim=1))
    return [
        Judged.of(
            scores,
            i,
            clean,
            found,
            torch.stack(probability, dim=1)[i],
            bool(wrong[i]),
            late,
            int(predicted[i]),
            share,
            float(few.eps[i]),
            few.p,
        )
        for i in range(len(few.x))
    ]


def mean_logits(graphs: Sequence[Graph], x: Tensor, temperature: float) -> Tensor:
    """z / T of one network; of several, the logarithm of their mean probabilities."""
    if len(graphs) == 1:
        logits: Tensor = run(graphs[0], x).flatten(1).double() / temperature
        return logits
    members = [(run(graph, x).flatten(1).double() / temperature) for graph in graphs]
    each = torch.stack([z.log_softmax(dim=1) for z in members])
    pooled: Tensor = each.logsumexp(dim=0) - torch.tensor(len(graphs)).double().log()
    return pooled


def check(scores: Scores, low: dict[str, Tensor], high: dict[str, Tensor]) -> None:
    """Stop loudly if a value that was attained lies outside the certified bounds."""
    for name, bounds in scores.named().items():
        inside = (bounds.lower <= low[name] + SPARE) & (high[name] - SPARE <= bounds.upper)
        if not bool(inside.all()):
            row = int((~inside).nonzero()[0])
            raise InternalError(
                f"{name} of an input was certified to lie in [{float(bounds.lower[row])!r}, "
                f"{float(bounds.upper[row])!r}] but attained [{float(low[name][row])!r}, "
                f"{float(high[name][row])!r}]; this is a bug, please report it with the model"
            )


SPARE = 1e-12
"""What the float64 softmax of the values that are compared may itself be off by."""


def confirmed(
    networks: Sequence[Network],
    few: Question,
    aim: Aim,
    found: Attained | None,
    model: Callable[[Tensor], Tensor],
) -> Tensor:
    """Where a confident wrong answer was attained: the class judged by the model's own runtime."""
    points = few.x if found is None else found.high_at["wrong_confidence"]
    with torch.no_grad():
        logits = model(points).double()
    value = QUANTITIES["wrong_confidence"](logits, few.labels)
    reached = value >= aim.threshold
    if len(networks) > 1:
        return reached & (logits.argmax(dim=1) != few.labels)
    return reached & few.holds(points) & networks[0].judge.misclassified(points, few.labels)


def row_of(found: Judged, index: int, method: str, aim: Aim) -> dict[str, object]:
    """One result of the record."""
    if found.safe(aim.threshold):
        verdict, reason = aim.semantics.proof, ""
    elif found.confidently_wrong:
        verdict, reason = Verdict.FALSIFIED, ""
    else:
        verdict = Verdict.UNKNOWN
        reason = (StopReason.OUT_OF_TIME if found.late else StopReason.BOUNDS_TOO_LOOSE).value
    return {
        "index": index,
        "label": found.label,
        "predicted": found.predicted,
        "verdict": verdict.value,
        "eps": found.eps,
        "norm": norm_name(found.p),
        "method": method,
        "seconds": found.seconds,
        "reason": reason,
        **found.fields(),
    }


@dataclass(frozen=True, slots=True)
class Assured:
    """One input of a run.

    Attributes:
        index: of the input; of those out of distribution they follow those of the others.
        row: its fields in the record.
        judged: all that is known of it.
        outside: whether it is out of distribution.
    """

    index: int
    row: Mapping[str, object]
    judged: Judged
    outside: bool

    def to_record(self) -> Mapping[str, object]:
        """The fields of the record schema."""
        return self.row


@dataclass(frozen=True, slots=True, eq=False)
class AssureWork(InputWork[Judged]):
    """`verify confidence`, some inputs at a time, those out of distribution last.

    Attributes:
        members: further members of the ensemble.
        inside: how many inputs are not out of distribution.
        aim, arguments: what is asked, and how hard to try.
    """

    members: tuple[SentModel, ...]
    inside: int
    aim: Aim
    arguments: BoundArguments

    def open(self) -> Solver:
        """Read all models."""
        return self.among([self.model.network(), *(one.network() for one in self.members)])

    def on(self, network: Network) -> Solver:
        """With the first one only."""
        return self.among([network])

    def among(self, networks: Sequence[Network]) -> Solver:
        """With models that are read already."""

        def solve(positions: Sequence[int]) -> list[Answer]:
            found = judge(networks, self.asked.take(positions), self.aim, self.arguments)
            return [self.answer(*pair) for pair in zip(positions, found, strict=True)]

        return solve

    def results(self, network: Network, few: Question, indices: list[int]) -> list[Judged]:
        """One batch, of the first model."""
        return judge([network], few, self.aim, self.arguments)

    def answer(self, position: int, result: Judged) -> Answer:
        """The row of the record, and beside it what sums need."""
        row = plain_row(row_of(result, self.indices[position], self.arguments.method, self.aim))
        strange = {"set": "ood"} if position >= self.inside else {}
        return Answer(position, {**row, **strange}, blobs_of(result))

    def result(self, answer: Answer) -> Judged:
        """What `answer` was given."""
        return judged_of(answer)

    def assured(self, answer: Answer) -> Assured:
        """With its row."""
        index = self.indices[answer.position]
        outside = answer.position >= self.inside
        return Assured(index, answer.record, judged_of(answer), outside)
