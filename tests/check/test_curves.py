"""Lines around sigmoid and tanh hold wherever they are used, whatever interval they are for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import pytest

from tests.check.models import box_property, mixed_bytes, runs
from tests.readers.onnx_models import model
from verify.certificates.proving import NoCertificate, certificate, claim
from verify.certificates.tree import Branch, tightening, whole
from verify.certificates.writing import certificate_bytes
from verify.check import curves
from verify.check.__main__ import check
from verify.check.onnx_bytes import read_model
from verify.check.operators import read_network
from verify.check.refusal import Refusal
from verify.values.budget import Budget


def intervals() -> tuple[np.ndarray, np.ndarray]:
    """On either side of 0 and across it; wide, narrow, points, far out."""
    rng = np.random.default_rng(0)
    scale = 10.0 ** rng.uniform(-8, 2, 4000)
    low = rng.normal(size=4000) * scale
    high = low + rng.choice([0.0, 1e-12, 1e-3, 1.0, 30.0], 4000) * rng.random(4000)
    return np.append(low, [0.0, -1.0, 0.0]), np.append(high, [0.0, 0.0, 1.0])


def exact(kind: str, x: float) -> Fraction:
    """The function to some 40 digits: exp as a series of the argument halved until it is small."""
    steps = 12
    small = Fraction(x) * (2 if kind == "Tanh" else 1) / 2**steps
    term = total = Fraction(1)
    for i in range(1, 16):
        term = Fraction(round(term * small / i * 2**220), 2**220)
        total += term
    for _ in range(steps):
        total = Fraction(round(total * total * 2**220), 2**220)
    return (total - 1) / (total + 1) if kind == "Tanh" else total / (total + 1)


@pytest.mark.parametrize("kind", ["Sigmoid", "Tanh"])
def test_lines_hold_on_their_interval(kind: str) -> None:
    """In the real-valued sense, without the kernel's deviation; at ends and inside."""
    low, high = intervals()
    s, b, t, c = curves.lines(kind, low, high, real=True)
    for share in np.linspace(0, 1, 41):
        x = low + share * (high - low)
        y = curves.value(kind, x)
        assert (s * x + b <= y).all()
        assert (y <= t * x + c).all()
    # What float64 rounds of y above is not what makes the difference.
    rng = np.random.default_rng(1)
    for i in rng.integers(0, 4000, 150):
        x = float(low[i] + rng.random() * (high[i] - low[i]))
        if low[i] <= x <= high[i] and abs(x) < 20:
            y = exact(kind, x)
            assert Fraction(s[i]) * Fraction(x) + Fraction(b[i]) <= y
            assert y <= Fraction(t[i]) * Fraction(x) + Fraction(c[i])


@pytest.mark.parametrize("kind", ["Sigmoid", "Tanh"])
def test_lines_are_close_where_the_curve_is_straight(kind: str) -> None:
    """On narrow intervals the two lines nearly meet: a trivial pair of lines would not do."""
    middle = np.linspace(-5, 5, 101)
    s, b, t, c = curves.lines(kind, middle - 1e-3, middle + 1e-3, real=True)
    assert (t * middle + c - s * middle - b < 1e-5).all()


def test_a_line_without_its_rounding_would_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant, so that the tests above can fail."""
    low, high = intervals()
    monkeypatch.setattr(curves, "FUNCTION", -1e-3)
    s, b, t, c = curves.lines("Tanh", low, high, real=True)
    x = low + 0.3 * (high - low)
    y = curves.value("Tanh", x)
    assert not (s * x + b <= y).all()
    assert not (y <= t * x + c).all()


def test_properties_of_mixed_networks_are_proved_or_not_as_they_hold() -> None:
    """A certificate where there is room; none for what some input meets, whatever is tightened."""
    data = mixed_bytes(4)
    low, high = np.full(3, -0.2), np.full(3, 0.2)
    rng = np.random.default_rng(0)
    run = runs(data)[0]
    least = min(float(run(x)[0]) for x in rng.uniform(-0.2, 0.2, (3000, 3)).astype(np.float32))
    true = box_property(low, high, [f"(<= Y_0 {least - 0.05!r})"], 3).encode()
    false = box_property(low, high, [f"(<= Y_0 {least + 1e-3!r})"], 3).encode()
    assert "for every float32" in check(
        certificate(claim(data, true), Budget().within(60)), data, true
    )
    with pytest.raises(NoCertificate):
        certificate(claim(data, false), Budget().within(1))
    for reader, size in (("a0 relu", 3), ("a1", 2), ("a2", 4)):
        for sign in (1, -1):
            rows = tightening(reader, np.arange(size), sign, {})
            written = whole(1, Branch())
            written.tightenings.append(rows)
            with pytest.raises(Refusal, match="not proved"):
                check(certificate_bytes(data, false, [written]), data, false)


@pytest.mark.parametrize(
    ("node", "constants", "message"),
    [
        (("Clip", ["x", "a", "b"]), {"a": 1.0, "b": 0.0}, "two limits in order"),
        (("Clip", ["x"]), {}, "lacks input"),
        (("Slice", ["x", "a", "b", "c", "d"]), {"a": [3], "b": [0], "c": [1], "d": [-1]}, "backw"),
        (("Slice", ["x", "a", "b", "c"]), {"a": [2], "b": [2], "c": [1]}, "leaves nothing"),
        (("Squeeze", ["x", "a"]), {"a": [1]}, "longer than 1"),
        (("PRelu", ["x", "a"]), {"a": np.ones((5, 4), np.float32)}, "do not fit"),
    ],
)
def test_forms_that_the_checker_does_not_know_are_refused(node, constants, message: str) -> None:
    """Rather than read as something else."""
    made = onnx.helper.make_node(*node, ["y"])
    arrays = {
        name: np.asarray(value, np.float32 if isinstance(value, float) else None)
        for name, value in constants.items()
    }
    data = model([made], [1, 4], arrays).SerializeToString()
    with pytest.raises(Refusal, match=message):
        read_network(read_model(data))
