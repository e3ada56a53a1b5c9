"""Cuts: what closed domains say of the others, as constraints with multipliers of their own.

A domain that is proved shows that no execution which meets its clause has all of its splits' signs.
With v = 1 where z >= 0 and 0 where z <= 0 (either at 0), P the neurons that were split upwards and
N those that were split downwards, every execution that meets the clause keeps

    sum_P v - sum_N v <= |P| - 1,

so for every multiplier mu >= 0 the rows' value is at least that of  rows + mu (sum_P v - sum_N v -
|P| + 1).  The fewer splits the proof needs, the more of the tree the cut speaks of.

Under a relu with coefficient A and coefficient q of v, what is bounded from below is

    F(z) = A relu(z) + q v(z),  with F(l) = 0, F(u) = A u + q, and at 0 the smaller of 0 and q.

It is linear on both sides of 0, so a line below these three points is below F: the chord, or those
about the middle point where that lies below the chord, as for the relu alone.

Source:
    Zhang et al. 2022 (GCP-CROWN), arXiv:2208.05740, for cuts in the dual; Zhou et al. 2024
    (BICCOS), arXiv:2501.00200, for cuts from closed domains. The closed form of both lines is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.graph.ir import Node
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.rounding import gamma, unit


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """Constraints on the signs of a frame's columns.

    Attributes:
        sign: +1 where z >= 0 is one of the signs that do not occur together, -1 where z <= 0 is, 0
            elsewhere; float32, (cut, columns).
        clause: which clause's executions each is about, int64, (cut,).
        margin: by how much its domain was proved, float64, (cut,).
    """

    sign: Tensor
    clause: Tensor
    margin: Tensor

    def __len__(self) -> int:
        return len(self.clause)

    @property
    def literals(self) -> Tensor:
        """How many signs each has, (cut,)."""
        return self.sign.abs().sum(dim=1)

    @property
    def room(self) -> Tensor:
        """1 - |P| of each, (cut,)."""
        return 1 - self.sign.clamp(min=0).sum(dim=1)

    def about(self, clause: Tensor) -> Tensor:
        """1 where a cut is about a domain's clause, else 0; float32, (batch, cut)."""
        return (clause[:, None] == self.clause[None]).to(self.sign.dtype)

    def widened(self, multipliers: Tensor) -> Tensor:
        """Multipliers with zeros for the cuts that came later, (batch, cut)."""
        missing = len(self) - multipliers.shape[1]
        return torch.nn.functional.pad(multipliers, (0, missing)) if missing > 0 else multipliers

    def kept_by(self, signs: Tensor, clause: Tensor) -> Tensor:
        """Which domains have all the signs of some cut, so that nothing in them meets their clause.

        Args:
            signs: of the columns, 0 where open, (batch, columns).
            clause: of the domains.
        """
        agree = (signs @ self.sign.T + signs.abs() @ self.sign.abs().T) / 2
        return ((agree >= self.literals[None]) & (self.about(clause) > 0)).any(dim=1)

    def joined(self, others: Cuts) -> Cuts:
        """Both; the order of these stays."""
        return Cuts(
            torch.cat((self.sign, others.sign)),
            torch.cat((self.clause, others.clause)),
            torch.cat((self.margin, others.margin)),
        )

    def take(self, rows: Tensor) -> Cuts:
        """Some of them."""
        return Cuts(self.sign[rows], self.clause[rows], self.margin[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Stepped:
    """A relu whose sign has a coefficient too; float32, for the search; (batch, columns) each.

    Attributes:
        bent: where the line may turn about 0 (alpha chooses it); elsewhere it is the chord.
        nu: coefficient of z.
        offset: of the line.
        lift: d nu / d alpha.
        kept: d bound / d q, less what z has in it; and per unit of z.
        per_z: see `kept`.
    """

    bent: Tensor
    nu: Tensor
    offset: Tensor
    lift: Tensor
    kept: Tensor
    per_z: Tensor


def stepped(coeff: Tensor, step: Tensor, alpha: Tensor, lower: Tensor, upper: Tensor) -> Stepped:
    """The best line below F on open neurons.

    Args:
        coeff, step: A and q.
        alpha: in [0, 1], from the flattest to the steepest line through F(0) where it is lowest.
        lower, upper: bounds of z, lower < 0 < upper.
    """
    left, right = -lower, upper
    start = step.clamp(max=0)
    end = coeff * right + step
    bent = start * (left + right) <= end * left
    low, high = start / left, (end - start) / right
    chord = end / (left + right)
    nu = torch.where(bent, torch.lerp(low, high, alpha), chord)
    falling = (step < 0).to(step.dtype)
    share = 1 / (left + right)
    per_z = torch.where(bent, falling * (1 - alpha) / left + (1 - falling) * alpha / right, share)
    return Stepped(
        bent,
        nu,
        torch.where(bent, start, chord * left),
        torch.where(bent, high - low, 0.0),
        torch.where(bent, falling, left * share),
        per_z,
    )


def through_step(
    form: LinearForm, step: Tensor, alpha: Tensor, bounds: Bounds, node: Node
) -> LinearForm:
    """A row over relu(z) as a row over z, with a coefficient of the sign of z; rigorous in float64.

    Whatever number stands before z, the line is as low as the least of the three points asks. Where
    the sign is known, v is: at z = 0, where a cut that counts upwards reads 1 and one that counts
    downwards reads 0, their sum is at least what is taken here.

    Args:
        form: over the relu's output, (batch, 1, *node), with an error.
        step: q, (batch, *node).
        alpha: slopes, (batch, *node).
        bounds: of z under each domain's splits, (batch, *node).
        node: the relu.
    """
    coeff, lower, upper = form.coeff[:, 0], bounds.lower, bounds.upper
    positive, negative = lower >= 0, upper <= 0
    open_ = ~(positive | negative)
    safe_lower = torch.where(open_, lower, -1.0)
    safe_upper = torch.where(open_, upper, 1.0)
    wanted = stepped(coeff, step, alpha, safe_lower, safe_upper).nu
    nu = torch.where(open_, wanted, torch.where(positive, coeff, 0.0))
    least = torch.minimum(-nu * lower, coeff * upper + step - nu * upper)
    least = torch.minimum(least, step.clamp(max=0))
    offset = torch.where(open_, least, torch.where(positive, step, 0.0))
    size = (coeff.abs() + nu.abs()) * torch.maximum(lower.abs(), upper.abs()) + step.abs()
    charge = gamma(node.size + 8, unit(coeff.dtype)) * size.flatten(1).sum(dim=1)[:, None]
    error = charge if form.error is None else form.error + charge
    return LinearForm(nu[:, None], form.const + offset.flatten(1).sum(dim=1)[:, None], error)
