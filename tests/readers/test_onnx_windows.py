"""Convolutions and pools under random strides, dilations, padding and modes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.readers.onnx_models import gap, one, probe, random, read_back

FLOAT32 = 1e-5
EXAMPLES = settings(max_examples=40)


@st.composite
def convolutions(draw: st.DrawFn) -> onnx.ModelProto:
    """A Conv node whose windows fit."""
    rank = draw(st.integers(1, 3))
    sizes = [draw(st.integers(1, 7)) for _ in range(rank)]
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    attributes: dict[str, object] = {
        "group": groups,
        "strides": [draw(st.integers(1, 3)) for _ in range(rank)],
    }
    mode = draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    dilations = [1] * rank
    if mode == "NOTSET":
        dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
        pads = [draw(st.integers(0, 3)) for _ in range(2 * rank)]
        attributes |= {"pads": pads, "dilations": dilations}
    else:
        pads = [0] * (2 * rank)
        attributes["auto_pad"] = mode
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if not mode.startswith("SAME"):
        assume(all(n + pads[i] + pads[i + rank] >= spans[i] for i, n in enumerate(sizes)))
    weight = random(groups * 2, per_group, *kernel)
    return one("Conv", (1, groups * per_group, *sizes), weight, random(groups * 2), **attributes)


@st.composite
def pools(draw: st.DrawFn) -> onnx.ModelProto:
    """A pool whose windows fit and never lie in the padding altogether."""
    rank = draw(st.integers(1, 2))
    sizes = [draw(st.integers(2, 7)) for _ in range(rank)]
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    op = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    pads = [draw(st.integers(0, k - 1)) for k in kernel] * 2
    assume(all(n + pads[i] + pads[i + rank] >= kernel[i] for i, n in enumerate(sizes)))
    attributes: dict[str, object] = {
        "kernel_shape": kernel,
        "pads": pads,
        "strides": [draw(st.integers(1, 3)) for _ in range(rank)],
        "ceil_mode": draw(st.integers(0, 1)),
    }
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    return one(op, (1, 2, *sizes), opset=19, **attributes)


@EXAMPLES
@given(convolutions())
def test_any_convolution_is_read_as_the_runtime_runs_it(proto: onnx.ModelProto) -> None:
    """Groups, strides, dilations, padding of either kind, in one to three dimensions."""
    with tempfile.TemporaryDirectory() as folder:
        read = read_back(proto, Path(folder))
    assert gap(read, probe(read)) <= FLOAT32


@EXAMPLES
@given(pools())
def test_any_pool_is_read_as_the_runtime_runs_it(proto: onnx.ModelProto) -> None:
    """Maximum and mean, with or without padding counted, cut off or rounded up."""
    with tempfile.TemporaryDirectory() as folder:
        read = read_back(proto, Path(folder))
    assert gap(read, probe(read)) <= FLOAT32
