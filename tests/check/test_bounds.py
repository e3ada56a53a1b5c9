"""The checker's bounds hold for every execution that is tried, whatever the hints are."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest

from tests.check.models import conv_bytes, dense_bytes, mixed_bytes, runs
from tests.readers.onnx_models import model
from verify.check import bounds
from verify.check.bounds import Bounds, Hints, Pass, crown
from verify.check.network import Affine, Curve, MaxPool, Network, Relu
from verify.check.onnx_bytes import read_model
from verify.check.operators import read_network
from verify.check.refusal import Refusal

FILES = {
    "dense": dense_bytes(0, (3, 12, 12, 4)),
    "large weights": dense_bytes(1, (3, 12, 12, 4), scale=30.0),
    "max": conv_bytes(2),
    "mean": conv_bytes(3, "AveragePool"),
    "mixed": mixed_bytes(4),
    "mixed too": mixed_bytes(5),
}


def network(data: bytes) -> Network:
    return read_network(read_model(data))


def forward(net: Network, x: np.ndarray) -> np.ndarray:
    """The real-valued network at inputs (batch, inputs)."""
    values = {net.input_name: x}
    for name, step in net.steps.items():
        if isinstance(step, Affine):
            values[name] = sum(m.apply(values[s]) for s, m in step.parts) + step.bias
        elif isinstance(step, Relu):
            values[name] = np.maximum(values[step.source], 0)
        elif isinstance(step, Curve):
            x = values[step.source]
            values[name] = np.tanh(x) if step.kind == "Tanh" else 1 / (1 + np.exp(-x))
        else:
            assert isinstance(step, MaxPool)
            values[name] = values[step.source][:, step.windows].max(axis=2)
    return values[net.output_name]


@pytest.mark.parametrize("kind", FILES)
def test_the_steps_compute_what_onnx_runtime_computes(kind: str) -> None:
    """With and without the runtime's optimisations."""
    net, rng = network(FILES[kind]), np.random.default_rng(0)
    for run in runs(FILES[kind]):
        for _ in range(5):
            x = rng.normal(size=(1, net.size(net.input_name))).astype(np.float32)
            expected = forward(net, x.astype(np.float64))[0]
            assert np.abs(run(x) - expected).max() <= 1e-4 * (1 + np.abs(expected).max())


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("width", [0.0, 1e-6, 0.1, 1.0])
def test_no_execution_leaves_the_bounds(kind: str, width: float) -> None:
    """Rows of the outputs and of their differences, at corners and inside, in two runtimes."""
    net, rng = network(FILES[kind]), np.random.default_rng(1)
    centre = rng.normal(size=(1, net.size(net.input_name))).astype(np.float32).astype(np.float64)
    low, high = centre - width, centre + width
    out = net.size(net.output_name)
    rows = np.concatenate((np.eye(out), -np.eye(out), np.eye(out) - np.roll(np.eye(out), 1, 1)))
    zeros = np.zeros((1, len(rows)))
    least = crown(net, low, high, real=False).least(
        net.output_name, rows[None], zeros, zeros, Hints()
    )[0]
    assert np.isfinite(least).all()
    seen = np.full(len(rows), np.inf)
    single_low, single_high = low.astype(np.float32), high.astype(np.float32)
    for run in runs(FILES[kind]):
        for i in range(60):
            share = rng.random(low.shape) if i % 2 else rng.integers(0, 2, low.shape)
            x = np.clip(low + share * (high - low), low, high).astype(np.float32)
            inside = (x >= low).all() and (x <= high).all()
            x = x if inside else np.clip(x, single_low, single_high)
            if (x >= low).all() and (x <= high).all():
                seen = np.minimum(seen, rows @ run(x))
    assert (least <= seen).all()


@pytest.mark.parametrize("seed", range(6))
def test_any_slopes_give_valid_bounds(seed: int) -> None:
    """Slopes out of range and NaN included: they are hints, not claims."""
    net, rng = network(FILES["dense"]), np.random.default_rng(seed)
    low, high = -np.ones((1, 3)), np.ones((1, 3))
    done = crown(net, low, high, real=False)
    alpha = {n: rng.normal(1, 2, (1, 4, 12)) for n in net.steps if isinstance(net.steps[n], Relu)}
    zeros = np.zeros((1, 4))
    found = done.least(net.output_name, np.eye(4)[None], zeros, zeros, Hints(alpha))[0]
    lowest = forward(net, rng.uniform(-1, 1, (3000, 3))).min(axis=0)
    assert (found <= lowest).all()


