"""Losses against their formulas, and the traps that others fell into."""

import pytest
import torch
from torch import Tensor

from attacks import LOSSES, PGD, AttackInputError, Ball
from attacks.losses import cross_entropy, dlr, graded, margin


def logits(classes: int, rows: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, classes, dtype=torch.float64, generator=generator)


def test_margin_is_right_when_all_logits_are_negative() -> None:
    """Trap b8: masking by multiplication turns the label's logit into 0, the largest of all."""
    z = torch.tensor([[-5.0, -3.0, -9.0], [-1.0, -3.0, -9.0]])
    assert margin(z, torch.tensor([0, 0])).tolist() == [-2.0, 2.0]


@pytest.mark.parametrize("classes", [2, 3, 7, 10, 23])
def test_margin_works_for_any_number_of_classes(classes: int) -> None:
    """Trap b22: no ten classes built in. Against a loop over the classes."""
    z, y = logits(classes), torch.arange(6) % classes
    expected = [
        (row[k] - max(row[j] for j in range(classes) if j != k)).item()
        for row, k in zip(z, y.tolist(), strict=True)
    ]
    assert margin(z, y).tolist() == pytest.approx(expected)
    t = (y + 1) % classes
    pairs = zip(z, y.tolist(), t.tolist(), strict=True)
    assert margin(z, y, t).tolist() == pytest.approx(
        [(row[a] - row[b]).item() for row, a, b in pairs]
    )


@pytest.mark.parametrize("towards", [None, torch.tensor([1, 2, 3, 4, 0, 1])])
def test_cross_entropy_has_the_direction_of_the_plain_one(towards: Tensor | None) -> None:
    """Per sample its gradient is a positive multiple of +-CE's, as torch computes it."""
    z, y = logits(5).requires_grad_(), torch.arange(6) % 5
    (ours,) = torch.autograd.grad(cross_entropy(z, y, towards).sum(), z)
    plain = torch.nn.functional.cross_entropy
    value = -plain(z, y, reduction="sum") if towards is None else plain(z, towards, reduction="sum")
    (theirs,) = torch.autograd.grad(value, z)
    cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=1)
    assert cosine.tolist() == pytest.approx([1.0] * 6)


def test_cross_entropy_keeps_its_gradient_on_confident_inputs() -> None:
    """torch's own vanishes in float32 at a margin of 200; this one does not."""
    z = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    (plain,) = torch.autograd.grad(torch.nn.functional.cross_entropy(z, torch.tensor([0])), z)
    (ours,) = torch.autograd.grad(cross_entropy(z, torch.tensor([0])).sum(), z)
    assert plain.abs().max() == 0
    assert ours.abs().max() == 1


def test_dlr_matches_its_formula() -> None:
    """(z_y - z_2) / (z_1 - z_3) by hand; the targeted one divides by z_1 - (z_3 + z_4) / 2."""
    z = torch.tensor([[4.0, 1.0, 3.0, 0.0]])
    y, t = torch.tensor([0]), torch.tensor([2])
    assert dlr(z, y).item() == pytest.approx((4 - 3) / (4 - 1))
    assert dlr(z, y, t).item() == pytest.approx((4 - 3) / (4 - 0.5))
    assert dlr(z[:, :3], y, t).item() == pytest.approx((4 - 3) / (4 - 1))


def test_dlr_ignores_shift_and_scale_and_survives_ties() -> None:
    """Invariant under z -> a z + b; finite where all logits are equal."""
    z, y = logits(6), torch.arange(6)
    assert torch.allclose(dlr(3 * z + 7, y), dlr(z, y))
    assert dlr(torch.zeros(1, 4), torch.tensor([0])).item() == 0


def test_dlr_refuses_two_classes() -> None:
    """Trap b17: a clear line, not an index error."""
    with pytest.raises(AttackInputError, match="at least 3"):
        dlr(torch.zeros(1, 2), torch.tensor([0]))
    with pytest.raises(AttackInputError, match="at least 3"):
        PGD(loss="dlr")(lambda x: x, torch.tensor([[1.0, 0.0]]), torch.tensor([0]), Ball(0.1))


def test_every_loss_falls_as_the_label_loses() -> None:
    """Raising the strongest rival's logit lowers each loss."""
    z, y = torch.tensor([[3.0, 1.0, 0.5, 0.0]]), torch.tensor([0])
    closer = torch.tensor([[3.0, 2.5, 0.5, 0.0]])
    for loss in LOSSES.values():
        assert loss(closer, y, None) < loss(z, y, None)
        assert loss(closer, y, torch.tensor([1])) < loss(z, y, torch.tensor([1]))


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("targeted", [False, True])
def test_derivatives_by_the_logits_are_autograds(name, targeted):
    """Also for logits so far apart that float32 exponentials underflow."""
    torch.manual_seed(0)
    logits = torch.randn(40, 5) * torch.logspace(-2, 3, 40)[:, None]
    labels = torch.randint(0, 5, (40,))
    targets = (labels + torch.randint(1, 5, (40,))) % 5 if targeted else None
    leaf = logits.clone().requires_grad_()
    expected = LOSSES[name](leaf, labels, targets)
    (slope,) = torch.autograd.grad(expected.sum(), leaf)
    level, found = graded(LOSSES[name], logits, labels, targets)
    assert torch.allclose(level, expected.detach())
    assert torch.allclose(found, slope, rtol=1e-4, atol=1e-6)
