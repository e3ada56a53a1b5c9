"""The operations that compute something, as steps; an operator or form not listed is refused."""

from dataclasses import replace
from typing import Any

import numpy as np

from verify.check.linear import Conv, Dense, Index, Scale, window_taps
from verify.check.network import LARGEST, Affine, Curve, MaxPool, Network, Relu
from verify.check.onnx_bytes import Model, Operation
from verify.check.reading import Reading
from verify.check.refusal import Refusal

OLDEST = 7
"""Operator set: before it, sums and products broadcast by attributes, and Dropout may train."""


def read_network(model: Model) -> Network:
    """The steps of a model; raises Refusal at the first operation that is not known."""
    if model.opset < OLDEST:
        raise Refusal(f"operator set {model.opset} is older than {OLDEST}")
    network = Network(model.input_name, {model.input_name: model.input_shape})
    reading = Rules(model, network, dict(model.constants))
    for op in model.operations:
        reading.read(op)
    if model.output_name not in network.steps:
        raise Refusal("the model's output does not come from its operations")
    network.output_name = model.output_name
    for step in network.steps.values():
        for _, linear in step.parts if isinstance(step, Affine) else []:
            weights = getattr(linear, "weight", getattr(linear, "kernel", None))
            weights = getattr(linear, "factor", weights)
            if weights is not None and np.abs(weights).max(initial=0.0) > LARGEST:
                raise Refusal(f"a weight is larger than {LARGEST:g}")
    return network


