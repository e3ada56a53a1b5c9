"""Iterative FGSM (the basic iterative method): small sign steps from the input itself."""

from dataclasses import dataclass

from torch import Tensor

from attacks.ball import Ball
from attacks.descent import Descent, Lanes, walk
from attacks.oracle import Oracle
from attacks.protocol import Model
from attacks.result import AttackResult


@dataclass(frozen=True, slots=True)
class IFGSM:
    """Iterative FGSM, also called BIM: projected steps of constant size, without randomness.

    Attributes:
        steps: gradient steps.
        step_size: each as a fraction of the ball's radius.
        loss: "ce", "dlr" or "margin".
        early_stop: drop a sample at its first misclassified point instead of walking on for a
            lower margin.
        max_lanes: samples walked at once; bounds memory, changes no result.

    Source:
        Kurakin, Goodfellow, Bengio 2017, arXiv:1607.02533. Departs from it in returning the best
        point evaluated instead of the last.
    """

    steps: int = 20
    step_size: float = 0.1
    loss: str = "ce"
    early_stop: bool = True
    max_lanes: int = 1024

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        self._descent().check("IFGSM")

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
        """Walk from each input, or from `start`; see `Attack`."""
        oracle = Oracle(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.open_rows()
        region = oracle.region.rows(rows)
        points = region.centre if start is None else region.project(start[rows])
        walk(oracle, self._descent(), Lanes(rows, points), self.max_lanes)
        return oracle.result("ifgsm")

    def _descent(self) -> Descent:
        return Descent(self.steps, self.step_size, loss=self.loss, early_stop=self.early_stop)
