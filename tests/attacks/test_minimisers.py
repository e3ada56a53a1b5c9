"""What every minimal-norm attack must do; one is enrolled by being in the registry."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attacks import AttackInputError, Ball, Model, RadiusResult
from attacks.minimal import Minimiser
from attacks.minimisers import MINIMISERS, minimiser_named
from attacks.sparse import SparseBall
from tests.attacks.test_contract import batch, smooth_net

# Those that spend thousands of queries by default do with fewer here.
FEWER: dict[str, dict[str, int]] = {
    "boundary": {"steps": 40},
    "hopskipjump": {"steps": 5},
    "spsa": {"steps": 8, "pairs": 16},
    "cw": {"rounds": 4, "steps": 20},
    "ead": {"rounds": 3, "steps": 15},
    "targeted-l1": {"rounds": 4, "steps": 12},
    "sigma-zero": {"steps": 60},
    "ddn": {"steps": 30},
    "fmn": {"steps": 15},
    "pdpgd": {"steps": 30},
}
CASES = [(name, p) for name, entry in MINIMISERS.items() for p in entry.norms]
EVERY = pytest.mark.parametrize(("name", "p"), CASES, ids=[f"{name}-{p:g}" for name, p in CASES])
ANY_NORM = pytest.mark.parametrize(
    ("name", "p"), [(name, entry.norms[0]) for name, entry in MINIMISERS.items()], ids=MINIMISERS
)


def minimiser(name: str) -> Minimiser:
    return MINIMISERS[name].make(**FEWER.get(name, {}))


def ball_of(
    p: float,
    eps: float | Tensor = math.inf,
    lower: float | Tensor = 0.0,
    upper: float | Tensor = 1.0,
) -> Ball:
    return SparseBall(eps, 0.0, lower, upper) if p == 0 else Ball(eps, p, lower, upper)


def run(name: str, p: float, **changes: object) -> RadiusResult:
    model, x = smooth_net(), batch(5)
    arguments = {"model": model, "x": x, "labels": model(x).argmax(dim=1), **changes}
    return minimiser(name)(**{"ball": ball_of(p), **arguments})


def same(a: RadiusResult, b: RadiusResult, order: Tensor | None = None) -> bool:
    """Whether two results agree to the bit, after reordering the first."""
    order = torch.arange(len(a.found)) if order is None else order
    names = ("candidate", "radius", "found", "margin", "forward", "backward")
    return all(torch.equal(getattr(a, name)[order], getattr(b, name)) for name in names)


def margins(model: Model, points: Tensor, labels: Tensor) -> Tensor:
    z = model(points)
    own = z.gather(1, labels[:, None]).squeeze(1)
    return own - z.scatter(1, labels[:, None], -math.inf).amax(dim=1)


@EVERY
def test_the_radius_is_the_distance_of_a_misclassified_point_of_the_range(
    name: str, p: float
) -> None:
    """Traps b12 and b14: found says what the candidate is; a sample without one is no success."""
    model, x = smooth_net(), batch(5)
    labels = model(x).argmax(dim=1)
    result = run(name, p)
    wrong = margins(model, result.candidate, labels) < 0
    assert torch.equal(wrong, result.found)
    assert int(result.found.sum()) >= 3
    assert bool(((result.candidate >= 0) & (result.candidate <= 1)).all())
    distance = ball_of(p).distance(result.candidate, x)
    assert torch.equal(result.radius[result.found], distance[result.found])
    assert bool(result.radius[~result.found].isinf().all())
    assert torch.equal(result.candidate[~result.found], x[~result.found])
    assert torch.allclose(result.margin, margins(model, result.candidate, labels))


@EVERY
def test_eps_caps_the_search_per_sample(name: str, p: float) -> None:
    """Nothing farther is returned; a sample whose nearest point lies beyond is not found."""
    full = run(name, p).radius
    eps = torch.where(full.isinf(), 1.0, full) * torch.tensor([0.3, 1.5, 1.5, 0.3, 0.0]).double()
    eps = eps.floor() if p == 0 else eps
    result = run(name, p, ball=ball_of(p, eps))
    assert bool((result.radius[result.found] <= eps[result.found]).all())
    assert not bool(result.found[[0, 3, 4]].any())


@pytest.mark.parametrize(
    ("name", "p"), [(name, p) for name, p in CASES if p and MINIMISERS[name].gradient]
)
def test_a_search_that_overshoots_eps_still_comes_back_within_it(name: str, p: float) -> None:
    """logits = x at (0.8, 0.2), with eps a sixth beyond the exact radius; default settings."""
    x, labels = torch.tensor([[0.8, 0.2]]), torch.tensor([0])
    exact = {math.inf: 0.3, 2.0: 0.6 / math.sqrt(2), 1.0: 0.6}[p]
    result = MINIMISERS[name].make()(lambda x: x, x, labels, ball_of(p, exact * 7 / 6))
    assert bool(result.found)
    assert exact * (1 - 1e-6) <= result.radius.item() <= 1.05 * exact


@EVERY
def test_results_do_not_depend_on_batch_order_or_size(name: str, p: float) -> None:
    """Trap b9 and b11: no sample stops, steers or shares random numbers with another."""
    model, x = smooth_net(), batch(5)
    labels = model(x).argmax(dim=1)
    whole = run(name, p)
    order = torch.tensor([4, 0, 2, 1, 3])
    assert same(whole, run(name, p, x=x[order], labels=labels[order]), order)
    alone = run(name, p, x=x[3:4], labels=labels[3:4])
    assert same(whole, alone, torch.tensor([3]))


@ANY_NORM
def test_the_global_generators_are_left_alone(name: str, p: float) -> None:
    """Trap b17: neither read nor reseeded."""
    before = torch.get_rng_state()
    first = run(name, p)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    assert same(first, run(name, p))


@EVERY
def test_an_input_already_misclassified_has_radius_zero(name: str, p: float) -> None:
    """And costs a single query."""
    model, x = smooth_net(), batch(5)
    result = run(name, p, labels=model(x).argmin(dim=1))
    assert result.radius.tolist() == [0.0] * 5
    assert torch.equal(result.candidate, x)
    assert result.forward.tolist() == [1] * 5


@EVERY
def test_constant_and_nan_networks_give_no_radius(name: str, p: float) -> None:
    """Trap b12: nothing found is inf, and the candidate is the input, not a blank."""
    constant = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    labels = torch.zeros(5, dtype=torch.long)
    for model in (
        lambda x: constant.expand(len(x), -1),
        lambda x: constant * math.nan + 0 * x.flatten(1).sum(dim=1, keepdim=True),
        lambda x: x.flatten(1)[:, :1] * torch.ones(1, 3).double(),  # a tie everywhere
    ):
        result = run(name, p, model=model, labels=labels)
        assert not bool(result.found.any())
        assert bool(result.radius.isinf().all())
        assert torch.equal(result.candidate, batch(5))


@EVERY
def test_the_level_of_the_logits_does_not_matter(name: str, p: float) -> None:
    """Trap b8: with all logits negative, the best other class is still the best other class."""
    model = smooth_net()
    moved = run(name, p, model=lambda x: model(x) - 100.0, labels=model(batch(5)).argmax(dim=1))
    plain = run(name, p)
    assert torch.equal(moved.found, plain.found)
    close = moved.radius[plain.found] / plain.radius[plain.found]
    assert bool((close < 1.5).all())
    assert bool((close > 0.6).all())


@EVERY
def test_a_planted_counterexample_is_found(name: str, p: float) -> None:
    """One feature decides; the radius is what it has to move, in every norm, and no less."""
    x = torch.full((2, 12), 0.5, dtype=torch.float64)
    weights = torch.zeros(12, dtype=torch.float64)
    weights[7] = 1.0

    def model(points: Tensor) -> Tensor:
        score = (points.flatten(1) * weights).sum(dim=1) - 0.7
        return torch.stack((-score, score), dim=1)

    result = minimiser(name)(model, x, torch.zeros(2, dtype=torch.long), ball_of(p))
    assert bool(result.found.all())
    exact = 1.0 if p == 0 else 0.2
    assert bool((result.radius >= exact * (1 - 1e-12)).all())
    if MINIMISERS[name].gradient:
        assert bool((result.radius <= exact * 1.02).all())


@EVERY
def test_targets_in_the_call_are_what_is_looked_for(name: str, p: float) -> None:
    """Trap b3: found means the target leads, not that the label has lost, nor the opposite."""
    model, x = smooth_net(), batch(5)
    z = model(x)
    targets = z.topk(2, dim=1).indices[:, 1]
    result = run(name, p, targets=targets)
    hit = model(result.candidate).argmax(dim=1) == targets
    assert torch.equal(result.found, hit)
    assert int(result.found.sum()) >= 2
    assert run(name, p, targets=z.argmax(dim=1)).radius.tolist() == [0.0] * 5


@EVERY
def test_a_good_start_is_not_lost(name: str, p: float) -> None:
    """The result is at least as near as a start that is already misclassified."""
    model, x = smooth_net(), batch(5)
    labels = model(x).argmax(dim=1)
    known = minimiser_named("deepfool")(model, x, labels, ball_of(p))
    result = run(name, p, start=known.candidate)
    assert int(known.found.sum()) >= 3
    assert bool((result.radius <= known.radius).all())


@ANY_NORM
def test_queries_are_counted_per_sample(name: str, p: float) -> None:
    """Trap b4: what is reported is what the model saw."""
    model, seen = smooth_net(), []

    def counting(points: Tensor) -> Tensor:
        seen.append(len(points))
        assert bool(((points >= 0) & (points <= 1)).all())
        return model(points)

    result = run(name, p, model=counting, labels=model(batch(5)).argmax(dim=1))
    assert int(result.forward.sum()) == sum(seen)
    assert (int(result.backward.sum()) > 0) == MINIMISERS[name].gradient


@ANY_NORM
def test_exceptions_of_the_model_surface(name: str, p: float) -> None:
    """Traps b10 and b24: a failed run is not a robust sample."""

    def broken(points: Tensor) -> Tensor:
        raise RuntimeError("the model is out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        run(name, p, model=broken, labels=torch.zeros(5, dtype=torch.long))


@ANY_NORM
def test_the_model_is_left_as_it_was(name: str, p: float) -> None:
    """No gradients accumulate, no mode or flag changes, and no_grad outside does not matter."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4)).double()
    with torch.no_grad():
        result = run(name, p, model=net, labels=net(batch(5)).argmax(dim=1))
    assert net.training
    assert all(weight.requires_grad and weight.grad is None for weight in net.parameters())
    assert not result.candidate.requires_grad


