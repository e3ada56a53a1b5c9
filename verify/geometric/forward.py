"""Forward: every neuron between two affine functions of the parameters; then one backward pass.

With one to eight parameters, forms carried forward cost a few convolutions a layer, where rows
pulled back for every neuron cost one per neuron. The margin alone is pulled back, by lines that the
forward bounds allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.interval import at_tail, over_interval
from verify.geometric.region import Transformed
from verify.graph.ir import Node
from verify.ops.registry import lookup
from verify.ops.windowed import dense
from verify.problem import Problem
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.linear_form import LinearForm
from verify.values.region import settle
from verify.values.relaxation import Relaxation
from verify.values.rounding import FLOAT32, Rounding, gamma, unit

UPWARD = 1.0 + 2.0**-30
"""Pays for the rounding of sums of up to 2**22 nonnegative terms."""


@dataclass(frozen=True, slots=True, eq=False)
class Forms:
    """lower(t) <= node <= upper(t) for t in [-1, 1]^parameter.

    Attributes:
        lower, upper: shape (1 + parameter, box, *node): the constant, then the slopes.
    """

    lower: Tensor
    upper: Tensor

    def spread(self) -> Bounds:
        """How far the slopes can move either form, shape (box, *node)."""
        return Bounds(*(f[1:].abs().sum(dim=0) * UPWARD for f in (self.lower, self.upper)))

    def bounds(self) -> Bounds:
        """What the forms say of the node alone, rounded outward."""
        spread = self.spread()
        outward = UPWARD - 1.0
        low, high = self.lower[0] - spread.lower, self.upper[0] + spread.upper
        return Bounds(
            low - outward * (self.lower[0].abs() + spread.lower),
            high + outward * (self.upper[0].abs() + spread.upper),
        )

    def magnitude(self) -> Tensor:
        """The largest sum of |entries| of a form, shape (box,)."""
        sums = torch.maximum(self.lower.abs().sum(dim=0), self.upper.abs().sum(dim=0))
        largest: Tensor = sums.flatten(1).amax(dim=1) * UPWARD
        return largest


@dataclass(frozen=True, slots=True)
class Forward:
    """Forward forms intersected with intervals, then backward bounds of the margin.

    Attributes:
        rounding: which executions the bounds hold for; None for plain arithmetic.

    Source:
        Forward mode as in Xu et al. 2020, arXiv:2002.12920, section 3; lines as in CROWN.
    """

    rounding: Rounding | None = FLOAT32

    def __call__(self, problem: Problem, budget: Budget = Budget()) -> Searched:
        """Bound every node, then the spec's rows; the region must be `Transformed`."""
        region = problem.region
        assert isinstance(region, Transformed)
        walk = BackwardPass(problem.graph, region, self.rounding, budget)
        first = walk.graph.input.name
        forms: dict[str, Forms | None] = {
            first: Forms(region.forms.lower.transpose(0, 1), region.forms.upper.transpose(0, 1))
        }
        for name in walk.names():
            walk.budget.check()
            node = walk.graph.node(name)
            walk.visit(name)
            forms[name] = self.step(walk, node, [forms[i] for i in node.inputs])
            here = forms[name]
            if here is not None:
                walk.bounds[name] = walk.bounds[name].intersect(here.bounds())
        tail, form = at_tail(walk, problem)
        margin = over_interval(walk, tail, form)
        here = forms.get(tail)
        if here is not None:
            margin = torch.maximum(margin, over_forms(here, form))
        required = problem.spec.required
        coeff = margin.new_zeros(len(margin), *walk.graph.input.shape)

        def pull(boxes: Tensor, rows: Tensor) -> None:
            few = narrowed(walk, boxes)
            start = few.pulled(tail, taken(form, boxes[:, None], rows))
            better = torch.maximum(margin[boxes[:, None], rows], few.region.minimise(start))
            margin[boxes[:, None], rows] = better
            worst = better.argmin(dim=1)
            flat = dense(start, walk.graph.input.shape).coeff
            coeff[boxes] = flat[torch.arange(len(boxes)), worst]

        # The worst row alone first: where that fails, no other row can save the box.
        some = opened(margin, required).any(dim=1).nonzero().flatten()
        if len(some):
            rows = margin[some].argmin(dim=1, keepdim=True)
            pull(some, rows)
            saved = ~opened(margin[some].gather(1, rows), required)[:, 0]
            rest = some[saved & opened(margin[some], required).any(dim=1)]
            if len(rest):
                left = opened(margin[rest], required)
                # Boxes with fewer open rows are filled up with others of theirs.
                order = left.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
                pull(rest, order[:, : int(left.sum(dim=1).max())])
        return Searched(margin, coeff)

    def step(self, walk: BackwardPass, node: Node, inputs: list[Forms | None]) -> Forms | None:
        """The forms of one node from those of its inputs; None where there is no rule."""
        known = [part for part in inputs if part is not None]
        if len(known) < len(inputs):
            return None
        if lookup(node).relax is None:
            return through_affine(walk, node, known)
        if node.op == "Relu":
            return through_relu(walk, node, known[0])
        if walk.lines[node.name].lower_source is not None:
            return None  # lines that read one entry each of several: intervals do, for now
        return through_lines(walk, node, known[0])


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """Margins of a batch of boxes, and the rows over pixels that they came from.

    Attributes:
        margin: lower bound of each row of the spec, shape (box, row).
        coeff: the worst row at the input, shape (box, *input); zero where forms were enough.
    """

    margin: Tensor
    coeff: Tensor


