"""The work of `verify confidence`: certify, attack, compare, sum up."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attacks import Ball
from attacks.confidence import QUANTITIES, Attained, ConfidenceAttack
from verify.api import asked_of, batch_size, granted
from verify.cli import parsing
from verify.cli.bracketing import Search
from verify.cli.confidence import ConfidenceOptions, PushOptions
from verify.cli.detecting import MADE, strange
from verify.cli.options import BoundOptions, DataOptions
from verify.cli.presenting import Presenter
from verify.cli.session import BoundArguments, Session, bound_arguments, normalised, open_session
from verify.cli.session import stamp as stamp_of
from verify.cli.summing import Judged, summed_up
from verify.confidence import (
    BY_PART,
    MUTUAL_INFORMATION,
    Scores,
    certify_scores,
    ensemble_scores,
    split_scores,
    splittable,
)
from verify.confidence.calibration import check_bins
from verify.confidence.conformal import check_alpha
from verify.confidence.differences import check_temperature
from verify.errors import InternalError, SettingError, ShapeError
from verify.graph.ir import Graph
from verify.network import Network, load
from verify.readers.datasets import load_dataset
from verify.recipes import recipe
from verify.report.confidence import print_confidence
from verify.report.confidence_plots import plot_confidence
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.question import Question
from verify.values.result import StopReason, Verdict, norm_name


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
        return Aim(temperature, threshold, wanted.bins, alpha, push.seed, wanted.splits, attack)

    def settings(self) -> dict[str, object]:
        """As the record holds them."""
        return {
            "temperature": self.temperature,
            "threshold": self.threshold,
            "bins": self.bins,
            "alpha": self.alpha,
            "seed": self.seed,
            "splits": self.splits,
            "attack": "none" if self.attack is None else "confidence",
            "attack_steps": 0 if self.attack is None else self.attack.steps,
            "restarts": 0 if self.attack is None else self.attack.restarts,
            "threads": torch.get_num_threads(),
        }


def assure(
    model: Path,
    eps: str,
    data: DataOptions,
    wanted: ConfidenceOptions,
    bounds: BoundOptions,
    push: PushOptions,
    show: Presenter,
) -> int:
    """Answer, print, write, draw."""
    aim, arguments = Aim.read(wanted, push), bound_arguments(bounds)
    Search.read(None, "0.5", pictures=(wanted.plot,))  # refuses what cannot be drawn
    radius = parsing.radius(eps)
    session = open_session(model, data, radius)
    networks = [session.network, *(member(path, data, session) for path in wanted.member or ())]
    outside = None if wanted.ood is None else strangers(wanted.ood, data, session, aim, radius)
    show.say([*session.notes, *([MUTUAL_INFORMATION] if len(networks) > 1 else [])])
    parts = judge_each(networks, session.asked, aim, arguments)
    done = show.collect(parts, len(session.asked.x), "confidence")
    strange_parts: list[Judged] = []
    if outside is not None and not done.interrupted:
        found = show.collect(
            judge_each(networks, outside, aim, arguments), len(outside.x), "out of distribution"
        )
        strange_parts = found.results
    # Ctrl-C may have cut the results short.
    pairs = zip(session.data.indices, done.results, strict=False)
    rows = [row_of(one, i, arguments.method, aim) for i, one in pairs]
    summary = summed_up(
        done.results,
        strange_parts,
        bins=aim.bins,
        alpha=aim.alpha,
        threshold=aim.threshold,
        seed=aim.seed,
    )
    record = show.record(
        "confidence",
        stamp_of(session),
        {
            **session.settings,
            "eps": radius,
            "method": arguments.method,
            "iterations": arguments.iterations,
            "timeout": arguments.timeout,
            "memory": arguments.memory,
            "batch": arguments.batch,
            "ood": wanted.ood,
            "members": [str(path) for path in wanted.member or ()],
            **aim.settings(),
        },
        rows,
        {**summary, "interrupted": done.interrupted},
    )
    show.write(record)
    print_confidence(record, console=show.console, quiet=show.options.quiet)
    if wanted.plot is not None and rows:
        plot_confidence(record, wanted.plot)
        show.say([f"drawn: {wanted.plot}"])
    return done.exit_code(0)


def member(path: Path, data: DataOptions, session: Session) -> Network:
    """A further member of the ensemble, refused if it does not fit the first."""
    network = normalised(load(path), data)
    own = session.network
    if (network.input_shape, network.classes) != (own.input_shape, own.classes):
        raise ShapeError(
            f"member {path} maps {network.input_shape} to {network.classes} classes, but the first "
            f"model maps {own.input_shape} to {own.classes}; give members that fit each other"
        )
    return network


def strangers(
    source: str, data: DataOptions, session: Session, aim: Aim, radius: float
) -> Question:
    """The out-of-distribution inputs with their neighbourhoods; labels are the predictions."""
    if source in MADE:
        x = strange(session.asked.x, source, aim.seed)
    else:
        x = load_dataset(
            source,
            input_shape=session.network.input_shape,
            channels_last=data.channels_last,
            scale=parsing.positive(data.scale, "--scale"),
            input_range=session.input_range,
            limit=data.limit,
            indices=None,
            classes=None,
        ).x
    norm = session.asked.p
    return asked_of(session.network, x, None, radius, norm, session.input_range)


def judge_each(
    networks: Sequence[Network], asked: Question, aim: Aim, arguments: BoundArguments
) -> Iterator[list[Judged]]:
    """Certified, attacked and clean scores, batch by batch."""
    chunk = granted(arguments.memory)
    size = arguments.batch or max(1, batch_size(networks[0], chunk) // 4)
    bounder = recipe(arguments.method, iterations=arguments.iterations).stages[-1].bounder
    for start in range(0, len(asked.x), size):
        started = time.monotonic()
        few = asked.take(torch.arange(start, min(start + size, len(asked.x))))
        timeout = None if arguments.timeout is None else arguments.timeout * len(few.x)
        budget = Budget(memory=chunk).within(timeout)
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
                BY_PART,
                found.scores,
                temperature=aim.temperature,
                rounds=aim.splits,
                budget=budget,
                neurons=found.neurons,
            )
            for graph, found in zip(graphs, certified, strict=True)
        ]
        scores = ensemble_scores(tight)
        late = any(found.late for found in certified)
        yield judged(networks, few, aim, scores, late, started)


def judged(
    networks: Sequence[Network],
    few: Question,
    aim: Aim,
    scores: Scores,
    late: bool,
    started: float,
) -> list[Judged]:
    """One batch: clean and attacked values beside the certified ones, which must hold them."""
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
    check(scores, clean, clean)
    if found is not None:
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
        verdict, reason = Verdict.VERIFIED, ""
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
