"""An upper bound on each sample's robustness radius, by attacking ever smaller balls.

The bound rests on a point that is held, never on an eps that was tried: a failed attack proves
nothing, and only steers the search.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.errors import AttackInputError
from attacks.losses import loss_named, margin
from attacks.oracle import Oracle
from attacks.pgd import PGD
from attacks.protocol import Attack, Model
from attacks.region import Region
from attacks.result import RadiusResult

# Whether candidates of shape (rows, *input), proposed for the samples `rows`, truly count.
Judge = Callable[[Tensor, Tensor], Tensor]

# Without the default's second restart: the rounds themselves are restarts, each from the last find.
SEARCHER = PGD(restarts=1)
# The first ball tried is this much larger than the distance at which the linearised model flips.
FIRST_FACTOR = 1.5
# And this large where the gradient says nothing and no bound is known, in model input units.
BLIND_RADIUS = 1.0
# Balls grow by this factor until something is found.
GROWTH = 2.0
# Above this ratio of the bracket's ends the next radius is their geometric mean, below the
# arithmetic one.
WIDE = 1.3
# Points evaluated at once on the segment from the input to a candidate, and how often the first
# interval that flips is divided again.
SEGMENT_POINTS = 12
SEGMENT_ROUNDS = 3


@dataclass(slots=True, eq=False)
class Bracket:
    """Where the search stands, one entry per sample.

    Attributes:
        candidate: shape (batch, *input), the nearest adversarial point held.
        radius: shape (batch,), float64, its distance rounded up; inf while there is none.
        margin: shape (batch,), in logits at the candidate.
        failed: shape (batch,), float64, the largest eps at which an attack failed.
        forward, backward: shape (batch,), int64, queries so far.
    """

    candidate: Tensor
    radius: Tensor
    margin: Tensor
    failed: Tensor
    forward: Tensor
    backward: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """What is attacked, and who decides; held together so that it can be cut to some rows."""

    model: Model
    region: Region
    labels: Tensor
    targets: Tensor | None
    judge: Judge | None
    oracle: Oracle

    def offer(self, bracket: Bracket, rows: Tensor, points: Tensor) -> None:
        """Keep each point that is adversarial, counts, and is nearer than what is held.

        Args:
            rows: shape (rows,), int64, without repeats.
            points: shape (rows, *input).
        """
        region = self.region.rows(rows)
        distance = region.distance(points)
        nearer = (distance < bracket.radius[rows]) & region.contains(points)
        rows, points, distance = rows[nearer], points[nearer], distance[nearer]
        if not len(rows):
            return
        seen = self.margins(bracket, rows, points)
        good = seen < 0
        if self.judge is not None and bool(good.any()):
            good[good.clone()] &= self.judge(points[good], rows[good]).to(good.device)
        rows = rows[good]
        bracket.candidate[rows] = points[good]
        bracket.radius[rows] = distance[good]
        bracket.margin[rows] = seen[good]

    def margins(self, bracket: Bracket, rows: Tensor, points: Tensor) -> Tensor:
        """The margin at each point, one forward query each; inf beyond a budget; shape (rows,)."""
        admitted = self.oracle.admitted(rows)
        if admitted is not None:
            seen = bracket.margin.new_full((len(rows),), math.inf)
            if bool(admitted.any()):
                seen[admitted] = self._margins(bracket, rows[admitted], points[admitted])
            return seen
        return self._margins(bracket, rows, points)

    def _margins(self, bracket: Bracket, rows: Tensor, points: Tensor) -> Tensor:
        """As `margins`, whatever the budget."""
        with torch.no_grad():
            logits = self.model(points)
        bracket.forward += torch.bincount(rows, minlength=len(bracket.forward))
        if self.targets is None:
            return margin(logits, self.labels[rows])
        return -margin(logits, self.targets[rows])


def minimal_radius(
    model: Model,
    x: Tensor,
    labels: Tensor,
    ball: Ball,
    *,
    attack: Attack = SEARCHER,
    steps: int = 10,
    tolerance: float = 1e-3,
    targets: Tensor | None = None,
    sample_keys: Tensor | None = None,
    judge: Judge | None = None,
) -> RadiusResult:
    """The distance to the nearest misclassified point that can be found around each input.

    Each round attacks each sample at its own eps: growing balls until something is found, then
    between the largest eps that failed and the distance of the point held, starting from that
    point pulled into the smaller ball. Each find is followed along the segment from the input to
    the first point that flips.

    Args:
        model, x, labels, targets, sample_keys: as for `Attack`.
        ball: norm and range; its eps is the largest radius of interest, and may be inf.
        attack: what is run in each round.
        steps: rounds.
        tolerance: relative width of a sample's bracket at which its search ends.
        judge: decides in place of torch's arithmetic whether candidates count, for instance by
            replaying them in ONNX Runtime: from (candidates, rows), shapes (n, *input) and (n,),
            to bool of shape (n,). Only candidates that torch finds misclassified are asked about.

    Returns:
        Radii that are distances of held points: true upper bounds, as far as model (and judge)
        say so. 0 where the input itself is misclassified, inf where nothing was found.

    Raises:
        AttackInputError: as for `Attack`.
    """
    if steps < 1 or not tolerance > 0:
        raise AttackInputError(
            f"minimal_radius got steps = {steps} and tolerance = {tolerance}; expected at least "
            "1 step and a positive tolerance. Correct that setting."
        )
    x = x.detach()
    # With eps = 0 the oracle evaluates the inputs alone; the ball itself may be unbounded.
    oracle = Oracle(model, x, labels, ball.with_eps(0.0), targets=targets, sample_keys=sample_keys)
    case = Case(model, ball.around(x), oracle.labels, oracle.targets, judge, oracle)
    eps = first_eps(oracle, case.region)
    bracket = Bracket(
        candidate=x.clone(),
        radius=torch.full_like(eps, math.inf),
        margin=oracle.margin,
        failed=torch.zeros_like(eps),
        forward=oracle.forward,
        backward=oracle.backward,
    )
    wrong = oracle.clean.nonzero().flatten()
    case.offer(bracket, wrong, x[wrong])
    largest = case.region.reach()
    for _ in range(steps):
        rows = open_rows(bracket, largest, tolerance)
        if not len(rows):
            break
        result = attack(
            model,
            x[rows],
            case.labels[rows],
            ball.rows(rows, x).with_eps(eps[rows]),
            targets=None if case.targets is None else case.targets[rows],
            start=bracket.candidate[rows],
            sample_keys=oracle.keys[rows],
        )
        bracket.forward[rows] += result.forward
        bracket.backward[rows] += result.backward
        oracle.heed(rows, result)
        before = bracket.radius[rows]
        case.offer(bracket, rows[result.found], result.candidate[result.found])
        improved = bracket.radius[rows] < before
        follow_segments(case, bracket, rows[improved])
        missed = rows[~improved]
        bracket.failed[missed] = torch.maximum(bracket.failed[missed], eps[missed])
        eps = next_eps(bracket, largest)
    return RadiusResult(
        candidate=bracket.candidate,
        radius=bracket.radius,
        found=bracket.radius.isfinite(),
        margin=bracket.margin,
        forward=bracket.forward,
        backward=bracket.backward,
        remarks=oracle.remarks(bracket.radius.isfinite(), judged=judge is not None),
    )


def first_eps(oracle: Oracle, region: Region) -> Tensor:
    """The first radius to try: somewhat beyond where the linearised model flips; shape (batch,).

    margin / |gradient|_q  with  1/p + 1/q = 1  (Hoelder); all there is where the gradient is 0.
    """
    everyone = torch.arange(len(oracle.labels), device=oracle.labels.device)
    slope = oracle.slope(everyone, region.centre, loss_named("margin")).flatten(1).double()
    q = {math.inf: 1.0, 2.0: 2.0, 1.0: math.inf}[region.p]
    steepness = torch.linalg.vector_norm(slope.nan_to_num(), ord=q, dim=1)
    flip = oracle.margin.double() / torch.where(steepness > 0, steepness, 1.0)
    known = (steepness > 0) & (flip > 0) & flip.isfinite()
    reach = region.reach()
    fallback = torch.where(reach.isfinite(), reach, BLIND_RADIUS)
    return torch.minimum(torch.where(known, FIRST_FACTOR * flip, fallback), reach)


def open_rows(bracket: Bracket, largest: Tensor, tolerance: float) -> Tensor:
    """The samples whose bracket is still worth narrowing; shape (rows,), int64."""
    held = bracket.radius.isfinite()
    wide = bracket.radius - bracket.failed > tolerance * bracket.radius
    return torch.where(held, wide, bracket.failed < largest).nonzero().flatten()


def next_eps(bracket: Bracket, largest: Tensor) -> Tensor:
    """The radius to try next for each sample; shape (batch,), float64."""
    low, high = bracket.failed, bracket.radius
    inner = torch.where(high > WIDE * low, (low * high).sqrt(), (low + high) / 2)
    inner = torch.where(low > 0, inner, high / WIDE)
    return torch.where(high.isfinite(), inner, torch.minimum(GROWTH * low, largest))


def follow_segments(case: Case, bracket: Bracket, rows: Tensor) -> None:
    """Move each held point towards its input, to the first place on the segment that flips.

    The set of misclassified points need not be convex, so the whole segment is scanned before the
    first interval that flips is divided.
    """
    if not len(rows):
        return
    region = case.region.rows(rows)
    far = bracket.candidate[rows]
    begin, end = torch.zeros_like(region.eps), torch.ones_like(region.eps)
    share = torch.arange(1, SEGMENT_POINTS, device=rows.device) / SEGMENT_POINTS
    each = torch.arange(len(rows), device=rows.device)
    many = each.repeat_interleave(len(share))
    for _ in range(SEGMENT_ROUNDS):
        along = begin[:, None] + (end - begin)[:, None] * share  # (rows, points)
        weight = along.reshape(-1, *[1] * (far.dim() - 1)).to(far.dtype)
        between = torch.lerp(region.centre[many], far[many], weight)
        points = region.rows(many).project(between)
        flips = (case.margins(bracket, rows[many], points) < 0).view(len(rows), -1)
        first = torch.where(flips.any(dim=1), flips.int().argmax(dim=1), len(share))
        chosen = first < len(share)
        nearest = points.view(len(rows), -1, *far.shape[1:])[each, first.clamp(max=len(share) - 1)]
        case.offer(bracket, rows[chosen], nearest[chosen])
        ends = torch.cat((begin[:, None], along, end[:, None]), dim=1)
        begin, end = ends[each, first], ends[each, first + 1]
