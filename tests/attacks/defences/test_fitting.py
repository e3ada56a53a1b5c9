"""The loop: repeatable to the bit, resumed to the bit, and refusing what cannot be meant."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attacks import PGD, AttackInputError, Ball
from attacks.defences import (
    METHODS,
    AttackTraining,
    Epoch,
    Plan,
    Split,
    build,
    fit,
    method_named,
)
from attacks.defences import guard as guarding
from attacks.defences.checkpoints import NAME

CERTIFIED = [name for name, entry in METHODS.items() if entry.make.certified]


def blobs(count: int = 60, classes: int = 3, seed: int = 0) -> Split:
    """Points around one corner of a cube per class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    centres = torch.eye(4)[:classes] * 0.6 + 0.2
    noise = 0.1 * torch.randn((count, 4), generator=generator)
    return Split((centres[labels] + noise).clamp(0, 1), labels)


def plan(name: str = "pgd", *, eps: float = 0.05, epochs: int = 4, seed: int = 0) -> Plan:
    ball = Ball(eps, lower=0.0, upper=1.0)
    method, rate = method_named(name), 0.05
    return Plan(method, ball, epochs=epochs, batch_size=16, learning_rate=rate, seed=seed)


def net(classes: int = 3) -> nn.Sequential:
    return build("dense", (4,), classes, widths=(8,), seed=5)


def weights(module: nn.Module) -> list[Tensor]:
    return list(module.state_dict().values())


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, weights(one), weights(other)))


class Stop(Exception):
    """What a test throws into a run."""


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_and_repeats_to_the_bit(name: str) -> None:
    """Twice the same weights and figures; the global generator is not touched."""
    before = torch.random.get_rng_state()
    runs = [net(), net()]
    told = [fit(module, plan(name, epochs=6), blobs(), blobs(seed=1)) for module in runs]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(*runs)
    assert repr(told[0]) == repr(told[1])
    last = told[0][-1]
    assert len(told[0]) == 6
    assert last.clean > 0.8
    assert last.certified <= last.adversarial <= last.clean
    assert not runs[0].training


def test_another_seed_trains_another_network() -> None:
    """Order and starting points follow the seed."""
    one, other = net(), net()
    fit(one, plan(seed=0), blobs(), blobs(seed=1))
    fit(other, plan(seed=1), blobs(), blobs(seed=1))
    assert not same(one, other)


@pytest.mark.parametrize("name", ["fast", "trades", "crown-ibp", "mtl-ibp"])
def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_bits(
    name: str, tmp_path: Path
) -> None:
    """Stopped in the third of five epochs, after the second one's checkpoint."""
    whole, parts = net(), net()
    expected = fit(whole, plan(name, epochs=5), blobs(), blobs(seed=1))

    def stop(done: Epoch) -> None:
        if done.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(parts, plan(name, epochs=5), blobs(), blobs(seed=1), checkpoint=tmp_path, progress=stop)
    fresh = net()
    seen: list[int] = []
    found = fit(
        fresh,
        plan(name, epochs=5),
        blobs(),
        blobs(seed=1),
        checkpoint=tmp_path,
        resume=True,
        progress=lambda done: seen.append(done.epoch),
    )
    assert seen == [3, 4, 5]
    assert same(whole, fresh)
    assert repr(found) == repr(expected)


