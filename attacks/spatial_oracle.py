"""The model under a spatial attack, asked about parameters: it counts, judges and remembers.

The sibling of `attacks.oracle` for points that are parameters of a transformation. Two records are
kept of each sample: the lowest margin, and the misclassified image nearest to the input itself.
"""

import math

import torch
from torch import Tensor

from attacks.arguments import check_classes, check_keys, check_logits, check_steady
from attacks.ball import check_batch
from attacks.bisection import Judge
from attacks.errors import AttackInputError
from attacks.losses import margin, without
from attacks.oracle import Probe
from attacks.protocol import Model
from attacks.randomness import derive_keys
from attacks.transforms import ROUNDING, TransformBox

# Numbers of all images transformed at once: bounds memory (a few times this, 8 bytes each).
MOST_ENTRIES = 2**22


class SpatialOracle:
    """One spatial attack's conversation with a model about one batch; mutable, used once.

    Attributes:
        box: which transformations.
        low, high: shape (batch, parameters), float64: where to look now; see `limit_to`.
        limit: shape (batch,), float64: a sample is settled once a misclassified image at this share
            of the box or less is held; 1 at first.
        labels: shape (batch,), int64.
        keys: shape (batch,), int64, for random numbers.
        values: shape (batch, parameters), float64: of the lowest margin within low and high.
        margin: shape (batch,), that margin.
        nearest: shape (batch, parameters), float64: of the misclassified image of least share.
        nearest_margin: shape (batch,), there.
        share: shape (batch,), float64: that share (see `TransformBox.share`), inf where none was
            found. Of a box without the identity every share is 1.
        who, who_nearest: per sample the search that `values`, `nearest` came from.
        forward, backward: shape (batch,), int64, queries so far.
    """

    def __init__(
        self,
        model: Model,
        x: Tensor,
        labels: Tensor,
        box: TransformBox,
        *,
        shape: tuple[int, int, int] | None = None,
        targets: Tensor | None = None,
        sample_keys: Tensor | None = None,
        judge: Judge | None = None,
    ) -> None:
        """Check the arguments, and ask about the images themselves where the box holds them.

        Raises:
            AttackInputError: if the arguments do not fit each other or the model.
        """
        check_steady(model)
        check_batch(x)
        self.x = x.detach()
        self.images = images_of(self.x, shape)
        check_range(self.images, box)
        self.model, self.box, self.judge = model, box, judge
        with torch.no_grad():
            logits = model(self.x)
        check_logits(logits, len(x))
        self.labels = check_classes("labels", labels, len(x), logits.shape[1]).to(x.device)
        self.targets = None
        if targets is not None:
            self.targets = check_classes("targets", targets, len(x), logits.shape[1]).to(x.device)
        self.keys = check_keys(sample_keys, x)
        count = len(x)
        self.low = box.low.to(x.device).expand(count, -1).clone()
        self.high = box.high.to(x.device).expand(count, -1).clone()
        start = box.identity if box.around_identity else (box.low + box.high) / 2
        self.start = start.to(x.device)
        self.limit = torch.ones(count, dtype=torch.float64, device=x.device)
        self.values = self.start.expand(count, -1).clone()
        self.nearest = self.values.clone()
        self.margin = torch.full_like(logits[:, 0], torch.inf)
        self.nearest_margin = self.margin.clone()
        self.share = torch.full_like(self.limit, torch.inf)
        self.who, self.who_nearest = [""] * count, [""] * count
        self.forward = torch.zeros(count, dtype=torch.int64, device=x.device)
        self.backward = torch.zeros_like(self.forward)
        self.search = "clean" if box.around_identity else "centre"
        rows = torch.arange(count, device=x.device)
        if count:
            self.ask(rows, self.start.expand(count, -1))
        self.start_margin = self.margin.clone()

    def image(self, rows: Tensor, values: Tensor) -> Tensor:
        """The samples' images under parameters, as the model takes them; shape (rows, *input)."""
        return self.box.apply(self.images[rows], values).reshape(-1, *self.x.shape[1:])

    def goal(self, logits: Tensor, rows: Tensor) -> Tensor:
        """The margin to bring below 0; shape (rows,)."""
        if self.targets is None:
            return margin(logits, self.labels[rows])
        return -margin(logits, self.targets[rows])

    def open_rows(self) -> Tensor:
        """Which samples are not settled; shape (open,), int64."""
        return (~(self.share <= self.limit)).nonzero().flatten()

    def lane_keys(self, rows: Tensor, attack: str, seed: int) -> Tensor:
        """Keys for the random numbers of (sample, attack, seed); shape (rows,)."""
        return derive_keys(self.keys[rows], "spatial", attack, seed)

    def limit_to(self, rows: Tensor, share: Tensor) -> None:
        """Look from now on in the box scaled by `share`, shape (rows,), for these samples.

        The lowest margins start anew: they have to lie in the smaller box.
        """
        identity = self.box.identity.to(self.x.device)
        wide = share[:, None]
        self.low[rows] = identity + wide * (self.box.low.to(self.x.device) - identity)
        self.high[rows] = identity + wide * (self.box.high.to(self.x.device) - identity)
        # Shares are rounded up, so that points at the smaller box's very ends lie above it.
        self.limit[rows] = share * (1 + 2 * ROUNDING)
        self.values[rows] = self.start
        self.margin[rows] = self.start_margin[rows]

    def ask(self, rows: Tensor, values: Tensor) -> Tensor:
        """The margins under parameters, which are first moved into the box; shape (rows,).

        Args:
            rows: shape (rows,), int64: the sample of each; may repeat.
            values: shape (rows, parameters), float64.
        """
        seen = [
            self._evaluate(rows[part], values[part], slopes=False).level
            for part in self._parts(rows)
        ]
        return torch.cat(seen) if seen else self.margin[:0]

    def probe(self, rows: Tensor, values: Tensor) -> Probe:
        """The margins and their slopes in the parameters, shape (rows, parameters), float64."""
        found = [
            self._evaluate(rows[part], values[part], slopes=True) for part in self._parts(rows)
        ]
        if not found:
            return Probe(self.margin[:0], values)
        return Probe(torch.cat([p.level for p in found]), torch.cat([p.slope for p in found]))

    def _parts(self, rows: Tensor) -> list[slice]:
        """Slices of the lanes that fit into memory at once."""
        size = max(1, MOST_ENTRIES // math.prod(self.images.shape[1:]))
        return [slice(at, at + size) for at in range(0, len(rows), size)]

    def _evaluate(self, rows: Tensor, values: Tensor, *, slopes: bool) -> Probe:
        values = torch.clamp(values.detach(), self.low[rows], self.high[rows])
        slope = torch.zeros_like(values)
        with torch.inference_mode(False), torch.set_grad_enabled(slopes):
            leaf = values.clone().requires_grad_(slopes)
            images = self.image(rows, leaf)
            logits = self.model(images)
            seen = self.goal(logits, rows)
            if slopes:
                self.backward += torch.bincount(rows, minlength=len(self.backward))
                # A rival of its own instead of the label, as in `Oracle.probe`.
                level = seen
                if self.targets is not None:
                    towards = self.targets[rows]
                    rival = without(logits.detach(), towards).argmax(dim=1)
                    level = margin(logits, rival, towards)
                if level.requires_grad:
                    (found,) = torch.autograd.grad(level.sum(), leaf, allow_unused=True)
                    if found is not None:
                        slope = found.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        seen = seen.detach()
        self.forward += torch.bincount(rows, minlength=len(self.forward))
        self._remember(rows, values, seen, images.detach())
        return Probe(seen, slope)

    def _remember(self, rows: Tensor, values: Tensor, seen: Tensor, images: Tensor) -> None:
        """Keep the lowest margins and the nearest finds; of equal ones the earliest."""
        level = torch.where(seen.isnan(), torch.inf, seen)
        hit = seen < 0
        share = torch.where(hit, self.measure(values), torch.inf)
        lower, nearer = self._best(rows, level, self.margin), self._best(rows, share, self.share)
        if self.judge is not None:
            # What the judge refuses must not stand in the way of what it accepts.
            asked = torch.cat([lower[hit[lower]], nearer]).unique()
            ok = ~hit
            if len(asked):
                ok[asked] = self.judge(images[asked], rows[asked])
            lower, nearer = lower[ok[lower]], nearer[ok[nearer]]
        self.values[rows[lower]], self.margin[rows[lower]] = values[lower], seen[lower]
        self.nearest[rows[nearer]], self.share[rows[nearer]] = values[nearer], share[nearer]
        self.nearest_margin[rows[nearer]] = seen[nearer]
        for row in rows[lower].tolist():
            self.who[row] = self.search
        for row in rows[nearer].tolist():
            self.who_nearest[row] = self.search

    def measure(self, values: Tensor) -> Tensor:
        """Shares of the box, shape (n,), float64; 1 where the box has no identity."""
        if self.box.around_identity:
            return self.box.share(values).clamp(max=1.0)
        return torch.ones(len(values), dtype=torch.float64, device=values.device)

    def unit_start(self) -> Tensor:
        """The identity (or the middle) in [-1, 1]^parameters of the current boxes, per sample."""
        half, middle = (self.high - self.low) / 2, (self.high + self.low) / 2
        return torch.where(half > 0, (self.start - middle) / half, 0.0).clamp(-1, 1)

    def _best(self, rows: Tensor, level: Tensor, held: Tensor) -> Tensor:
        """For each sample with a level below the one held, its first lane of the least level."""
        least = held.scatter_reduce(0, rows, level, "amin")
        lanes = ((level == least[rows]) & (level < held[rows])).nonzero().flatten()
        first = torch.full_like(self.forward, len(rows))
        first = first.scatter_reduce(0, rows[lanes], lanes, "amin")
        return first[first < len(rows)]


def images_of(x: Tensor, shape: tuple[int, int, int] | None) -> Tensor:
    """The batch as images (batch, channels, height, width).

    Raises:
        AttackInputError: if it has another shape and `shape` does not say which, or does not fit.
    """
    if shape is None:
        if x.dim() != 4:
            raise AttackInputError(
                f"Spatial attacks move images of shape (channels, height, width), but the inputs "
                f"have shape {tuple(x.shape[1:])}. Say with shape=(channels, height, width) how "
                "their entries are arranged."
            )
        return x
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) != math.prod(x.shape[1:]):
        raise AttackInputError(
            f"Inputs of shape {tuple(x.shape[1:])} are no images of shape {tuple(shape)}; expected "
            "(channels, height, width) with as many entries."
        )
    return x.reshape(len(x), *shape)


def check_range(images: Tensor, box: TransformBox) -> None:
    """Refuse images that clipping would change before anything has been done to them."""
    if box.clip is None or not box.acts_on_values or not len(images):
        return
    low, high = float(images.min()), float(images.max())
    if not (box.clip[0] <= low and high <= box.clip[1]):
        raise AttackInputError(
            f"The images hold values from {low:g} to {high:g}, but contrast and brightness clip to "
            f"{box.clip[0]:g} to {box.clip[1]:g}. Give the range as clip=, or None for none."
        )
