"""Transferability: how often what fools one model fools another.

    from attacks import Ball, transfer_attack, transfer_matrix

    attacks = {"mifgsm": transfer_attack("mifgsm")}
    (found,) = transfer_matrix({"a": a, "b": b}, x, labels, Ball(0.1), attacks)
    found.rate    # rate[s, t]: made against source s, shown to target t

Source:
    Szegedy et al. 2014, arXiv:1312.6199; ensembles of sources: Liu et al. 2017, arXiv:1611.02770.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attacks.arguments import check_classes, check_keys, check_logits, check_steady
from attacks.ball import Ball
from attacks.bootstrap import quantiles, resampled, share_interval
from attacks.errors import AttackInputError
from attacks.losses import margin
from attacks.momentum import MIFGSM
from attacks.protocol import Attack, Model
from attacks.randomness import derive_keys, laplace, normal
from attacks.region import Region
from attacks.registry import attack_named

# Rows that are no single model.
OTHERS, NOISE = "mean of others", "noise"
# (points (n, *input), labels (n,)) -> bool (n,): which are strictly misclassified.
Misclassified = Callable[[Tensor, Tensor], Tensor]
# Of TI's Gaussian, in pixels: that of its paper for 299 x 299, less for smaller images.
WIDEST_BLUR, LEAST_BLUR, SIDE_PER_BLUR = 15, 3, 4


@dataclass(frozen=True, slots=True, eq=False)
class Transfer:
    """How often one attack's examples against each source fool each target.

    Attributes:
        attack: its name.
        sources: names of the rows: the models, then "mean of others" and "noise" where asked for.
        targets: names of the columns, the models.
        counted: shape (sources, targets, samples), bool: correct by source and target; in the row
            of noise by the target.
        fooled: the same shape, bool: counted, the example against the source was found and
            confirmed by the source's judge, and the target's judge finds it misclassified.
        found: the same shape, bool: counted, and found and confirmed against the source.
        rate: shape (sources, targets), float64: the share of counted that are fooled; its diagonal
            is the white-box success. NaN where nothing was counted.
        low, high: likewise, the ends of its interval.
        level: of confidence of these.
    """

    attack: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    counted: Tensor
    fooled: Tensor
    found: Tensor
    rate: Tensor
    low: Tensor
    high: Tensor
    level: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over pairs of different models, and its bootstrap interval."""

    value: float
    low: float
    high: float


