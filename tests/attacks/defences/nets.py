"""Small modules with every layer that has bounds, in float64, with weights worth bounding."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attacks.defences import Normalise, Residual

SHAPE = (1, 6, 6)


class Functional(nn.Module):
    """Calls functions and methods in its forward instead of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(36, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x.flatten(1)))
        return self.last(hidden * 0.5 + torch.tanh(hidden))


def dense(*activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), *activation, nn.Linear(12, 4))


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "affine": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 7), nn.Linear(7, 4)),
    "relu": lambda: dense(nn.ReLU(), nn.Linear(12, 12), nn.ReLU()),
    "no-bias": lambda: dense(nn.ReLU(), nn.Linear(12, 12, bias=False), nn.LeakyReLU(0.1)),
    "s-shaped": lambda: dense(nn.Sigmoid(), nn.Linear(12, 12), nn.Tanh()),
    "batch-norm": lambda: dense(nn.BatchNorm1d(12), nn.ReLU()),
    "conv": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 2, dilation=2, groups=2, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 4),
    ),
    "residual": lambda: nn.Sequential(
        Normalise(torch.full((1, 1, 1), 0.4), torch.full((1, 1, 1), 0.3)),
        Residual(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU())),
        nn.Flatten(),
        nn.Linear(36, 4),
    ),
    "functional": Functional,
    "not-last-linear": lambda: nn.Sequential(dense(nn.ReLU()), nn.Tanh()),
}


def made(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The net of that name, in evaluation mode, its statistics off their defaults."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = BUILDERS[name]()
        with torch.no_grad():
            for key, value in net.state_dict().items():
                if "running_mean" in key:
                    value.copy_(torch.rand_like(value) - 0.5)
                elif "running" in key or ("weight" in key and value.dim() == 1):
                    value.copy_(torch.rand_like(value) + 0.5)
                elif "weight" in key:
                    value.mul_(2)
    return net.to(dtype).eval()


def inputs(count: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand((count, *SHAPE), generator=generator, dtype=torch.float64).to(dtype)
