"""Bytes of a file that runtimes read otherwise than one would think."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.check.models import dense_bytes
from tests.readers.onnx_models import model
from verify.check.onnx_bytes import read_model
from verify.check.refusal import Refusal


def test_a_field_whose_key_is_too_long_is_refused() -> None:
    """ONNX Runtime keeps 32 bits of it: alpha, which would not be seen, is 7 where it runs."""
    node = onnx.helper.make_node("LeakyRelu", ["x"], ["y"])
    proto = model([node], [1, 2], {})
    plain = proto.graph.node[0].SerializeToString()
    setting = onnx.helper.make_attribute("alpha", 7.0).SerializeToString()
    hidden = plain + bytes([0x80 | 5 << 3 | 2, 0x80, 0x80, 0x80, 0x10, len(setting)]) + setting
    proto.graph.ClearField("node")
    graph = bytes([1 << 3 | 2, len(hidden)]) + hidden + proto.graph.SerializeToString()
    proto.ClearField("graph")
    data = proto.SerializeToString() + bytes([7 << 3 | 2, len(graph)]) + graph
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.float32([[-1, 2]])})[0].tolist() == [[-7, 2]]
    with pytest.raises(Refusal, match="no known form"):
        read_model(data)


def test_a_file_that_may_be_of_the_runtime_s_own_format_is_refused() -> None:
    """ONNX Runtime tells its format by four bytes, which a producer's name can be."""
    data = bytes([1 << 3, 8, 2 << 3 | 2, 4]) + b"ORTM" + dense_bytes(0)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match="ORT"):
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    with pytest.raises(Refusal, match="format of its own"):
        read_model(data)
