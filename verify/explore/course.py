"""Course: what answering one question needs, whatever is done to the input."""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from verify.confidence import Scores
from verify.confidence.differences import Differences
from verify.errors import InternalError
from verify.explore.asking import Ask
from verify.explore.ends import Ends, Memory
from verify.explore.subject import Subject
from verify.explore.tools import Tools
from verify.graph.ir import Graph
from verify.traverse import run
from verify.values.budget import Budget, never
from verify.values.result import Verdict

Emit = Callable[[str, Mapping[str, object]], None]
"""Sends one event, by its name, to whoever asked."""

SPARE = 1e-12
"""What the float64 softmax of attained logits may itself be off by."""
NEWS = 0.002
"""A bracket's end that moved by less than this, relatively, is not worth an event of its own."""


class Stopped(Exception):
    """Nobody waits for the answer any more."""


@dataclass(eq=False)
class Course:
    """One question on its way.

    Attributes:
        subject, tools, ask: what is asked of what, with what.
        emit: sends what is found.
        memory: brackets known before.
        seconds: that the whole answer may take.
        cancelled: whether nobody waits any more.
    """

    subject: Subject
    tools: Tools
    ask: Ask
    emit: Emit
    memory: Memory
    seconds: float
    cancelled: Callable[[], bool] = never
    started: float = field(default_factory=time.monotonic)
    single: Graph = field(init=False)
    ends: Ends = field(init=False)
    shown: tuple[float, float] = field(default=(-1.0, -1.0), init=False)
    settled: Verdict | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Look up what is known of this input."""
        self.single = self.subject.network.graph.to(torch.float32)
        values = hashlib.sha256(self.ask.x.numpy().tobytes()).hexdigest()
        self.ends = self.memory.ends((values, self.ask.held, self.ask.threat))

    def answer(self) -> None:
        """All of it, as it is found; each kind of course has its own."""
        raise NotImplementedError

    def left(self, part: float = 1.0) -> float:
        """Seconds of that part of the time, counted from the start; at least a few hundredths."""
        return max(0.05, self.started + part * self.seconds - time.monotonic())

    def budget(self, part: float = 1.0) -> Budget:
        """Until that part of the time is over."""
        return Budget(cancelled=self.cancelled).within(self.left(part))

    def check(self) -> None:
        """Raise Stopped once nobody waits any more."""
        if self.cancelled():
            raise Stopped

    def model(self, x: Tensor) -> Tensor:
        """The network in float32, for attacks; raises Stopped."""
        self.check()
        return run(self.single, x)

    def misclassified(self, x: Tensor, labels: Tensor) -> Tensor:
        """What the file itself says, raising Stopped; `verify.protocols.Judge`."""
        self.check()
        return self.subject.network.judge.misclassified(x, labels)

    def predict(self, x: Tensor) -> Tensor:
        """The file's own answers; `verify.protocols.Judge`."""
        self.check()
        return self.subject.network.judge.predict(x)

    def logits(self, x: Tensor) -> Tensor:
        """In float32, one of the executions that are certified; shape (batch, class)."""
        with torch.no_grad():
            found: Tensor = run(self.single, x).flatten(1).double()
        return found

    def says(self, x: Tensor) -> dict[str, object]:
        """What the network says of one input, shape (1, *input), and of itself."""
        with torch.no_grad():
            logits = run(self.single, x).flatten().double()
        doubt = None if self.tools.doubt is None else self.tools.doubt(x).to_record()
        return {
            "values": packed(x),
            "logits": finite(logits),
            "probabilities": finite(logits.softmax(dim=0)),
            "predicted": int(self.subject.network.judge.predict(x)[0]),
            "doubt": doubt,
        }

    def clean(self) -> None:
        """The input itself."""
        said = self.says(self.ask.x)
        self.emit("clean", {**said, "held": self.ask.held})
        wrong = self.misclassified(self.ask.x, torch.tensor([self.ask.held]))
        if bool(wrong[0]):
            self.refute(0.0, "clean")
        self.tell(always=True)

    def scored(self, scores: Scores, found: Differences, method: str, attained: Tensor) -> None:
        """Send certified intervals of a batch of one, which must hold what was attained.

        Args:
            scores, found: of the same regions' hull.
            method: behind them.
            attained: logits that inputs of the region gave, shape (any, class).
        """
        refuse_outside(scores, found, attained)
        confidence, entropy = scores.confidence, scores.entropy
        self.emit(
            "intervals",
            {
                "method": method,
                "size": self.ask.size,
                "logits": [finite(found.logits.lower[0]), finite(found.logits.upper[0])],
                "probabilities": [
                    finite(scores.probability.lower[0]),
                    finite(scores.probability.upper[0]),
                ],
                "confidence": finite(torch.cat((confidence.lower, confidence.upper))),
                "entropy": finite(torch.cat((entropy.lower, entropy.upper))),
                "possible": scores.possible[0].nonzero().flatten().tolist(),
            },
        )

    def certify(self, low: float, method: str) -> None:
        """A certified end."""
        if self.ends.certify(low, method):
            self.tell()

    def refute(self, high: float, attack: str) -> None:
        """An attacked end."""
        if self.ends.refute(high, attack):
            self.tell()

    def tell(self, *, always: bool = False) -> None:
        """Send the bracket where it moved visibly, and the verdict where that settles it."""
        low, high = self.ends.low, self.ends.high
        moved = low - self.shown[0] > NEWS * low or not abs(high - self.shown[1]) <= NEWS * high
        if always or moved:
            self.shown = (low, high)
            self.emit("bracket", self.ends.to_record())
        verdict = self.ends.verdict(self.ask.size)
        if verdict is not Verdict.UNKNOWN:
            method = self.ends.method if verdict is Verdict.VERIFIED else self.ends.attack
            self.decide(verdict, method, "")

    def decide(self, verdict: Verdict, method: str, reason: str) -> None:
        """Send a verdict on the size asked for; a settled one is never taken back.

        Raises:
            InternalError: if it contradicts a former one.
        """
        before = self.settled
        if before in (Verdict.VERIFIED, Verdict.FALSIFIED):
            if verdict not in (before, Verdict.UNKNOWN):
                raise InternalError(
                    f"an input was called {before.value}, then {verdict.value}, at one size; "
                    "this is a bug, please report it with the model"
                )
            return
        self.settled = verdict
        said = {"verdict": verdict.value, "method": method, "reason": reason}
        self.emit("verdict", {**said, "size": self.ask.size})

    def finish(self, why: str) -> None:
        """The bracket as it stays."""
        self.ends.finished = why
        self.tell(always=True)