@pytest.mark.parametrize("side", [0, 1])
def test_multipliers_of_a_split_hold_on_its_side_and_help(side: int) -> None:
    """For inputs on that side of a neuron any multiplier's bound holds, and some are better."""
    net, rng = network(FILES["dense"]), np.random.default_rng(3)
    low, high = -np.ones((1, 3)), np.ones((1, 3))
    points = rng.uniform(-1, 1, (4000, 3))
    first = next(step for step in net.steps.values() if isinstance(step, Affine))
    before = first.parts[0][1].apply(points) + first.bias
    outputs = forward(net, points)
    name = next(n for n, step in net.steps.items() if isinstance(step, Relu))
    done = crown(net, low, high, real=False)
    source = net.steps[name].source
    x = done.values[source]
    zeros, better = np.zeros((1, 4)), 0
    for neuron in ((x.lower < -0.2) & (x.upper > 0.2))[0].nonzero()[0]:
        mine = before[:, neuron] >= 0 if side else before[:, neuron] <= 0
        lowest = outputs[mine].min(axis=0)
        plain = None
        for beta in (0.0, 0.1, 0.3, 1.0, 10.0):
            coefficients = np.zeros((1, 4, 12))
            coefficients[:, :, neuron] = beta if side else -beta
            hints = Hints({}, {name: coefficients})
            whole = done.least(net.output_name, np.eye(4)[None], zeros, zeros, hints)[0]
            assert (whole <= outputs.min(axis=0)).all()  # without the split it costs something
            lower, upper = x.lower.copy(), x.upper.copy()
            (lower if side else upper)[0, neuron] = 0.0
            split = Pass(net, False, done.values | {source: Bounds(lower, upper)}, done.noise)
            found = split.least(net.output_name, np.eye(4)[None], zeros, zeros, hints)[0]
            assert (found <= lowest).all()
            plain = found if plain is None else plain
            better += int((found > plain + 1e-6).any())
    assert better


def test_rounding_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum that float32 absorbs: 2^24 + 1 + ... - 2^24 may be 0 or n, and both are covered."""
    n = 50
    weights = np.array([2.0**24] + [1.0] * n + [-(2.0**24)], np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    data = model([node], [1, n + 2], {"w": weights[:, None]}).SerializeToString()
    net = network(data)
    ones, zeros = np.ones((1, n + 2)), np.zeros((1, 1))

    def least(real: bool) -> float:
        done = crown(net, ones, ones, real=real)
        return float(done.least("y", np.ones((1, 1, 1)), zeros, zeros, Hints())[0, 0])

    assert least(real=False) <= 0.0
    assert abs(least(real=True) - n) < 1e-6
    monkeypatch.setattr(bounds, "UNIT32", 0.0)
    assert least(real=False) > 0.0  # so the charge is what makes the difference


def test_values_beyond_float32_are_refused() -> None:
    """Nothing is known of a sum that may overflow."""
    data = dense_bytes(0, (2, 4, 4, 2), scale=2.0**55)
    with pytest.raises(Refusal, match="too large for float32"):
        crown(network(data), np.full((1, 2), -(2.0**20)), np.full((1, 2), 2.0**20), real=False)


def test_the_checker_imports_numpy_and_the_standard_library_only() -> None:
    """Not even the project's own errors."""
    code = (
        "import sys, verify.check.__main__\n"
        "tops = {name.split('.')[0] for name in sys.modules}\n"
        "assert 'numpy' in tops\n"
        "foreign = tops & {'torch', 'onnx', 'onnxruntime', 'scipy', 'attacks', 'uncertainty'}\n"
        "own = {n for n in sys.modules if n.startswith('verify.') and '.check' not in n}\n"
        "print(sorted(foreign), sorted(own))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] ['verify.version']\n"
