"""Signs that a model hides its gradients: then an attack that fails says little about it."""

from collections.abc import Iterable

from torch import Tensor

from attacks.losses import loss_named
from attacks.oracle import Oracle

RANDOM = "random answers"
SOFTMAX = "outputs are probabilities"
NO_GRADIENT = "zero gradients"
SCORES_WIN = "scores alone found more"
FEW_CLASSES = "fewer than four classes"

# What to do about each sign.
ADVICE = {
    RANDOM: "the model answers the same input differently; use the 'rand' ensemble",
    SOFTMAX: "the model ends in a softmax, whose gradients vanish; hand over the logits",
    NO_GRADIENT: "gradients say nothing at some inputs; trust attacks that need none",
    SCORES_WIN: "Square found points where gradient attacks failed; raise its queries",
    FEW_CLASSES: "the logit ratio is not defined as in the papers; the margin stands in for it",
}
# Answers about one input that differ by more, relative to the largest logit, are no rounding: the
# same sum in another order, in float32, differs by less for any net of a usual size.
ROUNDING = 1e-3
# And probabilities sum to 1 up to this.
SUM_ROUNDING = 1e-4


def signs_of(oracle: Oracle, rows: Tensor) -> tuple[str, ...]:
    """What can be seen from the inputs' own logits and one more gradient query of each row.

    Args:
        oracle: just made, so that its margins are those of the inputs.
        rows: shape (rows,), the samples to look at.
    """
    seen = []
    logits = oracle.logits
    first = oracle.margin[rows].clone()
    sums = logits.double().sum(dim=1)
    if bool(((logits >= 0) & (logits <= 1)).all() & ((sums - 1).abs() < SUM_ROUNDING).all()):
        seen.append(SOFTMAX)
    if len(rows):
        centre = oracle.region.centre[rows]
        again = oracle.probe(rows, centre, loss_named("margin"))
        scale = logits[rows].abs().amax(dim=1)
        if bool(((again.level - first).abs() > ROUNDING * scale).any()):
            seen.append(RANDOM)
        if not bool((again.slope != 0).flatten(1).any(dim=1).all()):
            seen.append(NO_GRADIENT)
    if logits.shape[1] < 4:
        seen.append(FEW_CLASSES)
    return tuple(seen)


def advice(flags: Iterable[str]) -> tuple[str, ...]:
    """One line for each flag: what it means and what to do."""
    return tuple(f"{flag}: {ADVICE[flag]}" for flag in flags)
