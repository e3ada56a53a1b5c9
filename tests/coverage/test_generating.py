"""Generated inputs stay near their parents, cover something new, and are judged by the runtime."""

from __future__ import annotations

import math

import pytest
import torch

import verify
from verify.coverage import MaskRecord, MultisectionCoverage, activations, layers_of, profile_of
from verify.coverage.generating import Mutations, generate, moved
from verify.errors import SettingError
from verify.readers.examples import example_path

NETWORK = verify.load(example_path("digits_conv.onnx"))
GRAPH = NETWORK.graph.to(torch.float32)
LAYERS = layers_of(GRAPH)


def inputs(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def record() -> MaskRecord:
    made = MaskRecord(MultisectionCoverage(profile_of(GRAPH, inputs(40), LAYERS), 20), LAYERS)
    made.update(next(activations(GRAPH, inputs(4), LAYERS)))
    return made


def test_what_is_kept_is_new_near_and_judged() -> None:
    x, held = inputs(4), record()
    labels = NETWORK.judge.predict(x)
    before = {name: mask.clone() for name, mask in held.covered.items()}
    limits = Mutations(noise=0.1, brightness=0.2)
    found = generate(
        GRAPH, held, x, labels, NETWORK.judge, mutations=limits, tries=200, lower=0.0, upper=1.0
    )
    assert found.tried == 200
    assert len(found.x) > 0
    away = (found.x - x[found.parent]).flatten(1).abs().amax(dim=1)
    assert float(away.max()) <= 0.3 + 1e-6
    assert bool(((found.x >= 0) & (found.x <= 1)).all())
    wrong = NETWORK.judge.predict(found.x) != labels[found.parent]
    assert torch.equal(found.wrong, wrong)
    gained = sum(int((held.covered[name] & ~before[name]).sum()) for name in before)
    assert int(found.gained.sum()) == gained
    assert bool((found.gained > 0).all())
    again = generate(
        GRAPH, record(), x, labels, NETWORK.judge, mutations=limits, tries=200, lower=0.0, upper=1.0
    )
    assert torch.equal(again.x, found.x)


def test_nothing_to_change_and_no_tries() -> None:
    x = inputs(2)
    labels = NETWORK.judge.predict(x)
    none = generate(GRAPH, record(), x[:0], labels[:0], NETWORK.judge, tries=50)
    assert (len(none.x), none.tried) == (0, 0)
    still = generate(GRAPH, record(), x, labels, NETWORK.judge, mutations=Mutations(0, 0), tries=20)
    assert len(still.x) == 0


def test_a_shift_moves_pixels_and_a_quarter_turn_turns() -> None:
    """Whole pixels move without interpolation; a quarter turn is that of torch.rot90."""
    x = inputs(1)
    right = moved(x, torch.zeros(1), torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(right[..., 1:], x[..., :-1], atol=1e-5, rtol=0)
    assert float(right[..., 0].abs().max()) < 1e-5
    turned = moved(x, torch.tensor([math.pi / 2]), torch.zeros(1, 2))
    clockwise, other = (torch.rot90(x, k, dims=(2, 3)) for k in (1, -1))
    assert min(float((turned - way).abs().max()) for way in (clockwise, other)) < 1e-5


def test_flat_inputs_keep_their_places() -> None:
    x = torch.rand(3, 64)
    same = Mutations(0.0, 0.0, shift=2, rotation=30).apply(x, torch.Generator().manual_seed(0))
    assert torch.equal(same, x)


@pytest.mark.parametrize("size", [-0.1, math.nan, math.inf])
def test_sizes_that_mean_nothing_are_refused(size: float) -> None:
    with pytest.raises(SettingError, match="noise"):
        Mutations(noise=size)
