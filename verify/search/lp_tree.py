"""LpTree: branch and bound over the signs of neurons, a warm linear program at every node.

Best first would keep memory large and the solver cold; the tree is walked depth first instead, the
child with the smaller bound next, since it is the likelier one to hold a counterexample. Which
neuron to split is chosen by pseudo-costs: how much a split of it has raised the bound per unit of
what its relaxation lost at the node's optimum.

The solver closes nothing. What it calls closed is a claim, made of its dual values; claims are
evaluated rigorously in batches, and those that fail go back into the tree.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from verify.bounders.lp import Vector
from verify.bounders.safe_lp import Prover
from verify.bounders.simplex import CUT_OFF, INFEASIBLE, OPTIMAL, Domain, Simplex, Solved
from verify.search.lp_clipping import Clipper
from verify.search.recorder import ProgramRecorder

BATCH = 64
"""Claims evaluated at once."""
WIDTH = 16
"""Nodes clipped at once, and then split one after the other."""
NO_LOSS = 1e-9
"""Of a neuron's relaxation at the optimum: below it, splitting the neuron cannot help there."""
FIRST_COST = 1.0
"""Pseudo-cost of a neuron that was never split."""


@dataclass(frozen=True, slots=True, eq=False)
class Open:
    """A node of the tree that has to be split.

    Attributes:
        domain: its assumptions.
        bound: its program's optimum; what the solver says, for the order and for people.
        loss: what each open neuron's relaxation costs at the optimum, (neuron,).
        gap: how far each neuron is from its function there, (neuron,).
        duals: of the program's rows at the optimum, or None.
    """

    domain: Domain
    bound: float
    loss: Vector
    gap: Vector
    duals: Vector | None


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """A node that the solver calls closed, and what it says for it."""

    domain: Domain
    solved: Solved