def refuse_outside(scores: Scores, found: Differences, attained: Tensor) -> None:
    """Stop loudly if something attained lies outside certified intervals."""
    p = attained.double().softmax(dim=1)
    low, high = scores.probability.lower[0], scores.probability.upper[0]
    below, above = found.logits.lower[0], found.logits.upper[0]
    inside = (p >= low - SPARE) & (p <= high + SPARE)
    inside &= (attained >= below) & (attained <= above)
    if not bool(inside.all()):
        where = (~inside).nonzero()[0]
        raise InternalError(
            f"class {int(where[1])} was certified to a probability in "
            f"[{float(low[where[1]])!r}, {float(high[where[1]])!r}] but attained "
            f"{float(p[tuple(where)])!r}; this is a bug, please report it with the model"
        )


def narrower(one: Differences, other: Differences) -> Differences:
    """What both certify.

    Raises:
        InternalError: if they exclude each other.
    """
    logits = one.logits.intersect(other.logits)
    if bool((logits.lower > logits.upper).any()):
        raise InternalError("two methods certify intervals that exclude each other; a bug")
    return Differences(torch.minimum(one.upper, other.upper), logits)


def finite(values: Tensor) -> list[float | None]:
    """Numbers as JSON has them: what is not finite is null."""
    found: list[Any] = values.tolist()
    return [value if math.isfinite(value) else None for value in found]


def packed(x: Tensor) -> str:
    """float32 values, little-endian, in base64."""
    array = x.detach().to(torch.float32).flatten().numpy().astype("<f4")
    return base64.b64encode(array.tobytes()).decode()
