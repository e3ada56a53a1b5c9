"""Small models whose float32 executions are not what their real-valued reading says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.check.models import box_property
from tests.readers.onnx_models import model
from verify.certificates.tree import Branch, whole
from verify.certificates.writing import certificate_bytes
from verify.check.__main__ import check
from verify.check.onnx_bytes import read_model
from verify.check.operators import read_network
from verify.check.refusal import Refusal


def test_a_bias_that_cancels_is_paid_although_another_follows() -> None:
    """(x - 2^24) + 2^24 + 1, where float32 absorbs x: a normalisation's bias of 0 is no exact 0."""
    nodes = [
        onnx.helper.make_node(
            "BatchNormalization", ["x", "one", "c", "c", "one"], ["n"], epsilon=0.0
        ),
        onnx.helper.make_node("Add", ["n", "one"], ["y"]),
    ]
    constants = {"one": np.ones(1, np.float32), "c": np.full(1, 2.0**24, np.float32)}
    data = model(nodes, [1, 1], constants).SerializeToString()
    prop = box_property(np.array([0.5]), np.array([0.5]), ["(<= Y_0 1.25)"], 1).encode()
    with pytest.raises(Refusal, match="not proved"):
        check(certificate_bytes(data, prop, [whole(1, Branch())]), data, prop)


def test_a_denormal_that_may_be_flushed_is_not_above_zero() -> None:
    """relu(x) for x from 1e-40, executed with denormals taken for 0; a value that is too long."""
    data = model([onnx.helper.make_node("Relu", ["x"], ["y"])], [1, 1], {}).SerializeToString()
    for least, proved in ((1e-40, False), (1e-10, True)):
        box = np.array([least]), np.array([1.0])
        prop = box_property(*box, ["(<= Y_0 0.0)"], 1).encode()
        cert = certificate_bytes(data, prop, [whole(1, Branch())])
        if proved:
            assert "holds" in check(cert, data, prop)
        else:
            with pytest.raises(Refusal, match="not proved"):
                check(cert, data, prop)
    long = model([onnx.helper.make_node("Relu", ["x"], ["y"])], [1, 2**21 + 1], {})
    with pytest.raises(Refusal, match="more than"):
        read_network(read_model(long.SerializeToString()))