def transfer_matrix(
    models: Mapping[str, Model],
    x: Tensor,
    labels: Tensor,
    ball: Ball,
    attacks: Mapping[str, Attack],
    *,
    judges: Mapping[str, Misclassified] | None = None,
    ensemble: bool = True,
    noise: bool = True,
    sample_keys: Tensor | None = None,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> list[Transfer]:
    """The matrix of transfer rates for each attack.

    Row "mean of others" attacks the mean logits of all models but the target; it is there for three
    models at least. Row "noise" shows each target x plus random noise on the sphere of radius eps
    (at the corners of the cube for L-inf), cut to the input range.

    Args:
        models: by name, two at least; each takes inputs like `x` and gives the same classes.
        x, labels, ball, sample_keys: as for `Attack`.
        attacks: by name; for transfer they should not stop at the first find (`transfer_attack`).
        judges: decide what is misclassified, of the models that have one; else the model's own
            arithmetic does.
        seed: of noise and resampling.
        resamples: of the samples, for the intervals.

    Raises:
        AttackInputError: if the arguments do not fit each other.
    """
    if len(models) < 2 or not attacks:
        raise AttackInputError(
            f"transfer_matrix got {len(models)} models and {len(attacks)} attacks; expected at "
            "least two models and one attack."
        )
    if resamples < 1 or not 0 < level < 1:
        raise AttackInputError(
            f"transfer_matrix got resamples = {resamples}, level = {level}; expected at least 1, "
            "and a number in (0, 1)."
        )
    region = ball.around(x)
    logits = clean_logits(models, x)
    labels = check_classes("labels", labels, len(x), next(iter(logits.values())).shape[1])
    keys = check_keys(sample_keys, x)
    judge = {name: (judges or {}).get(name) or own_judge(model) for name, model in models.items()}
    bench = Bench(
        models=models,
        judges=judge,
        x=x,
        labels=labels,
        ball=ball,
        keys=keys,
        correct={
            # NaN is neither right nor wrong: it does not count.
            name: ~judge[name](x, labels) & ~margin(z, labels).isnan()
            for name, z in logits.items()
        },
    )
    weights = resampled(len(x), resamples, seed)
    still = bench.noise(region, seed) if noise else []
    done = []
    for name, attack in attacks.items():
        rows = [bench.against(source, attack) for source in models]
        sources = list(models)
        if ensemble and len(models) > 2:
            rows.append(bench.against_others(attack))
            sources.append(OTHERS)
        if noise:
            rows.append(still)
            sources.append(NOISE)
        done.append(counted_up(name, sources, list(models), rows, weights, level))
    return done


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """Which samples count, were found, and fool; each (samples,), or so for many cells."""

    counted: Tensor
    found: Tensor
    fooled: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """Models side by side on the same samples."""

    models: Mapping[str, Model]
    judges: Mapping[str, Misclassified]
    x: Tensor
    labels: Tensor
    ball: Ball
    keys: Tensor
    correct: Mapping[str, Tensor]

    def against(self, source: str, attack: Attack) -> list[Cell]:
        """A row: examples against one model, shown to all."""
        points, found = self.examples(self.models[source], self.judges[source], attack)
        return [self.shown(points, found, self.correct[source], target) for target in self.models]

    def against_others(self, attack: Attack) -> list[Cell]:
        """A row: examples against the mean logits of all models but the target."""
        row = []
        for target in self.models:
            others = mean_logits([m for name, m in self.models.items() if name != target])
            judge = own_judge(others)
            with torch.no_grad():
                right = margin(others(self.x), self.labels) > 0
            points, found = self.examples(others, judge, attack)
            row.append(self.shown(points, found, right, target))
        return row

    def noise(self, region: Region, seed: int) -> list[Cell]:
        """A row: random noise of the radius, whatever the attack."""
        points = region.project(self.x + noise_like(self.x, region, derive_keys(self.keys, seed)))
        every = torch.ones_like(self.labels, dtype=torch.bool)
        return [self.shown(points, every, every, target) for target in self.models]

    def examples(self, model: Model, judge: Misclassified, attack: Attack) -> tuple[Tensor, Tensor]:
        """Points of the ball, and which of them the source's judge confirms."""
        result = attack(model, self.x, self.labels, self.ball, sample_keys=self.keys)
        return result.candidate, result.found & judge(result.candidate, self.labels)

    def shown(self, points: Tensor, found: Tensor, right: Tensor, target: str) -> Cell:
        """What the target makes of the points."""
        counted = right & self.correct[target]
        found = counted & found
        return Cell(counted, found, found & self.judges[target](points, self.labels))


def counted_up(
    name: str,
    sources: Sequence[str],
    targets: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    weights: Tensor,
    level: float,
) -> Transfer:
    """The matrix from its cells."""
    counted, fooled, found = (
        torch.stack([torch.stack([getattr(c, field) for c in row]) for row in rows]).cpu()
        for field in ("counted", "fooled", "found")
    )
    return rated(name, sources, targets, Cell(counted, found, fooled), weights, level)


def transfer_of(
    attack: str,
    sources: Sequence[str],
    targets: Sequence[str],
    cells: Cell,
    *,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> Transfer:
    """The matrix of an attack whose cells were found group by group of the samples.

    It is what `transfer_matrix` says of all samples at once: examples depend on their sample only.

    Args:
        attack, sources, targets: as in `Transfer`.
        cells: of all samples; each tensor is of shape (sources, targets, samples).
        seed, resamples, level: as for `transfer_matrix`.
    """
    weights = resampled(cells.counted.shape[2], resamples, seed)
    return rated(attack, sources, targets, cells, weights, level)


def rated(
    name: str,
    sources: Sequence[str],
    targets: Sequence[str],
    cells: Cell,
    weights: Tensor,
    level: float,
) -> Transfer:
    """The matrix with its rates and their intervals."""
    counted, found, fooled = cells.counted, cells.found, cells.fooled
    size = (len(sources), len(targets))
    ends = share_interval(fooled.flatten(0, 1), counted.flatten(0, 1), weights, level)
    return Transfer(
        attack=name,
        sources=tuple(sources),
        targets=tuple(targets),
        counted=counted,
        fooled=fooled,
        found=found,
        rate=fooled.sum(dim=2).double() / counted.sum(dim=2).double(),
        low=ends[:, 0].view(size),
        high=ends[:, 1].view(size),
        level=level,
    )


def mean_transfer(result: Transfer, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean rate over all pairs of different models."""
    return difference(result, None, resamples=resamples, seed=seed)


def difference(
    result: Transfer, other: Transfer | None, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """How much higher the mean rate over pairs of different models is than another attack's.

    Both must come from the same call of `transfer_matrix`. The samples are resampled in pairs, so
    the interval is that of the difference, not of two rates side by side. It speaks of other
    samples and these models; of other models it says nothing.
    """
    weights = resampled(result.counted.shape[2], resamples, seed)
    here = [off_diagonal(r, weights) for r in (result, other) if r is not None]
    drawn = here[0][1] - (here[1][1] if other is not None else 0)
    value = here[0][0] - (here[1][0] if other is not None else 0)
    low, high = quantiles(drawn[:, None], result.level)[0].tolist()
    return Interval(value, low, high)


def off_diagonal(result: Transfer, weights: Tensor) -> tuple[float, Tensor]:
    """The mean rate over pairs of different models, and the same in each resample."""
    count = len(result.targets)
    pairs = ~torch.eye(count, dtype=torch.bool)
    fooled, counted = result.fooled[:count][pairs].double(), result.counted[:count][pairs].double()
    drawn = (weights @ fooled.T) / (weights @ counted.T)
    return float((fooled.sum(1) / counted.sum(1)).nanmean()), drawn.nanmean(dim=1)


def mean_logits(models: Sequence[Model]) -> Model:
    """One model whose logits are the mean of theirs."""
    if not models:
        raise AttackInputError("mean_logits got no models; expected at least one.")

    def mean(x: Tensor) -> Tensor:
        return torch.stack([model(x) for model in models]).mean(dim=0)

    return mean


def own_judge(model: Model) -> Misclassified:
    """The model's own arithmetic as judge; a tie and NaN are not misclassified."""

    def misclassified(points: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            return margin(model(points), labels) < 0

    return misclassified


def noise_like(x: Tensor, region: Region, keys: Tensor) -> Tensor:
    """Random noise of norm eps; shape of `x`. Where eps is inf, of the norm of the range."""
    size = x[:1].numel() if len(x) else 1
    keys = derive_keys(keys, NOISE)
    if region.p == math.inf:
        drawn = normal(keys, size).sign()
    elif region.p == 2:
        drawn = normal(keys, size)
    else:
        drawn = laplace(keys, size)
    length = torch.linalg.vector_norm(drawn, region.p, dim=1, keepdim=True)
    scaled: Tensor = drawn / length * region.reach()[:, None]
    return scaled.view_as(x).to(x.dtype)


def clean_logits(models: Mapping[str, Model], x: Tensor) -> dict[str, Tensor]:
    """What the models say of the inputs, refused where they do not fit each other."""
    found: dict[str, Tensor] = {}
    for name, model in models.items():
        check_steady(model)
        with torch.no_grad():
            found[name] = model(x)
        check_logits(found[name], len(x))
    counts = {name: logits.shape[1] for name, logits in found.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise AttackInputError(
            f"Transfer needs models with the same classes, but they have different numbers: {said}."
        )
    return found


def transfer_attack(name: str, side: int = 0) -> Attack:
    """The registered attack of that name as transfer wants it: it does not stop at the first find.

    Args:
        name: of `attacks.ATTACKS`; "mifgsm" and "nifgsm" also with "-di", "-ti" or "-di-ti" behind.
        side: of the images in pixels, for the width of TI's Gaussian.

    Raises:
        AttackInputError: if there is no such attack.
    """
    base, *options = name.split("-")
    if base in ("mifgsm", "nifgsm") and options in (["di"], ["ti"], ["di", "ti"]):
        odd = side // SIDE_PER_BLUR // 2 * 2 + 1
        return MIFGSM(
            nesterov=base == "nifgsm",
            diversity=0.5 if "di" in options else 0.0,
            blur_size=min(WIDEST_BLUR, max(LEAST_BLUR, odd)) if "ti" in options else 0,
            early_stop=False,
        )
    attack: Any = attack_named(name)  # the protocol does not say that every attack is a dataclass
    if "early_stop" in {field.name for field in dataclasses.fields(attack)}:
        attack = dataclasses.replace(attack, early_stop=False)
    made: Attack = attack
    return made
