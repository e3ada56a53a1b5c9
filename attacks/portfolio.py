"""The nearest misclassified point that several searches can find, and which of them found it.

No single attack is best on every net, norm and sample, so the result is the minimum per sample. The
cheap searches run first: what they find is where the dear ones begin.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.bisection import Judge
from attacks.board import TOLERANCE, Board, PortfolioResult
from attacks.ddn import DDN
from attacks.deepfool import DeepFool
from attacks.errors import AttackInputError
from attacks.fmn import FMN
from attacks.hyperplane import least_move
from attacks.minimal import Minimiser
from attacks.nearest import Nearest
from attacks.pdpgd import PDPGD
from attacks.pgd import PGD
from attacks.protocol import Model
from attacks.refinement import MOST_ENTRIES
from attacks.refinement import refine as refine_pieces
from attacks.scouting import from_afar, scout
from attacks.sigma_zero import SigmaZero
from attacks.targeted_l1 import TargetedL1

LINE, AFAR, SCOUT, PGD_ROUNDS = "line", "afar", "scout", "pgd"
# What runs where the caller names no members, cheapest first.
MEMBERS: Mapping[float, Mapping[str, Minimiser]] = MappingProxyType(
    {
        math.inf: {
            "deepfool": DeepFool(),
            "pdpgd": PDPGD(classes=3),
            "fmn": FMN(classes=5, step_size=2.0),
        },
        2.0: {"deepfool": DeepFool(), "ddn": DDN(classes=3), "fmn": FMN(classes=5)},
        1.0: {
            "deepfool": DeepFool(),
            "targeted-l1": TargetedL1(classes=3),
            "fmn": FMN(classes=5),
        },
        0.0: {"deepfool": DeepFool(), "fmn": FMN(classes=3), "sigma-zero": SigmaZero()},
    }
)
# The same for effort = "quick": as many as the refinement needs to begin from.
QUICK_MEMBERS: Mapping[float, Mapping[str, Minimiser]] = MappingProxyType(
    {
        p: {"deepfool": DeepFool(classes=3), "fmn": FMN(steps=30, classes=3, step_size=stretch)}
        for p, stretch in ((math.inf, 2.0), (2.0, 1.0), (1.0, 1.0), (0.0, 1.0))
    }
)
# The search that begins at a misclassified point far away.
RETURNS: Mapping[str, FMN] = MappingProxyType(
    {"full": FMN(steps=100, classes=3), "quick": FMN(steps=30, classes=3)}
)
# Rounds of PGD at the end.
STEPS: Mapping[str, int] = MappingProxyType({"full": 6, "quick": 2})
# Searches from random points, and the entries up to which they are run; see `attacks.scouting`.
SCOUTS: Mapping[str, int] = MappingProxyType({"full": 4, "quick": 1})
SCOUTED = 1000
# Entries up to which the exact refinement pays its way by default, per norm: its programs take
# milliseconds for L2, but up to a second for thousands of entries under L-inf and L1.
REFINED: Mapping[float, int] = MappingProxyType(
    {math.inf: 1000, 2.0: MOST_ENTRIES, 1.0: 1000, 0.0: 0}
)
# PGD first tries balls smaller by this share than the distance held; each success doubles it, each
# failure divides it by four; smaller than the tolerance, it is not worth a round.
FIRST_CUT, CUT_FACTOR_DOWN, CUT_FACTOR_UP = 0.01, 0.25, 2.0
SEARCHER = PGD(restarts=1)
# Lengths asked at once along the descent direction and towards a find, besides its own.
LINE_POINTS = 12
# Linear pieces visited at most after the members; the shares of the way to each piece's minimum
# that are asked, a little beyond it; and the relative gain below which it is left at that.
PIECES, SHARES, BEYOND, PIECE_GAIN = 10, (1.0, 0.5, 0.2, 0.05), 1 + 1e-6, 1e-5


def portfolio_radius(
    model: Model,
    x: Tensor,
    labels: Tensor,
    ball: Ball,
    *,
    members: Mapping[str, Minimiser] | None = None,
    judge: Judge | None = None,
    steps: int | None = None,
    targets: Tensor | None = None,
    start: Tensor | None = None,
    sample_keys: Tensor | None = None,
    effort: str = "full",
    refine: bool | None = None,
    floor: Tensor | None = None,
    seed: int = 0,
) -> PortfolioResult:
    """The least distance to a misclassified point that any of the searches finds, per sample.

    In turn: a line search along the gradient; each member, from the input; a search that begins at
    a misclassified point far away; the segment from the input to the best point so far; for ReLU
    nets the exact minimum of the linear pieces around that point, and short searches from random
    points, refined likewise; rounds of PGD in ever smaller balls, and the pieces again where these
    found something. A radius only ever falls, and only to a
    point that the model misclassifies and the judge accepts.

    Args:
        model, x, labels, ball, targets, start, sample_keys: as for `Minimiser`.
        members: minimal-norm attacks by name; by default a choice for the ball's norm.
        judge: decides in place of torch's arithmetic whether candidates count; see
            `minimal_radius`. A refused candidate is offered again a little farther out.
        steps: rounds of PGD at the end; 0 for none, None for as many as the effort has.
        effort: "full", or "quick" with fewer and shorter members.
        refine: whether to solve linear pieces exactly (`attacks.refinement`), and for up to 1,000
            entries from several points; None for where it pays: up to 20,000 entries under L2,
            1,000 under L-inf and L1, never under L0.
        floor: shape (batch,): radii that are proven. A sample is left alone once its radius is
            within a relative 1e-3 of its own.
        seed: of the random points; members have their own.

    Raises:
        AttackInputError: as for `Minimiser`, or if a setting cannot be meant.
    """
    if effort not in STEPS:
        raise AttackInputError(
            f"portfolio_radius got effort = {effort!r}; expected 'full' or 'quick'. "
            "Correct that setting."
        )
    steps = STEPS[effort] if steps is None else steps
    if steps < 0:
        raise AttackInputError(
            f"portfolio_radius got steps = {steps}; expected at least 0. Correct that setting."
        )
    if members is None:
        members = (MEMBERS if effort == "full" else QUICK_MEMBERS)[float(ball.p)]
    oracle = Nearest(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
    board = Board(oracle, judge, proven=floor_of(floor, oracle))
    rows = oracle.rows()
    if not len(rows):
        return board.result()
    if refine is None:
        refine = oracle.region.centre[0].numel() <= REFINED[float(ball.p)]
    line_search(oracle, rows, start)
    board.take(LINE)
    for name, member in members.items():
        rows = board.open(rows)
        if not len(rows):
            return board.result()
        found = member(
            model,
            oracle.region.centre[rows],
            oracle.labels[rows],
            ball.rows(rows, oracle.region.centre),
            targets=None if oracle.targets is None else oracle.targets[rows],
            sample_keys=oracle.keys[rows],
        )
        board.offer(name, rows, found)
    rows = board.open(rows)
    if len(rows) and oracle.region.p:
        board.offer(AFAR, *from_afar(oracle, rows, RETURNS[effort], seed))
    follow_segment(oracle, board.open(rows))
    relinearise(oracle, board.open(rows))
    board.take(None)
    if refine:
        refine_pieces(oracle, board.open(rows))
        board.take(None)
    if refine and oracle.region.centre[0].numel() <= SCOUTED:
        scout(oracle, board.open(rows), SCOUTS[effort], seed)
        board.take(SCOUT)
    before = board.radius.clone()
    tighten(board, model, board.open(rows), ball, steps)
    if refine:
        rows = board.open(rows)
        refine_pieces(oracle, rows[board.radius[rows] < before[rows]])
        board.take(None)
    return board.result()


def floor_of(floor: Tensor | None, oracle: Nearest) -> Tensor:
    """The proven radii, 0 where there are none; shape (batch,), float64."""
    if floor is None:
        return torch.zeros_like(oracle.radius)
    if floor.shape != oracle.radius.shape or bool(floor.isnan().any()):
        raise AttackInputError(
            f"portfolio_radius got a floor of shape {tuple(floor.shape)}, or with NaN in it; "
            f"expected {tuple(oracle.radius.shape)}, one proven radius per sample."
        )
    return floor.to(oracle.radius)


def line_search(oracle: Nearest, rows: Tensor, start: Tensor | None) -> None:
    """Ask along the least move of the linearised model, at growing lengths, then halve back."""
    oracle.begin(rows, start)
    centre = oracle.region.centre[rows]
    move = oracle.first_move(rows, centre, oracle.view(rows, centre))
    each = rows.repeat_interleave(LINE_POINTS)
    length = torch.linspace(0.5, 6.0, LINE_POINTS, dtype=move.dtype, device=move.device)
    share = length.repeat(len(rows))[:, None]
    oracle.ask(each, oracle.place(each, share * move.repeat_interleave(LINE_POINTS, dim=0)))
    oracle.shorten(rows)


def follow_segment(oracle: Nearest, rows: Tensor) -> None:
    """Look for an earlier flip on the way from each input to the point held.

    The misclassified points on a segment need not be one interval, so all of it is scanned.
    """
    rows = rows[oracle.radius[rows].isfinite()]
    if not len(rows):
        return
    each = rows.repeat_interleave(LINE_POINTS)
    part = torch.arange(1, LINE_POINTS + 1, dtype=torch.float64, device=rows.device)
    share = (part / (LINE_POINTS + 1)).repeat(len(rows))[:, None]
    move = oracle.moved(rows, oracle.candidate[rows]).repeat_interleave(LINE_POINTS, dim=0)
    oracle.ask(each, oracle.place(each, share * move))
    oracle.shorten(rows)


def relinearise(oracle: Nearest, rows: Tensor) -> None:
    """From each point held to the nearest point of its linear piece's boundary, again and again.

    Between the kinks of a ReLU net the margin is affine, so one gradient at the point held gives
    the hyperplane, and the projection of the input onto it within the range is the exact minimum of
    that piece. Where it lies beyond a kink, points on the way to it are asked.
    """
    rows = rows[oracle.radius[rows].isfinite()]
    for _ in range(PIECES):
        if not len(rows):
            return
        before = oracle.radius[rows]
        held = oracle.candidate[rows]
        gone = oracle.moved(rows, held)
        seen = oracle.view(rows, held)
        low, high = oracle.room(rows)
        # The affine margin at the input itself: m(x) + g . (input - x).
        gap = seen.value - (seen.slope * gone).sum(dim=1)
        aim = least_move(-seen.slope, gap, low, high, oracle.region.p)
        each = rows.repeat_interleave(len(SHARES))
        share = torch.tensor(SHARES, dtype=torch.float64, device=rows.device).repeat(len(rows))
        delta = torch.lerp(
            gone.repeat_interleave(len(SHARES), dim=0),
            BEYOND * aim.repeat_interleave(len(SHARES), dim=0),
            share[:, None],
        )
        oracle.ask(each, oracle.place(each, delta))
        oracle.shorten(rows)
        rows = rows[oracle.radius[rows] < (1 - PIECE_GAIN) * before]


def tighten(board: Board, model: Model, rows: Tensor, ball: Ball, steps: int) -> None:
    """Rounds of PGD in balls a little smaller than the distance held, begun at the point held."""
    oracle = board.oracle
    centre = oracle.region.centre
    cut = torch.full_like(board.radius, FIRST_CUT)
    for _ in range(steps):
        rows = board.open(rows)
        rows = rows[board.radius[rows].isfinite() & (cut[rows] >= TOLERANCE)]
        if not len(rows):
            return
        before = board.radius[rows]
        found = SEARCHER(
            model,
            centre[rows],
            oracle.labels[rows],
            ball.rows(rows, centre).with_eps(before * (1 - cut[rows])),
            targets=None if oracle.targets is None else oracle.targets[rows],
            start=board.candidate[rows],
            sample_keys=oracle.keys[rows],
        )
        oracle.forward[rows] += found.forward
        oracle.backward[rows] += found.backward
        hits = rows[found.found]
        if len(hits):
            oracle.ask(hits, found.candidate[found.found])
            oracle.shorten(hits)
        board.take(PGD_ROUNDS)
        fell = board.radius[rows] < before
        # One entry fewer is the only smaller try at p = 0: where that failed, it is the last.
        down = CUT_FACTOR_DOWN if ball.p else 0.0
        cut[rows] = cut[rows] * torch.where(fell, CUT_FACTOR_UP, down)
        cut.clamp_(max=0.5)
