"""Transformed: the images of one image under boxes of parameters, as a region for every bounder.

A form over pixels is minimised by putting the pixels' own forms in their place: A+·lower + A-·upper
is affine in the one to eight parameters, whose box is all that is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from verify.geometric.linear_constraints import PixelForms
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.region import Box, flat_rows, settle
from verify.values.rounding import SPARE


@dataclass(frozen=True, slots=True, eq=False)
class Transformed:
    """All images between two affine functions of parameters t in [-1, 1].

    Attributes:
        forms: of the pixels, one entry per batch row.
    """

    forms: PixelForms

    @property
    def is_box(self) -> bool:
        """Pixels move together."""
        return False

    def bounds(self) -> Bounds:
        """The pixels' range."""
        return self.forms.bounds

    def substituted(self, flat: Tensor) -> Tensor:
        """A+·lower + A-·upper, shape (batch, row, 1 + parameter)."""
        lower, upper = self.forms.lower.flatten(2), self.forms.upper.flatten(2)
        positive = flat.clamp(min=0)
        first = torch.matmul(positive, lower.transpose(1, 2))
        return first + torch.matmul(flat - positive, upper.transpose(1, 2))

    def minimise(self, form: LinearForm) -> Tensor:
        """The better of two bounds: over the parameters, and over the pixels' own box."""
        if form.window is not None:
            laid = form.window.scatter(form.coeff, tuple(self.forms.bounds.lower.shape[1:]))
            return self.minimise(LinearForm(laid, form.const, form.error))
        bounds = self.forms.bounds
        flat = flat_rows(form, tuple(bounds.lower.shape[1:]))
        affine = self.substituted(flat)
        value = affine[:, :, 0] + form.const - affine[:, :, 1:].abs().sum(dim=2)
        if form.error is not None:
            size = torch.maximum(
                *(f.abs().sum(dim=1) for f in (self.forms.lower, self.forms.upper))
            )
            mass = torch.matmul(flat.abs(), size.flatten(1)[:, :, None])[:, :, 0]
            # Twice: A is taken apart into A+ and A-, and the parameters are summed last.
            value = settle(value, form, 2 * mass * SPARE[value.dtype], flat.shape[2] + 16)
        return torch.maximum(value, Box(bounds.lower, bounds.upper).minimise(form))

    def minimiser(self, coeff: Tensor) -> Tensor:
        """The pixels at the parameters where each row's substituted form is least."""
        affine = self.substituted(coeff.flatten(2))
        t = -affine[:, :, 1:].sign()
        ones = torch.cat((torch.ones_like(t[:, :, :1]), t), dim=2)
        low = torch.matmul(ones, self.forms.lower.flatten(2))
        high = torch.matmul(ones, self.forms.upper.flatten(2))
        return torch.where(coeff > 0, low.view_as(coeff), high.view_as(coeff))

    def take(self, rows: Tensor) -> Transformed:
        """Some of the batch."""
        forms = self.forms
        return Transformed(
            PixelForms(forms.lower[rows], forms.upper[rows], forms.bounds.take(rows))
        )

    def to(self, dtype: torch.dtype) -> Transformed:
        """The same region in another dtype: for searches, not for proofs."""
        forms = self.forms
        return Transformed(
            PixelForms(forms.lower.to(dtype), forms.upper.to(dtype), forms.bounds.to(dtype))
        )


def effect(forms: PixelForms, rows: Tensor) -> Tensor:
    """How a row over the pixels moves with each parameter, shape (box, parameter).

    The size is the sum over pixels without cancellation; the sign is that of the whole.

    Args:
        forms: of the pixels.
        rows: coefficients, shape (box, pixel).
    """
    slopes = ((forms.lower + forms.upper) / 2)[:, 1:].flatten(2)
    moved = slopes * rows[:, None]
    sign = torch.where(moved.sum(dim=2) >= 0, 1.0, -1.0)
    return moved.abs().sum(dim=2) * sign
