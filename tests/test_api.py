"""The front doors: certify and radius on files, with ONNX Runtime as the last word."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import verify
from attacks import PGD
from tests.bounders.hostile import Layer, backdoor_layers, order_layers
from tests.nets import conv_net, dense_net
from tests.readers.onnx_models import chain, random, saved
from tests.search.test_strategy import GraphJudge
from verify.api import batch_size, certify, granted, largest_radius, radius
from verify.cli.falsifiers import AttackFalsifier, Bisection
from verify.errors import DataError, MismatchError, SettingError
from verify.network import Network
from verify.values.result import StopReason, Verdict

ATTACK = AttackFalsifier(PGD(steps=10, restarts=1), Bisection(PGD(steps=10, restarts=1), "pgd"))


def small_file(folder: Path, *, tail: bool = False) -> Path:
    """A dense classifier of four inputs and three classes."""
    steps = [
        ("Gemm", ["x", "w1", "b1"], "h"),
        ("Relu", ["h"], "r"),
        ("Gemm", ["r", "w2", "b2"], "z" if tail else "y"),
    ]
    if tail:
        steps.append(("Softmax", ["z"], "y"))
    return saved(
        chain(
            ("n", 4),
            *steps,
            w1=random(4, 10, seed=1),
            b1=random(10, seed=2),
            w2=random(10, 3, seed=3),
            b2=random(3, seed=4),
        ),
        folder,
    )


def file_of(layers: list[Layer], folder: Path) -> Path:
    """Dense layers with Relu in between, as an ONNX file."""
    steps, constants, name = [], {}, "x"
    for i, (weight, bias) in enumerate(layers):
        last = i == len(layers) - 1
        constants[f"w{i}"] = np.array(weight, dtype=np.float32).T
        constants[f"b{i}"] = np.array(bias, dtype=np.float32)
        steps.append(("Gemm", [name, f"w{i}", f"b{i}"], "y" if last else f"z{i}"))
        if not last:
            steps.append(("Relu", [f"z{i}"], f"r{i}"))
        name = f"r{i}"
    return saved(chain(("n", len(layers[0][0][0])), *steps, **constants), folder)


def inputs(count: int = 12) -> torch.Tensor:
    """Inputs in [0, 1]."""
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(0))


def outputs(path: Path, x: torch.Tensor) -> np.ndarray:
    """ONNX Runtime's outputs, NaN included."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x.numpy()})[0]
    return found


@pytest.mark.parametrize("norm", [math.inf, 2.0, 1.0])
@pytest.mark.parametrize("tail", [False, True])
def test_verified_neighbourhoods_hold_in_onnx_runtime(
    tmp_path: Path, norm: float, tail: bool
) -> None:
    """Sampled points of every verified region keep their class in the file itself."""
    path = small_file(tmp_path, tail=tail)
    x = inputs()
    found = certify(path, x, eps=0.05, norm=norm, input_range=(0, 1), falsifier=ATTACK)
    labels = outputs(path, x).argmax(axis=1)
    assert [r.label for r in found] == labels.tolist()
    assert any(r.verdict is Verdict.VERIFIED for r in found)
    generator = torch.Generator().manual_seed(1)
    for k, result in enumerate(found):
        if result.verdict is Verdict.VERIFIED:
            region = verify.values.region.ball(x[k : k + 1], 0.05, norm, lower=0.0, upper=1.0)
            points = region.minimiser(torch.randn(1, 500, 4, generator=generator).double())[0]
            assert (outputs(path, points.float()).argmax(axis=1) == labels[k]).all()
        if result.witness is not None:
            assert outputs(path, result.witness[None]).argmax() != labels[k]


def test_hostile_files_are_never_verified(tmp_path: Path) -> None:
    """Nets that lose a small term in some order: refused at load, or not verified."""
    cases = [
        (backdoor_layers(1e17, 1e-3, (0, 2, 1)), [0.5, 0.5]),
        (backdoor_layers(2.0**30, 1.0), [0.5, 0.5]),
        (order_layers(101), [1.0] * 102),
    ]
    for k, (layers, x) in enumerate(cases):
        folder = tmp_path / str(k)
        folder.mkdir()
        try:
            found = certify(file_of(layers, folder), torch.tensor([x]), torch.tensor([0]), eps=0.01)
        except MismatchError:
            continue
        assert found[0].verdict is not Verdict.VERIFIED


@pytest.mark.parametrize(
    ("weight", "scale", "end"),
    [(1e38, 1e-38, [[1, 0], [-1, 0]]), (1e-40, 1e38, [[1, 0], [1, 0]])],
)
def test_scales_that_cancel_are_not_folded_away(
    tmp_path: Path, weight: float, scale: float, end: list[list[int]]
) -> None:
    """Behind a gate that random inputs do not open, 1e38·1e-38 is NaN in the file, and not 1."""
    path = saved(
        chain(
            ("n", 1),
            ("Gemm", ["x", "w1", "b1"], "h"),
            ("Relu", ["h"], "r"),
            ("MatMul", ["r", "w2"], "z"),
            ("Mul", ["z", "s"], "zs"),
            ("Gemm", ["zs", "w3", "b3"], "y"),
            w1=np.ones((1, 1), np.float32),
            b1=np.array([-1000], np.float32),
            w2=np.array([[weight, weight / 2]], np.float32),
            s=np.array([scale, scale], np.float32),
            w3=np.array(end, np.float32),
            b3=np.array([0, -1], np.float32),
        ),
        tmp_path,
    )
    x = torch.tensor([[2000.0]])
    if weight > 1:
        assert np.isnan(outputs(path, x)).all()
    (found,) = certify(path, x, torch.tensor([0]), eps=1.0)
    assert found.verdict is not Verdict.VERIFIED


