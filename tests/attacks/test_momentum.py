"""MI-FGSM and NI-FGSM against their papers' recursions; DI's and TI's views of images."""

import math

import pytest
import torch
from torch import Tensor

from attacks import MIFGSM, AttackInputError, Ball
from attacks.momentum import normalised
from attacks.randomness import derive_keys
from attacks.views import blur, shrunk

X = torch.rand(4, 3, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
INNER = torch.randn(126, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
OUTER = torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def net(x: Tensor) -> Tensor:
    return (x.flatten(1) @ INNER / 5).tanh() @ OUTER


LABELS = net(X).argmax(dim=1)


def reference(mu: float, steps: int, eps: float, *, nesterov: bool) -> list[Tensor]:
    """The papers' recursion, with torch's cross-entropy; every point visited.

    g <- mu g + grad / |grad|_1,  x <- clip(x + eps / steps * sign(g)),
    the gradient taken at x, or for NI at x + eps / steps * mu * g projected.
    """
    x, gathered, points = X.clone(), torch.zeros_like(X), []
    for step in range(steps):
        at = x
        if nesterov and step:
            at = (x + eps / steps * (mu * gathered).sign()).clamp(X - eps, X + eps)
        leaf = at.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(net(leaf), LABELS, reduction="sum")
        (grad,) = torch.autograd.grad(loss, leaf)
        gathered = mu * gathered + grad / grad.abs().sum(dim=(1, 2, 3), keepdim=True)
        x = (x + eps / steps * gathered.sign()).clamp(X - eps, X + eps)
        points.append(x)
    return points


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
def test_the_path_is_the_papers(mu: float, nesterov: bool) -> None:
    """Trap b13: gradients are accumulated, normalised by L1, and the sign is taken of their sum.

    Had signs been accumulated, the path would leave the reference, as the last line shows.
    """
    asked: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        asked.append(x.detach())
        return net(x)

    attack = MIFGSM(steps=6, decay=mu, nesterov=nesterov, early_stop=False)
    attack(watched, X, LABELS, Ball(0.02))
    expected = reference(mu, 6, 0.02, nesterov=nesterov)
    assert torch.allclose(asked[-1], expected[-1], atol=1e-12)
    if mu == 1.0 and not nesterov:
        signs = [torch.sign(b - a) for a, b in zip([X, *expected], expected, strict=False)]
        assert not torch.equal(torch.stack(signs).sum(0).sign(), signs[-1])


def test_gradients_of_any_scale_are_normalised() -> None:
    """Tiny and huge ones sum to 1 in magnitude; those that are 0 or NaN stay 0."""
    for scale in (1e-30, 1.0, 1e37):
        slope = torch.tensor([[1.0, -3.0]]) * scale
        assert normalised(slope)[0].tolist() == pytest.approx([0.25, -0.75])
    assert normalised(torch.tensor([[0.0, 0.0]])).tolist() == [[0.0, 0.0]]
    assert normalised(torch.tensor([[math.nan, 2.0]])).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(("options", "extra"), [({}, 0), ({"nesterov": True}, 5)])
def test_the_budget_is_what_the_settings_say(options: dict[str, bool], extra: int) -> None:
    """Trap b4: input, one query a step, the end; one more a step where gradients are elsewhere."""
    attack = MIFGSM(steps=5, early_stop=False, **options)
    result = attack(net, X, LABELS, Ball(0.02))
    assert set(result.forward.tolist()) == {1 + 5 + extra + 1}
    assert set(result.backward.tolist()) == {5}


def test_views_and_blur_need_images() -> None:
    """A clear line for rows of numbers."""
    for options in ({"diversity": 0.5}, {"blur_size": 3}):
        with pytest.raises(AttackInputError, match="channels, height, width"):
            MIFGSM(**options)(net, X.flatten(1), LABELS, Ball(0.02))
        assert bool(MIFGSM(**options)(net, X, LABELS, Ball(0.5)).found.any())


def test_a_smaller_copy_shows_the_whole_image_and_nothing_else() -> None:
    """Of a constant image: constant inside the copy, whose area is its side squared; 0 outside."""
    keys = derive_keys(torch.arange(50), "view")
    ones = torch.ones(50, 1, 40, 40, dtype=torch.float64)
    seen = shrunk(keys, 1.0, 0.5)(ones)
    area = seen.mean(dim=(1, 2, 3))
    assert 0.2 < area.min() < 0.4 < 0.85 < area.max() <= 1
    assert bool((seen <= 1 + 1e-12).all())
    kept = shrunk(keys, 0.5, 0.5)(ones) == ones
    assert 15 < int(kept.flatten(1).all(dim=1).sum()) < 35
    assert torch.equal(shrunk(keys, 0.0, 0.5)(ones), ones)
    assert torch.allclose(shrunk(keys, 1.0, 1.0)(ones * 0.3), ones * 0.3)


def test_answers_about_copies_are_not_taken_for_answers_about_the_image() -> None:
    """A model that any copy fools, but no image, is not fooled."""

    def edge(x: Tensor) -> Tensor:
        border = x[:, :, 0].abs().sum(dim=(1, 2))
        return torch.stack((border - 1, 0 * border), dim=1)

    x = torch.full((6, 1, 8, 8), 0.9) + torch.arange(6).view(6, 1, 1, 1) / 1000
    labels = torch.zeros(6, dtype=torch.long)
    attack = MIFGSM(diversity=1.0, smallest=0.3)
    result = attack(edge, x, labels, Ball(0.05))
    assert not bool(result.found.any())
    assert set(result.forward.tolist()) == {22}


def test_blur_is_a_normalised_gaussian() -> None:
    """A single pixel becomes the kernel, of sum 1 and symmetric; size 1 changes nothing."""
    dot = torch.zeros(1, 2, 9, 9, dtype=torch.float64)
    dot[0, 1, 4, 4] = 1.0
    spread = blur(dot, 5)
    assert spread[0, 0].abs().max() == 0
    assert spread.sum().item() == pytest.approx(1)
    assert torch.allclose(spread, spread.flip(2))
    assert torch.allclose(spread, spread.transpose(2, 3))
    ratio = spread[0, 1, 4, 5] / spread[0, 1, 4, 4]
    assert ratio.item() == pytest.approx(math.exp(-(1.5**2) / 2))
    assert torch.equal(blur(dot, 1), dot)


@pytest.mark.parametrize(
    "settings",
    [{"steps": 0}, {"decay": -1.0}, {"diversity": 1.5}, {"smallest": 0.0}, {"blur_size": 4}],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, float]) -> None:
    """When the attack is made, with the value that was given."""
    with pytest.raises(AttackInputError, match=str(next(iter(settings.values())))):
        MIFGSM(**settings)