@dataclass(eq=False)
class LpTree:
    """The search below one program.

    Attributes:
        simplex: with the program loaded.
        prover: of the same program.
        point: called with the inputs of every optimum, (inputs,); True ends the search.
        aim: what the rigorous bound of a node must exceed.
        clip: tightens nodes before they are split, or None.
        recorder: is told what proves what, or None.
        slack: how much more the solver's must, so that rounding does not undo it.
        bound: least rigorous bound of the closed nodes.
        nodes: solved so far.
        above: bound of the node whose children are being solved.
        stuck: nodes without a neuron left to split, that no claim closes.
        open_: nodes to split, the next one last.
    """

    simplex: Simplex
    prover: Prover
    point: Callable[[Vector], bool]
    aim: float = 0.0
    slack: float = 0.0
    clip: Clipper | None = None
    recorder: ProgramRecorder | None = None
    bound: float = np.inf
    nodes: int = 0
    stuck: int = 0
    open_: list[Open] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    gains: Vector = field(init=False)
    tries: Vector = field(init=False)
    found: bool = False
    above: float = -np.inf

    def __post_init__(self) -> None:
        """No split was tried yet."""
        self.gains = np.zeros((2, len(self.simplex.z)))
        self.tries = np.zeros((2, len(self.simplex.z)))

    def run(
        self, deadline: float, most: float = np.inf, tell: Callable[[], None] | None = None
    ) -> bool:
        """Search until all is closed (True), or a point is found, time or nodes are up (False)."""
        if not self.nodes:
            self.bound_node(self.simplex.whole, deadline)
        while not self.found and time.monotonic() < deadline and self.nodes < most:
            if not self.open_:
                self.settle()
                if not self.open_:
                    break
            for node in self.clipped(self.open_[-WIDTH:], deadline):
                self.split(node, deadline)
            if len(self.claims) >= BATCH:
                self.settle()
                if tell is not None:
                    tell()
        return not self.found and not self.open_ and not self.claims and not self.stuck

    def clipped(self, nodes: list[Open], deadline: float) -> list[Open]:
        """Take nodes off the queue and tighten them; what is then empty is closed.

        A node whose bounds moved keeps the losses of its old optimum, which still order its
        neurons.
        """
        del self.open_[-len(nodes) :]
        if self.clip is None or any(node.duals is None for node in nodes):
            return nodes[::-1]
        duals = [node.duals for node in nodes if node.duals is not None]
        tighter = self.clip([node.domain for node in nodes], duals, self.aim)
        found = []
        for node, domain in zip(nodes, tighter, strict=True):
            if domain is None:
                self.close(self.aim)
            elif (domain.side != 0).all():
                self.bound_node(domain, deadline)
            else:
                open_ = domain.side == 0
                found.append(
                    replace(
                        node,
                        domain=domain,
                        loss=np.where(open_, node.loss, 0.0),
                        gap=np.where(open_, node.gap, 0.0),
                    )
                )
        return found[::-1]

    def close(self, bound: float) -> None:
        """Note a closed node; of a clipped one only its unsafe inputs were bounded."""
        if self.clip is not None:
            bound = float(np.nextafter(self.aim, np.inf))
        self.bound = min(self.bound, bound)

    def least(self) -> float:
        """The least bound over all that is open, as far as it is known."""
        return min((node.bound for node in self.open_), default=self.bound)

    def bound_node(self, domain: Domain, deadline: float) -> float:
        """Solve one node and file it; returns its bound, NaN if there is none."""
        self.simplex.move(domain)
        solved = self.simplex.solve(enough=self.aim + self.slack, deadline=deadline)
        self.nodes += 1
        status = solved.status
        if status in (CUT_OFF, INFEASIBLE) or (status == OPTIMAL and solved.bound > self.aim):
            if solved.duals is not None:
                self.claims.append(Claim(domain, solved))
                return solved.bound
        elif status == OPTIMAL and solved.columns is not None:
            self.examine(domain, solved)
            return solved.bound
        self.file(domain, solved)
        return float("nan")

    def examine(self, domain: Domain, solved: Solved) -> None:
        """A node that stays open: look at its optimum, then queue it."""
        columns = solved.columns
        assert columns is not None
        if self.point(columns[: self.simplex.program.inputs]):
            self.found = True
        self.file(domain, solved)

    def file(self, domain: Domain, solved: Solved) -> None:
        """Queue a node; one without open neurons is stuck."""
        if not bool((domain.side == 0).any()):
            self.stuck += 1
            return
        loss, gap = self.losses(domain, solved)
        bound = solved.bound if np.isfinite(solved.bound) else self.above
        self.open_.append(Open(domain, bound, loss, gap, None if solved.ray else solved.duals))

    def losses(self, domain: Domain, solved: Solved) -> tuple[Vector, Vector]:
        """What each open neuron's relaxation costs at the optimum, and how far off it is there."""
        simplex = self.simplex
        width = np.where(domain.side == 0, domain.upper - domain.lower, 0.0)
        if solved.columns is None or solved.duals is None:
            return width, width  # nothing is known: the widest first
        z, h = solved.columns[simplex.z], solved.columns[simplex.h]
        gap = np.abs(h - np.where(z > 0, simplex.above * z, simplex.below * z))
        gap = np.where(domain.side == 0, gap, 0.0)
        return gap * np.abs(solved.duals[simplex.row]), gap

    def choose(self, node: Open) -> int:
        """The neuron to split."""
        open_ = node.domain.side == 0
        if node.loss.max() > NO_LOSS:
            cost = np.where(self.tries > 0, self.gains / np.maximum(self.tries, 1), FIRST_COST)
            gains = np.maximum(cost * node.loss, NO_LOSS)
            return int(np.where(open_ & (node.loss > 0), gains[0] * gains[1], -1.0).argmax())
        if node.gap.max() > NO_LOSS:
            return int(np.where(open_, node.gap, -1.0).argmax())
        return int(np.where(open_, node.domain.upper - node.domain.lower, -1.0).argmax())

    def split(self, node: Open, deadline: float) -> None:
        """Solve both children; the one with the smaller bound is split next."""
        place, self.above = self.choose(node), node.bound
        before = len(self.open_)
        for which, side in enumerate((1, -1)):
            if self.found:
                return
            bound = self.bound_node(half(node.domain, place, side), deadline)
            loss = node.loss[place]
            if loss > NO_LOSS and np.isfinite(bound) and np.isfinite(node.bound):
                self.gains[which, place] += max(0.0, bound - node.bound) / loss
                self.tries[which, place] += 1
        self.open_[before:] = sorted(self.open_[before:], key=lambda child: -child.bound)

    def settle(self) -> None:
        """Evaluate the claims; those that fail are solved without a cut-off and split further."""
        claims, self.claims = self.claims, []
        if not claims:
            return
        proved = self.evaluated(claims)
        for claim, bound in zip(claims, proved.tolist(), strict=True):
            if bound > self.aim:
                self.close(bound)
                continue
            self.simplex.move(claim.domain)
            solved = self.simplex.solve()
            if solved.duals is not None and solved.status in (OPTIMAL, INFEASIBLE):
                (again,) = self.evaluated([Claim(claim.domain, solved)])
                if float(again) > self.aim:
                    self.close(float(again))
                    continue
            if solved.columns is not None and solved.status == OPTIMAL:
                self.examine(claim.domain, solved)
            else:
                self.file(claim.domain, solved)

    def evaluated(self, claims: list[Claim]) -> Tensor:
        """Rigorous bounds of claims, +inf where the domain is proved empty; -inf shows nothing.

        Whether HiGHS's ray has the sign of our multipliers is not relied upon: both are evaluated.
        """
        rays = torch.tensor([claim.solved.ray for claim in claims])
        known = [claim.solved.duals for claim in claims if claim.solved.duals is not None]
        domains, prover = [claim.domain for claim in claims], self.prover
        # A ray shows that the domain is empty: the rows of the output count for nothing there.
        weights = torch.where(rays[:, None], 0.0, prover.weights(torch.from_numpy(np.stack(known))))
        bound = prover.prove(domains, known, weights)
        bound = torch.where(torch.isfinite(bound), bound, -torch.inf)
        for i in (rays & ~(bound > 0)).nonzero().flatten().tolist():
            turned = -known[i]
            again = prover.prove([domains[i]], [turned], weights[i : i + 1])
            if bool(torch.isfinite(again) & (again > 0)):
                known[i], bound[i] = turned, again[0]
        bound = torch.where(rays & (bound > 0), torch.inf, torch.where(rays, -torch.inf, bound))
        good = (bound > self.aim).nonzero().flatten()
        if self.recorder is not None and len(good):
            closed, by = zip(*((domains[i], known[i]) for i in good.tolist()), strict=True)
            self.recorder.closed(closed, by, weights[good])
        return bound


def half(domain: Domain, place: int, side: int) -> Domain:
    """The domain with one neuron's sign fixed."""
    sides, lower, upper = domain.side.copy(), domain.lower.copy(), domain.upper.copy()
    sides[place] = side
    if side > 0:
        lower[place] = 0.0
    else:
        upper[place] = 0.0
    return Domain(sides, lower, upper, (*domain.splits, (place, side)))
