"""A model's operations as steps; an operator or form of one that is not listed is refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from verify.check import network as net
from verify.check.network import Array, Index, Network
from verify.check.onnx_bytes import Model, Operation
from verify.check.refusal import Refusal

OLDEST = 7
"""Operator set: before it, sums and products broadcast by attributes, and Dropout may train."""
TINY = 2.0**-100
"""Variances above this are the same, up to rounding, if denormals are flushed to zero."""


def read_network(model: Model) -> Network:
    """The steps of a model; raises Refusal at the first operation that is not known."""
    if model.opset < OLDEST:
        raise Refusal(f"operator set {model.opset} is older than {OLDEST}")
    network = Network(model.input_name, {model.input_name: model.input_shape})
    reading = Reading(model, network, dict(model.constants))
    for op in model.operations:
        reading.read(op)
    if model.output_name not in network.steps:
        raise Refusal("the model's output does not come from its operations")
    if network.widest() > net.MOST:
        raise Refusal(f"a value of the network holds more than {net.MOST} numbers")
    network.output_name = model.output_name
    return network


def setting(op: Operation, name: str, default: Any) -> Any:
    """An attribute, of the type of its default."""
    found = op.attributes.get(name, default)
    if type(found) is not type(default):
        raise Refusal(f"{op.kind!r} has an attribute {name!r} of another type")
    return found


@dataclass
class Reading:
    """What is known while operations are read one after another, and a rule for each operator.

    NumPy refuses what does not fit (`read`): constants that do not broadcast, axes that are absent.
    """

    model: Model
    network: Network
    constants: dict[str, Any]

    def read(self, op: Operation) -> None:
        """Turn one operation into steps, or into a constant."""
        used = [name for name in op.outputs if name]
        given = {"", *self.network.shapes, *self.constants}
        if len(set(used) - given) != len(used) or (len(used) != 1 and op.kind != "Split"):
            raise Refusal(f"operation {op.kind!r} gives {len(used)} values, or one given before")
        if op.kind == "Constant":
            if set(op.attributes) != {"value"}:
                raise Refusal("a Constant is not given as a tensor")
            self.constants[used[0]] = op.attributes["value"]
            return
        if not given.issuperset(op.inputs):
            raise Refusal(f"{op.kind!r} reads what nothing computes")
        rule = getattr(self, f"read_{op.kind.lower()}", None)
        if rule is None or not op.inputs or not op.inputs[0]:
            raise Refusal(f"operator {op.kind!r} is not known to the checker")
        try:
            rule(op, op.outputs[0])
        except (ValueError, IndexError, TypeError, KeyError) as error:
            raise Refusal(f"parts of {op.kind!r} do not fit: {error}") from None

    # What the rules below share.

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a variable; refused for a constant in its place."""
        if name not in self.network.shapes:
            raise Refusal(f"{name!r} is a constant where the checker expects a variable")
        return self.network.shapes[name]

    def constant(self, op: Operation, place: int, default: Any = None) -> Any:
        """An input that has to be a constant; the default where it is left out."""
        name = op.inputs[place] if place < len(op.inputs) else ""
        found = self.constants.get(name) if name else default
        if found is None:
            raise Refusal(f"{op.kind!r} lacks input {place}, or it is no constant")
        return found

    def enter(self, out: str, shape: Sequence[int], step: net.Step) -> None:
        """Enter a step under its name; a rule's own names ("out relu") may be those of the file."""
        if out in self.network.shapes or out in self.constants:
            raise Refusal(f"the value {out!r} is given twice")
        self.network.shapes[out] = tuple(int(length) for length in shape)
        self.network.steps[out] = step

    def affine(self, out: str, shape: Sequence[int], parts: Any, bias: Any = 0.0) -> None:
        """Enter an affine step with a bias that broadcasts to its shape."""
        full = np.broadcast_to(bias, shape).reshape(-1).astype(np.float64)
        self.enter(out, shape, net.Affine(parts, full, np.abs(full)))

    def scaled(self, out: str, name: str, factor: Any) -> None:
        """Every entry times a factor of its own, or of several."""
        shape = self.shape(name)
        full = np.broadcast_to(factor, shape).reshape(-1).astype(np.float64)
        self.affine(out, shape, [(name, net.scale(full))])

    def move(self, names: Sequence[str], out: str, change: Callable[..., Any]) -> None:
        """Enter a move of data, as `change` does it to arrays."""
        shapes = [self.shape(name) for name in names]
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)]).tolist()
        spans = list(zip(names, shapes, ends[:-1], ends[1:], strict=True))
        moved = np.asarray(change(*(np.arange(a, b).reshape(s) for _, s, a, b in spans)))
        flat, zeros = moved.reshape(-1), np.zeros(moved.size)
        if not moved.size or len(np.unique(flat)) < len(flat):
            raise Refusal("a move of data leaves nothing, or doubles something")
        parts = [
            (name, net.pick(np.where((flat >= a) & (flat < b), flat - a, -1), b - a))
            for name, _, a, b in spans
        ]
        self.enter(out, moved.shape, net.Affine(parts, zeros, zeros, exact=True))

    def given(self, op: Operation, name: str, place: int) -> list[int]:
        """Integers that older files have as an attribute and newer ones as an input."""
        return [int(n) for n in np.ravel(op.attributes.get(name) or self.constant(op, place, []))]

    def read_identity(self, op: Operation, out: str) -> None:
        """y = x."""
        self.move(op.inputs[:1], out, lambda x: x)

    def read_dropout(self, op: Operation, out: str) -> None:
        """y = x, unless it is in training mode."""
        if np.any(self.constant(op, 2, False)):
            raise Refusal("Dropout in training mode")
        self.read_identity(op, out)

    def read_pad(self, op: Operation, out: str) -> None:
        """No padding at all, as some exporters write it."""
        if any(self.given(op, "pads", 1)) or len(op.inputs) > 3:
            raise Refusal("Pad that adds or cuts something")
        self.read_identity(op, out)

    def read_flatten(self, op: Operation, out: str) -> None:
        """All axes before and from `axis` joined."""
        axis = setting(op, "axis", 1)
        self.move(op.inputs, out, lambda x: x.reshape(int(np.prod(x.shape[:axis])), -1))

    def read_reshape(self, op: Operation, out: str) -> None:
        """Another shape; 0 keeps a length."""
        wanted, shape = np.ravel(self.constant(op, 1)).tolist(), self.shape(op.inputs[0])
        if 0 in wanted and setting(op, "allowzero", 0):
            raise Refusal("Reshape with allowzero")
        kept = [n or shape[i] for i, n in enumerate(wanted)]
        self.move(op.inputs[:1], out, lambda x: x.reshape(kept))

    def read_transpose(self, op: Operation, out: str) -> None:
        """Axes in another order."""
        self.move(op.inputs, out, lambda x: x.transpose(op.attributes.get("perm")))

    def read_squeeze(self, op: Operation, out: str) -> None:
        """Without axes of length 1."""
        axes = tuple(self.given(op, "axes", 1))
        if any(self.shape(op.inputs[0])[axis] != 1 for axis in axes):
            raise Refusal("Squeeze of an axis that is longer than 1")
        self.move(op.inputs[:1], out, lambda x: x.squeeze(axes or None))

    def read_unsqueeze(self, op: Operation, out: str) -> None:
        """With axes of length 1."""
        axes = tuple(self.given(op, "axes", 1))
        self.move(op.inputs[:1], out, lambda x: np.expand_dims(x, axes))

    def read_slice(self, op: Operation, out: str) -> None:
        """A range of some axes."""
        names = enumerate(("starts", "ends", "axes", "steps"))
        starts, ends, axes, steps = (self.given(op, name, i + 1) for i, name in names)
        chosen = [slice(None)] * len(self.shape(op.inputs[0]))
        axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
        for axis, *span in zip(axes, starts, ends, steps, strict=True):
            if span[2] < 1:
                raise Refusal("Slice backwards")
            chosen[axis] = slice(*span)
        self.move(op.inputs[:1], out, lambda x: x[tuple(chosen)])

    def read_split(self, op: Operation, out: str) -> None:
        """Pieces along an axis, of given or of equal lengths."""
        axis, count = setting(op, "axis", 0), len(op.outputs)
        length = self.shape(op.inputs[0])[axis]
        lengths = self.given(op, "split", 1) or [length // count] * count
        if sum(lengths) != length or len(lengths) != count or min(lengths) < 1:
            raise Refusal("Split into lengths that do not fit")
        for i, out in enumerate(op.outputs):
            span = range(sum(lengths[:i]), sum(lengths[: i + 1]))
            if out:
                self.move(op.inputs[:1], out, lambda x, span=span: np.take(x, span, axis))

    def read_concat(self, op: Operation, out: str) -> None:
        """Variables side by side."""
        axis = op.attributes["axis"]
        self.move(op.inputs, out, lambda *parts: np.concatenate(parts, axis))

    def read_matmul(self, op: Operation, out: str) -> None:
        """x·W for a constant matrix W; W·x only for a vector x."""
        if op.inputs[0] in self.constants and len(self.shape(op.inputs[1])) == 1:
            self.product(out, op.inputs[1], self.constants[op.inputs[0]].T)
        else:
            self.product(out, op.inputs[0], self.constant(op, 1))

    def product(self, out: str, name: str, weight: Array, bias: Any = 0.0) -> None:
        """x·W + b."""
        shape = self.shape(name)
        if weight.ndim != 2 or shape[-1] != len(weight):
            raise Refusal("a product with a constant that is no matrix of the right height")
        parts = [(name, net.dense(np.ascontiguousarray(weight)))]
        self.affine(out, (*shape[:-1], weight.shape[1]), parts, bias)

    def read_gemm(self, op: Operation, out: str) -> None:
        """x·W + b."""
        scales = [setting(op, name, 1.0) for name in ("alpha", "beta")]
        if setting(op, "transA", 0) or scales != [1, 1] or len(self.shape(op.inputs[0])) != 2:
            raise Refusal("Gemm with transA, alpha or beta, or of more than two axes")
        weight = self.constant(op, 1)
        weight = weight.T if setting(op, "transB", 0) else weight
        self.product(out, op.inputs[0], weight, self.constant(op, 2, 0.0))

    def read_add(self, op: Operation, out: str) -> None:
        """Sum or difference of two values, of which one may be constant."""
        signs = dict(zip(op.inputs, (1.0, -1.0 if op.kind == "Sub" else 1.0), strict=True))
        names = [name for name in signs if name in self.network.shapes]
        shape, bias = self.shape(names[0]), np.zeros(1)
        if len(signs) < 2 or any(self.shape(name) != shape for name in names):
            raise Refusal(f"{op.kind} of a value and itself, or of two shapes")
        for name in signs.keys() - names:
            bias = signs[name] * self.constants[name]
        before = self.network.steps.get(names[0])
        uses = sum(name == names[0] for other in self.model.operations for name in other.inputs)
        alone = len(names) == 1 and uses == 1 and signs[names[0]] > 0
        if alone and isinstance(before, net.Affine) and not before.exact | before.bias_size.any():
            del self.network.steps[names[0]]
            self.affine(out, shape, before.parts, bias)
            return
        size = int(np.prod(shape))
        parts = [(name, net.scale(np.full(size, signs[name]))) for name in names]
        self.affine(out, shape, parts, bias)

    read_sub = read_add

    def read_mul(self, op: Operation, out: str) -> None:
        """A product with a constant."""
        first, second = op.inputs if op.inputs[1] in self.constants else op.inputs[::-1]
        if second not in self.constants:
            raise Refusal("Mul of two variables")
        self.scaled(out, first, self.constants[second])

    def read_div(self, op: Operation, out: str) -> None:
        """A quotient by a constant; the rounding of 1 / c is charged as one of a product."""
        divisor = self.constant(op, 1)
        if (divisor == 0).any():
            raise Refusal("Div by zero")
        self.scaled(out, op.inputs[0], 1.0 / divisor)

    def read_neg(self, op: Operation, out: str) -> None:
        """-x."""
        self.scaled(out, op.inputs[0], -1.0)

    def read_batchnormalization(self, op: Operation, out: str) -> None:
        """(x - mean) / sqrt(var + epsilon) · gamma + beta; its rounding is charged as a product."""
        shape = self.shape(op.inputs[0])
        gamma, beta, mean, var = (self.constant(op, place) for place in range(1, 5))
        epsilon = setting(op, "epsilon", float(np.float32(1e-5)))
        if setting(op, "training_mode", 0) or not ((var >= 0) & (var + epsilon > TINY)).all():
            raise Refusal("BatchNormalization in training mode, or with a variance of nearly 0")
        factor = gamma / np.sqrt(var + epsilon)
        wide = (1, -1, *[1] * (len(shape) - 2))
        full = [
            np.broadcast_to(part.reshape(wide), shape).reshape(-1)
            for part in (factor, beta - mean * factor, np.abs(beta) + np.abs(mean * factor))
        ]
        self.enter(out, shape, net.Affine([(op.inputs[0], net.scale(full[0]))], full[1], full[2]))

    def windows(self, op: Operation, kernel: Sequence[int]) -> tuple[int, Index, tuple[int, ...]]:
        """How many places a map has, those under each tap of each window, the map of windows.

        What lies outside the map is numbered as one past the last place.
        """
        shape, rank = self.shape(op.inputs[0]), len(kernel)
        strides = setting(op, "strides", [1] * rank) or [1] * rank
        dilations = setting(op, "dilations", [1] * rank) or [1] * rank
        pads = setting(op, "pads", [0] * 2 * rank) or [0] * 2 * rank
        if len(shape) != rank + 2 or shape[0] != 1 or setting(op, "auto_pad", "NOTSET") != "NOTSET":
            raise Refusal(f"{op.kind} on shape {shape}, or with auto_pad")
        lengths = {len(strides), len(dilations), len(pads) // 2, rank}
        if (
            min(*kernel, *strides, *dilations) < 1
            or len(lengths) > 1
            or setting(op, "ceil_mode", 0)
        ):
            raise Refusal(f"{op.kind} with ceil_mode, or with attributes that do not fit")
        places = int(np.prod(shape[2:]))
        around = list(zip(pads[:rank], pads[rank:], strict=True))  # all begins, then all ends
        numbers = np.pad(np.arange(places).reshape(shape[2:]), around, constant_values=places)
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        steps = tuple(slice(None, None, step) for step in (*strides, *dilations))
        taps = sliding_window_view(numbers, reach)[steps]
        space = taps.shape[:rank]
        return places, taps.reshape(int(np.prod(space)), -1), space

    def read_conv(self, op: Operation, out: str) -> None:
        """A convolution with constant kernel."""
        kernel, groups = self.constant(op, 1), setting(op, "group", 1)
        places, taps, space = self.windows(op, kernel.shape[2:])
        if self.shape(op.inputs[0])[1] != kernel.shape[1] * groups or len(kernel) % groups:
            raise Refusal("Conv whose channels do not fit")
        bias = self.constant(op, 2, np.zeros(len(kernel))).reshape(1, -1, *[1] * len(space))
        parts = [
            (op.inputs[0], net.conv(kernel.reshape(*kernel.shape[:2], -1), groups, places, taps))
        ]
        self.affine(out, (1, len(kernel), *space), parts, bias)

    def read_averagepool(self, op: Operation, out: str) -> None:
        """The mean of each window, without padding."""
        channels = self.shape(op.inputs[0])[1]
        places, taps, space = self.windows(op, setting(op, "kernel_shape", []))
        if (taps == places).any():
            raise Refusal("AveragePool with padding")
        means = np.full((channels, 1, taps.shape[1]), 1.0 / taps.shape[1])
        parts = [(op.inputs[0], net.conv(means, channels, places, taps))]
        self.affine(out, (1, channels, *space), parts)

    def read_globalaveragepool(self, op: Operation, out: str) -> None:
        """The mean of each channel."""
        whole = {"kernel_shape": list(self.shape(op.inputs[0])[2:])}
        self.read_averagepool(replace(op, attributes=whole), out)

    def read_maxpool(self, op: Operation, out: str) -> None:
        """The largest of each window; padding never wins."""
        channels = self.shape(op.inputs[0])[1]
        places, taps, space = self.windows(op, setting(op, "kernel_shape", []))
        best = taps.min(axis=1, keepdims=True)  # a place inside, if there is one
        if (best == places).any():
            raise Refusal("MaxPool with a window in the padding")
        inside = np.where(taps == places, best, taps)
        every = (np.arange(channels)[:, None, None] * places + inside).reshape(-1, taps.shape[1])
        self.enter(out, (1, channels, *space), net.MaxPool(op.inputs[0], every))

    def read_relu(self, op: Operation, out: str) -> None:
        """max(x, 0)."""
        self.enter(out, self.shape(op.inputs[0]), net.Relu(op.inputs[0]))

    def read_sigmoid(self, op: Operation, out: str) -> None:
        """1 / (1 + exp(-x)), or tanh(x)."""
        self.enter(out, self.shape(op.inputs[0]), net.Curve(op.inputs[0], op.kind))

    read_tanh = read_sigmoid

    def read_softmax(self, op: Operation, out: str) -> None:
        """Its inputs, in whose order the outputs are (`leaf.ordered`); nothing may read it."""
        last = not any(out in other.inputs for other in self.model.operations)
        shape, axis = self.shape(op.inputs[0]), setting(op, "axis", -1)
        if not last or out != self.model.output_name or shape[:-1] != (1,) or axis not in (1, -1):
            raise Refusal(f"{op.kind} that is not over a vector, and last")
        self.network.ordered = True
        self.read_identity(op, out)

    read_logsoftmax = read_softmax

    def read_leakyrelu(self, op: Operation, out: str) -> None:
        """x, or a multiple of it where x < 0."""
        self.kinked(op.inputs[0], out, setting(op, "alpha", float(np.float32(0.01))))

    def read_prelu(self, op: Operation, out: str) -> None:
        """The same with a constant tensor of multiples."""
        self.kinked(op.inputs[0], out, self.constant(op, 1))

    def kinked(self, name: str, out: str, below: Any) -> None:
        """below·x + (1 - below)·relu(x); what that rounds is no less than what below·x does."""
        shape = self.shape(name)
        factor = np.broadcast_to(below, shape).reshape(-1).astype(np.float64)
        self.enter(f"{out} relu", shape, net.Relu(name))
        self.affine(
            out, shape, [(name, net.scale(factor)), (f"{out} relu", net.scale(1.0 - factor))]
        )

    def read_clip(self, op: Operation, out: str) -> None:
        """low + relu(x - low) - relu(x - high)."""
        name, shape = op.inputs[0], self.shape(op.inputs[0])
        low, high = (np.asarray(self.constant(op, place)).item() for place in (1, 2))
        if not low <= high:
            raise Refusal("Clip without two limits in order")
        ones = net.scale(np.ones(int(np.prod(shape))))
        for end, limit in ((f"{out} low", low), (f"{out} high", high)):
            self.affine(f"{end} end", shape, [(name, ones)], -limit)
            self.enter(end, shape, net.Relu(f"{end} end"))
        parts = [(f"{out} low", ones), (f"{out} high", net.scale(-ones.weight))]
        self.affine(out, shape, parts, low)
