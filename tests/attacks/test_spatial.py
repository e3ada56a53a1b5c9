"""Spatial attacks: each sample's own worst, true records, exact smallest angles, traps."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from attacks import (
    SPATIAL_ATTACKS,
    AttackInputError,
    ParameterDescent,
    SpatialAttack,
    SpatialResult,
    TransformBox,
    WorstOfGrid,
    WorstOfRandom,
    smallest_transformation,
)
from attacks.parameter_search import points_per_parameter, unit_grid
from tests.attacks.digits import digits

BOX = TransformBox.parse("rotation(-25,25) scale(0.8,1.2) brightness(-0.1,0.1)")
SMALL = TransformBox.parse("rotation(-6,6) scale(0.95,1.05) brightness(-0.02,0.02)")
QUICK = {
    "auto": {"queries": 27, "draws": 10, "starts": 2, "steps": 5, "rounds": 4},
    "grid": {"queries": 125},
    "random": {"queries": 70},
    "gradient": {"steps": 8, "starts": 3},
}
EVERY = pytest.mark.parametrize("name", list(SPATIAL_ATTACKS))
X = torch.rand(7, 1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
INNER = torch.randn(12, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
OUTER = torch.randn(4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def net(x: Tensor) -> Tensor:
    """Summed row by row, so that samples cannot influence each other's rounding."""
    hidden = (x.flatten(1)[:, None, :] * INNER).sum(dim=2).tanh()
    return (hidden[:, None, :] * OUTER).sum(dim=2)


LABELS = net(X).argmax(dim=1)


def attack(name: str, **changes: object) -> object:
    return SPATIAL_ATTACKS[name](**{**QUICK[name], **changes})


def same(a: SpatialResult, b: SpatialResult, order: Tensor) -> bool:
    tensors = ("values", "image", "found", "margin", "share", "forward", "backward")
    return all(torch.equal(getattr(a, name)[order], getattr(b, name)) for name in tensors)


@EVERY
@pytest.mark.parametrize("early_stop", [False, True])
def test_the_record_is_true(name: str, early_stop: bool) -> None:
    """Parameters in the box, the image theirs, the margin the image's, found its sign."""
    result = attack(name, early_stop=early_stop)(net, X, LABELS, SMALL)
    assert bool(SMALL.contains(result.values).all())
    assert torch.equal(result.image, SMALL.apply(X, result.values))
    logits = net(result.image)
    others = logits.scatter(1, LABELS[:, None], -math.inf).amax(dim=1)
    assert torch.allclose(result.margin, logits.gather(1, LABELS[:, None]).squeeze(1) - others)
    assert torch.equal(result.found, logits.argmax(dim=1) != LABELS)
    assert [bool(who) for who in result.attack] == result.found.tolist()
    assert torch.equal(result.share.isfinite(), result.found)
    assert 0 < int(result.found.sum()) < len(X)  # else the lines above check little


@EVERY
def test_samples_fare_as_they_do_alone_and_in_any_order(name: str) -> None:
    whole = attack(name)(net, X, LABELS, BOX)
    order = torch.tensor([4, 0, 6, 2, 1, 3, 5])
    assert same(whole, attack(name)(net, X[order], LABELS[order], BOX), order)
    for i in (0, 3, 6):
        alone = attack(name)(net, X[i : i + 1], LABELS[i : i + 1], BOX)
        assert same(whole, alone, torch.tensor([i]))


@EVERY
def test_the_global_generators_are_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    first = attack(name)(net, X, LABELS, BOX)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    assert same(first, attack(name)(net, X, LABELS, BOX), torch.arange(len(X)))


@EVERY
def test_queries_are_counted(name: str) -> None:
    """Against a count of the rows that the model was shown; one more shows the logits' shape."""
    shown = torch.zeros(())

    def watched(x: Tensor) -> Tensor:
        shown.add_(len(x))
        return net(x)

    result = attack(name)(watched, X, LABELS, SMALL)
    assert int(shown) == int(result.forward.sum()) + len(X)
    assert bool((result.backward <= result.forward).all())
    assert bool((result.backward > 0).any()) == (name in {"auto", "gradient"})


def test_each_sample_has_its_own_worst_transformation() -> None:
    """Trap b20: one falls only to the left, one only to the right, one only downwards.

    The score is the brightness of a pixel; a shift by one brings the only dark one there.
    """
    x = torch.ones(3, 1, 5, 5)
    x[0, 0, 2, 1] = x[1, 0, 2, 3] = x[2, 0, 1, 2] = 0

    def model(images: Tensor) -> Tensor:
        seen = images[:, 0, 2, 2]
        return torch.stack([seen, torch.full_like(seen, 0.25)], dim=1)

    box = TransformBox.parse("translation(-1,1)")
    result = WorstOfGrid(points=3)(model, x, torch.zeros(3, dtype=torch.int64), box)
    assert result.found.tolist() == [True] * 3
    assert result.values.tolist() == [[1, 0], [-1, 0], [0, 1]]
    single = unit_grid((3, 3))
    fooled = torch.stack([model(box.apply(x, v.expand(3, 2)))[:, 0] < 0.25 for v in single])
    assert int(fooled.sum(dim=1).max()) == 1  # what an attack with one for all would reach


