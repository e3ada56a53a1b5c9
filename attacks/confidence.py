"""Attacks on how sure a model says it is: confidence, NLL, entropy and energy, up and down.

An attack on the label stops at a misclassified point. Here nothing is misclassified or not: each
quantity has a lowest and a highest value in the ball, and the attack reports what it attained. So
every point that any path meets is judged under every quantity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from attacks.arguments import check_classes, check_keys, check_logits, check_steady
from attacks.ball import Ball
from attacks.errors import AttackInputError
from attacks.losses import without
from attacks.protocol import Model
from attacks.randomness import derive_keys

# (logits / T of shape (batch, classes), labels of shape (batch,)) -> shape (batch,)
Quantity = Callable[[Tensor, Tensor], Tensor]
MOST_LANES = 4096  # points per evaluation: bounds memory, changes no result


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest class probability, in [1/classes, 1]."""
    return logits.log_softmax(dim=1).amax(dim=1).exp()


def wrong_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest probability of a class other than the label, in [0, 1]."""
    return without(logits.log_softmax(dim=1), labels).amax(dim=1).exp()


def nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of the label, in nats."""
    return -logits.log_softmax(dim=1).gather(1, labels[:, None]).squeeze(1)


def entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Entropy of the class probabilities, in nats."""
    logp = logits.log_softmax(dim=1)
    return -(logp.exp() * logp).sum(dim=1)


def energy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log sum_k e^(z_k / T); times T it is the energy of Liu et al. 2020, arXiv:2010.03759."""
    return -logits.logsumexp(dim=1)


def brier(logits: Tensor, labels: Tensor) -> Tensor:
    """sum_k (p_k - [k = label])², in [0, 2]."""
    p = logits.softmax(dim=1)
    return (p - torch.nn.functional.one_hot(labels, p.shape[1])).square().sum(dim=1)


QUANTITIES: Mapping[str, Quantity] = MappingProxyType(
    {
        "confidence": confidence,
        "wrong_confidence": wrong_confidence,
        "nll": nll,
        "entropy": entropy,
        "energy": energy,
        "brier": brier,
    }
)


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """log p / (1 - p) of one class per row: its slope does not vanish where p is near 0 or 1."""
    own = logits.gather(1, classes[:, None]).squeeze(1)
    return own - without(logits, classes).logsumexp(dim=1)


def log_entropy(logits: Tensor) -> Tensor:
    """log H, whose slope does not vanish where H is near 0; float64 keeps H above 0 there."""
    value = entropy(logits, logits.argmax(dim=1))
    return value.clamp(min=torch.finfo(value.dtype).tiny).log()


@dataclass(frozen=True, slots=True, eq=False)
class Attained:
    """What the attack met for each sample: values at points of the ball, so true ones.

    Attributes:
        low, high: per quantity of `QUANTITIES`, shape (batch,), float64; the input itself counts.
        low_at, high_at: the points, shape (batch, *input), in the ball.
        path: confidences between the least and the greatest attained, shape (batch, points),
            float64: of the input, of both ends, and of points between them.
        path_correct: whether the prediction there is the label, same shape, bool.
    """

    low: dict[str, Tensor]
    high: dict[str, Tensor]
    low_at: dict[str, Tensor]
    high_at: dict[str, Tensor]
    path: Tensor
    path_correct: Tensor


