"""What every registered attack must do; an attack is enrolled by being in the registry."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from attacks import ATTACKS, Attack, AttackInputError, AttackResult, Ball, Square, attack_named
from tests.attacks.enrolled import WITHOUT_GRADIENTS, quick, thorough

PS = [math.inf, 2.0, 1.0]
EVERY = pytest.mark.parametrize("attack", [quick(name) for name in ATTACKS], ids=list(ATTACKS))
SEARCHERS = pytest.mark.parametrize(
    "attack", [thorough(name) for name in ATTACKS], ids=list(ATTACKS)
)
STEEPEST = pytest.mark.parametrize(
    "name", [name for name in ATTACKS if name not in WITHOUT_GRADIENTS]
)
NORM = pytest.mark.parametrize("p", PS)


def smooth_net(classes: int = 4, inputs: int = 12, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """A float64 net whose rows are summed one by one, so that they cannot influence each other."""
    generator = torch.Generator().manual_seed(seed)
    inner = torch.randn(16, inputs, dtype=torch.float64, generator=generator)
    outer = torch.randn(classes, 16, dtype=torch.float64, generator=generator)

    def model(x: Tensor) -> Tensor:
        hidden = (x.flatten(1)[:, None, :] * inner).sum(dim=2).tanh()
        return (hidden[:, None, :] * outer).sum(dim=2)

    return model


def batch(size: int = 9, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(size, 3, 4, dtype=torch.float64, generator=generator)


def run(attack: Attack, p: float, **changes: object) -> AttackResult:
    model, x = smooth_net(), batch()
    labels = model(x).argmax(dim=1)
    arguments = {"model": model, "x": x, "labels": labels, **changes}
    ball = Ball({math.inf: 0.1, 2.0: 0.3, 1.0: 0.7}[p], p, 0.0, 1.0)
    return attack(**{"ball": ball, **arguments})


def same(a: AttackResult, b: AttackResult, order: Tensor | None = None) -> bool:
    """Whether two results agree to the bit, after reordering the first."""
    order = torch.arange(len(a.found)) if order is None else order
    tensors = ("candidate", "found", "margin", "distance", "forward", "backward")
    return all(torch.equal(getattr(a, name)[order], getattr(b, name)) for name in tensors)


@EVERY
@NORM
def test_candidates_lie_in_ball_and_range_and_the_record_is_true(attack: Attack, p: float) -> None:
    """Trap b14 too: the margin is the candidate's own, and found says its sign."""
    model, x = smooth_net(), batch()
    result = run(attack, p)
    region = Ball({math.inf: 0.1, 2.0: 0.3, 1.0: 0.7}[p], p, 0.0, 1.0).around(x)
    assert bool(region.contains(result.candidate).all())
    z, y = model(result.candidate), model(x).argmax(dim=1)
    others = z.scatter(1, y[:, None], -math.inf).amax(dim=1)
    assert torch.allclose(result.margin, z.gather(1, y[:, None]).squeeze(1) - others)
    assert torch.equal(result.found, z.argmax(dim=1) != y)
    assert torch.equal(result.distance, region.distance(result.candidate))
    assert 0 < int(result.found.sum()) < len(x)  # else the lines above check little


@EVERY
@NORM
def test_the_same_seed_gives_the_same_result(attack: Attack, p: float) -> None:
    """Twice the same call, bit for bit."""
    assert same(run(attack, p), run(attack, p))


@EVERY
@NORM
def test_results_do_not_depend_on_batch_order_or_size(attack: Attack, p: float) -> None:
    """Trap b9: each sample fares as it does alone; whatever the order and the company."""
    model, x = smooth_net(), batch()
    labels = model(x).argmax(dim=1)
    whole = run(attack, p)
    order = torch.tensor([4, 0, 8, 2, 6, 1, 3, 7, 5])
    assert same(whole, run(attack, p, x=x[order], labels=labels[order]), order)
    for i in (0, 4, 8):
        part = slice(i, i + 1)
        alone = run(attack, p, x=x[part], labels=labels[part])
        assert same(whole, alone, torch.tensor([i]))


@EVERY
def test_grouping_changes_nothing(attack: Attack) -> None:
    """max_lanes bounds memory, and only that."""
    if hasattr(attack, "max_lanes"):
        assert same(run(attack, 2.0), run(dataclasses.replace(attack, max_lanes=2), 2.0))


@EVERY
def test_the_global_generators_are_left_alone(attack: Attack) -> None:
    """Trap b17: neither read nor reseeded."""
    before = torch.get_rng_state()
    first = run(attack, math.inf)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    assert same(first, run(attack, math.inf))