def test_stronger_searches_find_no_less() -> None:
    """Digits, three parameters: the combination reaches the lowest margins."""
    case = digits()
    x, labels = case.x[:40], case.labels[:40]
    reached = {
        name: make(early_stop=False)(case.net, x, labels, BOX, shape=(1, 8, 8))
        for name, make in SPATIAL_ATTACKS.items()
    }
    best = reached["auto"]
    for name in ("grid", "random", "gradient"):
        assert int(best.found.sum()) >= int(reached[name].found.sum())
        assert float(best.margin.mean()) < float(reached[name].margin.mean())
    assert float(best.found.double().mean()) > 0.3


def test_flat_inputs_are_moved_as_images() -> None:
    """With the shape said, rows of numbers fare as the images that they are."""
    flat = SpatialAttack(**QUICK["auto"])(net, X.flatten(1), LABELS, BOX, shape=(1, 6, 5))
    images = SpatialAttack(**QUICK["auto"])(net, X, LABELS, BOX)
    assert flat.image.shape == (7, 30)
    assert torch.equal(flat.image, BOX.apply(X, flat.values).flatten(1))
    assert torch.equal(flat.found, images.found)


@pytest.mark.parametrize("slope", [0.1, 0.05, 0.15])
def test_the_smallest_shift_is_the_exact_one(slope: float) -> None:
    """A ramp of that slope: the middle value falls below 0.3 where it has moved by 0.2 / slope."""
    ramp = (0.5 + slope * (torch.arange(5, dtype=torch.float64) - 2))[None, None, None, :]

    def model(images: Tensor) -> Tensor:
        seen = images[:, 0, 0, 2]
        return torch.stack([seen, torch.full_like(seen, 0.3)], dim=1)

    box = TransformBox.parse("translation_x(-2,2)")
    label = torch.tensor([0])
    result = smallest_transformation(model, ramp, label, box)
    exact = 0.2 / slope
    if exact > 2:
        assert not bool(result.found[0])
        assert float(result.share[0]) == math.inf
    else:
        assert exact <= float(result.values[0, 0]) <= exact * (1 + 1e-6)
        assert float(result.share[0]) == pytest.approx(float(result.values[0, 0]) / 2, rel=1e-12)


def test_the_smallest_angle_of_digits_is_that_of_a_fine_grid() -> None:
    """Within one step of 20001 angles from -30 to 30 degrees: at most one narrow window missed."""
    case = digits()
    x, labels = case.x[:12], case.labels[:12]
    box = TransformBox.parse("rotation(-30,30)")
    result = smallest_transformation(case.net, x, labels, box, shape=(1, 8, 8))
    angles = torch.linspace(-30, 30, 20001, dtype=torch.float64)
    for i in range(len(x)):
        images = box.apply(x[i].view(1, 1, 8, 8).expand(len(angles), -1, -1, -1), angles[:, None])
        hit = case.net(images.flatten(1)).argmax(dim=1) != labels[i]
        least = float(angles[hit].abs().min()) if bool(hit.any()) else math.inf
        found = 30 * float(result.share[i])
        assert least - 0.003 <= found <= least + 0.003 or found == least == math.inf


def test_the_smallest_share_shrinks_all_parameters() -> None:
    """Found in the box of its share, fooling; a composition needs less of each than one alone."""
    case = digits()
    x, labels = case.x[:10], case.labels[:10]
    both = smallest_transformation(
        case.net,
        x,
        labels,
        TransformBox.parse("rotation(-25,25) translation(-1,1)"),
        shape=(1, 8, 8),
    )
    alone = smallest_transformation(
        case.net, x, labels, TransformBox.parse("rotation(-25,25)"), shape=(1, 8, 8)
    )
    assert bool(both.found.all())
    logits = case.net(both.image)
    own = logits.gather(1, labels[:, None]).squeeze(1)
    rivals = logits.scatter(1, labels[:, None], -math.inf).amax(dim=1)
    assert bool((own - rivals < 1e-4).all())  # float32 rounds by batch size
    assert bool(((both.margin < 0) & (both.margin > -0.01)).all())  # just across the boundary
    assert bool((both.share <= alone.share).all())
    limits = both.share[:, None] * torch.tensor([25, 1, 1], dtype=torch.float64)
    assert bool((both.values.abs() <= limits).all())


