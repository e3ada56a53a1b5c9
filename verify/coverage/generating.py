"""Coverage-guided generation: small changes of inputs, kept where they cover something new."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from verify.coverage.layers import observed
from verify.coverage.records import MaskRecord
from verify.errors import SettingError
from verify.graph.ir import Graph
from verify.protocols import Judge

AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Mutations:
    """How far an input may be changed while its label is taken to hold.

    Attributes:
        noise: each entry moves by at most so much, in input units.
        brightness: all entries move together by at most so much.
        shift: images move by at most so many pixels, each way; zeros move in.
        rotation: images turn by at most so many degrees about their centre; zeros turn in.
    """

    noise: float = 0.05
    brightness: float = 0.05
    shift: float = 0.0
    rotation: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no size."""
        for name in ("noise", "brightness", "shift", "rotation"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise SettingError(f"{name} is {value}, expected a number >= 0")

    def apply(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """One random change of each input of shape (batch, *input); not yet cut to the range.

        Geometric changes are `affine_grid` and `grid_sample`, bilinear with zero padding and
        align_corners=False; inputs that are no images (channels, height, width) keep their places.
        """

        def draw(*shape: int) -> Tensor:
            return 2 * torch.rand(len(x), *shape, generator=generator) - 1

        angle, move = self.rotation * draw() * math.pi / 180, self.shift * draw(2)
        if x.ndim == 4 and (self.rotation or self.shift):
            x = moved(x, angle, move)
        level = self.brightness * draw(*[1] * (x.ndim - 1))
        return x + level + self.noise * draw(*x.shape[1:])


def moved(x: Tensor, angle: Tensor, move: Tensor) -> Tensor:
    """Images turned by `angle` (radians) and moved by `move` (pixels: across, down)."""
    height, width = x.shape[-2:]
    cos, sin = angle.cos(), angle.sin()
    rows = (
        torch.stack((cos, -sin * height / width, -2 * move[:, 0] / width), dim=1),
        torch.stack((sin * width / height, cos, -2 * move[:, 1] / height), dim=1),
    )
    grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


@dataclass(frozen=True, slots=True, eq=False)
class Generated:
    """New inputs, each of which covered something that nothing before it did.

    Attributes:
        x: shape (new, *input), float32.
        parent: int64, (new,): the input each began as.
        gained: int64, (new,): how many obligations it added.
        wrong: bool, (new,): the model's own runtime gives it another class than the parent's label.
        tried: how many changes were made in all.
    """

    x: Tensor
    parent: Tensor
    gained: Tensor
    wrong: Tensor
    tried: int


def generate(
    graph: Graph,
    record: MaskRecord,
    x: Tensor,
    labels: Tensor,
    judge: Judge,
    *,
    mutations: Mutations = Mutations(),
    tries: int = 1000,
    lower: Tensor | float = -math.inf,
    upper: Tensor | float = math.inf,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Generated:
    """Change inputs at random and keep each one that covers something new.

    Every change starts from one of the given inputs, never from a changed one, so that all that is
    kept lies within `mutations` of an input whose label is known. Inputs whose changes have paid
    are drawn more often.

    Args:
        graph: the network in float32.
        record: what is covered already; what is generated is added to it.
        x, labels: inputs of shape (batch, *input) and their classes.
        judge: the model's own runtime.
        mutations: how far an input may be changed.
        tries: changes to make.
        lower, upper: the input range, which what is kept never leaves.
        seed: of all random choices.
        progress: called with the number of changes made.
    """
    generator = torch.Generator().manual_seed(seed)
    paid = torch.ones(len(x))
    kept: list[Tensor] = []
    parents: list[int] = []
    gains: list[int] = []
    low, high = (torch.as_tensor(end, dtype=torch.float32) for end in (lower, upper))
    done = 0
    while done < tries and len(x):
        count = min(AT_ONCE, tries - done)
        chosen = paid.multinomial(count, replacement=True, generator=generator)
        changed = torch.clamp(mutations.apply(x[chosen].float(), generator), low, high)
        values = observed(graph, changed, record.layers)
        done += count
        if record.adds(values):
            for row in range(count):
                one = {name: value[row : row + 1] for name, value in values.items()}
                gain = record.adds(one)
                if gain:
                    record.update(one)
                    kept.append(changed[row])
                    parents.append(int(chosen[row]))
                    gains.append(gain)
                    paid[chosen[row]] += 1
        if progress is not None:
            progress(done)
    parent = torch.tensor(parents, dtype=torch.int64)
    found = torch.stack(kept) if kept else x[:0].float()
    wrong = judge.misclassified(found, labels[parent]) if kept else torch.zeros(0, dtype=torch.bool)
    return Generated(found, parent, torch.tensor(gains, dtype=torch.int64), wrong, done)