@EVERY
@NORM
def test_eps_may_differ_per_sample(attack: Attack, p: float) -> None:
    """Trap b10: a tensor of radii gives what each radius gives alone."""
    model, x = smooth_net(), batch(4)
    labels = model(x).argmax(dim=1)
    eps = torch.tensor([0.0, 0.05, 0.2, 0.6], dtype=torch.float64)
    whole = run(attack, p, x=x, labels=labels, ball=Ball(eps, p, 0.0, 1.0))
    for i in range(4):
        part = slice(i, i + 1)
        ball = Ball(eps[i].item(), p, 0.0, 1.0)
        assert same(
            whole, run(attack, p, x=x[part], labels=labels[part], ball=ball), torch.tensor([i])
        )
    assert whole.distance[0] == 0


@EVERY
@NORM
def test_an_input_already_misclassified_is_found_at_distance_zero(attack: Attack, p: float) -> None:
    """And costs a single query."""
    model, x = smooth_net(), batch()
    wrong = model(x).argmin(dim=1)
    result = run(attack, p, labels=wrong)
    assert bool(result.found.all())
    assert result.distance.tolist() == [0.0] * len(x)
    assert torch.equal(result.candidate, x)
    assert result.forward.tolist() == [1] * len(x)
    assert set(result.attack) == {"clean"}


@EVERY
@NORM
def test_a_constant_network_does_not_raise(attack: Attack, p: float) -> None:
    """Trap b12: no slope, nothing found, and the candidate is a point of the ball, not a blank."""
    constant = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    labels = torch.zeros(9, dtype=torch.long)
    for model in (
        lambda x: constant.expand(len(x), -1),
        lambda x: constant + 0 * x.flatten(1).sum(dim=1, keepdim=True),
    ):
        result = run(attack, p, model=model, labels=labels)
        assert not bool(result.found.any())
        assert set(result.attack) == {""}
        assert bool(Ball(1.0, p, 0.0, 1.0).contains(result.candidate, batch()).all())


@EVERY
def test_a_tie_is_not_found(attack: Attack) -> None:
    """All logits equal: the label has not lost."""
    result = run(attack, 2.0, model=lambda x: x.flatten(1)[:, :1] * torch.ones(1, 4).double())
    assert not bool(result.found.any())


@EVERY
@NORM
def test_nan_logits_neither_raise_nor_count(attack: Attack, p: float) -> None:
    """Everywhere, and only away from the input."""
    model, x = smooth_net(), batch()
    nowhere = run(attack, p, model=lambda x: model(x) * math.nan, labels=model(x).argmax(dim=1))
    assert not bool(nowhere.found.any())
    labels = torch.zeros(9, dtype=torch.long)

    def cliff(points: Tensor) -> Tensor:
        inside = points.flatten(1).sum(dim=1, keepdim=True)
        z = torch.cat((inside + 20, -inside), dim=1)
        return torch.where((points == points.round()).flatten(1).any(dim=1)[:, None], math.nan, z)

    around = run(attack, p, model=cliff, labels=labels)
    assert not bool(around.found.any())
    assert bool(around.margin.isfinite().all())


@EVERY
@NORM
@pytest.mark.parametrize("classes", [2, 10])
def test_any_number_of_classes_will_do(attack: Attack, p: float, classes: int) -> None:
    """Traps b17 and b22: two classes and ten; in a huge ball all samples fall."""
    model, x = smooth_net(classes), batch()
    ball = Ball(math.inf, p, -3.0, 4.0)
    result = run(attack, p, model=model, labels=model(x).argmax(dim=1), ball=ball)
    assert int(result.found.sum()) >= 7


@SEARCHERS
@NORM
def test_a_planted_counterexample_is_found(attack: Attack, p: float) -> None:
    """One feature decides, and only at the end of its range within the ball."""
    x = torch.full((3, 12), 0.5, dtype=torch.float64)
    weights = torch.zeros(12, dtype=torch.float64)
    weights[7] = 1.0

    def model(points: Tensor) -> Tensor:
        score = points.flatten(1) @ weights - 0.795
        return torch.stack((-score, score), dim=1)

    labels = torch.zeros(3, dtype=torch.long)
    assert bool(attack(model, x, labels, Ball(0.3, p, 0.0, 1.0)).found.all())
    if isinstance(attack, Square):  # where nothing is to be found, it spends all its queries
        attack = dataclasses.replace(attack, queries=80)
    assert not bool(attack(model, x, labels, Ball(0.29, p, 0.0, 1.0)).found.any())


