"""Behind a final Softmax the order of outputs is proved from its inputs, and nothing else is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.check.models import Array, box_property, runs
from tests.readers.onnx_models import model
from verify.certificates.tree import Branch, whole
from verify.certificates.writing import certificate_bytes
from verify.check.__main__ import check
from verify.check.refusal import Refusal

LEFT, RIGHT = np.array([-0.1]), np.array([0.1])
ORDER = "(<= Y_0 Y_1)"


def headed(kind: str, weight: list[float], bias: list[float], axis: int = -1) -> bytes:
    """Softmax, or its logarithm, of x times weights plus a bias."""
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "w", "b"], ["z"]),
        onnx.helper.make_node(kind, ["z"], ["y"], axis=axis),
    ]
    constants = {"w": np.float32([weight]), "b": np.float32(bias)}
    return model(nodes, [1, 1], constants).SerializeToString()


def checked(data: bytes, clause: str, real: bool = False) -> str:
    """What the checker says of the property without any hint."""
    prop = box_property(LEFT, RIGHT, [clause], 3).encode()
    return check(certificate_bytes(data, prop, [whole(1, Branch())], real=real), data, prop)


def outputs(data: bytes) -> Array:
    """In ONNX Runtime, with and without its optimisations, at points of the box."""
    points = np.linspace(LEFT, RIGHT, 101)
    return np.array([run(x) for run in runs(data) for x in points])


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("gap", [1e-4, 0.3, 50.0])
def test_the_order_of_outputs_is_that_of_inputs(kind: str, gap: float) -> None:
    """A little apart is enough, and then no execution has another order."""
    data = headed(kind, [1, 1, 2], [gap, 0, 1])
    assert "every float32 execution" in checked(data, ORDER)
    assert (outputs(data)[:, 0] > outputs(data)[:, 1]).all()


def test_what_is_not_so_of_an_execution_is_refused() -> None:
    """Both outputs 0 for being far below the third; inputs so near that outputs may be equal."""
    for bias in ([-200.0, -300.0, 0.0], [1e-8, 0.0, 0.0]):
        data = headed("Softmax", [0, 0, 1], bias)
        assert (outputs(data)[:, 0] <= outputs(data)[:, 1]).any()
        with pytest.raises(Refusal, match="near the largest|not proved"):
            checked(data, ORDER)


@pytest.mark.parametrize(
    "clause", ["(<= Y_0 0.5)", "(<= Y_0 -0.5)", "(>= Y_0 2.0)", "(<= Y_0 Y_1) (<= Y_2 0.9)"]
)
def test_other_properties_are_refused(clause: str) -> None:
    """They would be read as if they were about the inputs of the Softmax."""
    with pytest.raises(Refusal, match="only the order"):
        checked(headed("Softmax", [1, 1, 1], [9, 0, 0]), clause)


def test_a_softmax_that_is_not_last_or_over_another_axis_is_refused() -> None:
    """And its values are no witness."""
    data = headed("Softmax", [1, 1, 1], [9, 0, 0], axis=0)
    with pytest.raises(Refusal, match="over a vector, and last"):
        checked(data, ORDER)
    inside = onnx.load_from_string(headed("Softmax", [1, 1, 1], [9, 0, 0]))
    inside.graph.node[1].output[0] = "s"
    inside.graph.node.append(onnx.helper.make_node("Neg", ["s"], ["y"]))
    with pytest.raises(Refusal, match="over a vector, and last"):
        checked(inside.SerializeToString(), ORDER)
    data = headed("Softmax", [1, 1, 1], [9, 0, 0])
    prop = box_property(LEFT, RIGHT, ["(>= Y_0 5.0)"], 3).encode()
    with pytest.raises(Refusal, match="does not evaluate"):
        check(b"sat\n((X_0 0.0))", data, prop)