class Rules(Reading):
    """A rule for each operator, named after it."""

    def read_matmul(self, op: Operation, out: str) -> None:
        """x·W for a constant matrix W; W·x only for a vector x."""
        if op.inputs[0] in self.constants and len(self.shape(op.inputs[1])) == 1:
            weight = np.ascontiguousarray(np.asarray(self.constants[op.inputs[0]]).T)
            op = replace(op, inputs=op.inputs[::-1])
        else:
            weight = self.constant(op, 1)
        shape = self.shape(op.inputs[0])
        if weight.ndim != 2 or shape[-1] != len(weight):
            raise Refusal("MatMul with a constant that is no matrix of the right height")
        parts = [(op.inputs[0], Dense(weight))]
        self.affine(out, (*shape[:-1], weight.shape[1]), parts)

    def read_gemm(self, op: Operation, out: str) -> None:
        """alpha·x·W + beta·b."""
        shape, weight = self.shape(op.inputs[0]), self.constant(op, 1)
        scales = [float(op.attributes.get(k, 1.0)) for k in ("alpha", "beta")]
        if op.attributes.get("transA", 0) or scales != [1.0, 1.0] or weight.ndim != 2:
            raise Refusal("Gemm with transA, alpha or beta")
        weight = weight.T if op.attributes.get("transB", 0) else weight
        if len(shape) != 2 or shape[1] != len(weight):
            raise Refusal("Gemm whose shapes do not fit")
        bias = self.constant(op, 2, np.zeros(weight.shape[1]))
        parts = [(op.inputs[0], Dense(np.ascontiguousarray(weight)))]
        self.affine(out, (shape[0], weight.shape[1]), parts, bias)

    def windows(self, op: Operation, kernel: tuple[int, ...]) -> tuple[Index, tuple[int, ...]]:
        """Taps and shape of a window operator on (1, channels, *space)."""
        shape, rank = self.shape(op.inputs[0]), len(kernel)
        if len(shape) != rank + 2 or shape[0] != 1:
            raise Refusal(f"{op.kind} on shape {shape}")
        if op.attributes.get("auto_pad", "NOTSET") != "NOTSET":
            raise Refusal(f"{op.kind} with auto_pad")

        def setting(name: str, default: int, count: int) -> tuple[int, ...]:
            values = op.attributes.get(name) or [default] * count
            if not isinstance(values, list) or len(values) != count:
                raise Refusal(f"{op.kind}: {name} does not fit")
            return tuple(int(value) for value in values)

        return window_taps(
            shape[2:],
            kernel,
            setting("strides", 1, rank),
            setting("pads", 0, 2 * rank),
            setting("dilations", 1, rank),
            ceil=bool(op.attributes.get("ceil_mode", 0)),
        )

    def read_conv(self, op: Operation, out: str) -> None:
        """A convolution with constant kernel."""
        kernel = self.constant(op, 1)
        taps, space = self.windows(op, kernel.shape[2:])
        shape = self.shape(op.inputs[0])
        groups = int(op.attributes.get("group", 1))
        if shape[1] != kernel.shape[1] * groups or len(kernel) % groups:
            raise Refusal("Conv whose channels do not fit")
        flat = kernel.reshape(*kernel.shape[:2], -1)
        conv = Conv(flat, groups, shape[1], int(np.prod(shape[2:])), taps)
        bias = self.constant(op, 2, np.zeros(len(kernel)))
        wide = bias.reshape(1, -1, *[1] * len(space))
        self.affine(out, (1, len(kernel), *space), [(op.inputs[0], conv)], wide)

    def read_averagepool(self, op: Operation, out: str) -> None:
        """The mean of each window, without padding."""
        kernel = tuple(op.attributes.get("kernel_shape", []))
        taps, space = self.windows(op, kernel)
        shape = self.shape(op.inputs[0])
        places = int(np.prod(shape[2:]))
        if (taps == places).any():
            raise Refusal("AveragePool with padding")
        means = np.full((shape[1], 1, taps.shape[1]), 1.0 / taps.shape[1])
        conv = Conv(means, shape[1], shape[1], places, taps)
        self.affine(out, (1, shape[1], *space), [(op.inputs[0], conv)])

    def read_maxpool(self, op: Operation, out: str) -> None:
        """The largest of each window; padding never wins."""
        kernel = tuple(op.attributes.get("kernel_shape", []))
        taps, space = self.windows(op, kernel)
        shape = self.shape(op.inputs[0])
        places = int(np.prod(shape[2:]))
        best = taps.min(axis=1, keepdims=True)  # a place inside, if there is one
        if (best == places).any():
            raise Refusal("MaxPool with a window in the padding")
        inside = np.where(taps == places, best, taps)
        every = np.arange(shape[1])[:, None, None] * places + inside
        pooled = MaxPool(op.inputs[0], every.reshape(-1, taps.shape[1]))
        self.enter(out, (1, shape[1], *space), pooled)

    def read_batchnormalization(self, op: Operation, out: str) -> None:
        """(x - mean) / sqrt(var + epsilon) · gamma + beta; its rounding is charged as a product."""
        shape = self.shape(op.inputs[0])
        gamma, beta, mean, var = (self.constant(op, place) for place in range(1, 5))
        epsilon = float(op.attributes.get("epsilon", np.float32(1e-5)))
        if op.attributes.get("training_mode", 0) or not (var + epsilon > 0).all():
            raise Refusal("BatchNormalization in training mode, or with a variance <= 0")
        factor = gamma / np.sqrt(var + epsilon)
        wide = (1, -1, *[1] * (len(shape) - 2))
        full = [
            np.broadcast_to(part.reshape(wide), shape).reshape(-1)
            for part in (factor, beta - mean * factor, np.abs(beta) + np.abs(mean * factor))
        ]
        step = Affine([(op.inputs[0], Scale(full[0]))], full[1], full[2])
        self.enter(out, shape, step)

    def read_add(self, op: Operation, out: str, sign: float = 1.0) -> None:
        """Sum or difference of two values, of which one may be constant."""
        first, second = op.inputs
        if first in self.constants:
            if sign < 0:
                raise Refusal("a constant minus a variable")
            first, second = second, first
        shape = self.shape(first)
        ones = np.ones(int(np.prod(shape)))
        if second in self.network.shapes:
            if self.shape(second) != shape:
                raise Refusal(f"{op.kind} of two shapes")
            parts = [(first, Scale(ones)), (second, Scale(sign * ones))]
            self.affine(out, shape, parts)
            return
        bias = np.asarray(self.constants[second])
        if np.broadcast_shapes(bias.shape, shape) != shape:
            raise Refusal(f"{op.kind} with a constant of more axes")
        full = sign * np.broadcast_to(bias, shape).reshape(-1)
        before = self.network.steps.get(first)
        only = sum(name == first for other in self.model.operations for name in other.inputs) == 1
        if isinstance(before, Affine) and only and not before.exact and not before.bias.any():
            del self.network.steps[first]
            self.enter(out, shape, replace(before, bias=full, bias_size=np.abs(full)))
        else:
            self.affine(out, shape, [(first, Scale(ones))], full.reshape(shape))

    def read_sub(self, op: Operation, out: str) -> None:
        """A difference."""
        self.read_add(op, out, -1.0)

    def read_mul(self, op: Operation, out: str) -> None:
        """A product with a constant."""
        first, second = op.inputs if op.inputs[0] in self.network.shapes else op.inputs[::-1]
        shape, factor = self.shape(first), self.constants.get(second)
        if factor is None or np.broadcast_shapes(factor.shape, shape) != shape:
            raise Refusal("Mul of two variables, or with a constant of more axes")
        full = np.broadcast_to(factor, shape).reshape(-1).copy()
        self.affine(out, shape, [(first, Scale(full))])

    def read_div(self, op: Operation, out: str) -> None:
        """A quotient by a constant; the rounding of 1 / c is charged as one of a product."""
        shape, divisor = self.shape(op.inputs[0]), self.constant(op, 1)
        if (divisor == 0).any() or np.broadcast_shapes(divisor.shape, shape) != shape:
            raise Refusal("Div by zero, or by a constant of more axes")
        full = np.broadcast_to(1.0 / divisor, shape).reshape(-1).copy()
        self.affine(out, shape, [(op.inputs[0], Scale(full))])

    def read_neg(self, op: Operation, out: str) -> None:
        """-x."""
        shape = self.shape(op.inputs[0])
        self.affine(out, shape, [(op.inputs[0], Scale(-np.ones(int(np.prod(shape)))))])

    def read_relu(self, op: Operation, out: str) -> None:
        """max(x, 0)."""
        self.enter(out, self.shape(op.inputs[0]), Relu(op.inputs[0]))

    def read_sigmoid(self, op: Operation, out: str) -> None:
        """1 / (1 + exp(-x)), or tanh(x)."""
        self.enter(out, self.shape(op.inputs[0]), Curve(op.inputs[0], op.kind))

    read_tanh = read_sigmoid

    def kinked(self, name: str, out: str, below: Any) -> None:
        """below·x + (1 - below)·relu(x); what that rounds is no less than what below·x does."""
        shape = self.shape(name)
        if np.broadcast_shapes(np.shape(below), shape) != shape:
            raise Refusal("slopes that do not fit")
        factor = np.broadcast_to(below, shape).reshape(-1).astype(np.float64)
        self.enter(f"{out} relu", shape, Relu(name))
        self.affine(out, shape, [(name, Scale(factor)), (f"{out} relu", Scale(1.0 - factor))])

    def read_leakyrelu(self, op: Operation, out: str) -> None:
        """x, or a multiple of it where x < 0."""
        self.kinked(op.inputs[0], out, float(op.attributes.get("alpha", np.float32(0.01))))

    def read_prelu(self, op: Operation, out: str) -> None:
        """The same with a constant tensor of multiples."""
        self.kinked(op.inputs[0], out, self.constant(op, 1))

    def read_clip(self, op: Operation, out: str) -> None:
        """low + relu(x - low) - relu(x - high)."""
        name, shape = op.inputs[0], self.shape(op.inputs[0])
        low, high = (np.asarray(self.constant(op, place)) for place in (1, 2))
        if low.size != 1 or high.size != 1 or not low.item() <= high.item():
            raise Refusal("Clip without two limits in order")
        ones = np.ones(int(np.prod(shape)))
        for end, limit in ((f"{out} low", low.item()), (f"{out} high", high.item())):
            self.affine(f"{end} end", shape, [(name, Scale(ones))], np.full(shape, -limit))
            self.enter(end, shape, Relu(f"{end} end"))
        parts = [(f"{out} low", Scale(ones)), (f"{out} high", Scale(-ones))]
        self.affine(out, shape, parts, np.full(shape, low.item()))

    def read_globalaveragepool(self, op: Operation, out: str) -> None:
        """The mean of each channel."""
        shape = self.shape(op.inputs[0])
        spread = Operation("AveragePool", op.inputs, op.outputs, {"kernel_shape": list(shape[2:])})
        self.read_averagepool(spread, out)
