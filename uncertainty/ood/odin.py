"""ODIN: temperature, and a small step of the input towards more confidence.

Source:
    Liang, Li, Srikant 2018, arXiv:1706.02690.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uncertainty.errors import UncertaintyInputError


def odin(
    model: Callable[[Tensor], Tensor], x: Tensor, *, eps: float = 0.0014, temperature: float = 1000
) -> NDArray[np.float64]:
    """1 - the largest tempered probability after the step; higher is more out of distribution.

    x' = x - eps * sign(gradient of -log max softmax(z / T)); the inputs are not clipped.

    Args:
        model: differentiable, to logits, shape (N, K); a module should be in eval mode.
        x: shape (N, *input).
        eps: length of the step in input units.
        temperature: T.

    Raises:
        UncertaintyInputError: if eps is negative or the temperature not positive.
    """
    if eps < 0 or not temperature > 0:
        raise UncertaintyInputError(
            f"eps is {eps} and temperature {temperature}; expected >= 0, > 0."
        )
    with torch.enable_grad():
        start = x.detach().clone().requires_grad_(True)
        logits = model(start) / temperature
        loss = (torch.logsumexp(logits, dim=1) - logits.max(dim=1).values).sum()
        (slope,) = torch.autograd.grad(loss, start)
    with torch.no_grad():
        logits = model(x - eps * slope.sign()).double() / temperature
        # At T = 1000 all probabilities are about 1/K: float64, and no 1 - p of a rounded p.
        log_largest = logits.max(dim=1).values - torch.logsumexp(logits, dim=1)
        found: NDArray[np.float64] = (-torch.expm1(log_largest)).cpu().numpy()
    return found
