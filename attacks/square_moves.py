"""The random moves of the Square attack: which window of each sample changes, and to what.

An image of shape (channels, height, width) is changed in windows of its plane. Any other input is
a row of numbers, one high and one channel deep, whose windows are intervals.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.randomness import uniform
from attacks.region import Region

# L2, L1: tiles along each side of the first perturbation, and the least side of a window in an
# image: below it a pyramid has no shape.
TILES = 5
LEAST_SIDE = 3


@dataclass(frozen=True, slots=True)
class Canvas:
    """The plane that windows are cut from."""

    channels: int
    height: int
    width: int

    @staticmethod
    def of(shape: torch.Size) -> "Canvas":
        """For inputs of that shape, without the batch axis."""
        return Canvas(*shape) if len(shape) == 3 else Canvas(1, 1, shape.numel())

    def is_row(self) -> bool:
        """Whether windows are intervals."""
        return self.channels == self.height == 1

    def window(self, share: float, least: int) -> tuple[int, int]:
        """Height and width of a window that covers that share of the plane."""
        if self.is_row():
            return 1, min(self.width, max(1, round(share * self.width)))
        side = max(least, round((share * self.height * self.width) ** 0.5))
        return min(side, self.height), min(side, self.width)


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """One window per lane, all of one size.

    Attributes:
        inside: shape (lanes, 1, height, width), bool.
        down, right: shape (lanes, 1, height, width), int64: the place within the window; only
            meaningful inside.
    """

    inside: Tensor
    down: Tensor
    right: Tensor

    @staticmethod
    def at(places: Tensor, canvas: Canvas, size: tuple[int, int]) -> "Windows":
        """At random places, each equally likely, the last row and column of the plane included.

        Args:
            places: shape (lanes, 2), uniform in (0, 1).
        """
        height, width = size
        top = (places[:, 0] * (canvas.height - height + 1)).long()[:, None, None, None]
        left = (places[:, 1] * (canvas.width - width + 1)).long()[:, None, None, None]
        shape = (len(places), 1, canvas.height, canvas.width)
        down = torch.arange(canvas.height, device=places.device)[:, None].expand(shape) - top
        right = torch.arange(canvas.width, device=places.device).expand(shape) - left
        inside = (down >= 0) & (down < height) & (right >= 0) & (right < width)
        return Windows(inside, down, right)


def signs(draws: Tensor) -> Tensor:
    """-1 and 1 from numbers uniform in (0, 1), float64."""
    return torch.where(draws < 0.5, -1.0, 1.0).double()


def stripes(region: Region, keys: Tensor) -> Tensor:
    """L-inf's first points: each column of each channel at one end of what it may be."""
    canvas = Canvas.of(region.centre.shape[1:])
    up = uniform(keys, canvas.channels * canvas.width) > 0.5
    up = up.view(-1, canvas.channels, 1, canvas.width).expand(-1, -1, canvas.height, -1)
    return torch.where(up.reshape(region.centre.shape), region.high, region.low)


def squares(region: Region, best: Tensor, share: float, keys: Tensor) -> Tensor:
    """L-inf's next points: one window of each sample at the ends of what its entries may be."""
    canvas = Canvas.of(best.shape[1:])
    draws = uniform(keys, 2 + canvas.channels)
    windows = Windows.at(draws[:, :2], canvas, canvas.window(share, least=1))
    up = draws[:, 2:, None, None] > 0.5
    shape = (len(best), canvas.channels, canvas.height, canvas.width)
    up, inside = up.expand(shape).reshape(best.shape), windows.inside.expand(shape)
    inside = inside.reshape(best.shape)
    there = torch.where(inside, torch.where(up, region.high, region.low), best)
    # A window that holds these values already would be a query wasted.
    same = (there == best).flatten(1).all(dim=1).view(-1, *[1] * (best.dim() - 1))
    return torch.where(same & inside, torch.where(up, region.low, region.high), there)