def test_the_image_itself_counts_first_but_only_if_the_box_holds_it() -> None:
    """A misclassified original: found as "clean" at share 0, with one query."""
    wrong = (LABELS + 1) % 4
    for name in SPATIAL_ATTACKS:
        result = attack(name)(net, X, wrong, BOX)
        assert set(result.attack) == {"clean"}
        assert result.share.tolist() == [0] * 7
        assert result.forward.tolist() == [1] * 7
        assert torch.equal(result.image, X)
    away = TransformBox.parse("rotation(10,20)")
    result = WorstOfGrid(queries=5)(net, X, wrong, away)
    assert bool(away.contains(result.values).all())
    assert "clean" not in result.attack
    with pytest.raises(AttackInputError, match="scaled about it"):
        smallest_transformation(net, X, wrong, away)


def test_what_the_judge_refuses_is_no_find() -> None:
    """And does not stand in the way: here it refuses every second angle's sign."""
    box = TransformBox.parse("rotation(-40,40)")
    free = WorstOfGrid(queries=41, early_stop=False)(net, X, LABELS, box)
    none = WorstOfGrid(queries=41)(net, X, LABELS, box, judge=lambda x, rows: rows < 0)
    assert bool(free.found.any())
    assert not bool(none.found.any())
    assert bool((none.margin >= 0).all())
    seen: list[int] = []

    def judge(images: Tensor, rows: Tensor) -> Tensor:
        seen.append(len(images))
        return net(images).argmax(dim=1) != LABELS[rows]

    kept = WorstOfGrid(queries=41, early_stop=False)(net, X, LABELS, box, judge=judge)
    assert torch.equal(kept.values, free.values)
    assert sum(seen) > 0


def test_targets_are_the_only_goal() -> None:
    targets = (LABELS + 2) % 4
    result = attack("auto")(net, X, LABELS, BOX, targets=targets)
    assert torch.equal(result.found, net(result.image).argmax(dim=1) == targets)


def test_degenerate_input() -> None:
    """Nothing to find in a constant or NaN model, an empty batch, a box of one point."""

    def constant(x: Tensor) -> Tensor:
        return torch.zeros(len(x), 2)

    def broken(x: Tensor) -> Tensor:
        return torch.full((len(x), 2), math.nan)

    labels = torch.zeros(7, dtype=torch.int64)
    for name in SPATIAL_ATTACKS:
        for model in (constant, broken):
            result = attack(name)(model, X, labels, BOX)
            assert not bool(result.found.any())
        point = TransformBox.parse("rotation(0,0) scale(1,1)")
        assert not bool(attack(name)(net, X, LABELS, point).found.any())
        assert len(attack(name)(net, X[:0], LABELS[:0], BOX).found) == 0
    assert not bool(smallest_transformation(broken, X, labels, BOX).found.any())
    assert len(smallest_transformation(net, X[:0], LABELS[:0], BOX).found) == 0


def test_what_cannot_be_attacked_is_refused() -> None:
    run = WorstOfGrid(queries=3)
    with pytest.raises(AttackInputError, match="Say with shape="):
        run(net, X.flatten(1), LABELS, BOX)
    with pytest.raises(AttackInputError, match="as many entries"):
        run(net, X.flatten(1), LABELS, BOX, shape=(1, 5, 5))
    with pytest.raises(AttackInputError, match="clip to 0 to 1"):
        run(net, 2 * X, LABELS, BOX)
    with pytest.raises(AttackInputError, match="float32 or float64"):
        run(net, X.long(), LABELS, BOX)
    with pytest.raises(AttackInputError, match="finite"):
        run(net, X / 0, LABELS, BOX)
    with pytest.raises(AttackInputError, match="one number for each"):
        WorstOfGrid(points=(3, 3))(net, X, LABELS, BOX)
    for make, setting in (
        (WorstOfRandom, "queries"),
        (ParameterDescent, "starts"),
        (SpatialAttack, "queries"),
        (WorstOfGrid, "points"),
    ):
        with pytest.raises(AttackInputError, match="at least 1"):
            make(**{setting: 0})


def test_grids_have_ends_middles_and_no_more_points_than_asked_for() -> None:
    widths = torch.ones(3)
    assert points_per_parameter(601, torch.ones(1)) == (601,)
    assert points_per_parameter(600, torch.ones(1)) == (599,)
    assert points_per_parameter(625, torch.ones(2)) == (25, 25)
    assert points_per_parameter(729, widths) == (9, 9, 9)
    assert points_per_parameter(5, torch.tensor([1.0, 0, 1])) == (3, 1, 3)
    assert points_per_parameter(5, torch.ones(6)) == (2,) * 6
    grid = unit_grid((3, 5, 1))
    assert grid.unique(dim=0).shape == (15, 3)
    assert grid.abs().amax(dim=0).tolist() == [1, 1, 0]
    assert grid[-1].tolist() == [0, 0, 0]
    assert dataclasses.asdict(WorstOfGrid())["queries"] == 601
