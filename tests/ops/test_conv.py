"""Convolutions of all settings: forward against torch, adjoint and rows against the matrix."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.contracts.samples import conv
from verify.graph.ir import Node
from verify.ops.conv import by_phases, phases_of, transposed
from verify.ops.registry import lookup
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.window import Phases

Draw = st.DrawFn
RUN = [functional.conv1d, functional.conv2d, functional.conv3d]


@st.composite
def convolutions(draw: Draw) -> Node:
    """A convolution in one, two or three dimensions."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    groups = draw(st.sampled_from([1, 1, 2]))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    dilation = tuple(draw(st.sampled_from([1, 1, 2])) for _ in range(rank))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(rank))
    least = [
        max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    spatial = tuple(n + draw(st.integers(0, 4)) for n in least)
    return conv(
        shape=(groups * draw(st.integers(1, 2)), *spatial),
        out=groups * draw(st.integers(1, 2)),
        kernel=kernel,
        stride=tuple(draw(st.integers(1, 3)) for _ in range(rank)),
        padding=padding,
        dilation=dilation,
        groups=groups,
        seed=draw(st.integers(0, 99)),
    )


def unrolled(node: Node) -> tuple[Tensor, Tensor]:
    """The matrix and vector of the convolution, from torch alone; (out, in) and (out,)."""
    shape = node.input_shapes[0]
    size = torch.Size(shape).numel()
    names = ("stride", "padding", "dilation")
    every = RUN[len(shape) - 2](
        torch.eye(size, dtype=torch.float64).view(size, *shape),
        node.tensors["weight"],
        None,
        groups=node.scalar("groups"),
        **{name: node.settings[name] for name in names},
    )
    bias = node.tensors["bias"].view(-1, *[1] * (len(shape) - 1)).expand(node.shape)
    return every.flatten(1).T, bias.flatten()


@given(convolutions())
@settings(max_examples=120)
def test_all_rules_agree_with_the_unrolled_matrix(node: Node) -> None:
    """Forward, interval, adjoint and rows are those of W and b."""
    weight, bias = unrolled(node)
    x = torch.randn(2, *node.input_shapes[0], generator=torch.Generator().manual_seed(1)).double()
    rules = lookup(node)
    value = rules.forward(node, x).flatten(1)
    torch.testing.assert_close(value, x.flatten(1) @ weight.T + bias)
    radius = x.abs()
    found = rules.interval(node, Bounds(x - radius, x + radius))
    spread = radius.flatten(1) @ weight.abs().T
    torch.testing.assert_close(found.upper.flatten(1), value + spread)
    torch.testing.assert_close(found.lower.flatten(1), value - spread)
    every = torch.eye(node.size, dtype=torch.float64).view(1, node.size, *node.shape)
    (form,) = rules.pull_back(node, LinearForm(every, torch.zeros(1, node.size).double()), None)
    torch.testing.assert_close(form.coeff[0].flatten(1), weight)
    torch.testing.assert_close(form.const[0], bias)
    assert rules.rows is not None
    rows = rules.rows(node, torch.arange(node.size))
    torch.testing.assert_close(rows.flatten(1), weight)


@given(
    st.integers(2, 3), st.integers(1, 5), st.integers(0, 2), st.integers(1, 3), st.integers(1, 6)
)
@settings(max_examples=60)
def test_phases_are_the_strided_transposed_convolution(
    stride: int, kernel: int, padding: int, channels: int, extra: int
) -> None:
    """The search's short cuts in float32 give what conv_transpose2d gives in float64."""
    size = max(1, kernel - 2 * padding) + extra
    node = conv(shape=(channels, size, size), kernel=(kernel, kernel), stride=(stride, stride),
                padding=(padding, padding))  # fmt: skip
    weight, _ = unrolled(node)
    generator = torch.Generator().manual_seed(kernel)
    coeff = torch.randn(4, *node.shape, generator=generator, dtype=torch.float64)
    expected = (coeff.flatten(1) @ weight).view(4, *node.input_shapes[0])
    single = Node("out", "Conv", node.inputs, node.shape, node.input_shapes,
                  {k: v.float() for k, v in node.tensors.items()}, node.settings)  # fmt: skip
    form = LinearForm(coeff.float()[None], torch.zeros(1, 4))
    (found,) = lookup(single).pull_back(single, form, None)
    torch.testing.assert_close(found.coeff[0].double(), expected, rtol=1e-4, atol=1e-4)
    small = node.tensors["weight"].float()
    dense = transposed(coeff.float(), small, (stride, stride), 1)
    plain = functional.conv_transpose2d(coeff.float(), small, stride=stride)
    torch.testing.assert_close(dense, plain, rtol=1e-4, atol=1e-4)
    if kernel > 1 and by_phases(small, (stride, stride), (1, 1), 1, torch.float32):
        parts = phases_of(coeff.float(), small, stride)[None]
        joined = Phases(stride, padding, padding).joined(parts, node.input_shapes[0])
        torch.testing.assert_close(joined[0].double(), expected, rtol=1e-4, atol=1e-4)