@dataclass(frozen=True, slots=True)
class ConfidenceAttack:
    """Projected gradient ascent and descent on confidence, NLL, entropy and energy.

    Confidence is raised towards each of the `rivals` likeliest classes, and lowered as a whole.

    Attributes:
        steps: per path.
        restarts: starting points: the input, then random ones.
        step_size: the first step as a fraction of the ball's radius; steps shrink to 0.
        rivals: classes that confidence is raised towards.
        between: points tried between the least and the most confident point.
        temperature: logits are divided by it.
        seed: of the random starting points.

    Source:
        Galil, El-Yaniv 2021 (ACE), arXiv:2110.13741, attack the confidence with the label kept;
        here the label may change too, as certified bounds allow it to.
    """

    steps: int = 30
    restarts: int = 2
    step_size: float = 0.5
    rivals: int = 3
    between: int = 8
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        complaint = None
        if min(self.steps, self.restarts, self.rivals) < 1 or self.between < 0:
            complaint = "steps, restarts or rivals below 1, or between below 0"
        elif not self.step_size > 0:
            complaint = f"step_size = {self.step_size}; expected a positive fraction of eps"
        elif not 0 < self.temperature < float("inf"):
            complaint = f"temperature = {self.temperature}; expected a finite number > 0"
        if complaint:
            raise AttackInputError(f"ConfidenceAttack got {complaint}. Correct that setting.")

    def __call__(
        self,
        model: Model,
        x: Tensor,
        labels: Tensor,
        ball: Ball,
        *,
        sample_keys: Tensor | None = None,
    ) -> Attained:
        """Look for the ends of every quantity in the ball; arguments as for `attacks.Attack`."""
        region = ball.around(x)
        check_steady(model)
        with torch.no_grad():
            logits = model(x)
        check_logits(logits, len(x))
        labels = check_classes("labels", labels, len(x), logits.shape[1])
        keys = check_keys(sample_keys, x)
        seen = Extremes(x, labels, logits.double() / self.temperature)
        ranked = logits.argsort(dim=1, descending=True)
        for name, climb in self.climbs(labels, ranked):
            for restart in range(self.restarts):
                at = x
                if restart:
                    at = region.sample(derive_keys(keys, "confidence", self.seed, name, restart))
                for step in range(self.steps):
                    level, slope = self.slope(model, at, climb)
                    seen.meet(at, level)
                    if step == 0 and restart == 0:
                        at = region.extreme(slope)
                        continue
                    size = region.eps.new_full((len(x),), self.size_at(step))
                    density = max(0.05 ** (1 - step / self.steps), 1 / x.shape[1:].numel())
                    at = region.project(region.step(at, slope, size, density))
                seen.meet(at, self.logits(model, at))
        path, correct = self.walk_between(model, seen, region.project)
        return seen.attained(path, correct)

    def climbs(
        self, labels: Tensor, ranked: Tensor
    ) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
        """Objectives to ascend, by name."""
        for k in range(min(self.rivals, ranked.shape[1])):
            yield f"raise {k}", lambda z, k=k: log_odds(z, ranked[:, k])  # type: ignore[misc]
        yield "doubt", lambda z: -log_odds(z, z.argmax(dim=1))
        yield "right", lambda z: log_odds(z, labels)
        yield "wrong", lambda z: -log_odds(z, labels)
        yield "spread", log_entropy
        yield "gather", lambda z: -log_entropy(z)
        yield "loud", lambda z: z.logsumexp(dim=1)
        yield "quiet", lambda z: -z.logsumexp(dim=1)

    def size_at(self, step: int) -> float:
        """The step's size as a fraction of the radius, falling linearly."""
        return self.step_size * (1 - step / self.steps)

    def logits(self, model: Model, at: Tensor) -> Tensor:
        """logits / T in float64, of what the model computes in its own arithmetic."""
        with torch.no_grad():
            parts = [model(part) for part in at.split(MOST_LANES)]
        return torch.cat(parts).double() / self.temperature

    def slope(
        self, model: Model, at: Tensor, climb: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """logits / T, and the gradient of the objective by the points."""
        with torch.enable_grad():
            moved = at.detach().requires_grad_()
            logits = model(moved).double() / self.temperature
            (slope,) = torch.autograd.grad(climb(logits).sum(), moved)
        return logits.detach(), slope

    def walk_between(
        self, model: Model, seen: Extremes, project: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Confidence and correctness at the input, both ends and between; (batch, points) each."""
        ends = [seen.low_at["confidence"], seen.high_at["confidence"]]
        ends += [seen.high_at["wrong_confidence"], seen.low_at["nll"], seen.high_at["nll"]]
        points = [seen.x, *ends]
        for i in range(self.between):
            share = (i + 1) / (self.between + 1)
            points.append(project(ends[0] + share * (ends[1] - ends[0])))
        values, correct = [], []
        for at in points:
            logits = self.logits(model, at)
            seen.meet(at, logits)
            values.append(confidence(logits, seen.labels))
            correct.append(logits.argmax(dim=1) == seen.labels)
        return torch.stack(values, dim=1), torch.stack(correct, dim=1)


class Extremes:
    """The least and the greatest of every quantity met so far; mutable, used once."""

    def __init__(self, x: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Begin with the inputs themselves."""
        self.x, self.labels = x, labels
        values = {name: f(logits, labels) for name, f in QUANTITIES.items()}
        self.low, self.high = dict(values), dict(values)
        self.low_at = dict.fromkeys(values, x)
        self.high_at = dict.fromkeys(values, x)

    def meet(self, at: Tensor, logits: Tensor) -> None:
        """Judge one point per sample."""
        wide = (-1, *[1] * (at.dim() - 1))
        for name, quantity in QUANTITIES.items():
            value = quantity(logits, self.labels)
            below, above = value < self.low[name], value > self.high[name]
            self.low[name] = torch.where(below, value, self.low[name])
            self.high[name] = torch.where(above, value, self.high[name])
            self.low_at[name] = torch.where(below.view(wide), at, self.low_at[name])
            self.high_at[name] = torch.where(above.view(wide), at, self.high_at[name])

    def attained(self, path: Tensor, correct: Tensor) -> Attained:
        """The outcome."""
        return Attained(self.low, self.high, self.low_at, self.high_at, path, correct)
