"""What Ball accepts, refuses and hands out."""

import math

import pytest
import torch

from attacks import AttackInputError, Ball
from attacks.randomness import content_keys

PS = [math.inf, 2.0, 1.0]


@pytest.mark.parametrize("p", [0, 3, -1, math.nan])
def test_an_unknown_norm_is_refused(p: float) -> None:
    """The message names the norms that exist."""
    with pytest.raises(AttackInputError, match="inf, 2, 1"):
        Ball(0.1, p)


@pytest.mark.parametrize("eps", [-0.1, math.nan])
def test_a_negative_or_nan_radius_is_refused(eps: float) -> None:
    """As a number and as a tensor."""
    with pytest.raises(AttackInputError, match="eps >= 0"):
        Ball(eps)
    with pytest.raises(AttackInputError, match="eps >= 0"):
        Ball(torch.tensor([0.1, eps]))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 3, dtype=torch.uint8), "float32 or float64"),
        (torch.zeros(2, 3, dtype=torch.float16), "float32 or float64"),
        (torch.zeros(3), "batch"),
        (torch.tensor([[0.0, math.nan]]), "NaN"),
        (torch.full((1, 2), 1.5), "outside the input range"),
    ],
)
def test_inputs_that_cannot_be_attacked_are_refused(x: torch.Tensor, message: str) -> None:
    """Each with a line that says why."""
    with pytest.raises(AttackInputError, match=message):
        Ball(0.1, lower=0.0, upper=1.0).around(x)


def test_a_radius_or_range_of_the_wrong_shape_is_refused() -> None:
    """Three radii for two samples; a range over four features for three."""
    x = torch.zeros(2, 3)
    with pytest.raises(AttackInputError, match="Ball.eps has shape"):
        Ball(torch.ones(3)).around(x)
    with pytest.raises(AttackInputError, match="Ball.upper has shape"):
        Ball(0.1, upper=torch.ones(4)).around(x)


@pytest.mark.parametrize("p", PS)
def test_a_range_may_differ_per_entry_and_is_respected(p: float) -> None:
    """Per-channel ranges, as after normalisation; one channel is fixed altogether."""
    lower = torch.tensor([-2.0, 0.0, 0.5]).reshape(3, 1, 1)
    upper = torch.tensor([-1.0, 0.3, 0.5]).reshape(3, 1, 1)
    centre = ((lower + upper) / 2).expand(4, 3, 2, 2)
    region = Ball(3.0, p, lower, upper).around(centre)
    noise = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    for x in (
        region.project(centre + noise),
        region.extreme(noise),
        region.sample(torch.arange(4)),
    ):
        assert bool(((x >= lower) & (x <= upper)).all())
        assert bool(region.contains(x).all())
        assert torch.equal(x[:, 2], centre[:, 2])


def test_nan_lies_outside_and_is_projected_to_the_centre() -> None:
    """NaN falls on the unproved side."""
    centre = torch.zeros(1, 2)
    broken = torch.tensor([[math.nan, 0.1]])
    assert not bool(Ball(1.0).contains(broken, centre))
    assert torch.equal(Ball(1.0).project(broken, centre), torch.tensor([[0.0, 0.1]]))


@pytest.mark.parametrize("p", PS)
def test_samples_fill_the_ball(p: float) -> None:
    """Distances spread up to eps as the uniform law says: P(|d| <= r) = (r / eps)^n."""
    keys = torch.arange(20000)
    centre = torch.zeros(20000, 2, dtype=torch.float64)
    region = Ball(2.0, p).around(centre)
    x = region.sample(keys)
    share = (region.distance(x) <= 1.0).double().mean().item()
    assert share == pytest.approx(0.25, abs=0.02)  # six standard deviations
    assert x.mean(dim=0).abs().max().item() < 0.05
    assert torch.equal(x, region.sample(keys))


def test_content_keys_follow_the_content() -> None:
    """Equal samples, equal keys, wherever they stand; different ones differ."""
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    keys = content_keys(x)
    assert len(set(keys.tolist())) == 4
    assert torch.equal(content_keys(x.flip(0)), keys.flip(0))


def test_rows_selects_what_is_per_sample() -> None:
    """eps and range of the chosen samples; what is shared stays."""
    x = torch.zeros(3, 2)
    ball = Ball(torch.tensor([1.0, 2.0, 3.0]), lower=-torch.ones(3, 2), upper=torch.ones(2))
    part = ball.rows(torch.tensor([2, 0]), x)
    assert part.eps.tolist() == [3.0, 1.0]
    assert part.lower.shape == (2, 2)
    assert part.upper.shape == (2,)
