"""From a point held to the nearest misclassified point of its linear piece, then across kinks.

On one linear piece of a ReLU net the nearest misclassified point is a linear or quadratic program.
Its constraints, the kinks that bound the piece, are many; so only those are generated that a
solution violates. The kinks that hold a solution back are then crossed: the piece beyond contains
the same point, so its own solution is at least as near.

Source:
    Croce, Hein 2018, "A randomized gradient-free attack on ReLU networks", arXiv:1811.11493
    (linear pieces and moving between them); constraints by need and crossing by force are ours.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.convex import Vector, shortest
from attacks.losses import margin, without
from attacks.nearest import Nearest
from attacks.pieces import Trace, trace

# Walks from the point then held, as long as each finds something nearer: kinks crossed together may
# lead astray where crossing some of them would not.
WALKS = 3
# Pieces visited at most in each; larger inputs are left alone, their programs take seconds each.
PIECES, MOST_ENTRIES = 10, 20_000
# Rounds of constraint generation per piece, and kinks added in each, those violated most.
ROUNDS, CUTS = 12, 24
# Gradients of kinks taken at once; bounds the memory.
MOST_LANES = 512
# A kink counts as crossed where its value is beyond this share of the largest in its piece.
SLACK = 1e-5
# A force below this share of the largest does not hold the solution back.
WEAK = 1e-3
# Where the model is asked: a little beyond the solution, and on the way to it.
BEYOND, SHARES = (1 + 1e-6, 1 + 1e-4), (0.5, 0.2)
# The relative gain of a piece's solution over the last below which a sample is left alone.
GAIN = 1e-4


@dataclass(slots=True, eq=False)
class Piece:
    """A linear piece under search for one sample; mutable.

    Attributes:
        row: the sample.
        rival: the class to reach.
        active: shape (units,), bool: its pattern.
        delta: shape (n,): the solution so far.
        slopes: shape (cuts, n); the first is that of z_rival - z_label.
        least: shape (cuts,): what slopes @ delta must reach.
        units: the kink behind each cut but the first.
        force: shape (cuts,): see `attacks.convex.Move`.
    """

    row: int
    rival: int
    active: Tensor
    delta: Vector
    slopes: Vector
    least: Vector
    units: list[int]
    force: Vector

    @classmethod
    def begin(cls, row: int, rival: int, active: Tensor, delta: Vector) -> "Piece":
        """A piece that is known to hold the point `delta`, before anything else is known of it."""
        nothing = np.zeros(0)
        return cls(row, rival, active, delta, np.zeros((0, len(delta))), nothing, [], nothing)

    def add(self, slopes: Vector, least: Vector, units: list[int]) -> None:
        """More inequalities."""
        self.slopes = np.concatenate((self.slopes, slopes))
        self.least = np.concatenate((self.least, least))
        self.units = self.units + units

    def across(self) -> "Piece | None":
        """The piece beyond the kinks that hold the solution back; None if none does."""
        force = self.force[1:]
        if not len(force) or not force.max() > 0:
            return None
        active = self.active.clone()
        units = [self.units[k] for k in np.flatnonzero(force > WEAK * force.max())]
        active[units] = ~active[units]
        return Piece.begin(self.row, self.rival, active, self.delta)


def refine(oracle: Nearest, rows: Tensor, pieces: int = PIECES) -> None:
    """Visit pieces from the point held of each sample, asking the model about each solution.

    Does nothing for samples without a find, for L0, under a budget (`attacks.budget`), and for
    inputs of more than `MOST_ENTRIES` entries. A net without kinks is a single piece. Wrong guesses
    (see `attacks.pieces`) cost queries and are dropped, because only what the model itself
    misclassifies is kept.

    Args:
        oracle: with the points to begin at.
        rows: shape (rows,): the samples to work on.
        pieces: visited at most per sample and walk.
    """
    held = oracle.radius[rows]
    rows = rows[held.isfinite() & (held > 0)]
    p = oracle.region.p
    if (
        not len(rows)
        or p == 0
        or oracle.ledger is not None
        or oracle.region.centre[0].numel() > MOST_ENTRIES
    ):
        return
    for _ in range(WALKS):
        before = oracle.radius[rows]
        walk(oracle, rows, pieces)
        rows = rows[oracle.radius[rows] < (1 - GAIN) * before]
        if not len(rows):
            return


def walk(oracle: Nearest, rows: Tensor, pieces: int) -> None:
    """From piece to piece, as long as their solutions come nearer."""
    p = oracle.region.p
    lanes = begin(oracle, rows)
    nearest = {lane.row: np.inf for lane in lanes}
    for _ in range(pieces):
        aim(oracle, lanes)
        lanes = solve(oracle, lanes)
        going = []
        for lane in lanes:
            size = float(np.linalg.norm(lane.delta, ord=p))
            if size < nearest[lane.row] * (1 - GAIN):
                nearest[lane.row] = size
                going.append(lane)
        if not going:
            return
        ask(oracle, going)
        lanes = [beyond for beyond in (lane.across() for lane in going) if beyond is not None]
        if not lanes:
            return


def begin(oracle: Nearest, rows: Tensor) -> list[Piece]:
    """The piece of each point held, towards the class that leads there."""
    held = oracle.candidate[rows]
    with torch.no_grad():
        seen = trace(oracle.model, held)
    oracle.forward += torch.bincount(rows, minlength=len(oracle.forward))
    rivals = without(seen.logits, oracle.labels[rows]).argmax(dim=1)
    if oracle.targets is not None:
        rivals = oracle.targets[rows]
    deltas = oracle.moved(rows, held).cpu().numpy()
    active = seen.kinks > 0
    return [
        Piece.begin(row, rival, active[k], deltas[k])
        for k, (row, rival) in enumerate(zip(rows.tolist(), rivals.tolist(), strict=True))
    ]


def aim(oracle: Nearest, lanes: list[Piece]) -> None:
    """Give each piece its first inequality: the margin's."""
    rows = rows_of(oracle, lanes)
    rivals = rows.new_tensor([lane.rival for lane in lanes])
    labels = oracle.labels[rows]
    if oracle.targets is not None:
        # To lead, the target must pass whichever other class leads at the point held.
        with torch.no_grad():
            logits = held_trace(oracle, lanes, points_of(oracle, lanes)).logits
        labels = without(logits, rivals).argmax(dim=1)
    with torch.inference_mode(False), torch.enable_grad():
        leaf = points_of(oracle, lanes).requires_grad_()
        value = -margin(held_trace(oracle, lanes, leaf).logits, labels, rivals)
        slopes, values = derived(oracle, rows, leaf, value)
    for lane, slope, level in zip(lanes, slopes, values, strict=True):
        lane.add(slope[None], np.array([slope @ lane.delta - level]), [])


