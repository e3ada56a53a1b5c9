"""Certify one image against a set of fields: the largest share of the set that is proved."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.errors import InternalError, SettingError
from verify.geometric.flow_region import Flowing
from verify.geometric.flows import Flow, deformed, flow_forms
from verify.geometric.outcome import GeometricResult
from verify.geometric.transforms import check_image_shape
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.protocols import Bounder, Judge
from verify.values.budget import Budget, OutOfTime
from verify.values.region import Box
from verify.values.result import StopReason, Verdict
from verify.values.semantics import EXECUTED, Semantics
from verify.values.spec import classified_as

FLOW_METHODS = ("auto", "ibp", "crown-ibp", "crown", "alpha-crown")
HALVINGS = 6
"""How often the share is halved in where the whole set is not proved."""
REQUIRED_OF_SCORES = 1e-5
"""Margin of logits below which scores after a softmax may tie in float32."""


@dataclass(frozen=True, slots=True)
class FlowClaim:
    """What is asked of every image.

    Attributes:
        flow: the fields.
        method: one of `FLOW_METHODS`; auto is ibp, crown and alpha-crown, until one proves it.
        bracket: whether smaller shares are looked at where the whole set is not proved.
        semantics: what a proof is to hold for; sampling is always charged as it is executed.

    Raises:
        SettingError: if there is no such method.
    """

    flow: Flow
    method: str = "auto"
    bracket: bool = True
    semantics: Semantics = EXECUTED

    def __post_init__(self) -> None:
        """Check the method."""
        if self.method not in FLOW_METHODS:
            raise SettingError(
                f"method {self.method!r} is not one of {', '.join(FLOW_METHODS)}, which flows know"
            )

    def stages(self) -> list[tuple[Bounder, bool]]:
        """Bounders, cheapest first, and whether they look at the pixels' box alone."""
        rounding, every = self.semantics.rounding, self.method == "alpha-crown"
        alpha = AlphaCrown(enough=0.0, intermediate=every, rounding=rounding)
        table: dict[str, list[tuple[Bounder, bool]]] = {
            "ibp": [(Interval(rounding), True)],
            "crown-ibp": [(Crown(rounding, False), False)],
            "crown": [(Crown(rounding), False)],
            "alpha-crown": [(alpha, False)],
        }
        table["auto"] = [*table["ibp"], *table["crown"], *table["alpha-crown"]]
        return table[self.method]


def proved_margin(
    graph: Graph, image: Tensor, label: Tensor, flow: Flow, claim: FlowClaim, budget: Budget
) -> float:
    """The best lower bound of the margin over a set of fields; > 0 is a proof.

    Raises:
        OutOfTime: if the budget ends.
    """
    region = Flowing(flow_forms(image, flow), flow)
    ends = region.bounds()
    box = Box(ends.lower, ends.upper)
    # Without what couples pixels, the box is all there is, and bounders are faster on it.
    loose = image.shape[0] == 1 and flow.smooth is None
    spec = classified_as(label, graph.output.size, tail=graph.tail)
    required = REQUIRED_OF_SCORES if graph.tail in ("Softmax", "LogSoftmax") else 0.0
    best = -math.inf
    for bounder, on_box in claim.stages():
        budget.check()
        problem = Problem(graph, box if on_box or loose else region, spec)
        margin = float(bounder(problem, budget).margin.min())
        # NaN and infinity prove nothing.
        if math.isfinite(margin):
            best = max(best, margin)
        if best > required:
            return best
    return best - required


def certify_flow(
    graph: Graph,
    judge: Judge,
    image: Tensor,
    label: int,
    claim: FlowClaim,
    *,
    budget: Budget = Budget(),
    index: int = 0,
    known: Tensor | None = None,
    attack: str = "",
) -> GeometricResult:
    """Decide whether a field of the set changes one image's label.

    Args:
        graph: the network, float64.
        judge: the model's own runtime.
        image: shape (channel, height, width), float32.
        label: the class that must hold.
        claim: the fields, and how they are bounded.
        budget: its deadline.
        index: number of the image in its source.
        known: fields that an attack suggests, shape (any, 2, height, width); the judge decides.
        attack: its name.

    Raises:
        ShapeError: if the network does not take images.
        InternalError: if a certified share reached an attacked one, other than in real arithmetic.
    """
    started = time.monotonic()
    check_image_shape(tuple(image.shape))
    image, labels = image.to(torch.float32), torch.tensor([label])
    still = torch.zeros(1, 2, *image.shape[1:])
    fields = still if known is None else torch.cat((still, known.to(torch.float32)))
    attacked, witness, where = replayed(judge, image, labels, claim.flow, fields)
    certified, margin, tried, reason = 0.0, math.nan, 0, ""
    share, step = 1.0, 0.5
    while attacked > 0:
        try:
            found = -math.inf
            if share < attacked:
                tried += 1
                found = proved_margin(graph, image, labels, claim.flow.shrunk(share), claim, budget)
        except OutOfTime:
            reason = StopReason.OUT_OF_TIME.value
            break
        if found > 0:
            certified, margin = share, found
        if certified == 1.0 or not claim.bracket or step < 2.0**-HALVINGS:
            break
        share, step = share + (step if found > 0 else -step), step / 2
    if certified > 0 and certified >= attacked and claim.semantics.executed:
        raise InternalError(
            f"input {index} is certified to a share of {certified} and refuted at {attacked}; "
            "one of the two is wrong, please report this"
        )
    verdict = claim.semantics.proof if certified == 1.0 else Verdict.UNKNOWN
    if witness is not None:
        verdict, reason = Verdict.FALSIFIED, ""
    elif verdict is Verdict.UNKNOWN:
        reason = reason or StopReason.BOUNDS_TOO_LOOSE.value
    return GeometricResult(
        index=index,
        label=label,
        predicted=int(judge.predict(image[None])[0]),
        verdict=verdict,
        margin=margin if verdict.proved else math.nan,
        certified=certified,
        attacked=attacked,
        volume=certified,
        boxes=tried,
        noise=0.0,
        method=claim.method,
        seconds=time.monotonic() - started,
        reason=reason,
        parameters=None,
        witness=witness,
        spans=torch.zeros(0, 2, 0, dtype=torch.float64),
        attack="" if witness is None else ("replay" if where == 0 else attack),
    )


def replayed(
    judge: Judge, image: Tensor, labels: Tensor, flow: Flow, fields: Tensor
) -> tuple[float, Tensor | None, int]:
    """The least share of a field that the judge confirms, its image and its number."""
    shares = flow.share(fields)
    images = deformed(image.expand(len(fields), -1, -1, -1), fields)
    wrong = judge.misclassified(images, labels.expand(len(fields))) & (shares <= 1.0)
    if not bool(wrong.any()):
        return math.inf, None, -1
    least = int(torch.where(wrong, shares, math.inf).argmin())
    return float(shares[least]), images[least], least
