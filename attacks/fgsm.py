"""The fast gradient sign method: one step to the worst point of the linearised model."""

from dataclasses import dataclass

from torch import Tensor

from attacks.ball import Ball
from attacks.losses import loss_named
from attacks.oracle import Oracle
from attacks.protocol import Model
from attacks.result import AttackResult


@dataclass(frozen=True, slots=True)
class FGSM:
    """Fast gradient sign method: the point of the ball that is worst to first order.

    For L-inf that is x + eps * sign(gradient), clipped; for L2 and L1 the exact maximiser of the
    linearised loss over ball and input range, so that the attack is exact on linear models.

    Attributes:
        loss: "ce", "dlr" or "margin".

    Source:
        Goodfellow, Shlens, Szegedy 2015, arXiv:1412.6572.
    """

    loss: str = "ce"

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        loss_named(self.loss)

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
        """One gradient and two or three evaluations per sample; see `Attack`."""
        oracle = Oracle(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.open_rows()
        if len(rows):
            region = oracle.region.rows(rows)
            at = region.centre if start is None else region.project(start[rows])
            slope = oracle.slope(rows, at, loss_named(self.loss))
            rows_left = ~(oracle.margin[rows] < 0)
            rows, worst = rows[rows_left], region.extreme(-slope)[rows_left]
            if len(rows):
                oracle.ask(rows, worst)
        return oracle.result("fgsm")
