"""read_module: smooth functions, products, attention; against the module's own outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from verify.readers.pytorch import read_module, with_tail
from verify.traverse import run

ROUNDING = 1e-4  # float32 outputs of size ~1 to ~10

FORWARDS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "log": lambda x: torch.log(x.abs() + 1),
    "sqrt": lambda x: torch.sqrt(x.abs() + 1),
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 1),
    "sin and cos": lambda x: x.sin() + x.cos(),
    "erf": torch.erf,
    "gelu": functional.gelu,
    "gelu by tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "steps": lambda x: x.sign() + x.floor() + x.ceil(),
    "square": lambda x: x * x + x.square() + x**3,
    "product": lambda x: x * x.sum(1, keepdim=True),
    "quotient": lambda x: x / (1 + x.abs()),
    "constant by x": lambda x: 2 / (1 + x.abs()),
    "attention": lambda x: (x.view(-1, 2, 3) @ x.view(-1, 3, 2)).softmax(2) @ x.view(-1, 2, 3),
    "bmm": lambda x: torch.bmm(x.view(-1, 2, 3), x.view(-1, 3, 2)),
    "softmax over another axis": lambda x: x.view(-1, 2, 3).softmax(1),
}


class Forward(nn.Module):
    """A module whose forward is a function of the input."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("name", FORWARDS)
def test_graph_computes_what_the_module_computes(name: str) -> None:
    """Random inputs give equal outputs, up to float32."""
    module = Forward(FORWARDS[name])
    seen = read_module(module, (6,))
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    found = with_tail(run(seen.graph, x), seen.graph.tail).flatten(1)
    expected = module(x).to(torch.float64).flatten(1)
    torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=ROUNDING)
