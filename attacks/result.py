"""What an attack hands back, per sample."""

from dataclasses import dataclass, field

from torch import Tensor

# Remarks on single samples, for programs to read; `REMARKS` says what each means.
ZERO_GRADIENT, TIE, NOT_A_NUMBER = "zero_grad", "tie", "nan"
NOT_REPLAYED, REFUSED = "not_replayed", "refused"
REMARKS = {
    ZERO_GRADIENT: "no gradient query of this sample showed any slope; prefer attacks on scores",
    TIE: "the lowest margin is exactly 0: the label shares the lead, which is not found",
    NOT_A_NUMBER: "the model answered NaN at some point asked; such points never count",
    NOT_REPLAYED: "found in torch's arithmetic alone; no judge was asked",
    REFUSED: "the judge refused a point that torch's arithmetic finds misclassified",
}


@dataclass(frozen=True, slots=True, eq=False)
class AttackResult:
    """The best point that an attack evaluated for each sample, found adversarial or not.

    Attributes:
        candidate: shape (batch, *input); always inside the ball and the input range.
        found: shape (batch,), bool: `margin` < 0, strictly. A tie is not found, nor is NaN.
        margin: shape (batch,), in logits at `candidate`, the lowest of all points evaluated:
            z_y - max_{j != y} z_j, or max_{j != t} z_j - z_t where targets t were given.
        distance: shape (batch,), float64, from the input to `candidate`, rounded up; 0 where the
            input itself was already found.
        forward: shape (batch,), int64: how often the model was evaluated for this sample.
        backward: shape (batch,), int64: how often its gradient was.
        attack: per sample the name of the attack that found `candidate`; "clean" where the input
            itself is misclassified, "" where nothing was found.
        remarks: per sample what a reader should know, from `REMARKS`; () for all of them where the
            attack is an ensemble, which has flags of its own.
    """

    candidate: Tensor
    found: Tensor
    margin: Tensor
    distance: Tensor
    forward: Tensor
    backward: Tensor
    attack: tuple[str, ...]
    remarks: tuple[tuple[str, ...], ...] = field(default=(), kw_only=True)

    @property
    def valid(self) -> Tensor:
        """Which candidates prove something: found, and inside ball and range in exact arithmetic.

        All that are found are, because every attack checks before it returns; shape (batch,), bool.
        """
        return self.found


@dataclass(frozen=True, slots=True, eq=False)
class RadiusResult:
    """An upper bound on each sample's robustness radius, with the point that proves it.

    Attributes:
        candidate: shape (batch, *input); the nearest misclassified point held, or the input
            itself where none was found.
        radius: shape (batch,), float64: the distance to `candidate`, rounded up, in model input
            units; inf where none was found. No robustness radius can be larger.
        found: shape (batch,), bool.
        margin: shape (batch,), in logits at `candidate`.
        forward: shape (batch,), int64: model evaluations spent on this sample.
        backward: shape (batch,), int64: gradients spent.
        remarks: per sample what a reader should know, from `REMARKS`.
    """

    candidate: Tensor
    radius: Tensor
    found: Tensor
    margin: Tensor
    forward: Tensor
    backward: Tensor
    remarks: tuple[tuple[str, ...], ...] = field(default=(), kw_only=True)

    @property
    def valid(self) -> Tensor:
        """Which candidates prove something: found, and in ball and range in exact arithmetic.

        Where a judge was given, also accepted by it. All that are found are; shape (batch,), bool.
        """
        return self.found
