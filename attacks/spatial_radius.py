"""The smallest transformation that fools: an upper bound on each image's robust angle or share."""

import torch
from torch import Tensor

from attacks.bisection import Judge
from attacks.errors import AttackInputError
from attacks.protocol import Model
from attacks.spatial import (
    SpatialAttack,
    SpatialResult,
    SpatialSearch,
    check_least,
    result_of,
)
from attacks.spatial_oracle import SpatialOracle
from attacks.transforms import TransformBox

# Boxes of these shares are searched first, the smallest first: a sample that falls early needs no
# grid over the whole box, and its grid is finer where it counts.
LADDER = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
# Looks through a whole box of the ladder, and through a smaller one while closing in.
LADDER_SEARCH = SpatialAttack(queries=301, draws=30, starts=3, steps=10, rounds=0)
CLOSING_SEARCH = SpatialAttack(queries=61, draws=10, starts=2, steps=10, rounds=0)
# Of the line from the identity: to a millionth, past which a model in float32 is undecided.
HALVINGS = 20


def smallest_transformation(
    model: Model,
    x: Tensor,
    labels: Tensor,
    box: TransformBox,
    *,
    shape: tuple[int, int, int] | None = None,
    targets: Tensor | None = None,
    sample_keys: Tensor | None = None,
    judge: Judge | None = None,
    search: SpatialSearch | None = None,
    tolerance: float = 0.01,
    rounds: int = 8,
) -> SpatialResult:
    """The least share of the box, scaled about the identity, that holds a misclassified image.

    `share` of the result is an upper bound of the sample's robust share; for the box
    "rotation(-30,30)", 30 times it bounds the robust angle in degrees. `values` and `image` prove
    it. It is not monotone what a transformation does: a larger share may well be safe.

    Growing boxes are searched until something is found, then boxes between the largest that gave
    nothing and the find. Each find is followed on the straight line to the identity by bisection.

    Args:
        model, x, labels, box, shape, targets, sample_keys, judge: as for `attacks.spatial.run`; the
            box must hold the identity.
        search: looks through each box; by default grids with gradient steps, finer ones first.
        tolerance: the bracket of shares is closed to this ratio, relative.
        rounds: at most, after the first find.

    Raises:
        AttackInputError: if the arguments do not fit each other.
    """
    check_least("smallest_transformation", 0, rounds=rounds)
    if not 0 < tolerance < 1:
        raise AttackInputError(
            f"smallest_transformation got tolerance = {tolerance}; expected a number in (0, 1)."
        )
    if not box.around_identity:
        raise AttackInputError(
            f"The box {box} does not hold the transformation that changes nothing, so it cannot be "
            "scaled about it. Give each range around 0, for scales and contrast around 1."
        )
    oracle = SpatialOracle(
        model,
        x,
        labels,
        box,
        shape=shape,
        targets=targets,
        sample_keys=sample_keys,
        judge=judge,
    )
    safe = torch.zeros_like(oracle.share)
    for share in LADDER:
        rows = (oracle.share == torch.inf).nonzero().flatten()
        look(oracle, rows, torch.full_like(oracle.share[rows], share), search or LADDER_SEARCH)
        missed = rows[oracle.share[rows] == torch.inf]
        safe[missed] = share
    for _ in range(rounds):
        held = oracle.share
        rows = ((held < torch.inf) & (held - safe > tolerance * held)).nonzero().flatten()
        if not len(rows):
            break
        middle = (safe[rows] + held[rows]) / 2
        look(oracle, rows, middle, search or CLOSING_SEARCH)
        missed = oracle.share[rows] > oracle.limit[rows]
        safe[rows[missed]] = middle[missed]
    return result_of(oracle, nearest=True)


def look(oracle: SpatialOracle, rows: Tensor, share: Tensor, search: SpatialSearch) -> None:
    """Search these samples in boxes of these shares, and follow what is found to the identity."""
    if not len(rows):
        return
    oracle.limit_to(rows, share)
    mine = torch.zeros_like(oracle.share, dtype=torch.bool)
    mine[rows] = True
    search.search(oracle, lambda: (mine & ~(oracle.share <= oracle.limit)).nonzero().flatten())
    follow(oracle, rows[oracle.share[rows] <= oracle.limit[rows]])


def follow(oracle: SpatialOracle, rows: Tensor) -> None:
    """Bisect the straight line from the identity to each sample's nearest find."""
    rows = rows[oracle.share[rows] > 0]
    oracle.search = "line"
    identity = oracle.start
    ends = oracle.nearest[rows] - identity
    low = torch.zeros_like(oracle.share[rows])
    high = torch.ones_like(low)
    for _ in range(HALVINGS):
        if not len(rows):
            return
        middle = (low + high) / 2
        before = oracle.share[rows].clone()
        oracle.ask(rows, identity + middle[:, None] * ends)
        fell = oracle.share[rows] < before
        low, high = torch.where(fell, low, middle), torch.where(fell, middle, high)
