"""Reading a model's operations one after another: what all rules share, and moves of data."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from verify.check.linear import Pick
from verify.check.network import Affine, Network, Step
from verify.check.onnx_bytes import Model, Operation
from verify.check.refusal import Refusal


@dataclass
class Reading:
    """What is known while the operations are read one after another."""

    model: Model
    network: Network
    constants: dict[str, Any]

    def read(self, op: Operation) -> None:
        """Turn one operation into a step, or into a constant."""
        used = [name for name in op.outputs if name]
        given = {*self.network.shapes, *self.constants}
        if len(set(used) - given) != len(used) or (len(used) != 1 and op.kind != "Split"):
            raise Refusal(f"operation {op.kind!r} gives {len(used)} values, or one given before")
        if op.kind == "Constant":
            if set(op.attributes) != {"value"}:
                raise Refusal("a Constant is not given as a tensor")
            self.constants[used[0]] = op.attributes["value"]
            return
        variable = [name for name in op.inputs if name in self.network.shapes]
        for name in op.inputs:
            if name and name not in self.network.shapes and name not in self.constants:
                raise Refusal(f"{op.kind!r} reads {name!r}, which nothing computes")
        rule = getattr(self, f"read_{op.kind.lower()}", None)
        if rule is None or not variable or op.inputs[0] not in (*variable, *self.constants):
            raise Refusal(f"operator {op.kind!r} is not known to the checker")
        rule(op, op.outputs[0])

    # What the rules below share.

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a variable; refused for a constant in its place."""
        if name not in self.network.shapes:
            raise Refusal(f"{name!r} is a constant where the checker expects a variable")
        return self.network.shapes[name]

    def constant(self, op: Operation, place: int, default: Any = None) -> Any:
        """An input that has to be a constant; the default where it is left out."""
        if place >= len(op.inputs) or not op.inputs[place]:
            if default is None:
                raise Refusal(f"{op.kind!r} lacks input {place}")
            return default
        if op.inputs[place] not in self.constants:
            raise Refusal(f"{op.kind!r} has a variable as input {place}")
        return self.constants[op.inputs[place]]

    def affine(self, out: str, shape: tuple[int, ...], parts: Any, bias: Any = None) -> None:
        """Enter an affine step."""
        size = int(np.prod(shape))
        full = np.zeros(size) if bias is None else np.broadcast_to(bias, shape).reshape(-1).copy()
        self.enter(out, shape, Affine(parts, full, np.abs(full)))

    def enter(self, out: str, shape: tuple[int, ...], step: Step) -> None:
        """Enter a step under its name; a rule's own names ("out relu") may be those of the file."""
        if out in self.network.shapes or out in self.constants:
            raise Refusal(f"the value {out!r} is given twice")
        self.network.shapes[out] = tuple(int(length) for length in shape)
        self.network.steps[out] = step

    def move(self, op: Operation, out: str, change: Any) -> None:
        """Enter a move of data, as `change` does it to an array."""
        source = op.inputs[0]
        shape = self.shape(source)
        numbers = np.arange(int(np.prod(shape))).reshape(shape)
        moved = np.asarray(change(numbers))
        if not moved.size:
            raise Refusal(f"{op.kind} leaves nothing")
        pick = Pick(moved.reshape(-1), numbers.size)
        zeros = np.zeros(moved.size)
        self.enter(out, moved.shape, Affine([(source, pick)], zeros, zeros, exact=True))

    def read_identity(self, op: Operation, out: str) -> None:
        """y = x."""
        self.move(op, out, lambda x: x)

    def read_dropout(self, op: Operation, out: str) -> None:
        """y = x, unless it is in training mode."""
        if np.any(self.constant(op, 2, False)):
            raise Refusal("Dropout in training mode")
        self.read_identity(op, out)

    def read_flatten(self, op: Operation, out: str) -> None:
        """All axes before and from `axis` joined."""
        axis = int(op.attributes.get("axis", 1))
        self.move(op, out, lambda x: x.reshape(int(np.prod(x.shape[:axis])), -1))

    def read_reshape(self, op: Operation, out: str) -> None:
        """Another shape; 0 keeps a length."""
        wanted = [int(length) for length in np.ravel(self.constant(op, 1))]
        shape = self.shape(op.inputs[0])
        if 0 in wanted and op.attributes.get("allowzero", 0):
            raise Refusal("Reshape with allowzero")
        if any(n == 0 and i >= len(shape) for i, n in enumerate(wanted)):
            raise Refusal("Reshape keeps an axis that is not there")
        kept = [shape[i] if n == 0 else n for i, n in enumerate(wanted)]
        try:
            self.move(op, out, lambda x: x.reshape(kept))
        except ValueError as error:
            raise Refusal(f"Reshape does not fit: {error}") from None

    def read_transpose(self, op: Operation, out: str) -> None:
        """Axes in another order."""
        self.move(op, out, lambda x: x.transpose(op.attributes.get("perm")))

    def given(self, op: Operation, name: str, place: int) -> list[int]:
        """Integers that older files have as an attribute and newer ones as an input."""
        return [int(n) for n in np.ravel(op.attributes.get(name) or self.constant(op, place, []))]

    def read_squeeze(self, op: Operation, out: str) -> None:
        """Without axes of length 1."""
        axes = tuple(self.given(op, "axes", 1))
        if any(self.shape(op.inputs[0])[axis] != 1 for axis in axes):
            raise Refusal("Squeeze of an axis that is longer than 1")
        self.move(op, out, lambda x: x.squeeze(axes or None))

    def read_unsqueeze(self, op: Operation, out: str) -> None:
        """With axes of length 1."""
        self.move(op, out, lambda x: np.expand_dims(x, tuple(self.given(op, "axes", 1))))

    def read_slice(self, op: Operation, out: str) -> None:
        """A range of some axes."""
        starts, ends, axes = (
            self.given(op, name, i + 1) for i, name in enumerate(("starts", "ends", "axes"))
        )
        steps = [int(n) for n in np.ravel(self.constant(op, 4, []))] or [1] * len(starts)
        chosen = [slice(None)] * len(self.shape(op.inputs[0]))
        axes = axes or list(range(len(starts)))
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            if step < 1:
                raise Refusal("Slice backwards")
            chosen[axis] = slice(start, end, step)
        self.move(op, out, lambda x: x[tuple(chosen)])

    def read_split(self, op: Operation, out: str) -> None:
        """Pieces along an axis, of given or of equal lengths."""
        del out
        axis = int(op.attributes.get("axis", 0))
        length = self.shape(op.inputs[0])[axis]
        lengths = self.given(op, "split", 1) or [length // len(op.outputs)] * len(op.outputs)
        if sum(lengths) != length or len(lengths) != len(op.outputs) or min(lengths) < 1:
            raise Refusal("Split into lengths that do not fit")
        ends = np.cumsum([0, *lengths])
        for name, first, last in zip(op.outputs, ends[:-1], ends[1:], strict=True):
            if name:
                places = np.arange(first, last)
                self.move(op, name, lambda x, places=places: np.take(x, places, axis))

    def read_pad(self, op: Operation, out: str) -> None:
        """No padding at all, as some exporters write it."""
        pads = op.attributes.get("pads") or self.constant(op, 1)
        if np.any(pads) or len(op.inputs) > 3:
            raise Refusal("Pad that adds or cuts something")
        self.read_identity(op, out)

    def read_concat(self, op: Operation, out: str) -> None:
        """Variables side by side."""
        shapes = [self.shape(name) for name in op.inputs]
        axis = int(op.attributes["axis"])
        sizes = [int(np.prod(shape)) for shape in shapes]
        ends = np.cumsum([0, *sizes])
        whole = np.concatenate(
            [
                np.arange(a, b).reshape(shape)
                for a, b, shape in zip(ends[:-1], ends[1:], shapes, strict=True)
            ],
            axis=axis,
        )
        flat, parts = whole.reshape(-1), []
        for name, a, b in zip(op.inputs, ends[:-1], ends[1:], strict=True):
            own = (flat >= a) & (flat < b)
            parts.append((name, Pick(np.where(own, flat - a, -1), int(b - a))))
        zeros = np.zeros(flat.size)
        self.enter(out, whole.shape, Affine(parts, zeros, zeros, exact=True))
