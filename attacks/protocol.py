"""The two shapes that everything here speaks: the thing attacked, and an attack."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from attacks.ball import Ball
from attacks.result import AttackResult

# (batch, *input) -> logits (batch, classes), each row depending on its own input only. Gradient
# attacks need it to be differentiable by torch; a model that is not is seen as one of slope 0.
Model = Callable[[Tensor], Tensor]


class Attack(Protocol):
    """A way of looking for misclassified points inside a ball.

    An attack is a frozen dataclass of its settings. It never judges beyond its own arithmetic:
    whoever needs certainty replays the candidate in the runtime that counts.
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
    ) -> AttackResult:
        """Look for a misclassified point near each input.

        Args:
            model: see `Model`; in evaluation mode.
            x: shape (batch, *input), float32 or float64, finite, in the ball's range.
            labels: shape (batch,), integer: the classes that should hold.
            ball: where to look; eps may differ per sample.
            targets: shape (batch,), integer: look for points of just these classes instead of any
                class but the label.
            start: shape (batch, *input): a promising point per sample, tried first after
                projection into the ball.
            sample_keys: shape (batch,), integer: what random numbers are keyed by, besides the
                attack's seed; by default a hash of each sample's values.

        Raises:
            AttackInputError: if the arguments do not fit each other.
        """
        ...
