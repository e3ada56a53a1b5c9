"""Spatial attacks: the worst rotation, shift, scale, brightness of each image.

    from attacks import SpatialAttack, TransformBox

    box = TransformBox.parse("rotation(-30,30) translation(-2,2)")
    result = SpatialAttack()(model, x, labels, box)
    result.found, result.values, result.image

Each sample has a transformation of its own; one for a whole batch would be a far weaker attack.

Source:
    Engstrom et al. 2019, arXiv:1712.02779: on this landscape gradients alone are weak, the worst of
    a grid or of random draws is strong. Here a grid comes first, and its best points are refined.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from attacks.bisection import Judge
from attacks.errors import AttackInputError
from attacks.parameter_search import (
    FIRST_STEP,
    MOST_POINTS,
    Rows,
    best_points,
    descend,
    points_per_parameter,
    random_unit,
    refine,
    sweep,
    unit_grid,
)
from attacks.protocol import Model
from attacks.spatial_oracle import SpatialOracle
from attacks.transforms import TransformBox

# Images that are made at once for a result.
AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class SpatialResult:
    """The worst transformation found for each sample, adversarial or not.

    Attributes:
        values: shape (batch, parameters), float64: the parameters, always in the box.
        image: shape (batch, *input): `TransformBox.apply` there, to the bit.
        found: shape (batch,), bool: `margin` < 0, strictly, and confirmed by the judge if one was
            given.
        margin: shape (batch,), in logits at `image`, the lowest of all evaluated, those left out
            that were negative but not confirmed by the judge; NaN if there was none.
        share: shape (batch,), float64: how far the box must be scaled about the identity to hold
            `values`, at most 1; 1 if the box does not hold the identity, inf where nothing was
            found. See `TransformBox.share`.
        forward, backward: shape (batch,), int64: how often the model, its gradient was evaluated.
        attack: per sample the search that found it: "clean" where the image itself is
            misclassified, "" where nothing was found.
    """

    values: Tensor
    image: Tensor
    found: Tensor
    margin: Tensor
    share: Tensor
    forward: Tensor
    backward: Tensor
    attack: tuple[str, ...]


class SpatialSearch(Protocol):
    """One way of looking through a box of transformations; a frozen dataclass of its settings."""

    @property
    def early_stop(self) -> bool:
        """Whether a sample is done at its first find, or goes on for a lower margin."""

    def search(self, oracle: SpatialOracle, rows: Rows) -> None:
        """Look through the oracle's current boxes of the samples that `rows` gives."""
        ...

    def __call__(
        self,
        model: Model,
        x: Tensor,
        labels: Tensor,
        box: TransformBox,
        *,
        shape: tuple[int, int, int] | None = None,
        targets: Tensor | None = None,
        sample_keys: Tensor | None = None,
        judge: Judge | None = None,
    ) -> SpatialResult:
        """Look for a misclassified transformation of each image; see `run`."""
        ...


def run(
    attack: SpatialSearch,
    model: Model,
    x: Tensor,
    labels: Tensor,
    box: TransformBox,
    *,
    shape: tuple[int, int, int] | None = None,
    targets: Tensor | None = None,
    sample_keys: Tensor | None = None,
    judge: Judge | None = None,
) -> SpatialResult:
    """Look for a misclassified transformation of each image.

    Where the box holds the identity, the image itself is asked about first. Where it does not,
    misclassified originals count for nothing: only transformations in the box do.

    Args:
        model: see `Model`; in evaluation mode; takes inputs in the shape of `x`.
        x: shape (batch, *input), float32 or float64.
        labels: shape (batch,), integer: the classes that should hold.
        box: where to look.
        shape: (channels, height, width) of one image, where x is not shaped like that.
        targets: shape (batch,), integer: look for just these classes.
        sample_keys: shape (batch,), integer, that random numbers are keyed by; by default a hash of
            each sample's values.
        judge: confirms finds: from images (n, *input) and their samples, shape (n,), to bool (n,).

    Raises:
        AttackInputError: if the arguments do not fit each other.
    """
    oracle = SpatialOracle(
        model,
        x,
        labels,
        box,
        shape=shape,
        targets=targets,
        sample_keys=sample_keys,
        judge=judge,
    )
    everyone = torch.arange(len(x), device=x.device)
    rows = oracle.open_rows if attack.early_stop else lambda: everyone
    if len(x):
        attack.search(oracle, rows)
    return result_of(oracle)


def result_of(oracle: SpatialOracle, *, nearest: bool = False) -> SpatialResult:
    """What the oracle holds: the lowest margins, or with `nearest` the least shares."""
    values, level, who = oracle.values, oracle.margin, oracle.who
    if nearest:
        found = oracle.share < torch.inf
        values = torch.where(found[:, None], oracle.nearest, oracle.start)
        level = torch.where(found, oracle.nearest_margin, oracle.start_margin)
        who = oracle.who_nearest
    found = level < 0
    every = torch.arange(len(oracle.labels), device=oracle.labels.device)
    with torch.no_grad():
        image = torch.cat([oracle.image(rows, values[rows]) for rows in every.split(AT_ONCE)])
    return SpatialResult(
        values=values,
        image=image,
        found=found,
        margin=torch.where(level == torch.inf, torch.nan, level),
        share=torch.where(found, oracle.measure(values), torch.inf),
        forward=oracle.forward,
        backward=oracle.backward,
        attack=tuple(w if hit else "" for w, hit in zip(who, found.tolist(), strict=True)),
    )


