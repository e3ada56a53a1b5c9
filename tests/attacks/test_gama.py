"""GAMA-PGD: its loss in one space, its schedules, its budget."""

import pytest
import torch
from torch import Tensor

from attacks import GAMA, PGD, AttackInputError, Ball
from attacks.gama import guided_margin
from tests.attacks.digits import digits


def test_the_loss_is_the_papers_in_probabilities_throughout() -> None:
    """Trap b23: the distance is between two softmaxes, not between logits and a softmax."""
    clean = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
    logits = torch.tensor([[0.5, 1.5, -1.0]], dtype=torch.float64)
    label = torch.tensor([0])
    p, before = logits[0].exp() / logits[0].exp().sum(), clean[0].exp() / clean[0].exp().sum()
    expected = p[0] - p[1] - 7 * ((p - before) ** 2).sum()
    assert guided_margin(clean, 7.0)(logits, label, None).item() == pytest.approx(expected.item())
    assert guided_margin(clean, 7.0)(clean, label, None).item() == pytest.approx(
        (before[0] - before[1]).item()
    )
    shifted = guided_margin(clean + 100, 7.0)(logits + 100, label, None)
    assert shifted.item() == pytest.approx(expected.item())


def test_confident_samples_keep_a_gradient_in_float32() -> None:
    """At a margin of 1000 a plain softmax has none."""
    logits = torch.tensor([[1000.0, 0.0, -5.0]], requires_grad=True)
    loss = guided_margin(logits.detach(), 0.0)(logits, torch.tensor([0]), None)
    (slope,) = torch.autograd.grad(loss.sum(), logits)
    assert slope[0, 0] > 0 > slope[0, 1]
    plain = logits.softmax(dim=1)
    (none,) = torch.autograd.grad((plain[:, 0] - plain[:, 1]).sum(), logits)
    assert none.abs().max() == 0


def test_schedules_are_the_papers() -> None:
    """The weight is gone after a quarter of the steps; steps shrink after 60 and 85 of 100."""
    gama = GAMA()
    assert [gama.weight_at(step) for step in (0, 10, 25, 99)] == pytest.approx([50, 30, 0, 0])
    sizes = [gama.size_at(step) for step in (0, 59, 60, 84, 85)]
    assert sizes == pytest.approx([2, 2, 0.2, 0.2, 0.02])


def test_the_budget_is_what_the_settings_say() -> None:
    """Trap b4: the input, then steps + 1 points and `steps` gradients per restart."""

    def sure(x: Tensor) -> Tensor:
        return x.tanh() + 1e3 * torch.eye(4, dtype=torch.float64)[0]

    x, labels = torch.rand(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    result = GAMA(steps=9, restarts=2)(sure, x, labels, Ball(0.1))
    assert set(result.forward.tolist()) == {1 + 2 * 10}
    assert set(result.backward.tolist()) == {2 * 9}


def test_gama_finds_nearly_what_untargeted_pgd_finds() -> None:
    """On a digits net, within two samples of 154; both may end in a local minimum."""
    case, ball = digits(), Ball(0.06, lower=0.0, upper=1.0)
    pgd = PGD(steps=100, restarts=1, targeted=None)(case.net, case.x, case.labels, ball)
    found = int(GAMA()(case.net, case.x, case.labels, ball).found.sum())
    assert found >= int(pgd.found.sum()) - 2 > 20


@pytest.mark.parametrize("settings", [{"steps": 0}, {"weight": -1.0}, {"step_size": 0.0}])
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, float]) -> None:
    """When the attack is made, with the value that was given."""
    with pytest.raises(AttackInputError, match=str(next(iter(settings.values())))):
        GAMA(**settings)
