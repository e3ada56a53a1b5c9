"""Pixels between two affine functions of the parameters, which are scaled to [-1, 1] per box.

One spatial parameter: the line of least area from the values at a grid (the lower hull's value at
the centre of the box, where the area is decided), made sound by a second-order offset: on a segment
where r = line - value has r' in [s-, s+] and ends r0, r1 at distance h,

    r <= (s+·r1 - s-·r0 - s+·s-·h) / (s+ - s-)

which is where the two tangents cross. Several: planes in the two sampled coordinates, exact on the
rectangle that they move in, with the sampling model put in their place.

Source:
    Balunovic et al. 2019 (DeepG), for lines of least area; their offsets are of first order and by
    branch and bound, ours are closed forms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.geometric.photometric import changed, clamped, times
from verify.geometric.pixel_bounds import Patch, Picture, gradients, patch
from verify.geometric.sampling import UPWARD, Cells, Sampling, pixels, sampled
from verify.geometric.transforms import Transform
from verify.values.bounds import Bounds
from verify.values.rounding import UNIT_FLOAT32

SEGMENTS = 4
"""Pieces of a one-parameter box over which offsets are computed; even, so that one ends at 0."""
VALUE_ROUNDING = 16 * UNIT_FLOAT32
"""Relative to the largest pixel in reach: four products of rounded weights, summed in float32."""
OWN_ROUNDING = 2.0**-40
"""Relative to the largest pixel times the size of the image: some hundred operations of float64 on
values, slopes and coordinates; far below VALUE_ROUNDING."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelForms:
    """lower(t) <= pixel <= upper(t) for all t in [-1, 1]^parameter, one entry per box.

    Attributes:
        lower, upper: shape (box, 1 + parameter, *input): the constant, then the slopes.
        bounds: the pixels' range, shape (box, *input), never wider than the forms'.
    """

    lower: Tensor
    upper: Tensor
    bounds: Bounds


