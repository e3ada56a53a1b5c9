"""Which classes a minimal-norm attack moves to: the nearest to first order, one lane each."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.losses import without
from attacks.nearest import Nearest, norm_of


@dataclass(frozen=True, slots=True, eq=False)
class Aims:
    """Lanes to walk: a sample and the class that it moves to.

    Attributes:
        rows: shape (lanes,), int64, sorted: the sample of each lane.
        towards: shape (lanes,), int64: the class, or None to just leave the label.
    """

    rows: Tensor
    towards: Tensor | None


def aims(oracle: Nearest, rows: Tensor, count: int) -> Aims:
    """`count` lanes per sample, towards the classes whose linearised boundaries are nearest.

    Costs a gradient per class and sample. Where the call named targets, or `count` is 0, there is
    one lane per sample, without a class of its own.

    Source:
        The ratio is DeepFool's (arXiv:1511.04599); as a choice of targets, Melamed, Yehudai,
        Shamir 2024 (MALT), arXiv:2407.02240.
    """
    if oracle.targets is not None or count == 0:
        return Aims(rows, oracle.targets[rows] if oracle.targets is not None else None)
    others = oracle.logits.shape[1] - 1
    rivals = without(oracle.logits, oracle.labels).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    order = rivals.topk(others, dim=1).indices[rows]
    every = rows.repeat_interleave(others)
    points = oracle.region.centre[every]
    view = oracle.view(every, points, order.flatten())
    move = oracle.first_move(every, points, view)
    gained = -(view.slope * move).sum(dim=1)
    far = torch.where(gained >= 0.999 * view.value, norm_of(move, oracle.region.p), torch.inf)
    chosen = far.view(len(rows), others).argsort(dim=1, stable=True)[:, :count]
    return Aims(rows.repeat_interleave(chosen.shape[1]), order.gather(1, chosen).flatten())
