"""MI-FGSM and its relatives: accumulated gradients, for examples that fool other models too."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attacks.ball import Ball
from attacks.descent import Lanes, walk
from attacks.errors import AttackInputError
from attacks.losses import loss_named
from attacks.oracle import Oracle
from attacks.protocol import Model
from attacks.randomness import derive_keys
from attacks.result import AttackResult
from attacks.views import blur, check_images, shrunk


@dataclass(frozen=True, slots=True)
class MIFGSM:
    """Momentum iterative FGSM: steps along the sum of L1-normalised gradients.

    For transfer switch `early_stop` off: a point that just crosses this model's boundary seldom
    crosses another's.

    Attributes:
        steps: gradient steps, each 1 / steps of the ball's radius.
        decay: what is kept of the accumulated gradient.
        nesterov: take the gradient where the accumulated one leads (NI-FGSM).
        diversity: the probability with which a gradient is taken on a smaller copy of the image
            at a random place (DI); images of shape (channels, height, width) only.
        smallest: the least side of that copy, relative.
        blur_size: width in pixels of the Gaussian that smooths each gradient (TI), odd; 0 for
            none. Images only.
        loss: "ce", "dlr" or "margin".
        early_stop: drop a sample at its first misclassified point.
        seed: of the random copies, together with the sample's key.
        max_lanes: samples walked at once; bounds memory, changes no result.

    Source:
        Dong et al. 2018, arXiv:1710.06081; NI: Lin et al. 2020, arXiv:1908.06281; DI: Xie et al.
        2019, arXiv:1803.06978; TI: Dong et al. 2019, arXiv:1904.02884. Departs from them in
        returning the point of lowest margin evaluated instead of the last.
    """

    steps: int = 10
    decay: float = 1.0
    nesterov: bool = False
    diversity: float = 0.0
    smallest: float = 0.9
    blur_size: int = 0
    loss: str = "ce"
    early_stop: bool = True
    seed: int = 0
    max_lanes: int = 1024

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        loss_named(self.loss)
        complaint = None
        if self.steps < 1 or self.max_lanes < 1:
            complaint = f"steps = {self.steps}, max_lanes = {self.max_lanes}; expected at least 1"
        elif not self.decay >= 0:
            complaint = f"decay = {self.decay}; expected at least 0"
        elif not 0 <= self.diversity <= 1:
            complaint = f"diversity = {self.diversity}; expected a probability in [0, 1]"
        elif not 0 < self.smallest <= 1:
            complaint = f"smallest = {self.smallest}; expected a share of the side in (0, 1]"
        elif self.blur_size < 0 or (self.blur_size > 0 and self.blur_size % 2 == 0):
            complaint = f"blur_size = {self.blur_size}; expected an odd number of pixels, or 0"
        if complaint:
            raise AttackInputError(f"MIFGSM got {complaint}. Correct that setting.")

    @property
    def name(self) -> str:
        """As in the registry and in results."""
        return "nifgsm" if self.nesterov else "mifgsm"

    def __call__(
        self,
        model: Model,
        x: Tensor,
        labels: Tensor,
        ball: Ball,
        *,
        targets: Tensor | None = None,
        start: Tensor | None = None,
        sample_keys: Tensor | None = None,
    ) -> AttackResult:
        """Walk from each input, or from `start`; see `Attack`."""
        if self.diversity > 0 or self.blur_size:
            check_images(x, "DI and TI (diversity, blur_size)")
        oracle = Oracle(model, x, labels, ball, targets=targets, sample_keys=sample_keys)
        rows = oracle.open_rows()
        region = oracle.region.rows(rows)
        points = region.centre if start is None else region.project(start[rows])
        walk(oracle, Momentum(self), Lanes(rows, points), self.max_lanes)
        return oracle.result(self.name)


@dataclass(frozen=True, slots=True)
class Momentum:
    """The walk of MI-FGSM with its settings."""

    attack: MIFGSM

    def run(self, oracle: Oracle, lanes: Lanes) -> None:
        """Walk all lanes, asking the oracle at every point on the way; it keeps what is found."""
        attack = self.attack
        rows, at = lanes.rows, lanes.points
        gathered = torch.zeros_like(at)
        region = oracle.region.rows(rows)
        for step in range(attack.steps):
            # Where gradients are taken elsewhere than at the point itself, it is asked about too.
            elsewhere = attack.nesterov or attack.diversity > 0
            slope = torch.zeros_like(at)
            if elsewhere:
                oracle.ask(rows, at)
            else:
                slope = self._slope(oracle, rows, at, step)
            going = oracle.going(rows) if attack.early_stop else None
            if going is not None:
                rows, at, slope = rows[going], at[going], slope[going]
                gathered, region = gathered[going], region.rows(going)
            if not len(rows):
                return
            size = region.eps.new_full((len(rows),), 1 / attack.steps)
            if elsewhere:
                ahead = at
                if attack.nesterov and step:
                    ahead = region.step(at, -attack.decay * gathered, size, density=1.0)
                    ahead = region.project(ahead)
                slope = self._slope(oracle, rows, ahead, step)
            gathered = attack.decay * gathered + normalised(slope)
            at = region.project(region.step(at, -gathered, size, density=1 / at[0].numel()))
        oracle.ask(rows, at)

    def _slope(self, oracle: Oracle, rows: Tensor, points: Tensor, step: int) -> Tensor:
        """The gradient, diversified and smoothed as the settings say."""
        attack, loss = self.attack, loss_named(self.attack.loss)
        if attack.diversity > 0:
            lane = torch.full_like(rows, step)
            keys = derive_keys(oracle.lane_keys(rows, attack.name, attack.seed, lane), "view")
            view = shrunk(keys, attack.diversity, attack.smallest)
            slope = oracle.probe(rows, points, loss, view=view).slope
        else:
            slope = oracle.slope(rows, points, loss)
        return blur(slope, attack.blur_size) if attack.blur_size else slope


def normalised(slope: Tensor) -> Tensor:
    """Each sample's gradient divided by its L1 norm; 0 where it is 0, NaN or infinite."""
    flat = slope.flatten(1).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    # Scaled first: the sum of a gradient's magnitudes may overflow, or its entries underflow.
    largest = flat.abs().amax(dim=1, keepdim=True)
    flat = flat / torch.where(largest > 0, largest, 1.0)
    length = flat.abs().sum(dim=1, keepdim=True)
    return (flat / torch.where(length > 0, length, 1.0)).view_as(slope)
