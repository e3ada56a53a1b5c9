"""What a portfolio holds: the best accepted candidate per sample, and who found it."""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.bisection import Judge
from attacks.nearest import Nearest
from attacks.result import REFUSED, RadiusResult

CLEAN = "clean"
# A radius that may fall by less than this relative to itself is not worth a search.
TOLERANCE = 1e-3
# A candidate that the judge refuses is pushed outwards by these shares of its own length.
PUSHES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1)


@dataclass(frozen=True, slots=True, eq=False)
class PortfolioResult(RadiusResult):
    """The least of several upper bounds on each sample's robustness radius.

    Attributes:
        attack: per sample the name of the search that found the candidate: a member's, "line",
            "scout", "pgd", "clean" where the input itself is misclassified, "" where there is none.
    """

    attack: tuple[str, ...]


@dataclass(slots=True, eq=False)
class Board:
    """The best accepted candidate per sample, and who found it; mutable.

    The oracle's own record serves as the record here: it is set back where the judge refuses.
    """

    oracle: Nearest
    judge: Judge | None
    proven: Tensor
    refused: Tensor = dataclasses.field(init=False)
    names: list[str] = dataclasses.field(default_factory=list)
    candidate: Tensor = dataclasses.field(init=False)
    radius: Tensor = dataclasses.field(init=False)
    margin: Tensor = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """What is known before any search: the inputs that are misclassified as they are."""
        oracle = self.oracle
        self.candidate, self.radius = oracle.candidate.clone(), oracle.radius.clone()
        self.margin = oracle.margin.clone()
        self.refused = torch.zeros_like(oracle.clean)
        wrong = oracle.clean.nonzero().flatten()
        if self.judge is not None and len(wrong):
            refused = wrong[~self.judge(self.candidate[wrong], wrong).to(wrong.device)]
            self.radius[refused] = math.inf
            self.refused[refused] = True
        self.names = [CLEAN if r == 0 else "" for r in self.radius.tolist()]

    def open(self, rows: Tensor) -> Tensor:
        """Those of the samples `rows` whose radius may still fall by more than the tolerance."""
        return rows[self.radius[rows] > (1 + TOLERANCE) * self.proven[rows]]

    def offer(self, name: str, rows: Tensor, found: RadiusResult) -> None:
        """Take what a search found for the samples `rows`, after asking the model and the judge."""
        oracle = self.oracle
        oracle.forward[rows] += found.forward
        oracle.backward[rows] += found.backward
        oracle.heed(rows, found)
        nearer = found.found & (found.radius < self.radius[rows])
        if bool(nearer.any()):
            oracle.ask(rows[nearer], found.candidate[nearer])
        self.take(name)

    def take(self, name: str | None) -> None:
        """Accept what the oracle holds and is nearer, or set the oracle back to what was held.

        Args:
            name: who found it; None for a refinement of what was held, which stays credited.
        """
        oracle = self.oracle
        nearer = (oracle.radius < self.radius).nonzero().flatten()
        if self.judge is not None and len(nearer):
            accepted = self.judge(oracle.candidate[nearer], nearer).to(nearer.device)
            self.refused[nearer[~accepted]] = True
            self._push(nearer[~accepted], name)
            nearer = nearer[accepted]
        self._accept(nearer, name)
        oracle.candidate, oracle.margin = self.candidate.clone(), self.margin.clone()
        oracle.radius = self.radius.clone()

    def _push(self, rows: Tensor, name: str | None) -> None:
        """Offer refused candidates again, each time a little farther out."""
        oracle = self.oracle
        assert self.judge is not None
        refused = oracle.moved(rows, oracle.candidate[rows])
        for share in PUSHES:
            if not len(rows):
                return
            oracle.radius[rows] = self.radius[rows]
            oracle.ask(rows, oracle.place(rows, (1 + share) * refused))
            seen = oracle.radius[rows] < self.radius[rows]
            accepted = seen.clone()
            if bool(seen.any()):
                chosen = rows[seen]
                accepted[seen] = self.judge(oracle.candidate[chosen], chosen).to(rows.device)
            self._accept(rows[accepted], name)
            rows, refused = rows[~accepted], refused[~accepted]

    def _accept(self, rows: Tensor, name: str | None) -> None:
        """The oracle's points of these samples are the best from now on."""
        self.candidate[rows] = self.oracle.candidate[rows]
        self.radius[rows] = self.oracle.radius[rows]
        self.margin[rows] = self.oracle.margin[rows]
        for row in rows.tolist():
            self.names[row] = self.names[row] if name is None else name

    def result(self) -> PortfolioResult:
        """What is known now; points beyond eps have served as starting points, and go."""
        oracle = self.oracle
        near = self.radius <= oracle.region.eps
        found = near & self.radius.isfinite()
        shape = (-1, *[1] * (self.candidate.dim() - 1))
        return PortfolioResult(
            candidate=torch.where(found.view(shape), self.candidate, oracle.region.centre),
            radius=torch.where(found, self.radius, math.inf),
            found=found,
            margin=torch.where(found, self.margin, oracle.inputs_margin),
            forward=oracle.forward,
            backward=oracle.backward,
            remarks=tuple(
                (*remarks, REFUSED) if refused else remarks
                for remarks, refused in zip(
                    oracle.remarks(found, judged=self.judge is not None),
                    self.refused.tolist(),
                    strict=True,
                )
            ),
            attack=tuple(
                name if ok else "" for name, ok in zip(self.names, found.tolist(), strict=True)
            ),
        )