@EVERY
def test_targets_in_the_call_are_what_is_looked_for(attack: Attack) -> None:
    """Trap b3: found means the target leads, not that the label has lost, nor the opposite."""
    model, x = smooth_net(), batch()
    z = model(x)
    labels, targets = z.argmax(dim=1), z.topk(2, dim=1).indices[:, 1]
    result = run(attack, 2.0, targets=targets, ball=Ball(1.0, 2.0, 0.0, 1.0))
    assert torch.equal(result.found, model(result.candidate).argmax(dim=1) == targets)
    assert int(result.found.sum()) >= 3
    already = run(attack, 2.0, targets=labels)
    assert already.distance.tolist() == [0.0] * len(x)


@EVERY
def test_a_good_start_is_not_lost(attack: Attack) -> None:
    """A start that is already misclassified and inside the ball is found."""
    model, x = smooth_net(), batch()
    labels = model(x).argmax(dim=1)
    ball = Ball(0.8, 2.0, 0.0, 1.0)
    known = attack_named("pgd")(model, x, labels, ball)
    again = run(attack, 2.0, start=known.candidate, ball=ball)
    assert int(known.found.sum()) > 0
    assert bool(again.found[known.found].all())


@EVERY
def test_the_model_is_left_as_it_was(attack: Attack) -> None:
    """No gradients accumulate, no mode or flag changes, and no_grad outside does not matter."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4)).double()
    x = batch()
    with torch.no_grad():
        labels = net(x).argmax(dim=1)
        result = run(attack, 2.0, model=net, labels=labels)
    assert net.training
    assert all(weight.requires_grad and weight.grad is None for weight in net.parameters())
    assert not result.candidate.requires_grad


@STEEPEST
def test_gradients_are_counted(name: str) -> None:
    """Some for each sample that the input itself does not settle."""
    result = run(quick(name), 2.0)
    assert bool((result.backward > 0).all())


def test_score_based_attacks_ask_for_no_gradient() -> None:
    """Not even of a model that has one."""
    for name in WITHOUT_GRADIENTS:
        assert int(run(quick(name), 2.0).backward.sum()) == 0


@EVERY
def test_queries_are_counted_per_sample(attack: Attack) -> None:
    """Trap b4: what is reported is what the model saw."""
    model, x = smooth_net(), batch()
    seen = []

    def counting(points: Tensor) -> Tensor:
        seen.append(len(points))
        return model(points)

    result = run(attack, math.inf, model=counting, labels=model(x).argmax(dim=1))
    assert int(result.forward.sum()) == sum(seen)


@EVERY
def test_exceptions_of_the_model_surface(attack: Attack) -> None:
    """Traps b10 and b24: a failed run is not a robust sample."""

    def broken(points: Tensor) -> Tensor:
        raise RuntimeError("the model is out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        run(attack, 2.0, model=broken, labels=torch.zeros(9, dtype=torch.long))


@EVERY
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.full((9,), 4)}, "has 4 classes"),
        ({"labels": torch.zeros(8, dtype=torch.long)}, "labels need shape"),
        ({"labels": torch.zeros(9)}, "integer dtype"),
        ({"targets": torch.full((9,), -1)}, "targets"),
        ({"ball": Ball(math.inf)}, "unbounded"),
        ({"model": lambda x: x}, "expected .batch, classes."),
        ({"model": torch.nn.Dropout()}, "eval"),
        ({"sample_keys": torch.zeros(3)}, "sample_keys need shape"),
        ({"x": torch.full((9, 3, 4), math.nan)}, "NaN"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    attack: Attack, change: dict[str, object], message: str
) -> None:
    """One line each that says what to change; labels are valid where nothing else is wrong."""
    with pytest.raises(AttackInputError, match=message):
        run(attack, 2.0, **{"labels": torch.zeros(9, dtype=torch.long), **change})


def test_an_unknown_name_is_refused() -> None:
    """The message lists the names."""
    with pytest.raises(AttackInputError, match="apgd-ce, .*, fgsm, .*, pgd, "):
        attack_named("pdg")


def test_registry_entries_are_complete() -> None:
    """Name and key agree, each has one line of summary, each makes a frozen dataclass."""
    for name, entry in ATTACKS.items():
        assert entry.name == name
        assert entry.summary
        assert "\n" not in entry.summary
        made = entry.make()
        assert dataclasses.is_dataclass(made)
        assert type(made).__dataclass_params__.frozen