@pytest.mark.parametrize("name", [n for n, entry in MINIMISERS.items() if not entry.gradient])
def test_those_without_gradient_work_on_a_model_outside_torch(name: str) -> None:
    """A numpy function behind the callable, in float32, without a range that ends."""
    weights = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)).numpy()
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(1))

    def model(points: Tensor) -> Tensor:
        return torch.from_numpy(points.detach().numpy() @ weights.T)

    labels = model(x).argmax(dim=1)
    result = minimiser(name)(model, x, labels, Ball(math.inf, 2.0))
    assert bool(result.found.all())
    assert result.backward.tolist() == [0] * 4


@ANY_NORM
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_range_may_differ_per_entry(name: str, p: float, dtype: torch.dtype) -> None:
    """One entry fixed altogether, one without an upper end; no point outside is asked about."""
    model, x = smooth_net(), batch(4).to(dtype).flatten(1)
    lower, upper = torch.zeros(12), torch.ones(12)
    lower[0] = -math.inf
    upper[5] = math.inf
    upper[6] = lower[6] = 0.5
    x[:, 6] = 0.5

    def strict(points: Tensor) -> Tensor:
        assert bool(((points >= lower) & (points <= upper)).all())
        return model(points.double()).to(dtype)

    result = minimiser(name)(strict, x, strict(x).argmax(dim=1), ball_of(p, math.inf, lower, upper))
    assert result.candidate.dtype == dtype
    assert int(result.found.sum()) >= 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.full((5,), 4)}, "has 4 classes"),
        ({"targets": torch.full((5,), -1)}, "targets"),
        ({"model": lambda x: x}, "expected .batch, classes."),
        ({"x": torch.full((5, 3, 4), math.nan)}, "NaN"),
        ({"x": torch.zeros(5, 3, 4, dtype=torch.uint8)}, "float32 or float64"),
    ],
)
@ANY_NORM
def test_arguments_that_do_not_fit_are_refused(
    name: str, p: float, change: dict[str, object], message: str
) -> None:
    """One line each that says what to change."""
    with pytest.raises(AttackInputError, match=message):
        run(name, p, **{"labels": torch.zeros(5, dtype=torch.long), **change})


@pytest.mark.parametrize("name", MINIMISERS)
def test_settings_and_norms_that_cannot_be_meant_are_refused(name: str) -> None:
    """No step; a norm that is not listed."""
    for p in {math.inf, 2.0, 1.0, 0.0} - set(MINIMISERS[name].norms):
        with pytest.raises(AttackInputError, match="cannot minimise the norm"):
            run(name, p)
    with pytest.raises(AttackInputError, match="steps = 0"):
        MINIMISERS[name].make(steps=0)


def test_registry_entries_are_complete() -> None:
    """Name and key agree, each has one line of summary, each makes a frozen dataclass."""
    for name, entry in MINIMISERS.items():
        assert entry.name == name
        assert entry.summary
        assert "\n" not in entry.summary
        made: Callable[..., object] = entry.make()
        assert dataclasses.is_dataclass(made)
        assert type(made).__dataclass_params__.frozen
    with pytest.raises(AttackInputError, match="boundary, cw, ddn"):
        minimiser_named("nearest")