def test_labels_default_to_the_models_own(tmp_path: Path) -> None:
    """Without labels nothing is misclassified; with wrong ones everything is."""
    path = small_file(tmp_path)
    x = inputs(4)
    own = certify(path, x, eps=0.0)
    assert [r.label for r in own] == [r.predicted for r in own]
    assert all(r.verdict is Verdict.VERIFIED for r in own)
    wrong = torch.tensor([(r.label + 1) % 3 for r in own])
    for result in certify(path, x, wrong, eps=0.1):
        assert result.verdict is Verdict.FALSIFIED
        assert result.distance == 0


def test_radii_may_differ_from_input_to_input(tmp_path: Path) -> None:
    """One eps for each: the records hold them, and larger ones are verified less."""
    path = small_file(tmp_path)
    x = inputs(1).expand(4, 4)
    found = certify(path, x, eps=torch.tensor([0.0, 0.01, 0.5, 5.0]))
    assert [r.eps for r in found] == pytest.approx([0.0, 0.01, 0.5, 5.0])
    margins = [r.margin for r in found]
    assert margins == sorted(margins, reverse=True)
    assert found[0].verdict is Verdict.VERIFIED
    assert found[-1].verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("batch", [1, 5, 12])
def test_batches_change_no_verdict(batch: int) -> None:
    """The order of results is that of the inputs, in whatever pieces they were bounded."""
    graph = conv_net(5)
    network = Network(graph, GraphJudge(graph), None, None)
    x = torch.rand(12, 2, 6, 6, generator=torch.Generator().manual_seed(3))
    whole = certify(network, x, eps=0.02, method="crown", batch=12)
    parts = certify(network, x, eps=0.02, method="crown", batch=batch)
    assert [r.index for r in parts] == list(range(12))
    assert [r.verdict for r in parts] == [r.verdict for r in whole]
    for one, other in zip(parts, whole, strict=True):
        assert one.margin == pytest.approx(other.margin, abs=0.1)


def test_brackets_of_a_file_enclose_a_radius(tmp_path: Path) -> None:
    """certified < attacked, and the file keeps its class at the certified radius."""
    path = small_file(tmp_path)
    x = inputs(6)
    found = radius(path, x, input_range=(0, 1), falsifier=ATTACK)
    assert all(0 < b.certified < b.attacked for b in found)
    eps = torch.tensor([b.certified for b in found], dtype=torch.float64)
    again = certify(path, x, eps=eps, input_range=(0, 1))
    assert all(r.verdict is Verdict.VERIFIED for r in again)
    for k, b in enumerate(found):
        if b.witness is not None:
            assert outputs(path, b.witness[None]).argmax() != b.label
            moved = b.witness.double() - x[k].double()
            assert float(moved.abs().max()) <= b.attacked


def test_a_deadline_is_kept(tmp_path: Path) -> None:
    """A timeout of a microsecond: everything is unknown, with the reason, or known at once."""
    path = small_file(tmp_path)
    for result in certify(path, inputs(), eps=3.0, timeout=1e-6):
        assert result.verdict is Verdict.UNKNOWN
        assert result.reason == StopReason.OUT_OF_TIME.value
    for bracket in radius(path, inputs(2), timeout=1e-6):
        assert bracket.reason == StopReason.OUT_OF_TIME.value


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"eps": -0.1}, SettingError),
        ({"eps": math.nan}, SettingError),
        ({"eps": 0.1, "norm": 3.0}, SettingError),
        ({"eps": 0.1, "method": "magic"}, SettingError),
        ({"eps": 0.1, "timeout": 0.0}, SettingError),
        ({"eps": 0.1, "timeout": math.nan}, SettingError),
        ({"eps": 0.1, "memory": 1000}, SettingError),
        ({"eps": 0.1, "batch": 0}, SettingError),
        ({"eps": 0.1, "iterations": 0}, SettingError),
        ({"eps": 0.1, "input_range": (0.9, 1.0)}, DataError),
    ],
)
def test_senseless_arguments_are_refused(
    tmp_path: Path, arguments: dict[str, float], error: type[Exception]
) -> None:
    """Each is an input error that names what is wrong, before anything is computed."""
    with pytest.raises(error):
        certify(small_file(tmp_path), inputs(2), **arguments)  # type: ignore[arg-type]


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    """A class the model does not have."""
    for label in (-1, 3):
        with pytest.raises(DataError, match="label"):
            certify(small_file(tmp_path), inputs(1), torch.tensor([label]), eps=0.1)


def test_no_input_is_no_result(tmp_path: Path) -> None:
    """An empty batch is answered by an empty list."""
    assert certify(small_file(tmp_path), inputs(0), eps=0.1) == []


def test_memory_is_shared_out_sensibly() -> None:
    """At least one input at a time, fewer of larger nets, and less than all of the memory."""
    small = dense_net(0)
    network = Network(small, GraphJudge(small), None, None)
    assert batch_size(network, 2**30) == 64
    assert batch_size(network, 1) == 1
    assert 0 < granted(2 * 2**30) < 2 * 2**30


@pytest.mark.parametrize(("norm", "expected"), [(math.inf, 1.0), (2.0, 2.0), (1.0, 4.0)])
def test_the_largest_radius_is_the_ranges_diameter(norm: float, expected: float) -> None:
    """Of [0, 1]^4 in each norm: no two inputs are farther apart."""
    assert largest_radius(inputs(2), norm, (0.0, 1.0)) == pytest.approx(expected)
