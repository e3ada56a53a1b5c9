"""What does not change a net's function, or only makes the question easier, flips no verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import pytest
import torch
from numpy.typing import NDArray

from tests.soundness.traps import gemms
from verify.api import certify
from verify.values.result import Verdict

Single = NDArray[np.float32]
Layers = list[tuple[Single, Single]]
METHODS = ("ibp", "zonotope", "crown", "alpha-crown", "auto")
EPS = (0.02, 0.1, 0.3)


def trained(seed: int) -> Layers:
    """Random dense layers of 3, 8, 8 and 3 neurons."""
    generator = np.random.default_rng(seed)
    sizes = (3, 8, 8, 3)
    return [
        (
            (generator.standard_normal((out, size)) * (2 / size) ** 0.5).astype(np.float32),
            (0.3 * generator.standard_normal(out)).astype(np.float32),
        )
        for size, out in zip(sizes, sizes[1:], strict=False)
    ]


def permuted(layers: Layers) -> Layers:
    """Hidden neurons in another order."""
    order = np.random.default_rng(0).permutation(8)
    (a, x), (b, y), last = layers
    return [(a[order], x[order]), (b[:, order], y), last]


def scaled(layers: Layers) -> Layers:
    """One layer 32 times larger, the next as much smaller: exact in binary."""
    (a, x), (b, y), last = layers
    return [(32 * a, 32 * x), (b / np.float32(32), y), last]


def with_dead(layers: Layers) -> Layers:
    """Two more neurons that are never positive, with large weights behind them."""
    (a, x), (b, y), last = layers
    a, x = np.vstack([a, 0 * a[:2]]), np.append(x, np.float32([-1, -2]))
    return [(a, x), (np.hstack([b, np.full((8, 2), 1e6, dtype=np.float32)]), y), last]


def doubled(layers: Layers) -> Layers:
    """Each neuron of a layer twice, with half the weight behind each."""
    (a, x), (b, y), last = layers
    half = b / np.float32(2)
    return [(np.vstack([a, a]), np.append(x, x)), (np.hstack([half, half]), y), last]


RELATIONS = (permuted, scaled, with_dead, doubled)


def verdicts(proto: onnx.ModelProto, folder: Path, x: torch.Tensor, method: str) -> list[Verdict]:
    """At each radius; the label is what the untouched net says."""
    path = folder / "net.onnx"
    onnx.save(proto, path)
    results = certify(
        path, x.repeat(len(EPS), 1), eps=torch.tensor(EPS).double(), method=method, iterations=5
    )
    return [result.verdict for result in results]


def point(seed: int) -> torch.Tensor:
    """One input."""
    return torch.tensor(np.random.default_rng(seed + 100).standard_normal((1, 3)).astype("f4"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", RELATIONS)
def test_the_same_function_gets_the_same_verdicts(
    change: Callable[[Layers], Layers], method: str, tmp_path: Path
) -> None:
    """Eight nets at three radii; both answers must occur, or nothing is tested."""
    seen = set()
    for seed in range(8):
        layers = trained(seed)
        before = verdicts(gemms(layers), tmp_path, point(seed), method)
        after = verdicts(gemms(change(layers)), tmp_path, point(seed), method)
        assert before == after, seed
        seen.update(before)
    assert {Verdict.VERIFIED, Verdict.UNKNOWN} <= seen


def test_a_newer_opset_gets_the_same_verdicts(tmp_path: Path) -> None:
    """The file converted from opset 17 to 21."""
    for seed in range(6):
        proto = gemms(trained(seed))
        newer = onnx.version_converter.convert_version(proto, 21)
        newer.ir_version = 10
        for method in ("ibp", "crown"):
            before = verdicts(proto, tmp_path, point(seed), method)
            assert before == verdicts(newer, tmp_path, point(seed), method)


@pytest.mark.parametrize("method", METHODS)
def test_parts_of_a_verified_region_are_verified(method: str, tmp_path: Path) -> None:
    """The box around a corner of a verified box, half as wide, keeps the label."""
    count = 0
    for seed in range(12):
        path = tmp_path / "net.onnx"
        onnx.save(gemms(trained(seed)), path)
        x = point(seed)
        (whole,) = certify(path, x, eps=0.1, method=method, iterations=5)
        if whole.verdict is not Verdict.VERIFIED:
            continue
        count += 1
        signs = torch.tensor([[1.0, 1, 1], [-1, 1, -1], [1, -1, -1]])
        parts = x + 0.05 * signs
        labels = torch.full((3,), whole.label)
        # A hair less than half: the corner itself is rounded to float32.
        found = certify(path, parts, labels, eps=0.0499999, method=method, iterations=5)
        assert all(part.verdict is not Verdict.FALSIFIED for part in found)
        if method in ("ibp", "auto"):  # the others choose lines anew, and may choose worse ones
            assert all(part.verdict is Verdict.VERIFIED for part in found)
    assert count > 3
