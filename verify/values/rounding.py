"""Rounding: how much floating point may have moved a number, with a bound for every step.

Two machines round: ours, which computes the bounds, and the one that executes the ONNX file in
float32 (any summation order, fused multiply-add or not, denormals flushed or not). Both errors of
an affine step z = W·x + b are at most gamma_k times v = |W|·|x| + |b|, and v does not depend on the
row that is pulled back. So each node gets one vector `noise`, and a row A pays |A|·noise there.

Source:
    Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1; Jeannerod and Rump
    2013 (k·u in place of gamma_k). The collapse to one vector per node is proved in
    docs/guarantees.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

UNIT_FLOAT32 = 2.0**-24
UNIT_FLOAT64 = 2.0**-53
SMALLEST_FLOAT32 = 2.0**-126
"""Smallest normal float32: what flushing denormals to zero can lose per operation."""
LARGEST_FLOAT32 = 2.0**127
"""Half of what float32 holds, which leaves room for rounding."""
FOLDED_STRETCH = 2.0**40
"""How many times larger or smaller a value may have been before a scale that was folded away. The
limits of float32 are moved inward by as much, since a folded value no longer shows what it was."""
SMALLEST_FLOAT64 = 2.0**-1022
SPARE = {torch.float32: 1.0 + 2.0**-6, torch.float64: 1.0 + 2.0**-30}
"""Widening of accumulated error terms, per dtype: they are sums of nonnegative terms, so their own
rounding is relative; this pays for sums of up to 2**17 (float32) and 2**22 (float64) terms."""


def single_is_single() -> bool:
    """Whether torch computes float32 products in float32: nobody allowed bfloat16 or TF32.

    Autocast is of one thread, and leaves float64 alone.
    """
    backends: Any = torch.backends  # typed by hand, without these
    mkldnn = backends.mkldnn
    allowed = (backends.fp32_precision, mkldnn.fp32_precision)
    parts = (mkldnn.conv.fp32_precision, mkldnn.matmul.fp32_precision)
    modes = (os.environ.get(f"{name}_DEFAULT_FPMATH_MODE", "") for name in ("ONEDNN", "DNNL"))
    return (
        torch.get_float32_matmul_precision() == "highest"
        and not torch.is_autocast_enabled("cpu")
        and all(word in ("none", "ieee") for word in (*allowed, *parts))
        and all(mode.upper() in ("", "STRICT") for mode in modes)
    )


def unit(dtype: torch.dtype) -> float:
    """Unit roundoff of a dtype: the largest relative error of one rounded operation."""
    return UNIT_FLOAT32 if dtype == torch.float32 else UNIT_FLOAT64


def gamma(steps: int, roundoff: float) -> float:
    """gamma_k = k·u / (1 - k·u), rounded up; infinite where k·u >= 1/2, so that nothing is proved.

    Args:
        steps: k, how many rounding factors a term can carry.
        roundoff: u, the unit roundoff.
    """
    product = steps * roundoff
    return float("inf") if product >= 0.5 else product / (1.0 - product) * (1.0 + 2.0**-50)


@dataclass(frozen=True, slots=True)
class Rounding:
    """Which executions a bound has to hold for.

    Attributes:
        execution: unit roundoff of the deployed arithmetic; 0 for the real-valued network.
        smallest: what flushing denormals may lose of one number, if it was scaled up afterwards
            (0 for the real-valued network).
        kernels: whether deployed activation kernels may deviate from the true function.
        largest: what a sum may reach, whole or in part, before it may overflow and nothing is known
            of it any more, if it was scaled down afterwards.
        partial: charge a sum by what its parts can reach and by the terms that are not 0, in place
            of the sizes of all terms: dearer, and tighter (docs/guarantees.md).
    """

    execution: float = UNIT_FLOAT32
    smallest: float = SMALLEST_FLOAT32 * FOLDED_STRETCH
    kernels: bool = True
    largest: float = LARGEST_FLOAT32 / FOLDED_STRETCH
    partial: bool = False


FLOAT32 = Rounding()
"""Every IEEE float32 execution of the file: the meaning of VERIFIED."""

PARTIAL_SUMS = Rounding(partial=True)
"""The same executions, charged more closely: for margins near their rounding."""

REAL = Rounding(execution=0.0, smallest=0.0, kernels=False, largest=float("inf"))
"""The real-valued network only: a proof in exact arithmetic, not of a deployment."""
