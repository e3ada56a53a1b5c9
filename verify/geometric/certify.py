"""Search over boxes of parameters: bound, replay, split, until all is decided or the budget spent.

Boxes near the origin come first, so that what is certified grows from there. Every box's centre,
and the corner where its margin's form is least, are shown to the judge. A counterexample puts all
boxes of a larger share aside; the others are pursued until the bracket is narrow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.errors import InternalError, SettingError
from verify.geometric.boxes import Boxes, coarse, parts
from verify.geometric.forward import Forward
from verify.geometric.linear_constraints import pixel_forms
from verify.geometric.outcome import GeometricResult
from verify.geometric.region import Transformed, effect
from verify.geometric.transforms import Transform, check_image_shape
from verify.graph.ir import Graph
from verify.problem import Problem
from verify.protocols import Judge
from verify.traverse import run as run_graph
from verify.values.budget import Budget, OutOfTime
from verify.values.region import Box
from verify.values.result import StopReason, Verdict
from verify.values.rounding import PARTIAL_SUMS, REAL
from verify.values.semantics import EXECUTED, Semantics
from verify.values.spec import classified_as

METHODS = ("forward", "crown", "crown-ibp", "ibp")
AT_ONCE = 2**26
"""Bytes that one form of all neurons of the widest layer may take: how many boxes go at once."""
NEAR = 4.0
"""Boxes whose middle's margin is below this many times the rounding that plain bounds charge are
bounded once more, closely."""
SMALL = 2.0**-9
"""...if they are no more than this part of the range; larger ones are cheaper to split."""
CLOSELY_AT_ONCE = 8
"""Boxes that are bounded so at once."""
NARROWEST = 2.0**-24
"""Boxes are not split beyond this part of the range: rounding would be all that is left."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the search goes.

    Attributes:
        method: "forward" (forms carried forward, then one backward pass), "crown" (rows for every
            neuron), "crown-ibp", or "ibp" (intervals only).
        noise: each pixel may move by this much on top, in model input units.
        split: whether boxes are split at all; without, one box is the whole range.
        most_boxes: bounded per image at most.
        tolerance: after a counterexample, boxes below it are pursued until its share and the
            certified one differ by less than this, relatively; None stops at the first one.
        semantics: what a proof is to hold for, as far as the network goes; sampling is always
            charged as it is executed.

    Raises:
        SettingError: if one of them is out of its range.
    """

    method: str = "forward"
    noise: float = 0.0
    split: bool = True
    most_boxes: int = 100_000
    tolerance: float | None = 0.01
    semantics: Semantics = EXECUTED

    def __post_init__(self) -> None:
        """Check what was given."""
        if self.method not in METHODS:
            raise SettingError(f"method {self.method!r} is not one of {', '.join(METHODS)}")
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise SettingError(f"pixel noise is {self.noise!r}, expected a finite number >= 0")
        if self.most_boxes < 1:
            raise SettingError(f"{self.most_boxes} boxes were allowed, expected at least 1")


@dataclass(eq=False)
class Search:
    """One image's search; filled as it goes.

    Attributes:
        graph, judge, image, label, transform, settings: the claim.
        certified: boxes that were proved.
        left: boxes put aside: too narrow, within rounding, or beyond a counterexample.
        rounding: what plain bounds charge at the origin, once it is asked for.
        stuck: whether a box was put aside because a point of it is within rounding.
        margin: least certified margin so far.
        bounded: how many boxes were bounded.
        attacked: least share of a counterexample.
        parameters, witness: that counterexample.
        watch: told the certified and the attacked share after each step.
        single: the network in float32.
    """

    graph: Graph
    judge: Judge
    image: Tensor
    label: Tensor
    transform: Transform
    settings: Settings
    certified: list[Boxes] = field(default_factory=list)
    left: list[Boxes] = field(default_factory=list)
    margin: float = math.inf
    bounded: int = 0
    attacked: float = math.inf
    parameters: tuple[float, ...] | None = None
    witness: Tensor | None = None
    attack: str = ""
    rounding: float | None = None
    stuck: bool = False
    watch: Callable[[float, float], None] | None = None
    single: Graph = field(init=False)

    def __post_init__(self) -> None:
        """Convert the network once."""
        self.single = self.graph.to(torch.float32)

    def replay(self, parameters: Tensor, name: str = "search") -> None:
        """Show transformed images to the judge; keep the counterexample of the least share."""
        inside = (parameters >= self.transform.low) & (parameters <= self.transform.high)
        parameters = parameters[inside.all(dim=1)]
        parameters = parameters[self.transform.share(parameters) < self.attacked]
        if not len(parameters):
            return
        images = self.transform(self.image.expand(len(parameters), -1, -1, -1), parameters)
        wrong = self.judge.misclassified(images, self.label.expand(len(parameters)))
        if not bool(wrong.any()):
            return
        shares = torch.where(wrong, self.transform.share(parameters), math.inf)
        least = int(shares.argmin())
        self.attacked = float(shares[least])
        self.parameters = tuple(parameters[least].tolist())
        self.witness, self.attack = images[least], name

    def problem(self, boxes: Boxes) -> Problem:
        """The margins over boxes, one batch row each."""
        forms = pixel_forms(
            self.transform, self.image, boxes.low, boxes.high, noise=self.settings.noise
        )
        label = self.label.expand(len(boxes))
        spec = classified_as(label, self.graph.output.size, tail=self.graph.tail)
        return Problem(self.graph, Transformed(forms), spec)

    def bound(self, boxes: Boxes) -> tuple[Tensor, Tensor]:
        """Margins of boxes (box, row), and how much each parameter moves the worst row."""
        problem = self.problem(boxes)
        region, method = problem.region, self.settings.method
        rounding = self.settings.semantics.rounding
        assert isinstance(region, Transformed)
        if method == "forward":
            found = Forward(rounding, single=self.single)(problem)
            return found.margin, effect(region.forms, found.coeff.flatten(1))
        if method == "ibp":
            bounds = region.bounds()
            box = Box(bounds.lower, bounds.upper)
            margin = Interval(rounding)(Problem(self.graph, box, problem.spec)).margin
        else:
            margin = Crown(rounding, method == "crown")(problem).margin
        return margin, effect(region.forms, torch.ones_like(region.bounds().lower).flatten(1))

    def proves(self, margin: Tensor) -> Tensor:
        """Which boxes their rows' margins prove; NaN is unproved."""
        required = 1e-5 if self.graph.tail in ("Softmax", "LogSoftmax") else 0.0
        return ((margin > required) & torch.isfinite(margin)).all(dim=1)

    def settle(self, boxes: Boxes, margin: Tensor, proved: Tensor) -> None:
        """Keep those that are proved."""
        if bool(proved.any()):
            self.certified.append(boxes.take(proved))
            self.margin = min(self.margin, float(margin[proved].min()))

    def pursue(self, boxes: Boxes) -> Boxes:
        """Decide what can be decided of some boxes; the children of the others."""
        self.replay((boxes.low + boxes.high) / 2)
        near = self.within(boxes)
        self.left.append(boxes.take(~near))
        boxes = boxes.take(near)
        if not len(boxes):
            return boxes
        margin, moved = self.bound(boxes)
        self.bounded += len(boxes)
        proved = self.proves(margin)
        self.settle(boxes, margin, proved)
        rest, moved, margin = boxes.take(~proved), moved[~proved], margin[~proved].amin(dim=1)
        if not len(rest):
            return rest
        # The corner where the worst row's form is least: the likeliest counterexample.
        self.replay(torch.where(moved > 0, rest.low, rest.high))
        narrow = ((rest.high - rest.low) <= NARROWEST * self.room()).all(dim=1)
        if not self.settings.split:
            narrow = torch.ones_like(narrow)
        self.left.append(rest.take(narrow))
        rest, moved, margin = rest.take(~narrow), moved[~narrow], margin[~narrow]
        if not len(rest):
            return rest
        middle = self.middle(rest)
        open_ = self.closely(rest, middle, torch.where(moved > 0, rest.low, rest.high))
        rest, moved, margin, middle = rest.take(open_), moved[open_], margin[open_], middle[open_]
        return rest.cut(parts(rest, moved.abs(), middle, margin)) if len(rest) else rest

    def middle(self, boxes: Boxes) -> Tensor:
        """Margins at the boxes' centres, as our float32 network has them, shape (box,)."""
        images = self.transform(
            self.image.expand(len(boxes), -1, -1, -1), (boxes.low + boxes.high) / 2
        )
        output = run_graph(self.single, images).flatten(1).to(torch.float64)
        margin = output[:, self.label] - output
        return margin.index_fill(1, self.label, math.inf).amin(dim=1)

    def closely(self, boxes: Boxes, middle: Tensor, corner: Tensor) -> Tensor:
        """Which boxes are to be split; the others are proved now, or put aside as hopeless.

        Where margins are near the rounding that bounds charge, splits do not help. There small
        boxes are bounded with rounding charged more closely; where their centre or worst corner
        alone cannot be proved so, no part that holds it can. After the first of these the range is
        not going to be verified, and its like are put aside at once.
        """
        open_ = torch.ones(len(boxes), dtype=torch.bool)
        small = boxes.volume(self.transform) <= SMALL
        if not bool(small.any()):
            return open_
        if self.rounding is None:
            rest = self.transform.origin[None]
            origin = Boxes(rest, rest)
            self.rounding = float((self.middle(origin) - self.bound(origin)[0].amin(dim=1))[0])
        # NaN is near.
        tried = (small & ~(middle > NEAR * self.rounding)).nonzero().flatten()
        for some in tried.split(CLOSELY_AT_ONCE) if len(tried) else ():
            part = boxes.take(some)
            margin = self.close_margin(part)
            found = self.proves(margin)
            self.settle(part, margin, found)
            still = ~found
            for points in ((part.low + part.high) / 2, corner[some]):
                if bool(still.any()) and not self.stuck:
                    alone = Boxes(points[still], points[still])
                    still[still.clone()] = self.proves(self.close_margin(alone))
            if self.stuck or bool((~found & ~still).any()):
                self.stuck, still = True, torch.zeros_like(still)
            self.left.append(part.take(~found & ~still))
            open_[some] = still
        return open_

    def close_margin(self, boxes: Boxes) -> Tensor:
        """Margins of boxes with rounding charged closely; dear."""
        problem = self.problem(boxes)
        self.bounded += len(boxes)
        rounding = PARTIAL_SUMS if self.settings.semantics.executed else REAL
        if self.settings.method == "ibp":
            bounds = problem.region.bounds()
            box = Box(bounds.lower, bounds.upper)
            return Interval(rounding)(Problem(self.graph, box, problem.spec)).margin
        return Crown(rounding)(problem).margin

    def reached(self, waiting: Boxes) -> float:
        """The share below which every box is certified, with some still waiting."""
        open_ = [b.least_share(self.transform) for b in (waiting, *self.left) if len(b)]
        return float(torch.cat(open_).min()) if open_ else 1.0

    def room(self) -> Tensor:
        """Widths of the range."""
        return self.transform.high - self.transform.low

    def within(self, boxes: Boxes) -> Tensor:
        """Which boxes may still matter: they hold shares well below the counterexample's."""
        if math.isinf(self.attacked):
            return torch.ones(len(boxes), dtype=torch.bool)
        tolerance = self.settings.tolerance
        if tolerance is None:
            return torch.zeros(len(boxes), dtype=torch.bool)
        return boxes.least_share(self.transform) < self.attacked * (1 - tolerance)

    def run(self, budget: Budget) -> str:
        """Search until all is decided or the budget spent; returns why it stopped, or ""."""
        self.replay(self.transform.origin[None])
        boxes = Boxes(self.transform.low[None], self.transform.high[None])
        if self.settings.split:
            boxes = coarse(self.transform, self.image)
        widest = max(node.size for node in self.graph.nodes) * 8 * (1 + len(self.transform.steps))
        most = max(1, min(64, AT_ONCE // widest))
        while len(boxes):
            try:
                budget.check()
            except OutOfTime:
                self.left.append(boxes)
                return StopReason.OUT_OF_TIME.value
            if self.bounded >= self.settings.most_boxes:
                self.left.append(boxes)
                return "boxes spent: give more with --most-boxes"
            order = boxes.least_share(self.transform).argsort(stable=True)
            first = boxes.take(order[:most])
            boxes = boxes.take(order[most:]).joined(self.pursue(first))
            if self.watch is not None:
                self.watch(self.reached(boxes), self.attacked)
        return StopReason.WITHIN_ROUNDING.value if self.stuck else ""


def certify_image(
    graph: Graph,
    judge: Judge,
    image: Tensor,
    label: int,
    transform: Transform,
    *,
    settings: Settings = Settings(),
    budget: Budget = Budget(),
    index: int = 0,
    known: Tensor | None = None,
    attack: str = "",
    watch: Callable[[float, float], None] | None = None,
) -> GeometricResult:
    """Decide whether a transformation changes one image's label anywhere in its range.

    Args:
        graph: the network, float64.
        judge: the model's own runtime.
        image: shape (channel, height, width), float32.
        label: the class that must hold.
        transform: what is done, with its range.
        settings: of the search.
        budget: its deadline.
        index: number of the image in its source.
        known: parameters that an attack suggests, shape (any, parameter); the judge decides.
        attack: its name.
        watch: told the certified and the attacked share of the range after each step.

    Raises:
        ShapeError: if the network does not take images.
        InternalError: if a certified share reached an attacked one, other than in real arithmetic.
    """
    started = time.monotonic()
    check_image_shape(tuple(image.shape))
    claimed = (image.to(torch.float32), torch.tensor([label]), transform)
    search = Search(graph, judge, *claimed, settings, watch=watch)
    if known is not None and len(known):
        search.replay(known.to(torch.float64), attack)
    why = search.run(budget)
    certified, volume = 1.0, 0.0
    left = [boxes.least_share(transform) for boxes in search.left if len(boxes)]
    if left:
        certified = float(torch.cat(left).min())
    if search.certified:
        volume = float(sum(b.volume(transform).sum() for b in search.certified))
    crossed = search.attacked <= certified and (certified > 0 or not left)
    if crossed and settings.semantics.executed:
        raise InternalError(
            f"input {index} is certified to a share of {certified} and refuted at "
            f"{search.attacked}; one of the two is wrong, please report this"
        )
    verdict, reason = Verdict.UNKNOWN, why or StopReason.BOUNDS_TOO_LOOSE.value
    if search.witness is not None:
        verdict, reason = Verdict.FALSIFIED, StopReason.EXECUTED_OTHERWISE.value if crossed else ""
    elif not left:
        verdict, reason = settings.semantics.proof, ""
        volume = 1.0
    spans = [torch.stack((b.low, b.high), dim=1) for b in search.certified]
    parameters = len(transform.steps)
    return GeometricResult(
        index=index,
        label=label,
        predicted=int(judge.predict(search.image[None])[0]),
        verdict=verdict,
        margin=search.margin if verdict.proved else math.nan,
        certified=certified,
        attacked=search.attacked,
        volume=min(volume, 1.0),
        boxes=search.bounded,
        noise=settings.noise,
        method=settings.method,
        seconds=time.monotonic() - started,
        reason=reason,
        parameters=search.parameters,
        witness=search.witness,
        spans=torch.cat(spans) if spans else torch.zeros(0, 2, parameters, dtype=torch.float64),
        attack=search.attack,
    )