def tiles(region: Region, keys: Tensor) -> Tensor:
    """L2's and L1's first points: a grid of pyramids with random signs, as far out as may be."""
    canvas = Canvas.of(region.centre.shape[1:])
    height, width = max(1, canvas.height // TILES), max(1, canvas.width // TILES)
    pattern = pyramids(height, width, region.p).to(keys.device)
    down = torch.arange(canvas.height, device=keys.device)[:, None]
    right = torch.arange(canvas.width, device=keys.device)
    rows, columns = -(-canvas.height // height), -(-canvas.width // width)
    sign = signs(uniform(keys, canvas.channels * rows * columns))
    sign = sign.view(-1, canvas.channels, rows, columns)
    delta = pattern[down % height, right % width] * sign[:, :, down // height, right // width]
    return outmost(region, delta)


def transfers(region: Region, best: Tensor, share: float, keys: Tensor) -> Tensor:
    """L2's and L1's next points: one window takes over what another had of the radius.

    In the first window, and per channel, the old direction plus a pyramid of random sign replaces
    the old values; its norm is what both windows and the unused rest of the radius come to. The
    other window is left empty. In a row of numbers only a random part is taken over, and the other
    window has something to give: there, unlike in images, no neighbours share a size, so each has
    to be found.

    Source:
        Andriushchenko et al. 2020, arXiv:1912.00049, algorithm 3; L1 likewise with sums of
        magnitudes in place of squares.
    """
    canvas, p = Canvas.of(best.shape[1:]), region.p
    size = canvas.window(share, LEAST_SIDE)
    shape = (len(best), canvas.channels, canvas.height, canvas.width)
    delta = (best.double() - region.centre.double()).view(shape)
    draws = uniform(keys, 6 + canvas.channels)[:, :, None, None]
    first = Windows.at(draws[:, :2, 0, 0], canvas, size)
    places = draws[:, 2:4, 0, 0]
    if canvas.is_row():
        places = torch.stack((places[:, 0], moved_place(delta, first.inside, places[:, 1])), dim=1)
    second = Windows.at(places, canvas, size).inside & ~first.inside
    taken = torch.ones_like(draws[:, 4:5])
    if canvas.is_row():
        # Half of the time all of it: entries that should not move are to end at 0.
        taken = (2 * draws[:, 4:5]).clamp(max=1)
    pattern = pyramids(*size, p).to(best.device)
    place = (first.down.clamp(0, size[0] - 1), first.right.clamp(0, size[1] - 1))
    drawn = pattern[place]
    if size[0] == size[1]:
        drawn = torch.where(draws[:, 5:6] < 0.5, drawn, pattern.T[place])
    drawn = torch.where(first.inside, drawn, 0.0)
    drawn = drawn * signs(draws[:, 6:])
    old = torch.where(first.inside, delta, 0.0)
    given = mass(torch.where(second, delta, 0.0), p)
    unused = (region.reach()[:, None, None, None] ** p - mass(delta, p).sum(1, keepdim=True)).clamp(
        min=0
    )
    held = mass(old, p) + taken * given + unused / canvas.channels
    mixed = unit(unit(old, p) + drawn, p)
    mixed = torch.where(mass(mixed, p) > 0, mixed, drawn) * held ** (1 / p)
    left = torch.where(second, delta * (1 - taken) ** (1 / p), delta)
    return outmost(region, torch.where(first.inside, mixed, left))


def moved_place(delta: Tensor, first: Tensor, draw: Tensor) -> Tensor:
    """Where in a row an interval begins at an entry that has moved, each of them equally likely.

    Args:
        delta, first: shape (lanes, 1, 1, width); entries in `first` do not count.
        draw: shape (lanes,), uniform in (0, 1).

    Returns:
        Shape (lanes,), in (0, 1); the draw itself where no entry has moved.
    """
    moved = ((delta != 0) & ~first).flatten(1)
    rank = moved.cumsum(dim=1)
    count = rank[:, -1]
    wanted = (draw * count).long() + 1
    place = (moved & (rank == wanted[:, None])).int().argmax(dim=1)
    return torch.where(count > 0, (place + 0.5) / moved.shape[1], draw)


def mass(delta: Tensor, p: float) -> Tensor:
    """Sum of |delta|^p over each channel's plane; shape (lanes, channels, 1, 1)."""
    size = delta.square() if p == 2 else delta.abs()
    return size.flatten(2).sum(dim=2)[:, :, None, None]


def unit(delta: Tensor, p: float) -> Tensor:
    """Each channel's plane divided by its p-norm; 0 where it is 0."""
    length = mass(delta, p) ** (1 / p)
    return delta / torch.where(length > 0, length, 1.0)


def outmost(region: Region, delta: Tensor) -> Tensor:
    """The inputs moved along `delta` as far as the radius allows, then pulled into the range."""
    length = mass(delta, region.p).sum(dim=1, keepdim=True) ** (1 / region.p)
    reach = region.reach()[:, None, None, None]
    delta = delta * (reach / torch.where(length > 0, length, 1.0))
    point = region.centre.double() + delta.view(region.centre.shape)
    return region.project(point.to(region.centre.dtype))


def pyramids(height: int, width: int, p: float) -> Tensor:
    """Two pyramids side by side, one of each sign, of p-norm 1; a single one where it is 1 x 1.

    Returns:
        Shape (height, width), float64.
    """
    if height > 1:
        half = height // 2
        both = torch.cat((pyramid(half, width), -pyramid(height - half, width)))
    elif width > 1:
        half = width // 2
        both = torch.cat((pyramid(1, half), -pyramid(1, width - half)), dim=1)
    else:
        both = pyramid(1, 1)
    length: Tensor = torch.linalg.vector_norm(both, ord=p)
    return both / length


def pyramid(height: int, width: int) -> Tensor:
    """sum_{k >= r} 1 / (k + 1)^2 at Chebyshev distance r from the middle."""
    down = (torch.arange(height) - height // 2).abs()[:, None]
    right = (torch.arange(width) - width // 2).abs()[None]
    levels = 1 / (torch.arange(max(height, width) // 2 + 1, dtype=torch.float64) + 1).square()
    tail = levels.flip(0).cumsum(dim=0).flip(0)
    return tail[torch.maximum(down, right)]
