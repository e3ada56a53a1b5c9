"""Flows: fields of small displacements that mislead a model, by gradient on the field.

An output pixel p shows the image at p + v(p), in pixels: bilinear, zero outside, |v| <= delta, and
neighbours' displacements differ by at most `smooth` if that is given, all per axis.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from attacks.errors import AttackInputError

Model = Callable[[Tensor], Tensor]


def warp(x: Tensor, fields: Tensor) -> Tensor:
    """The images (n, channel, height, width) that fields (n, 2, height, width) make."""
    height, width = x.shape[2:]
    still = torch.eye(2, 3, dtype=x.dtype).expand(len(x), 2, 3)
    grid = functional.affine_grid(still, list(x.shape), align_corners=True)
    scale = torch.tensor([2 / (width - 1), 2 / (height - 1)], dtype=x.dtype)
    moved = grid + fields.movedim(1, 3) * scale
    return functional.grid_sample(
        x, moved, mode="bilinear", padding_mode="zeros", align_corners=True
    )


@dataclass(frozen=True, slots=True)
class FlowAttack:
    """Sign ascent on the field from shifts of the whole image and from random smooth fields.

    Attributes:
        delta: largest displacement, in pixels, per axis.
        smooth: largest difference of neighbours' displacements, or None.
        steps: of the ascent.
        starts: how many random fields, beside the nine shifts.
        seed: of the random fields.

    Source:
        Xiao et al. 2018, arXiv:1801.02612, with hard limits in place of a penalty.
    """

    delta: float
    smooth: float | None = None
    steps: int = 30
    starts: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.delta >= 0 or self.steps < 0 or self.starts < 0:
            raise AttackInputError(
                f"delta {self.delta}, steps {self.steps} and starts {self.starts} must not be "
                "negative"
            )

    def __call__(self, model: Model, image: Tensor, label: int) -> Tensor:
        """Fields of which each misleads the model, smallest first; shape (any, 2, height, width).

        Args:
            model: images to logits.
            image: shape (channel, height, width).
            label: the class to leave.
        """
        fields = self.initial(image)
        hits: list[Tensor] = []
        step = self.delta * 2.5 / max(1, self.steps)
        for turn in range(self.steps + 1):
            fields = fields.detach().requires_grad_()
            output = model(warp(image.expand(len(fields), -1, -1, -1), fields)).flatten(1)
            own = output[:, label]
            loss = output.index_fill(1, torch.tensor([label]), -torch.inf).amax(dim=1) - own
            wrong = (loss > 0).detach()
            if bool(wrong.any()):
                hits.append(self.smallest(model, image, label, fields.detach()[wrong]))
                break
            if turn == self.steps:
                break
            (slope,) = torch.autograd.grad(loss.sum(), fields)
            with torch.no_grad():
                fields = self.feasible(fields + step * self.spread(slope).sign())
        return torch.cat(hits) if hits else torch.zeros(0, 2, *image.shape[1:])

    def initial(self, image: Tensor) -> Tensor:
        """Nine shifts and random fields."""
        generator = torch.Generator().manual_seed(self.seed)
        ends = torch.tensor([-1.0, 0.0, 1.0]) * self.delta
        shifts = torch.cartesian_prod(ends, ends)[:, :, None, None]
        whole = shifts.expand(-1, -1, *image.shape[1:]).to(image.dtype)
        noise = torch.rand(self.starts, 2, *image.shape[1:], generator=generator) * 2 - 1
        return self.feasible(torch.cat((whole, self.spread(noise).to(image.dtype) * self.delta)))

    def spread(self, values: Tensor) -> Tensor:
        """Blurred where fields must be smooth."""
        if self.smooth is None:
            return values
        for _ in range(2):
            values = functional.avg_pool2d(values, 5, 1, 2, count_include_pad=False)
        return values

    def feasible(self, fields: Tensor) -> Tensor:
        """Clipped; then, where neighbours differ too much, blurred and shrunk."""
        limit = self.delta * (1 - 1e-6)  # float32 may hold a larger number for delta itself
        fields = fields.clamp(-limit, limit)
        if self.smooth is None:
            return fields
        for _ in range(8):
            if float(unevenness(fields).max()) <= self.smooth:
                return fields
            fields = functional.avg_pool2d(fields, 3, 1, 1, count_include_pad=False)
        # A little less than allowed: the quotient is rounded.
        factor = self.smooth / unevenness(fields).clamp(min=1e-12) * (1 - 1e-6)
        return fields * factor.clamp(max=1.0)[:, None, None, None]

    def smallest(self, model: Model, image: Tensor, label: int, fields: Tensor) -> Tensor:
        """Fields scaled down for as long as they mislead, by bisection; smallest first."""
        low, high = torch.zeros(len(fields)), torch.ones(len(fields))
        for _ in range(8):
            middle = (low + high) / 2
            with torch.no_grad():
                tried = fields * middle[:, None, None, None].to(fields.dtype)
                output = model(warp(image.expand(len(fields), -1, -1, -1), tried)).flatten(1)
            others = output.index_fill(1, torch.tensor([label]), -torch.inf).amax(dim=1)
            wrong = others > output[:, label]
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
        order = (high * fields.abs().flatten(1).amax(dim=1)).argsort()
        return (fields * high[:, None, None, None].to(fields.dtype))[order]


def unevenness(fields: Tensor) -> Tensor:
    """The largest difference between neighbours, shape (any,)."""
    down = fields.diff(dim=2).abs().flatten(1).amax(dim=1)
    return torch.maximum(down, fields.diff(dim=3).abs().flatten(1).amax(dim=1))
