"""The linear pieces of nets: watched, and held fast."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from attacks.pieces import trace

GENERATOR = torch.Generator().manual_seed(0)
INNER = torch.randn(7, 4, dtype=torch.float64, generator=GENERATOR)
OUTER = torch.randn(3, 7, dtype=torch.float64, generator=GENERATOR)
X = torch.randn(5, 4, dtype=torch.float64, generator=GENERATOR)

KINKS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.relu": torch.relu,
    "Tensor.relu": lambda z: z.relu(),
    "functional.relu": nn.functional.relu,
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": lambda z: nn.ReLU(inplace=True)(z.clone()),
    "clamp": lambda z: z.clamp(min=0),
    "clamp_min": lambda z: torch.clamp_min(z, 0.0),
    "nn.LeakyReLU": nn.LeakyReLU(0.1),
    "abs": torch.abs,
}
EACH = pytest.mark.parametrize("kink", KINKS.values(), ids=KINKS)


def net(kink: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: kink(x @ INNER.T) @ OUTER.T


@EACH
def test_kinks_are_what_enters_them(kink: Callable[[Tensor], Tensor]) -> None:
    """And the answer is the model's own."""
    seen = trace(net(kink), X)
    assert torch.equal(seen.kinks, X @ INNER.T)
    assert torch.equal(seen.logits, net(kink)(X))


@EACH
def test_a_pattern_held_is_affine_and_agrees_on_its_piece(kink: Callable[[Tensor], Tensor]) -> None:
    """Anywhere: f(a) + f(b) = 2 f((a + b) / 2), though the model itself differs there."""
    model = net(kink)
    active = trace(model, X).kinks > 0
    assert torch.allclose(trace(model, X, active).logits, model(X))
    a, b = X + 3.0, X - 5.0
    ends = [trace(model, points, active).logits for points in (a, b, (a + b) / 2)]
    assert torch.allclose(ends[0] + ends[1], 2 * ends[2])
    assert not torch.allclose(model(a) + model(b), 2 * model((a + b) / 2))


def test_gradients_of_a_pattern_are_constant() -> None:
    """Those at another point are those of the piece."""
    active = trace(net(torch.relu), X).kinks > 0
    slopes = []
    for points in (X, X + 10.0):
        leaf = points.clone().requires_grad_()
        (slope,) = torch.autograd.grad(trace(net(torch.relu), leaf, active).logits.sum(), leaf)
        slopes.append(slope)
    assert torch.allclose(slopes[0], slopes[1])


def test_what_has_no_kinks_in_torch_is_left_as_it_is() -> None:
    """A smooth net; a model outside torch; functions that only look like a ReLU."""
    for model in (
        lambda x: (x @ INNER.T).tanh() @ OUTER.T,
        lambda x: torch.from_numpy(x.detach().numpy().clip(min=0) @ INNER.numpy().T),
        lambda x: x.clamp(min=0.5) @ INNER.T,
        lambda x: x.clamp(min=0, max=1) @ INNER.T,
    ):
        seen = trace(model, X)
        assert seen.kinks.shape == (5, 0)
        assert torch.equal(seen.logits, model(X))