def over_forms(forms: Forms, form: LinearForm) -> Tensor:
    """The least values of rows over a node's forms, shape (box, row): A+·lower + A-·upper."""
    rows = form.coeff.flatten(2)
    lower, upper = (f.flatten(2).movedim(0, 2) for f in (forms.lower, forms.upper))
    positive = rows.clamp(min=0)
    affine = torch.matmul(positive, lower) + torch.matmul(rows - positive, upper)
    value = affine[:, :, 0] + form.const - affine[:, :, 1:].abs().sum(dim=2)
    size = torch.maximum(forms.lower.abs().sum(dim=0), forms.upper.abs().sum(dim=0))
    mass = torch.matmul(rows.abs(), size.flatten(1)[:, :, None])[:, :, 0]
    return settle(value, form, 2 * mass * UPWARD, rows.shape[2] + 16)


def narrowed(walk: BackwardPass, rows: Tensor) -> BackwardPass:
    """What the pass holds of some of the boxes."""
    few = BackwardPass(walk.graph, walk.region.take(rows), walk.rounding, walk.budget)
    few.lines.update({name: lines_of(lines, rows) for name, lines in walk.lines.items()})
    for table, own in ((few.noise, walk.noise), (few.sizes, walk.sizes)):
        # What does not depend on the box has one entry for all.
        table.update({name: v[rows] if len(v) > 1 else v for name, v in own.items()})
    return few


