"""What an attack descends: one number per sample, lower is closer to misclassification.

Each loss has the signature `loss(logits, labels, targets)`: logits of shape (batch, classes),
labels of shape (batch,), targets of the same shape or None. Without targets the attack leaves the
label; with them it moves from the label to the target. Scaling a sample's loss does not change an
attack here, because every step direction is normalised per sample; each loss may therefore be any
monotone function of the paper's.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from attacks.errors import AttackInputError

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def without(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits with each row's label at -inf: the best other class survives whatever its sign."""
    return logits.scatter(1, labels[:, None], -torch.inf)


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """z_y - max_{j != y} z_j, or z_y - z_t given targets; shape (batch,).

    Negative exactly when the label has lost; 0 is a tie; NaN if the two logits do not compare.
    """
    own = logits.gather(1, labels[:, None]).squeeze(1)
    if targets is None:
        return own - without(logits, labels).amax(dim=1)
    return own - logits.gather(1, targets[:, None]).squeeze(1)


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Cross-entropy in the form whose gradient does not vanish: the log-odds of the label.

    Untargeted:  z_y - log sum_{j != y} exp(z_j)  =  -log(exp(CE_y) - 1)
    Targeted:    log sum_{j != t} exp(z_j) - z_t  =   log(exp(CE_t) - 1)

    Both are monotone in the cross-entropy, so per sample the gradient has the same direction; but
    the cross-entropy's own is scaled by 1 - softmax, which is 0 in float32 on confident inputs.
    """
    aim = labels if targets is None else targets
    own = logits.gather(1, aim[:, None]).squeeze(1)
    odds = own - without(logits, aim).logsumexp(dim=1)
    return odds if targets is None else -odds


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Difference of logits ratio: the margin relative to the spread of the leading logits.

    Untargeted: (z_y - max_{j != y} z_j) / (z_(1) - z_(3));
    targeted: (z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2), with z_(3) alone for three classes.
    Where the leading logits tie, the denominator is 1.

    Raises:
        AttackInputError: for fewer than three classes.

    Source:
        Croce, Hein 2020 (AutoAttack), arXiv:2003.01690, with its sign turned.
    """
    classes = logits.shape[1]
    if classes < 3:
        raise AttackInputError(
            f"The DLR loss divides by the gap to the third largest logit, but the model has "
            f"{classes} classes; expected at least 3. Use the 'margin' loss."
        )
    leading = logits.topk(min(4, classes), dim=1).values
    third = leading[:, 2] if targets is None else leading[:, 2:].mean(dim=1)
    spread = leading[:, 0] - third
    return margin(logits, labels, targets) / torch.where(spread > 0, spread, 1.0)


def graded(
    loss: Loss, logits: Tensor, labels: Tensor, targets: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A loss and its derivative by the logits; shapes (batch,) and (batch, classes).

    In closed form for the margin and the cross-entropy, which spares autograd a dozen small steps
    per call; by autograd for any other loss. Where rivals tie, the margin's is the first one's.
    """
    if loss not in (margin, cross_entropy):
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            level = loss(leaf, labels, targets)
            if not level.requires_grad:
                return level, torch.zeros_like(logits)
            (slope,) = torch.autograd.grad(level.sum(), leaf)
        return level.detach(), slope
    logits = logits.detach()
    if loss is cross_entropy:
        level = cross_entropy(logits, labels, targets)
        aim = labels if targets is None else targets
        others = without(logits, aim).softmax(dim=1).scatter(1, aim[:, None], -1.0)
        return level, others.neg() if targets is None else others
    own = logits.gather(1, labels[:, None])
    if targets is None:
        rival, place = without(logits, labels).max(dim=1, keepdim=True)
    else:
        place = targets[:, None]
        rival = logits.gather(1, place)
    slope = torch.zeros_like(logits).scatter_(1, labels[:, None], 1.0)
    return (own - rival).squeeze(1), slope.scatter_add_(1, place, -torch.ones_like(rival))


LOSSES: Mapping[str, Loss] = MappingProxyType({"ce": cross_entropy, "dlr": dlr, "margin": margin})


def loss_named(name: str) -> Loss:
    """The loss called `name`: "ce", "dlr" or "margin".

    Raises:
        AttackInputError: if there is none of that name.
    """
    if name not in LOSSES:
        raise AttackInputError(
            f"There is no attack loss {name!r}; expected one of {', '.join(sorted(LOSSES))}."
        )
    return LOSSES[name]
