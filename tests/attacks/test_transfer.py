"""Transfer matrices against counting by hand, judges, noise, intervals."""

import math

import pytest
import torch
from torch import Tensor, nn

from attacks import (
    FGSM,
    MIFGSM,
    PGD,
    AttackInputError,
    Ball,
    mean_logits,
    transfer_attack,
    transfer_matrix,
)
from attacks.bootstrap import resampled, share_interval
from attacks.transfer import NOISE, OTHERS, difference, mean_transfer, noise_like
from tests.attacks.digits import digits

X = torch.rand(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
BALL = Ball(0.2, lower=0.0, upper=1.0)


def linear(seed: int) -> nn.Linear:
    """Like its siblings, as models trained on the same data are."""
    net = nn.Linear(6, 3, dtype=torch.float64).requires_grad_(False)
    shared, own = (torch.Generator().manual_seed(s) for s in (0, seed))
    weight = torch.randn(3, 6, dtype=torch.float64, generator=shared)
    net.weight.copy_(weight + 0.6 * torch.randn(3, 6, dtype=torch.float64, generator=own))
    net.bias.copy_(-net.weight.sum(dim=1) / 2)  # so that the middle of the range is undecided
    return net


MODELS = {"a": linear(1), "b": linear(2), "c": linear(3)}
LABELS = MODELS["a"](X).argmax(dim=1)


def test_the_matrix_is_what_counting_gives() -> None:
    """Example by example, over the samples that both classify correctly."""
    attacks = {"fgsm": FGSM(), "pgd": PGD(early_stop=False)}
    for result in transfer_matrix(MODELS, X, LABELS, BALL, attacks, noise=False, ensemble=False):
        assert result.sources == result.targets == ("a", "b", "c")
        for s, source in enumerate(MODELS.values()):
            made = attacks[result.attack](source, X, LABELS, BALL)
            for t, target in enumerate(MODELS.values()):
                hits = count = 0
                for i in range(len(X)):
                    right = all(int(m(X[i]).argmax()) == int(LABELS[i]) for m in (source, target))
                    count += right
                    fooled = all(
                        int(m(made.candidate[i]).argmax()) != int(LABELS[i])
                        for m in (source, target)
                    )
                    hits += right and fooled
                assert int(result.counted[s, t].sum()) == count
                assert int(result.fooled[s, t].sum()) == hits
                assert float(result.rate[s, t]) == pytest.approx(hits / count)
                assert float(result.low[s, t]) <= hits / count <= float(result.high[s, t])
        assert float(result.rate.min()) > 0
        assert float(result.rate.diag().mean()) > float(result.rate.mean())


def test_the_diagonal_is_the_white_box_success() -> None:
    (result,) = transfer_matrix(MODELS, X, LABELS, BALL, {"pgd": PGD(early_stop=False)})
    for i, model in enumerate(MODELS.values()):
        right = model(X).argmax(dim=1) == LABELS
        found = PGD()(model, X[right], LABELS[right], BALL).found
        assert float(result.rate[i, i]) == pytest.approx(float(found.double().mean()))


def test_a_copy_is_fooled_by_all_and_a_blind_model_by_none() -> None:
    """The same net twice: its rows agree. Constant and right: what fools another leaves it."""
    labels = torch.zeros_like(LABELS)

    def blind(x: Tensor) -> Tensor:
        return torch.tensor([1.0, 0, 0], dtype=torch.float64).expand(len(x), 3)

    models = {"a": MODELS["a"], "copy": MODELS["a"], "blind": blind}
    (result,) = transfer_matrix(models, X, labels, Ball(0.4), {"fgsm": FGSM()})
    assert result.rate[0, 0] == result.rate[0, 1] == result.rate[1, 0] > 0
    assert result.rate[:, 2].tolist() == [0] * 5
    assert result.rate[2].tolist() == [0] * 3  # against the blind nothing is found
    # All of none: the interval is not of width 0.
    assert float(result.high[2, 2]) == pytest.approx(1 - 0.025 ** (1 / 40))
    assert int(result.found[2].sum()) == 0


def test_the_judge_decides_for_source_and_target() -> None:
    """A judge that sees no error at one model: its row and its column are empty."""
    judges = {"b": lambda x, labels: torch.zeros(len(x), dtype=torch.bool)}
    (result,) = transfer_matrix(
        MODELS, X, LABELS, BALL, {"pgd": PGD(early_stop=False)}, judges=judges, ensemble=False
    )
    assert result.rate[1].tolist() == [0, 0, 0]
    assert result.rate[:, 1].tolist() == [0, 0, 0, 0]
    assert int(result.counted[1, 1].sum()) == 40
    assert float(result.rate[0, 0]) > 0


def test_others_leave_the_target_out_and_noise_needs_no_source() -> None:
    (result,) = transfer_matrix(MODELS, X, LABELS, BALL, {"pgd": PGD(early_stop=False)})
    assert result.sources[3:] == (OTHERS, NOISE)
    pair = mean_logits([MODELS["a"], MODELS["b"]])
    assert torch.allclose(pair(X), (MODELS["a"](X) + MODELS["b"](X)) / 2)
    made = PGD(early_stop=False)(pair, X, LABELS, BALL)
    right = (pair(X).argmax(1) == LABELS) & (MODELS["c"](X).argmax(1) == LABELS)
    fooled = made.found & (MODELS["c"](made.candidate).argmax(1) != LABELS)
    assert float(result.rate[3, 2]) == pytest.approx(float(fooled[right].double().mean()))
    assert torch.equal(result.counted[4, 2], MODELS["c"](X).argmax(1) == LABELS)
    assert float(result.rate[4].mean()) < float(result.rate[:3].mean())
    two = dict(list(MODELS.items())[:2])
    (short,) = transfer_matrix(two, X, LABELS, BALL, {"fgsm": FGSM()})
    assert short.sources == ("a", "b", NOISE)  # the others would be one model, which has a row


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_noise_has_the_norm_of_the_attack_and_depends_on_the_sample_only(p: float) -> None:
    region = Ball(0.3, p).around(X)
    keys = torch.arange(40)
    drawn = noise_like(X, region, keys)
    assert torch.linalg.vector_norm(drawn, p, dim=1).tolist() == pytest.approx([0.3] * 40)
    part = noise_like(X[5:7], region.rows(torch.tensor([5, 6])), keys[5:7])
    assert torch.equal(part, drawn[5:7])
    assert abs(float(drawn.mean())) < 0.04


def test_intervals_cover_and_shrink() -> None:
    """Of 300 sets of n draws with share 0.3, about 95 % of the intervals hold it."""
    generator = torch.Generator().manual_seed(1)
    for count, width in ((60, 0.3), (400, 0.1)):
        hits = torch.rand(300, count, generator=generator) < 0.3
        ends = share_interval(hits, torch.ones_like(hits), resampled(count, 500, 0), 0.95)
        covered = ((ends[:, 0] <= 0.3) & (ends[:, 1] >= 0.3)).double().mean()
        assert 0.9 < float(covered) < 0.99
        assert float((ends[:, 1] - ends[:, 0]).mean()) < width
    weights = resampled(7, 50, 0)
    assert weights.sum(dim=1).tolist() == [7] * 50
    assert torch.equal(weights, resampled(7, 50, 0))
    assert not torch.equal(weights, resampled(7, 50, 1))


def test_ends_of_none_and_all_are_those_of_clopper_and_pearson() -> None:
    special = pytest.importorskip("scipy.special")
    hits = torch.tensor([[False] * 12, [True] * 12])
    ends = share_interval(hits, torch.ones_like(hits), resampled(12, 100, 0), 0.95)
    assert ends[0].tolist() == pytest.approx([0, special.betaincinv(1, 12, 0.975)])
    assert ends[1].tolist() == pytest.approx([special.betaincinv(12, 1, 0.025), 1])
    none = share_interval(hits[:1], hits[:1], resampled(12, 100, 0), 0.95)
    assert bool(none.isnan().all())


def test_differences_are_paired() -> None:
    """An attack against itself differs by exactly 0; more room transfers more."""
    attacks = {"fgsm": FGSM(), "again": FGSM()}
    one, two = transfer_matrix(MODELS, X, LABELS, BALL, attacks)
    same = difference(one, two)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    mean = mean_transfer(one)
    off = one.rate[:3][~torch.eye(3, dtype=torch.bool)].mean()
    assert mean.value == pytest.approx(float(off))
    assert mean.low < mean.value < mean.high


def test_names_become_attacks_that_do_not_stop_early() -> None:
    case = digits()
    x = case.x.view(-1, 1, 8, 8)[:20]
    for name in ("ifgsm", "mifgsm", "nifgsm-di-ti", "mifgsm-ti", "mifgsm-di", "pgd", "fgsm"):
        attack = transfer_attack(name, 8)
        assert getattr(attack, "early_stop", False) is False
        result = attack(lambda z: case.net(z.flatten(1)), x, case.labels[:20], Ball(0.2, lower=0.0))
        assert bool(result.found.any())
    widths = [transfer_attack("mifgsm-ti", side).blur_size for side in (8, 28, 32, 224)]
    assert widths == [3, 7, 9, 15]
    assert isinstance(transfer_attack("nifgsm-di", 8), MIFGSM)
    for bad in ("pgd-di", "nothing", "mifgsm-xx"):
        with pytest.raises(AttackInputError, match="There is no attack"):
            transfer_attack(bad)


def test_degenerate_input() -> None:
    """No samples, NaN, nothing to fool, eps 0: empty cells are NaN, never a success."""

    def broken(x: Tensor) -> Tensor:
        return torch.full((len(x), 3), math.nan)

    attacks = {"fgsm": FGSM()}
    (empty,) = transfer_matrix(MODELS, X[:0], LABELS[:0], BALL, attacks)
    assert bool(empty.rate.isnan().all())
    (bad,) = transfer_matrix({"a": MODELS["a"], "nan": broken}, X, LABELS, BALL, attacks)
    assert bool(bad.rate[:, 1].isnan().all())
    assert int(bad.fooled[:, 1].sum()) == 0
    assert mean_transfer(bad).value != mean_transfer(bad).value
    (still,) = transfer_matrix(MODELS, X, LABELS, Ball(0.0), attacks)
    assert float(still.rate.max()) == 0


def test_what_does_not_fit_is_refused() -> None:
    attacks = {"fgsm": FGSM()}
    with pytest.raises(AttackInputError, match="least two"):
        transfer_matrix({"a": MODELS["a"]}, X, LABELS, BALL, attacks)
    with pytest.raises(AttackInputError, match="least two models and one attack"):
        transfer_matrix(MODELS, X, LABELS, BALL, {})
    with pytest.raises(AttackInputError, match="different numbers: a 3, d 2"):
        transfer_matrix(
            {"a": MODELS["a"], "d": nn.Linear(6, 2, dtype=torch.float64)}, X, LABELS, BALL, attacks
        )
    with pytest.raises(AttackInputError, match="resamples = 0"):
        transfer_matrix(MODELS, X, LABELS, BALL, attacks, resamples=0)
    with pytest.raises(AttackInputError, match="labels"):
        transfer_matrix(MODELS, X, LABELS + 1, BALL, attacks)
    with pytest.raises(AttackInputError, match="no models"):
        mean_logits([])
