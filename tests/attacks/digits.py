"""A small net for scikit-learn's digits, trained in a second: what attacks are measured on."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """A trained net and test inputs that it gets right.

    Attributes:
        net: from (batch, 64) to 10 logits, float32.
        x: shape (batch, 64), in [0, 1].
        labels: shape (batch,).
    """

    net: nn.Module
    x: Tensor
    labels: Tensor


@cache
def digits() -> Digits:
    """Full-batch Adam from fixed weights; the caller's generators are left alone."""
    images, numbers = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    x, labels = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(numbers)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 10)
        )
    descent = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(100):
        descent.zero_grad()
        nn.functional.cross_entropy(net(x[:1200]), labels[:1200]).backward()
        descent.step()
    net.requires_grad_(False)
    right = (net(x[1200:1360]).argmax(dim=1) == labels[1200:1360]).nonzero().flatten() + 1200
    return Digits(net, x[right], labels[right])
