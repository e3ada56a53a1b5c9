"""Coverage criteria against hand-computed cases and against brute force, for any batch split."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from verify.coverage import (
    BoundaryCoverage,
    Layer,
    MaskRecord,
    MultisectionCoverage,
    NeuronCoverage,
    PairRecord,
    SpreadRecord,
    StrongActivationCoverage,
    TopNeuronCoverage,
    TopPatternRecord,
)
from verify.coverage.profile import Range, joined
from verify.coverage.records import CoverageRecord, overall
from verify.errors import SettingError

LAYERS = (Layer("a", (4,), True), Layer("b", (3,), True))


def tables(seed: int, count: int = 12) -> dict[str, Tensor]:
    """Activations as of a Relu: about half are 0."""
    generator = torch.Generator().manual_seed(seed)
    return {
        layer.name: torch.randn(count, layer.neurons, generator=generator).clamp(min=0)
        for layer in LAYERS
    }


def profile(seed: int = 99) -> dict[str, Range]:
    """Ranges on other activations."""
    return {
        name: Range(v.amin(0), v.amax(0), v.double().mean(0), v.double().std(0, correction=0), 12)
        for name, v in tables(seed).items()
    }


def everything() -> dict[str, CoverageRecord]:
    """Every criterion with fresh records."""
    return {
        "nc": MaskRecord(NeuronCoverage(0.25), LAYERS),
        "nc-unscaled": MaskRecord(NeuronCoverage(0.5, scaled=False), LAYERS),
        "kmnc": MaskRecord(MultisectionCoverage(profile(), 5), LAYERS),
        "nbc": MaskRecord(BoundaryCoverage(profile(), 0.1), LAYERS),
        "snac": MaskRecord(StrongActivationCoverage(profile()), LAYERS),
        "tknc": MaskRecord(TopNeuronCoverage(2), LAYERS),
        "tknp": TopPatternRecord(LAYERS, 1),
        "nlc": SpreadRecord(LAYERS),
        "ssc": PairRecord(LAYERS),
        "vsc": PairRecord(LAYERS, ratio=1.5),
    }


def brute(values: dict[str, Tensor]) -> dict[str, float]:
    """The same figures, written down neuron by neuron from the definitions."""
    seen = {name: v.tolist() for name, v in values.items()}
    ranges = profile()
    found = dict.fromkeys(everything(), 0.0)
    patterns = set()
    for name, rows in seen.items():
        neurons = len(rows[0])
        low, high = ranges[name].low.tolist(), ranges[name].high.tolist()
        spread = [0.1 * d for d in ranges[name].deviation.tolist()]
        for n in range(neurons):
            column = [row[n] for row in rows]
            scaled = [
                (row[n] - min(row)) / (max(row) - min(row)) if max(row) > min(row) else 0
                for row in rows
            ]
            found["nc"] += any(v > 0.25 for v in scaled)
            found["nc-unscaled"] += any(v > 0.5 for v in column)
            width = (high[n] - low[n]) / 5
            found["kmnc"] += sum(
                any(
                    low[n] + i * width <= v < low[n] + (i + 1) * width or (i == 4 and v == high[n])
                    for v in column
                )
                for i in range(5)
                if width > 0
            )
            found["nbc"] += any(v < low[n] - spread[n] for v in column)
            found["nbc"] += any(v > high[n] + spread[n] for v in column)
            found["snac"] += any(v > high[n] for v in column)
            found["tknc"] += any(
                sum(row[m] >= row[n] for m in range(neurons) if m != n) < 2 for row in rows
            )
        mean = [sum(row[n] for row in rows) / len(rows) for n in range(neurons)]
        found["nlc"] += (
            sum(
                abs(sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in rows) / len(rows))
                for i in range(neurons)
                for j in range(neurons)
            )
            / neurons**2
        )
    for rows in zip(*seen.values(), strict=True):
        patterns.add(
            tuple(tuple(sum(other >= v for other in row) <= 1 for v in row) for row in rows)
        )
    found["tknp"] = len(patterns)
    first, second = seen.values()
    for kind in ("ssc", "vsc"):
        pairs = set()
        for one, two in itertools.combinations(range(len(first)), 2):
            flips = [i for i in range(4) if (first[one][i] > 0) != (first[two][i] > 0)]
            decisions = [j for j in range(3) if (second[one][j] > 0) != (second[two][j] > 0)]
            if kind == "ssc":
                conditions = flips if len(flips) == 1 else []
            else:
                conditions = (
                    []
                    if flips
                    else [
                        i
                        for i in range(4)
                        if first[one][i] != first[two][i]
                        and max(first[one][i], first[two][i])
                        >= 1.5 * min(first[one][i], first[two][i])
                    ]
                )
            pairs |= set(itertools.product(conditions, decisions))
        found[kind] = len(pairs)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_every_criterion_equals_brute_force(seed: int) -> None:
    values, records = tables(seed), everything()
    for record in records.values():
        record.update(values)
    expected = brute(values)
    for name, record in records.items():
        assert overall(record.shares()).covered == pytest.approx(expected[name], abs=1e-6), name


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(12)), st.lists(st.integers(1, 11), max_size=4, unique=True))
def test_batches_may_come_in_any_order_and_size(order: list[int], cuts: list[int]) -> None:
    """Equal, not near, but for the covariances, which are sums."""
    values, whole, parts = tables(3), everything(), everything()
    for name, record in whole.items():
        record.update(values)
        for piece in torch.tensor(order).tensor_split(sorted(cuts)):
            parts[name].update({layer: v[piece] for layer, v in values.items()})
        one, two = overall(record.shares()), overall(parts[name].shares())
        assert two.total == one.total
        exact = 1e-12 if name == "nlc" else 0.0
        assert two.covered == pytest.approx(one.covered, rel=exact, abs=0)


def test_evidence_of_batches_joins_to_what_updates_say() -> None:
    """In order, to the bit: fractions of batches may be stored, sent, and joined elsewhere."""
    values, direct, told = tables(5, 40), everything(), everything()
    for name, record in direct.items():
        blank = everything()[name]
        for piece in torch.arange(40).split(7):
            few = {layer: v[piece] for layer, v in values.items()}
            record.update(few)
            evidence = blank.evidence(few)
            told[name].admit(
                {
                    k: np.frombuffer(v.tobytes(), v.dtype).reshape(v.shape).copy()
                    for k, v in evidence.items()
                }
            )
        assert told[name].shares() == record.shares(), name
        assert overall(blank.shares()).covered == 0


def test_cases_by_hand() -> None:
    """One layer, four neurons, two inputs."""
    layer = (Layer("a", (4,), True),)
    values = {"a": torch.tensor([[0.0, 1.0, 2.0, 4.0], [3.0, 3.0, 3.0, 3.0]])}
    seen = {
        "a": Range(
            torch.tensor([0.0, 0.0, 0.0, 2.0]),
            torch.tensor([4.0, 4.0, 4.0, 2.0]),
            torch.zeros(4, dtype=torch.float64),
            torch.zeros(4, dtype=torch.float64),
            2,
        )
    }
    # Scaled: 0, .25, .5, 1; the constant second input scales to 0.
    nc = MaskRecord(NeuronCoverage(0.25), layer)
    nc.update(values)
    assert nc.covered["a"].flatten().tolist() == [False, False, True, True]
    # Sections of width 1; the last neuron has none.
    kmnc = MaskRecord(MultisectionCoverage(seen, 4), layer)
    kmnc.update(values)
    assert [row.nonzero().flatten().tolist() for row in kmnc.covered["a"]] == [
        [0, 3],
        [1, 3],
        [2, 3],
        [],
    ]
    assert overall(kmnc.shares()).total == 12
    # Four ways tied, nobody is at the top of the second input.
    top = MaskRecord(TopNeuronCoverage(2), layer)
    top.update(values)
    assert top.covered["a"].flatten().tolist() == [False, False, True, True]
    nbc = MaskRecord(BoundaryCoverage(seen), layer)
    nbc.update(values)
    assert nbc.covered["a"].nonzero().tolist() == [[3, 1]]


def test_union_and_difference() -> None:
    """Of two test sets: what either covers, and what only the first does."""
    one, two, both = (MaskRecord(TopNeuronCoverage(1), LAYERS) for _ in range(3))
    first, second = tables(1, 2), tables(2, 2)
    one.update(first)
    two.update(second)
    for part in (first, second):
        both.update(part)
    for name, mask in one.union(two).covered.items():
        assert torch.equal(mask, both.covered[name])
        only = one.difference(two).covered[name]
        assert torch.equal(only, one.covered[name] & ~two.covered[name])
    other = MaskRecord(MultisectionCoverage(profile(), 5), LAYERS)
    with pytest.raises(SettingError, match="different layers or sections"):
        one.union(other)


def test_adds_says_what_update_would_cover() -> None:
    record, values = MaskRecord(TopNeuronCoverage(1), LAYERS), tables(4, 3)
    before = sum(int(mask.sum()) for mask in record.covered.values())
    adds = record.adds(values)
    record.update(values)
    assert adds == sum(int(mask.sum()) for mask in record.covered.values()) - before > 0
    assert record.adds(values) == 0


def test_joined_ranges_equal_the_whole() -> None:
    values = tables(5)["a"]
    parts = [
        Range(v.amin(0), v.amax(0), v.double().mean(0), v.double().std(0, correction=0), len(v))
        for v in (values[:5], values[5:], values)
    ]
    found, whole = joined(parts[0], parts[1]), parts[2]
    assert torch.equal(found.low, whole.low)
    assert torch.equal(found.high, whole.high)
    torch.testing.assert_close(found.mean, whole.mean)
    torch.testing.assert_close(found.deviation, whole.deviation)


@pytest.mark.parametrize(
    "make",
    [
        lambda: NeuronCoverage(math.nan),
        lambda: MultisectionCoverage(profile(), 0),
        lambda: BoundaryCoverage(profile(), -1.0),
        lambda: StrongActivationCoverage(profile(), math.inf),
        lambda: TopNeuronCoverage(0),
        lambda: PairRecord(LAYERS[:1]),
        lambda: PairRecord(LAYERS, ratio=0.5),
    ],
)
def test_settings_that_mean_nothing_are_refused(make: object) -> None:
    with pytest.raises(SettingError):
        make()  # type: ignore[operator]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_a_gap_below_zero_is_covered(seed: int) -> None:
    """What a search brings below 0 with a little to spare is what `hits` counts."""
    values = tables(seed, 1)["a"].expand(4, -1)
    neuron = torch.arange(4)
    for name, record in everything().items():
        if isinstance(record, MaskRecord):
            for section in range(record.criterion.sections()):
                place = torch.full((4,), section)
                gap = record.criterion.gap(LAYERS[0], values, neuron, place)
                hits = record.criterion.hits(LAYERS[0], values[:1])[:, section]
                meant = record.criterion.meant(LAYERS[0])[:, section]
                clear = (gap.abs() > 1e-5) & meant
                assert torch.equal((gap < 0)[clear], hits[clear]), name
