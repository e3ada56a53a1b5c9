"""The model under attack, asked about points of a region: it counts, judges and remembers.

Every query of every attack goes through here, so the best point ever evaluated is kept no matter
which step, restart or target produced it, and queries are counted per sample.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.arguments import check_classes, check_keys, check_logits, check_steady
from attacks.ball import Ball
from attacks.budget import CURRENT
from attacks.errors import AttackInputError
from attacks.losses import Loss, graded, margin, without
from attacks.protocol import Model
from attacks.randomness import derive_keys
from attacks.result import (
    NOT_A_NUMBER,
    NOT_REPLAYED,
    TIE,
    ZERO_GRADIENT,
    AttackResult,
    RadiusResult,
)
from attacks.tally import Tally

# What a model is shown of points, of the same shape; differentiable.
View = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A loss and its gradient at one point per lane.

    Attributes:
        level: shape (rows,), the loss.
        slope: shape (rows, *input), its gradient.
    """

    level: Tensor
    slope: Tensor


class Oracle:
    """One attack's conversation with a model about one batch; mutable, used once.

    Attributes:
        region: where points must lie.
        labels: shape (batch,), int64.
        targets: shape (batch,), int64, or None.
        keys: shape (batch,), int64, of the samples; for random numbers.
        logits: shape (batch, classes), of the inputs themselves.
        margin: shape (batch,), the lowest seen for each sample; the inputs count.
        sloped: shape (batch,), bool: whether any gradient seen was not 0.
        numberless: shape (batch,), bool: whether any margin seen was NaN.

    Raises:
        AttackInputError: if the arguments do not fit each other or the model.
    """

    def __init__(
        self,
        model: Model,
        x: Tensor,
        labels: Tensor,
        ball: Ball,
        *,
        targets: Tensor | None = None,
        sample_keys: Tensor | None = None,
        roaming: bool = False,
    ) -> None:
        """Check the arguments and evaluate the inputs themselves, one forward query each.

        With `roaming` the attack may ask about points outside the region, as minimal-norm attacks
        do; then only points inside are remembered.
        """
        check_steady(model)
        x = x.detach()
        self.region = ball.around(x)
        if not bool(self.region.reach().isfinite().all()):
            raise AttackInputError(
                "The region to attack is unbounded: eps is inf and the input range is, too. "
                "Give a finite eps, or an input range (lower=, upper=)."
            )
        self.model = model
        self.roaming = roaming
        self.keys = check_keys(sample_keys, x)
        self.ledger = CURRENT.get()
        known = None if self.ledger is None else self.ledger.at_inputs(self.keys)
        if known is None:
            with torch.no_grad():
                known = model(x)
            asked = 1
        else:
            asked = 0
        self.logits = known
        check_logits(self.logits, len(x))
        classes = self.logits.shape[1]
        self.labels = check_classes("labels", labels, len(x), classes).to(x.device)
        self.targets = None
        if targets is not None:
            self.targets = check_classes("targets", targets, len(x), classes).to(x.device)
        if self.ledger is not None and asked:
            self.ledger.at_inputs(self.keys, self.logits)
        self._order = Order(self.labels[:0], False, False)
        self.candidate = x.clone()
        self.margin = self.goal(self.logits, torch.arange(len(x), device=x.device))
        first = torch.full((len(x),), asked, dtype=torch.int64, device=x.device)
        self._forward, self._backward = Tally(first), Tally(torch.zeros_like(first))
        self._blind = bool(self.margin.isnan().any())
        self.clean = self.margin < 0
        self.sloped = torch.zeros_like(self.clean)
        self._some_flat = True
        self.numberless = self.margin.isnan()

    @property
    def forward(self) -> Tensor:
        """Evaluations of the model so far; shape (batch,), int64."""
        return self._forward.total()

    @forward.setter
    def forward(self, total: Tensor) -> None:
        self._forward = Tally(total)

    @property
    def backward(self) -> Tensor:
        """Gradients taken so far; shape (batch,), int64."""
        return self._backward.total()

    @backward.setter
    def backward(self, total: Tensor) -> None:
        self._backward = Tally(total)

    def goal(self, logits: Tensor, rows: Tensor) -> Tensor:
        """The margin to bring below 0, from logits of shape (rows, classes); shape (rows,)."""
        if self.targets is None:
            everyone = self._order_of(rows).everyone
            return margin(logits, self.labels if everyone else self.labels[rows])
        return -margin(logits, self.targets[rows])

    def open_rows(self) -> Tensor:
        """Which samples are still without a find; shape (open,), int64."""
        return (~(self.margin < 0)).nonzero().flatten()

    def going(self, rows: Tensor) -> Tensor | None:
        """Which of the samples are still without a find, shape (rows,); None if all are."""
        done = (self.margin if self._order_of(rows).everyone else self.margin[rows]) < 0
        return ~done if bool(done.any()) else None

    def lane_keys(self, rows: Tensor, attack: str, seed: int, lane: Tensor) -> Tensor:
        """Keys for the random numbers of (sample, attack, seed, lane); shape (rows,)."""
        return derive_keys(self.keys[rows], attack, seed, lane)

    def ask(self, rows: Tensor, points: Tensor) -> Tensor:
        """The margins at points of the region; shape (rows,).

        Args:
            rows: shape (rows,), int64: the sample each point belongs to; may repeat.
            points: shape (rows, *input).
        """
        admitted = self.admitted(rows)
        if admitted is not None:
            answers = self.margin.new_full((len(rows),), torch.inf)
            if bool(admitted.any()):
                answers[admitted] = self._answer(rows[admitted], points[admitted])
            return answers
        return self._answer(rows, points)

    def admitted(self, rows: Tensor, backward: bool = False) -> Tensor | None:
        """Which queries the samples' budgets allow, shape (rows,), bool; None where all do."""
        if self.ledger is None:
            return None
        allowed = self.ledger.admit(self.keys[rows], backward)
        return None if bool(allowed.all()) else allowed

    def _answer(self, rows: Tensor, points: Tensor) -> Tensor:
        """As `ask`, whatever the budget."""
        with torch.no_grad():
            seen = self.goal(self.model(points), rows)
        self._remember(rows, points, seen)
        return seen

    def slope(
        self, rows: Tensor, points: Tensor, loss: Loss, towards: Tensor | None = None
    ) -> Tensor:
        """The gradient of a loss at points of the region, shape (rows, *input); see `probe`."""
        return self.probe(rows, points, loss, towards).slope

    def probe(
        self,
        rows: Tensor,
        points: Tensor,
        loss: Loss,
        towards: Tensor | None = None,
        view: View | None = None,
    ) -> Probe:
        """A loss and its gradient at points of the region.

        The gradient is zero where the model does not depend on the input, or not differentiably.
        The margins seen on the way are remembered.

        Args:
            rows, points: as for `ask`.
            loss: see `attacks.losses`.
            towards: shape (rows,), int64: classes to move to as a means; the end stays any class
                but the label. Ignored if the oracle has targets of its own.
            view: what the model is shown instead of the points. Its answer then says nothing
                about the points themselves: it is counted, but not remembered.
        """
        admitted = self.admitted(rows, backward=True)
        if admitted is not None:
            nothing = Probe(self.margin.new_full((len(rows),), torch.inf), torch.zeros_like(points))
            if bool(admitted.any()):
                some = None if towards is None else towards[admitted]
                seen = self._probe(rows[admitted], points[admitted], loss, some, view)
                nothing.level[admitted], nothing.slope[admitted] = seen.level, seen.slope
            return nothing
        return self._probe(rows, points, loss, towards, view)

    def _probe(
        self, rows: Tensor, points: Tensor, loss: Loss, towards: Tensor | None, view: View | None
    ) -> Probe:
        """As `probe`, whatever the budget."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = points.detach().requires_grad_()
            logits = self.model(leaf if view is None else view(leaf))
            labels = self.labels if self._order_of(rows).everyone else self.labels[rows]
            if self.targets is not None:
                # Away from whichever rival leads: z_rival - z_t is then max_{j != t} z_j - z_t.
                towards = self.targets[rows]
                labels = without(logits.detach(), towards).argmax(dim=1)
            level, weight = graded(loss, logits, labels, towards)
            slope = None
            if logits.requires_grad:
                (slope,) = torch.autograd.grad(logits, leaf, weight, allow_unused=True)
        if view is None:
            own = loss is margin and towards is None
            self._remember(rows, points, level if own else self.goal(logits.detach(), rows))
        else:
            self._forward.add(rows)
        self._backward.add(rows)
        self.note_slope(rows, slope)
        return Probe(level, torch.zeros_like(points) if slope is None else slope)

    def note_slope(self, rows: Tensor, slope: Tensor | None) -> None:
        """Remember for which samples a gradient said anything; slope of shape (rows, *input)."""
        if slope is not None and self._some_flat:
            self.sloped[rows[(slope != 0).flatten(1).any(dim=1)]] = True
            self._some_flat = not bool((self.sloped | self.clean).all())

    def note_nan(self, rows: Tensor, seen: Tensor) -> None:
        """Remember for which samples the model answered NaN; margins of shape (rows,)."""
        numberless = seen.isnan()
        if bool(numberless.any()):
            self.numberless[rows[numberless]] = True

    def heed(self, rows: Tensor, result: AttackResult | RadiusResult) -> None:
        """Take over what another search of the samples `rows` remarked."""
        if len(result.remarks) == len(rows):
            flat = [ZERO_GRADIENT in remarks for remarks in result.remarks]
            numberless = [NOT_A_NUMBER in remarks for remarks in result.remarks]
            self.sloped[rows] |= ~self.clean.new_tensor(flat) & (result.backward > 0)
            self.numberless[rows] |= self.clean.new_tensor(numberless)

    def remarks(self, found: Tensor, judged: bool = False) -> tuple[tuple[str, ...], ...]:
        """What a reader should know of each sample; see `attacks.result.REMARKS`.

        Args:
            found: shape (batch,), bool: the samples for which the result holds a point.
            judged: whether somebody besides torch confirmed it.
        """
        signs = {
            ZERO_GRADIENT: (self.backward > 0) & ~self.sloped,
            TIE: self.margin == 0,
            NOT_A_NUMBER: self.numberless,
            NOT_REPLAYED: found & (not judged),
        }
        columns = {name: where.tolist() for name, where in signs.items() if bool(where.any())}
        return tuple(
            tuple(name for name, column in columns.items() if column[row])
            for row in range(len(found))
        )

    def rivals(self, count: int) -> Tensor:
        """The likeliest classes besides each label at the inputs; shape (batch, <= count)."""
        others = self.logits.shape[1] - 1
        scores = without(self.logits, self.labels).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        return scores.topk(min(count, others), dim=1).indices

    def result(self, name: str) -> AttackResult:
        """What is known now, credited to the attack `name`."""
        found = self.margin < 0
        assert bool(self.region.contains(self.candidate).all()), "an attack left its region"
        winners = zip(found.tolist(), self.clean.tolist(), strict=True)
        return AttackResult(
            candidate=self.candidate,
            found=found,
            margin=self.margin,
            distance=self.region.distance(self.candidate),
            forward=self.forward,
            backward=self.backward,
            attack=tuple(("clean" if clean else name) if hit else "" for hit, clean in winners),
            remarks=self.remarks(found),
        )

    def _remember(self, rows: Tensor, points: Tensor, seen: Tensor) -> None:
        """Keep each sample's lowest margin; of equal ones the earliest. NaN beats nothing."""
        self._forward.add(rows)
        self.note_nan(rows, seen)
        if self.roaming:
            inside = self.region.rows(rows).contains(points)
            seen = torch.where(inside, seen, torch.inf)
        order = self._order_of(rows)
        if order.distinct and not self._blind:
            better = seen < (self.margin if order.everyone else self.margin[rows])
            lanes = better.nonzero().flatten()
            if len(lanes):
                samples = lanes if order.everyone else rows[lanes]
                self.candidate[samples] = points[lanes]
                self.margin[samples] = seen[lanes]
            return
        level = torch.where(seen.isnan(), torch.inf, seen)
        held = torch.where(self.margin.isnan(), torch.inf, self.margin)
        least = held.scatter_reduce(0, rows, level, "amin")
        better = (level == least[rows]) & (level < held[rows])
        lanes = better.nonzero().flatten()
        first = torch.full_like(self.forward, len(rows))
        first = first.scatter_reduce(0, rows[lanes], lanes, "amin")
        chosen = first[first < len(rows)]
        self.candidate[rows[chosen]] = points[chosen]
        self.margin[rows[chosen]] = seen[chosen]

    def _order_of(self, rows: Tensor) -> "Order":
        """What is known of `rows`; worked out when a walk first asks with them."""
        if rows is not self._order.rows:
            distinct = bool((rows[1:] > rows[:-1]).all())
            self._order = Order(rows, distinct, distinct and len(rows) == len(self.labels))
        return self._order


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Rows in the order in which a query lists them.

    Attributes:
        rows: shape (rows,), int64.
        distinct: whether they rise, so that each sample occurs at most once.
        everyone: whether they are just 0, 1, 2, ...
    """

    rows: Tensor
    distinct: bool
    everyone: bool
