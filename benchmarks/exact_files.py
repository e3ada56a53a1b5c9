"""A fuzzed problem as an ONNX file and a VNN-LIB property, numbers written out in full."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from benchmarks.exact_problems import Problem
from benchmarks.provocative import Step


class File:
    """Nodes and constants of a model; `last` is the tensor that the next node reads."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.last = "x"

    def constant(self, value: object, kind: type) -> str:
        """A tensor."""
        name = f"c{len(self.constants)}"
        array: NDArray[Any] = np.ascontiguousarray(np.asarray(value, dtype=kind))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """A node that reads what is named, or the last tensor."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs or (self.last,)), [name], **attributes))
        self.last = name
        return name

    def cut(self, first: int, last: int) -> str:
        """Some entries of the last tensor, which stays the last one."""
        whole = self.last
        ends = [self.constant([n], np.int64) for n in (first, last, 1)]  # and the axis
        part = self.add("Slice", whole, *ends)
        self.last = whole
        return part

    def step(self, step: Step, size: int) -> None:
        """One step of a net, on so many entries."""
        half = size // 2
        if step.op == "affine":
            weight, bias = step.weight.T, step.bias
            names = self.constant(weight, np.float32), self.constant(bias, np.float32)
            self.add("Gemm", self.last, *names)
        elif step.op == "times":
            self.add("Mul", self.cut(0, half), self.cut(half, size))
        elif step.op == "max":
            self.add("Reshape", self.last, self.constant([1, 1, size], np.int64))
            self.add("MaxPool", kernel_shape=[2], strides=[2])
            self.add("Reshape", self.last, self.constant([1, half], np.int64))
        else:
            self.add(step.op)


def model_of(asked: Problem) -> bytes:
    """The net as an ONNX file."""
    file, inputs = File(), asked.net.shape[0]
    if asked.whole is not None:
        parts = [file.cut(i, i + 1) for i in range(inputs)]
        cut = file.add("Cast", parts[asked.whole], to=TensorProto.INT64)
        parts[asked.whole] = file.add("Cast", cut, to=TensorProto.FLOAT)
        file.add("Concat", *parts, axis=1)
    size = inputs
    for step in asked.net.steps:
        file.step(step, size)
        if step.op == "affine":
            size = len(step.bias)
        elif step.op in ("times", "max"):
            size //= 2
    file.nodes[-1].output[0] = "y"
    ends = [("x", inputs), ("y", 2)]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, k]) for n, k in ends]
    graph = helper.make_graph(file.nodes, "net", values[:1], values[1:], file.constants)
    opset = [helper.make_opsetid("", 20)]
    data: bytes = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    return data


def property_of(asked: Problem) -> str:
    """The problem, of row (1, 0), in VNN-LIB; every number is written out in full."""
    inputs = len(asked.low)
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)]
    lines += [f"(declare-const Y_{i} Real)" for i in range(2)]
    for i in range(inputs):
        lines.append(f"(assert (>= X_{i} {decimal(asked.low[i])}))")
        lines.append(f"(assert (<= X_{i} {decimal(asked.high[i])}))")
    return "\n".join([*lines, f"(assert (<= Y_0 {decimal(asked.threshold)}))", ""])


def decimal(value: float) -> str:
    """A binary number as an exact decimal without an exponent."""
    text = f"{Fraction(float(value)).numerator:d}"
    power = Fraction(float(value)).denominator.bit_length() - 1
    if not power:
        return f"{text}.0"
    sign, digits = ("-", text[1:]) if text[0] == "-" else ("", text)
    # n / 2^p = n · 5^p / 10^p
    shifted = str(int(digits) * 5**power).rjust(power + 1, "0")
    return f"{sign}{shifted[:-power]}.{shifted[-power:]}"