@dataclass(frozen=True, slots=True)
class WorstOfGrid:
    """Each sample's worst point of a regular grid over the box, ends included.

    Attributes:
        queries: the most points, spread evenly over the parameters that have a range.
        points: for each parameter instead, or one number for all.
        early_stop: a sample is done at the end of the round of its first find.
    """

    queries: int = 601
    points: int | tuple[int, ...] | None = None
    early_stop: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        given = (self.points,) if isinstance(self.points, int) else self.points or ()
        check_least("WorstOfGrid", 1, queries=self.queries, points=min(given, default=1))

    def search(self, oracle: SpatialOracle, rows: Rows) -> None:
        """Ask about all points."""
        oracle.search = "grid"
        sweep(oracle, rows, self.grid(oracle.box))

    def grid(self, box: TransformBox) -> Tensor:
        """Its points in [-1, 1]^parameters; see `unit_grid`."""
        size = len(box.parameters)
        points = self.points
        if points is None:
            points = points_per_parameter(self.queries, box.high - box.low)
        elif isinstance(points, int):
            points = (points,) * size
        total = torch.Size(points).numel()
        if len(points) != size or total > MOST_POINTS:
            raise AttackInputError(
                f"WorstOfGrid got points = {self.points!r} for {size} parameters, {total} in all; "
                f"expected one number for each, and at most {MOST_POINTS} in all."
            )
        return unit_grid(points)

    __call__ = run


@dataclass(frozen=True, slots=True)
class WorstOfRandom:
    """Each sample's worst of uniform random points of the box.

    Attributes:
        queries: how many points.
        early_stop: as for the grid.
        seed: of the points, together with the sample's key.
    """

    queries: int = 100
    early_stop: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_least("WorstOfRandom", 1, queries=self.queries)

    def search(self, oracle: SpatialOracle, rows: Rows) -> None:
        """Ask about all points."""
        oracle.search = "random"
        sweep(oracle, rows, random_unit(oracle, "random", self.queries, self.seed))

    __call__ = run


@dataclass(frozen=True, slots=True)
class ParameterDescent:
    """Gradient steps on the parameters, through the interpolation, from several starts.

    Attributes:
        steps: per start.
        starts: the identity (or the box's middle) and random points.
        step_size: the first step as a share of the box's half width; steps fall to 0.
        early_stop: a sample is done at its first find.
        seed: of the random starts, together with the sample's key.
    """

    steps: int = 30
    starts: int = 5
    step_size: float = FIRST_STEP
    early_stop: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_least("ParameterDescent", 1, steps=self.steps, starts=self.starts)
        check_step("ParameterDescent", self.step_size)

    def search(self, oracle: SpatialOracle, rows: Rows) -> None:
        """Walk from all starts at once."""
        oracle.search = "gradient"
        unit = random_unit(oracle, "gradient", self.starts, self.seed)
        unit[:, 0] = oracle.unit_start()
        descend(oracle, rows, unit, self.steps, self.step_size)

    __call__ = run


@dataclass(frozen=True, slots=True)
class SpatialAttack:
    """Grid, random points, gradient steps from the best of both, then a compass search.

    Attributes:
        queries: points of the grid, at most; see `WorstOfGrid`.
        draws: random points.
        starts: how many of the best points are descended from.
        steps: gradient steps from each; 0 for none, as for models without gradients.
        rounds: of the compass search, each twice as many queries as there are parameters.
        early_stop: a sample is done at the end of the round of its first find.
        seed: of the random points, together with the sample's key.
    """

    queries: int = 601
    draws: int = 100
    starts: int = 5
    steps: int = 20
    rounds: int = 20
    early_stop: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        check_least("SpatialAttack", 1, queries=self.queries)
        check_least(
            "SpatialAttack",
            0,
            draws=self.draws,
            starts=self.starts,
            steps=self.steps,
            rounds=self.rounds,
        )

    def search(self, oracle: SpatialOracle, rows: Rows) -> None:
        """One after the other, each on the samples that are left."""
        grid = WorstOfGrid(self.queries).grid(oracle.box)
        oracle.search = "grid"
        margins = sweep(oracle, rows, grid)
        every = grid.expand(len(margins), -1, -1).to(margins.device)
        if self.draws:
            oracle.search = "random"
            drawn = random_unit(oracle, "random", self.draws, self.seed)
            margins = torch.cat([margins, sweep(oracle, rows, drawn)], dim=1)
            every = torch.cat([every, drawn], dim=1)
        spacing = 2 / max(
            1, max(points_per_parameter(self.queries, oracle.box.high - oracle.box.low))
        )
        if self.steps and self.starts:
            oracle.search = "gradient"
            starts = best_points(margins, every, self.starts)
            descend(oracle, rows, starts, self.steps, min(FIRST_STEP, 2 * spacing))
        if self.rounds:
            oracle.search = "refine"
            refine(oracle, rows, self.rounds, spacing / 2)

    __call__ = run


def check_least(attack: str, least: int, **settings: int) -> None:
    """Refuse counts below `least`."""
    for name, value in settings.items():
        if value < least:
            raise AttackInputError(
                f"{attack} got {name} = {value}; expected at least {least}. Correct that setting."
            )


def check_step(attack: str, size: float) -> None:
    """Refuse a step that goes nowhere."""
    if not size > 0:
        raise AttackInputError(
            f"{attack} got step_size = {size}; expected a positive share of the box's half width."
        )


SPATIAL_ATTACKS: Mapping[str, Callable[..., SpatialSearch]] = MappingProxyType(
    {
        "auto": SpatialAttack,
        "grid": WorstOfGrid,
        "random": WorstOfRandom,
        "gradient": ParameterDescent,
    }
)
