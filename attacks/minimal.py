"""The shape of a minimal-norm attack: it looks for the nearest misclassified point, not for any.

Beside `attacks.protocol.Attack`, which answers for one radius; both take the same arguments.
"""

from typing import Protocol

from torch import Tensor

from attacks.ball import Ball
from attacks.protocol import Model
from attacks.result import RadiusResult


class Minimiser(Protocol):
    """A way of looking for the nearest misclassified point of each input.

    A minimiser is a frozen dataclass of its settings. What it returns is the nearest misclassified
    point that any of its queries saw, so its radius is a true upper bound as far as the model says
    so; whoever needs certainty replays the candidate in the runtime that counts.
    """

    def __call__(
        self,
        model: Model,
        x: Tensor,
        labels: Tensor,
        ball: Ball,
        *,
        targets: Tensor | None = None,
        start: Tensor | None = None,
        sample_keys: Tensor | None = None,
    ) -> RadiusResult:
        """Look for the nearest misclassified point around each input.

        Args:
            model: see `Model`; in evaluation mode.
            x: shape (batch, *input), float32 or float64, finite, in the ball's range.
            labels: shape (batch,), integer: the classes that should hold.
            ball: norm and range; points farther than its eps do not count, and eps may be inf.
            targets: shape (batch,), integer: look for points of just these classes instead of any
                class but the label.
            start: shape (batch, *input): a promising point per sample, asked first after
                projection into the ball; a minimiser may begin there.
            sample_keys: shape (batch,), integer: what random numbers are keyed by, besides the
                minimiser's seed; by default a hash of each sample's values.

        Raises:
            AttackInputError: if the arguments do not fit each other, or the minimiser does not
                know the ball's norm.
        """
        ...