def lines_of(lines: Relaxation, rows: Tensor) -> Relaxation:
    """The lines of some of the boxes."""

    def some(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[rows]

    return Relaxation(
        lines.lower_slope[rows],
        some(lines.lower_offset),
        lines.upper_slope[rows],
        some(lines.upper_offset),
        some(lines.lower_source),
        some(lines.upper_source),
    )


def taken(form: LinearForm, boxes: Tensor, rows: Tensor) -> LinearForm:
    """Some rows of some boxes of a form; not of one kept as windows."""
    error = None if form.error is None else form.error[boxes, rows]
    return LinearForm(form.coeff[boxes, rows], form.const[boxes, rows], error)


def opened(margin: Tensor, required: float) -> Tensor:
    """Which rows are not proved; NaN and infinity are not."""
    return ~((margin > required) & torch.isfinite(margin))


def through_affine(walk: BackwardPass, node: Node, inputs: list[Forms]) -> Forms:
    """W+·lower + W-·upper, coefficient by coefficient.

    The interval rule of an affine operator is linear in both ends, so it maps coefficients as it
    maps bounds, less the constant that it adds each time.
    """
    op = lookup(node)
    size, boxes = inputs[0].lower.shape[:2]
    ends = [Bounds(part.lower.flatten(0, 1), part.upper.flatten(0, 1)) for part in inputs]
    found = op.interval(node, *ends)
    blank = [torch.zeros_like(part.lower[0, :1]) for part in inputs]
    constant = op.forward(node, *blank)
    lower, upper = found.lower.unflatten(0, (size, boxes)), found.upper.unflatten(0, (size, boxes))
    lower = torch.cat((lower[:1], lower[1:] - constant))
    upper = torch.cat((upper[:1], upper[1:] - constant))
    if not op.rounds or walk.rounding is None:
        return Forms(lower, upper)
    # Ours: each coefficient is two sums of at most node.size... terms, of |W|·|coefficient|; the
    # largest coefficient stands for all of them. Theirs, and the constant: the node's noise.
    largest = torch.stack([part.magnitude() for part in inputs]).amax(dim=0)
    ones = [Bounds(-torch.ones_like(b), torch.ones_like(b)) for b in blank]
    whole = op.interval(node, *ones)
    weights = torch.maximum(whole.upper - constant, constant - whole.lower) * UPWARD
    terms = sum(part.lower[0, 0].numel() for part in inputs) + 32
    steps = 4 * (size + 1) * gamma(terms, unit(lower.dtype))
    own = steps * (weights * largest.view(-1, *[1] * len(node.shape)) + constant.abs())
    slack = own * UPWARD
    noise = walk.noise.get(node.name)
    if noise is not None:
        slack = slack + noise
    lower[0] -= slack
    upper[0] += slack
    return Forms(lower, upper)


def through_lines(walk: BackwardPass, node: Node, z: Forms) -> Forms:
    """The node's own lines, each reading the form that its slope's sign asks for."""
    lines = walk.lines[node.name]
    up, down = lines.upper_slope[:, 0], lines.lower_slope[:, 0]
    upper = torch.where(up >= 0, z.upper, z.lower) * up
    lower = torch.where(down >= 0, z.lower, z.upper) * down
    slack = (lower.abs().sum(dim=0) + upper.abs().sum(dim=0)) * (UPWARD - 1.0)
    for form, offset, sign in ((upper, lines.upper_offset, 1), (lower, lines.lower_offset, -1)):
        if offset is not None:
            form[0] += offset[:, 0]
            slack = slack + offset[:, 0].abs() * (UPWARD - 1.0)
        form[0] += sign * slack
        if node.name in walk.noise:
            form[0] += sign * walk.noise[node.name]
    return Forms(lower, upper)


def through_relu(walk: BackwardPass, node: Node, z: Forms) -> Forms:
    """relu(z) <= relu(upper(t)) <= the chord over upper's own range; below likewise.

    Upper's own range is narrower than the neuron's, so its chord is lower than the neuron's.
    """
    op = lookup(node)
    assert op.relax is not None
    spread, outward = z.spread(), UPWARD - 1.0
    size = [f[0].abs() + s for f, s in ((z.lower, spread.lower), (z.upper, spread.upper))]
    known = walk.bounds[node.inputs[0]]
    over = Bounds(
        z.upper[0] - spread.upper - outward * size[1],
        z.upper[0] + spread.upper + outward * size[1],
    )
    under = Bounds(
        z.lower[0] - spread.lower - outward * size[0],
        z.lower[0] + spread.lower + outward * size[0],
    )
    above, below = op.relax(node, over, None), op.relax(node, under, None)
    assert above.upper_offset is not None
    upper = z.upper * above.upper_slope[:, 0]
    upper[0] += above.upper_offset[:, 0] + outward * size[1]
    lower = z.lower * below.lower_slope[:, 0]
    lower[0] -= outward * size[0]
    # Where the neuron is known better than by its form, a constant does.
    off, on = known.upper <= 0, known.lower >= 0
    upper = torch.where(off, 0.0, upper)
    lower = torch.where(off, 0.0, lower)
    return Forms(torch.where(on, z.lower, lower), torch.where(on, z.upper, upper))
