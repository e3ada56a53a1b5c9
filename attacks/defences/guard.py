"""A guard against catastrophic overfitting of single-step training.

Within one epoch the accuracy under a real attack can fall to nothing while the loss goes on
falling. The guard attacks samples that it withholds from training; when their accuracy drops, it
puts back the best weights seen and hands the rest of training to PGD.

Source:
    The failure: Wong, Rice, Kolter 2020, arXiv:2001.03994, section 5.4 (who stop early).
    Falling back instead of stopping is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from attacks.ball import Ball
from attacks.defences.figures import Split, figures
from attacks.randomness import derive_keys

SHARE = 0.1
"""Of the training samples withheld, at most `MOST` of them."""
MOST = 256
DROP = 0.2
"""Fall of the accuracy, from its best, that is no noise."""


@dataclass(slots=True, eq=False)
class Guard:
    """What the guard remembers; it grows with training.

    Attributes:
        best: highest accuracy under PGD so far.
        weights: the network's state then.
        fallen: whether training has been handed over.
    """

    best: float = -1.0
    weights: dict[str, Tensor] = field(default_factory=dict)
    fallen: bool = False

    def watch(self, net: nn.Module, withheld: Split, ball: Ball, seed: int) -> tuple[float, bool]:
        """The accuracy now, and whether it has just collapsed: then the best weights are back."""
        accuracy = figures(net, withheld, ball, seed=seed).adversarial
        if self.fallen:
            return accuracy, False
        if self.weights and accuracy < self.best - DROP:
            self.fallen = True
            net.load_state_dict(self.weights)
            return accuracy, True
        if accuracy > self.best:
            self.best = accuracy
            self.weights = {key: value.clone() for key, value in net.state_dict().items()}
        return accuracy, False


def withhold(split: Split, seed: int) -> tuple[Split, Split]:
    """Samples to train on, and samples to watch; both the same if there are fewer than 20."""
    count = min(MOST, int(SHARE * len(split.x)))
    if count < 2:
        return split, split
    order = shuffled(len(split.x), seed, "withhold").to(split.x.device)
    return split.rows(order[count:].sort().values), split.rows(order[:count])


def shuffled(count: int, seed: int, *labels: int | str) -> Tensor:
    """The numbers 0 to count - 1 in an order that seed and labels decide; on the CPU."""
    key = derive_keys(torch.tensor([seed]), "shuffle", *labels)
    generator = torch.Generator().manual_seed(int(key[0]) & (2**63 - 1))
    return torch.randperm(count, generator=generator)