def test_an_interrupt_while_writing_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is the one before, and nothing else lies in the folder."""
    fit(net(), plan(epochs=1), blobs(), blobs(seed=1), checkpoint=tmp_path)
    before = (tmp_path / NAME).read_bytes()

    def broken(state: object, stream: object) -> None:
        stream.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", broken)
    from attacks.defences import checkpoints

    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, {})
    assert (tmp_path / NAME).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_checkpoint_is_read_without_unpickling(tmp_path: Path) -> None:
    """torch's own restricted reader takes it."""
    fit(net(), plan("fast", epochs=1), blobs(), blobs(seed=1), checkpoint=tmp_path)
    state = torch.load(tmp_path / NAME, weights_only=True)
    assert state["epoch"] == 1


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Another plan, other data, another net, a damaged file, none, and one in the way."""
    data, held = blobs(), blobs(seed=1)
    fit(net(), plan(epochs=1), data, held, checkpoint=tmp_path)

    def resumed(module: nn.Module, what: Plan, train: Split, folder: Path = tmp_path) -> None:
        fit(module, what, train, held, checkpoint=folder, resume=True)

    with pytest.raises(AttackInputError, match=r"another epochs: epochs was 1, now 2"):
        resumed(net(), plan(epochs=2), data)
    with pytest.raises(AttackInputError, match=r"another method"):
        resumed(net(), plan("ibp", epochs=1), data)
    with pytest.raises(AttackInputError, match="another training data"):
        resumed(net(), plan(epochs=1), blobs(seed=9))
    with pytest.raises(AttackInputError, match="does not fit this network"):
        resumed(build("dense", (4,), 3, widths=(9,)), plan(epochs=1), data)
    with pytest.raises(AttackInputError, match="is there already"):
        fit(net(), plan(epochs=1), data, held, checkpoint=tmp_path)
    with pytest.raises(AttackInputError, match="no checkpoint .* to resume"):
        resumed(net(), plan(epochs=1), data, tmp_path / "empty")
    (tmp_path / NAME).write_bytes(b"rubbish")
    with pytest.raises(AttackInputError, match="damaged"):
        resumed(net(), plan(epochs=1), data)


def test_a_free_choice_of_attack_trains_as_well() -> None:
    """An attack by name and one as an object; a name that is none is refused at once."""
    for attack in ("fgsm", PGD(steps=2, restarts=1, targeted=None)):
        ball = Ball(0.05, p=2.0)
        chosen = Plan(AttackTraining(attack), ball, 10, batch_size=16, learning_rate=0.05)
        told = fit(net(), chosen, blobs(), blobs(seed=1))
        assert told[-1].clean > 0.8
        assert math.isnan(told[-1].certified)  # intervals say nothing of an L2 ball
    with pytest.raises(AttackInputError, match="no attack 'nonsense'"):
        AttackTraining("nonsense")


@pytest.mark.parametrize("name", ["standard", "pgd", "fast", "trades", "ibp", "crown-ibp", "sabr"])
def test_a_radius_of_0_is_standard_training_in_effect(name: str) -> None:
    """Nothing moves, so clean, attacked and certified accuracy agree."""
    told = fit(net(), plan(name, eps=0.0), blobs(), blobs(seed=1))
    assert told[-1].clean == told[-1].adversarial
    assert told[-1].certified == pytest.approx(told[-1].clean, abs=0.02)


@pytest.mark.parametrize("name", METHODS)
def test_two_classes_and_very_few_samples(name: str) -> None:
    """Nothing to withhold, batches smaller than asked for."""
    told = fit(net(2), plan(name, epochs=2), blobs(3, 2), blobs(1, 2))
    assert 0 <= told[-1].clean <= 1


@pytest.mark.parametrize("name", CERTIFIED)
def test_certified_methods_refuse_other_norms(name: str) -> None:
    """A ball is no box."""
    wrong = Plan(method_named(name), Ball(0.1, p=2.0), epochs=1)
    with pytest.raises(AttackInputError, match="norm must be inf"):
        fit(net(), wrong, blobs(), blobs(seed=1))


def test_data_and_settings_that_cannot_be_meant_are_refused() -> None:
    """Each with a sentence that says which."""
    x, labels = blobs().x, blobs().labels
    with pytest.raises(AttackInputError, match="no samples"):
        Split(x[:0], labels[:0])
    with pytest.raises(AttackInputError, match="NaN"):
        Split(x * math.nan, labels)
    with pytest.raises(AttackInputError, match="float32 or float64"):
        Split((255 * x).to(torch.uint8), labels)
    with pytest.raises(AttackInputError, match="labels need"):
        Split(x, labels.float())
    with pytest.raises(AttackInputError, match="outside the input range"):
        fit(net(), plan(), Split(x + 1, labels), blobs())
    with pytest.raises(AttackInputError, match="epochs = 0"):
        plan(epochs=0)
    with pytest.raises(AttackInputError, match="one radius"):
        Plan(method_named("pgd"), Ball(torch.tensor([0.1, 0.2])), epochs=1)
    with pytest.raises(AttackInputError, match="no training method 'madry'"):
        method_named("madry")
    with pytest.raises(AttackInputError, match="no setting 'gamma'; it has beta"):
        method_named("trades", gamma=1)
    with pytest.raises(AttackInputError, match="begin is 0.5 and end 0.5"):
        method_named("ibp", begin=0.5, end=0.5)
    with pytest.raises(AttackInputError, match="diverged"):
        fit(
            net(),
            Plan(method_named("standard"), Ball(0.1), 3, learning_rate=1e20),
            blobs(),
            blobs(),
        )


def test_the_guard_restores_the_best_weights_and_falls_back_to_pgd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A collapse played to it: 0.8, then 0.1; and a small fall, which is noise, before."""
    from attacks.defences.figures import Figures

    told = iter([0.7, 0.8, 0.75, 0.1])
    module = net()
    watching = guarding.Guard()
    ball, best = Ball(0.1), []
    monkeypatch.setattr(guarding, "figures", lambda *_, **__: Figures(1.0, next(told), 0.0))
    for i in range(4):
        with torch.no_grad():
            module[0].weight.fill_(float(i))
        best.append(watching.watch(module, blobs(), ball, 0)[1])
    assert best == [False, False, False, True]
    assert watching.fallen
    assert float(module[0].weight.detach()[0, 0]) == 1.0


def test_after_a_collapse_training_goes_on_with_pgd(monkeypatch: pytest.MonkeyPatch) -> None:
    """The epoch says so, and the run ends as PGD's would."""
    monkeypatch.setattr(guarding, "DROP", -2.0)  # everything is a collapse, once there is a best
    module = net()
    told = fit(module, plan("fast", epochs=12), blobs(), blobs(seed=1))
    notes = [done.epoch for done in told if done.note]
    assert notes == [1] or notes == [2]
    assert told[-1].clean > 0.8


def test_what_is_withheld_is_not_trained_on() -> None:
    """The two parts share no sample and make up the whole; few samples are all kept."""
    data = blobs(60)
    kept, withheld = guarding.withhold(data, seed=0)
    assert (len(kept.x), len(withheld.x)) == (54, 6)
    rows = {tuple(row) for row in kept.x.tolist()}
    assert not rows & {tuple(row) for row in withheld.x.tolist()}
    assert guarding.withhold(blobs(10), seed=0)[0].x.shape == (10, 4)