def solve(oracle: Nearest, lanes: list[Piece]) -> list[Piece]:
    """Solve each piece, adding kinks as solutions violate them; the pieces that have a solution."""
    low, high = oracle.room(torch.arange(len(oracle.labels), device=oracle.labels.device))
    ends = low.cpu().numpy(), high.cpu().numpy()
    failed: set[int] = set()
    going = lanes
    for _ in range(ROUNDS):
        open_ = []
        for lane in going:
            room = ends[0][lane.row], ends[1][lane.row]
            found = shortest(lane.slopes, lane.least, *room, oracle.region.p)
            if found is None:
                failed.add(id(lane))
            else:
                lane.delta, lane.force = found.delta, found.force
                open_.append(lane)
        going = cut(oracle, open_) if open_ else []
        if not going:
            break
    return [lane for lane in lanes if id(lane) not in failed]


def cut(oracle: Nearest, lanes: list[Piece]) -> list[Piece]:
    """Add the kinks that the solutions violate most; the pieces where there are any."""
    points = points_of(oracle, lanes)
    with torch.no_grad():
        kinks = held_trace(oracle, lanes, points).kinks.double()
    if not kinks.shape[1]:
        return []
    active = torch.stack([lane.active for lane in lanes])
    excess = torch.where(active, -kinks, kinks)
    for k, lane in enumerate(lanes):
        excess[k, lane.units] = 0.0
    worst = excess.topk(min(CUTS, excess.shape[1]), dim=1)
    violated = worst.values > SLACK * kinks.abs().amax(dim=1, keepdim=True)
    which, place = violated.nonzero(as_tuple=True)
    units = worst.indices[which, place]
    signs = torch.where(active[which, units], 1.0, -1.0).double()
    for part in range(0, len(which), MOST_LANES):
        here = slice(part, part + MOST_LANES)
        chosen = [lanes[k] for k in which[here].tolist()]
        with torch.inference_mode(False), torch.enable_grad():
            leaf = points[which[here]].clone().requires_grad_()
            entering = held_trace(oracle, chosen, leaf).kinks
            value = signs[here] * entering.gather(1, units[here, None]).squeeze(1)
            slopes, values = derived(oracle, rows_of(oracle, chosen), leaf, value)
        for k in sorted(set(which[here].tolist())):
            mine = (which[here] == k).cpu().numpy()
            least = slopes[mine] @ lanes[k].delta - values[mine]
            lanes[k].add(slopes[mine], least, units[here][which[here] == k].tolist())
    return [lanes[k] for k in sorted(set(which.tolist()))]


def ask(oracle: Nearest, lanes: list[Piece]) -> None:
    """Ask the model itself near each solution, and shorten what is found."""
    rows = rows_of(oracle, lanes)
    goals = torch.as_tensor(np.stack([lane.delta for lane in lanes]), device=rows.device)
    for factor in BEYOND:
        oracle.ask(rows, oracle.place(rows, factor * goals))
    held = oracle.moved(rows, oracle.candidate[rows])
    for share in SHARES:
        oracle.ask(rows, oracle.place(rows, torch.lerp(held, goals, share)))


def rows_of(oracle: Nearest, lanes: list[Piece]) -> Tensor:
    """The sample of each piece."""
    return oracle.labels.new_tensor([lane.row for lane in lanes])


def points_of(oracle: Nearest, lanes: list[Piece]) -> Tensor:
    """The solutions as inputs; shape (lanes, *input)."""
    return oracle.place(
        rows_of(oracle, lanes),
        torch.as_tensor(np.stack([lane.delta for lane in lanes]), device=oracle.labels.device),
    )


def held_trace(oracle: Nearest, lanes: list[Piece], points: Tensor) -> Trace:
    """The affine functions of the pieces; counted as queries, one each."""
    rows = rows_of(oracle, lanes)
    oracle.forward += torch.bincount(rows, minlength=len(oracle.forward))
    active = torch.stack([lane.active for lane in lanes])
    return trace(oracle.model, points, active)


def derived(oracle: Nearest, rows: Tensor, leaf: Tensor, value: Tensor) -> tuple[Vector, Vector]:
    """Gradients, shape (lanes, n), and values, shape (lanes,); 0 where there is no gradient."""
    slope = None
    if value.requires_grad:
        (slope,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
    oracle.backward += torch.bincount(rows, minlength=len(oracle.backward))
    flat = torch.zeros_like(leaf) if slope is None else slope
    return (
        flat.flatten(1).double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).cpu().numpy(),
        value.detach().double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).cpu().numpy(),
    )