def pixel_forms(
    transform: Transform,
    image: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    noise: float = 0.0,
    segments: int = SEGMENTS,
) -> PixelForms:
    """Linear constraints of every pixel over boxes of parameters.

    They hold for the transformed image in real arithmetic and for what float32 or float64
    executions of `affine_grid` and `grid_sample` (either align_corners, theta rounded from exact or
    float64 entries), contrast, brightness and clamp make of it.

    Args:
        transform: what is done.
        image: shape (channel, height, width).
        low, high: ends of the boxes, shape (box, parameter), float64, in the units of the steps.
        noise: pixels may further move by this much each, after everything else.
        segments: see `SEGMENTS`.
    """
    cells = Cells.between(low, high)
    boxes, size = len(low), 1 + len(transform.steps)
    picture = Picture.of(image)
    channels, places = image.shape[0], image.shape[1] * image.shape[2]
    forms = torch.zeros(2, size, channels, boxes, places, dtype=torch.float64)
    spatial = list(transform.spatial)
    if not spatial:
        forms[:, 0] = image.to(torch.float64).flatten(1)[:, None]
        bounds = Bounds(forms[0, 0].clone(), forms[1, 0].clone())
    else:
        numbers = [0, *(i + 1 for i in spatial)]
        if len(spatial) == 1:
            found = along_curve(transform, cells, picture, segments)
        else:
            found = over_rectangle(
                sampled(transform, cells, picture.height, picture.width), picture
            )
        forms[0, numbers], forms[1, numbers] = found.lower, found.upper
        bounds = executed(found.bounds, forms, image)
    for i in transform.photometric:
        bounds = changed(transform.steps[i].kind, i, cells, forms, bounds)
    if transform.photometric:
        bounds = clamped(forms, bounds)
    forms[0, 0] -= noise * UPWARD
    forms[1, 0] += noise * UPWARD
    bounds = Bounds(bounds.lower - noise * UPWARD, bounds.upper + noise * UPWARD)
    shape = (boxes, size, *image.shape)
    lower, upper = (form.permute(2, 0, 1, 3).reshape(shape) for form in forms)
    whole = bounds.lower.transpose(0, 1).reshape(boxes, *image.shape)
    return PixelForms(
        lower, upper, Bounds(whole, bounds.upper.transpose(0, 1).reshape(boxes, *image.shape))
    )


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Forms of sampled values: constant and spatial slopes, (1 + spatial, channel, box, pixel)."""

    lower: Tensor
    upper: Tensor
    bounds: Bounds


def executed(bounds: Bounds, forms: Tensor, image: Tensor) -> Bounds:
    """Widen forms and bounds by the rounding of sampling, theirs and ours, in place."""
    largest = float(image.abs().max())
    if float(image.min()) >= 0:
        # Weights are nonnegative: the sum of magnitudes is the value itself.
        near = bounds.upper.clamp(min=0)
    else:
        near = torch.full_like(bounds.upper, largest)
    slack = near * VALUE_ROUNDING + largest * max(image.shape[1:]) * OWN_ROUNDING + 2.0**-100
    forms[0, 0] -= slack
    forms[1, 0] += slack
    return Bounds(bounds.lower - slack, bounds.upper + slack)


def along_curve(transform: Transform, cells: Cells, picture: Picture, segments: int) -> Found:
    """One spatial parameter: values at the ends of segments, derivatives enclosed within them."""
    (axis,) = transform.spatial
    boxes = len(cells.centre)
    pieces = sampled(transform, cells.pieces(axis, segments), picture.height, picture.width)
    grads = gradients(picture, pieces.middle, pieces.reach)
    slope, bend = pieces.slope[:, 0] * segments, pieces.bend[:, 0] * segments
    # dv/dt = dv/dx·dx/dt + dv/dy·dy/dt, both factors enclosed.
    steep = Bounds(slope - bend, slope + bend)
    first = times(grads.across, Bounds(steep.lower[:, 0], steep.upper[:, 0]))
    second = times(grads.down, Bounds(steep.lower[:, 1], steep.upper[:, 1]))
    rate = Bounds(first.lower + second.lower, first.upper + second.upper)
    # The executed point lies `rounding` away from the curve: the value moves by that times |grad|.
    rounding = (pieces.error - pieces.bend.sum(dim=1) / 2).clamp(min=0) * UPWARD
    off = grads.across.magnitude() * rounding[:, 0] + grads.down.magnitude() * rounding[:, 1]

    def split(values: Tensor) -> Tensor:
        parts: Tensor = values.unflatten(1, (boxes, segments))
        return parts

    times_ = torch.linspace(-1, 1, segments + 1, dtype=torch.float64)
    parameters = cells.centre[:, None].repeat(1, segments + 1, 1)
    parameters[:, :, axis] += cells.radius[:, None, axis] * times_
    matrices = transform.matrices(parameters.flatten(0, 1))
    points = (matrices @ pixels(picture.height, picture.width))[:, :2]
    values = picture.at(*picture.centred(points)).unflatten(1, (boxes, segments + 1))
    low, high = split(rate.lower), split(rate.upper)
    shift = split(off).amax(dim=2) * UPWARD
    under = below(values, low, high, times_)
    over = below(-values, -high, -low, times_)
    flat = torch.zeros_like(under[1])
    top = excess(values, flat, low, high, times_)
    bottom = -excess(-values, flat, -high, -low, times_)
    return Found(
        torch.stack((under[0] - shift, under[1])),
        torch.stack((-over[0] + shift, -over[1])),
        Bounds(bottom - shift, top + shift),
    )


def below(values: Tensor, low: Tensor, high: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """A line below a curve over [-1, 1]: its value at 0 and its slope, each (channel, box, pixel).

    Args:
        values: at the times `at`, shape (channel, box, time, pixel).
        low, high: enclosure of the derivative on the segments between, one entry fewer.
        at: ascending from -1 to 1, symmetric, with 0 in the middle.
    """
    half = len(at) // 2
    before, after = values[:, :, :half], values[:, :, half + 1 :]
    left, right = at[:half, None], at[half + 1 :, None]
    # The lower hull at 0: the least chord over it.
    chords = (before[:, :, :, None] * right[None] - after[:, :, None] * left[:, None]) / (
        right[None] - left[:, None]
    )
    middle: Tensor = torch.minimum(chords.flatten(2, 3).amin(dim=2), values[:, :, half])
    rising = ((after - middle[:, :, None]) / right).amin(dim=2)
    falling = ((middle[:, :, None] - before) / -left).amax(dim=2)
    slope = (rising + falling) / 2
    return middle - excess_over(values, middle, slope, low, high, at), slope


def excess_over(
    values: Tensor, middle: Tensor, slope: Tensor, low: Tensor, high: Tensor, at: Tensor
) -> Tensor:
    """The most by which middle + slope·t exceeds the curve anywhere."""
    moved = values - middle[:, :, None]
    return excess(-moved, slope, -high, -low, at)


def excess(values: Tensor, slope: Tensor, low: Tensor, high: Tensor, at: Tensor) -> Tensor:
    """A bound of the largest value + slope·t over [-1, 1], shape (channel, box, pixel).

    `values` at the times, `low` and `high` enclose its derivative on the segments between.
    """
    residual = values + slope[:, :, None] * at[:, None]
    start, end = residual[:, :, :-1], residual[:, :, 1:]
    down, up = low + slope[:, :, None], high + slope[:, :, None]
    length = (at[1:] - at[:-1])[:, None]
    inside = (down < 0) & (up > 0)
    width = torch.where(inside, up - down, 1.0)
    crossing = (up * end - down * start - up * down * length) / width
    most = torch.maximum(start, end)
    # Rounding may put the crossing below an end, which it never truly is.
    most = torch.where(inside, torch.maximum(crossing, most), most)
    largest: Tensor = most.amax(dim=2)
    return largest


def over_rectangle(model: Sampling, picture: Picture) -> Found:
    """Several spatial parameters: planes in column and row, then the sampling model for these."""
    area = patch(picture, model.middle, model.reach)
    found = area.range()
    tried = slopes(area, model, picture)
    lower = [plane(area, model, picture, across, down) for across, down in tried]
    negative = Patch(area.columns, area.rows, [[-v for v in line] for line in area.values])
    upper = [plane(negative, model, picture, -across, -down) for across, down in tried]
    return Found(best(lower), -best(upper), found)


def slopes(area: Patch, model: Sampling, picture: Picture) -> list[tuple[Tensor, Tensor]]:
    """Candidate slopes along column and row: the mean secants, the gradient at the middle, none."""
    wide, high = area.columns[-1] - area.columns[0], area.rows[-1] - area.rows[0]
    first, last = area.values[0], area.values[-1]
    east = (first[-1] - first[0] + last[-1] - last[0]) / 2
    south = (last[0] - first[0] + last[-1] - first[-1]) / 2
    secant = (
        torch.where(wide > 0, east / torch.where(wide > 0, wide, 1.0), 0.0),
        torch.where(high > 0, south / torch.where(high > 0, high, 1.0), 0.0),
    )
    here = gradients(picture, model.middle, torch.zeros_like(model.middle))
    zero = torch.zeros_like(secant[0])
    return [secant, (here.across.lower, here.down.lower), (zero, zero)]


def plane(area: Patch, model: Sampling, picture: Picture, across: Tensor, down: Tensor) -> Tensor:
    """The highest plane of those slopes below all corners, as a form in the parameters.

    Exact at corners, and so on the rectangle; the sampling error is charged by the slope.
    """
    column, row = picture.centred(model.middle)
    least = torch.stack(
        [
            value - across * (area.columns[j] - column) - down * (area.rows[i] - row)
            for i, line in enumerate(area.values)
            for j, value in enumerate(line)
        ]
    ).amin(dim=0)
    error = across.abs() * model.error[:, 0] + down.abs() * model.error[:, 1]
    tilts = [
        across * model.slope[:, k, 0] + down * model.slope[:, k, 1]
        for k in range(model.slope.shape[1])
    ]
    return torch.stack((least - error * UPWARD, *tilts))


def best(forms: list[Tensor]) -> Tensor:
    """Per pixel, the form that is highest at the centre: the one of least area."""
    chosen = forms[0]
    for form in forms[1:]:
        chosen = torch.where(form[0] > chosen[0], form, chosen)
    return chosen
