"""Importer: what every operator's reader works with, tensors at hand and the graph that grows.

Shapes are those of one sample: a symbolic batch is read as 1, so everything that the file computes
from shapes folds to constants. A variable tensor says whether its leading 1 is the batch, which the
graph leaves out. Readers of operators live in the onnx_*.py files beside this one and enter
themselves with `reads`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from verify.graph.ir import Program
from verify.readers.builder import GraphBuilder
from verify.readers.onnx_deferred import Counted, read_counted
from verify.readers.onnx_file import refuse_nonfinite
from verify.readers.onnx_node import OnnxNode

MAX_ENTRIES = 2**24
"""Largest computed tensor, in entries per sample (128 MB in float64): a larger one is taken for an
attack on memory, not for a classifier."""

MAX_CONSTANTS = 2**29
"""Most entries of all constants together, those of the graph (4 GB in float64) as well as those
folded on the way."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A tensor that depends on the input.

    Attributes:
        name: of its node in the graph.
        shape: as in the file for one sample, with the batch axis where there is one.
        batch: whether axis 0 of `shape` (then 1) is the batch axis, which the graph leaves out.
        tail: the output operator left out just before it ("Softmax"), or None.
    """

    name: str
    shape: tuple[int, ...]
    batch: bool
    tail: str | None = None

    @property
    def inner(self) -> tuple[int, ...]:
        """The shape in the graph, without batch axis; a scalar is held as one entry there."""
        return (self.shape[1:] if self.batch else self.shape) or (1,)


Value = Variable | np.ndarray
Reader = Callable[["Importer", OnnxNode], "list[Value]"]

READERS: dict[str, Reader] = {}


def reads(*operators: str) -> Callable[[Reader], Reader]:
    """Enter a reader for the named operators."""

    def enter(reader: Reader) -> Reader:
        for operator in operators:
            READERS[operator] = reader
        return reader

    return enter


def leads_with_batch(shape: tuple[int, ...]) -> bool:
    """Whether a tensor of this shape is read as having a batch axis: rank 2 or more, leading 1."""
    return len(shape) >= 2 and shape[0] == 1


class Importer:
    """The state of one import.

    Attributes:
        builder: collects the graph's nodes.
        values: every tensor so far, by its name in the file.
        free_batch: whether the file leaves the batch size open.
        double: whether tensors of float64 may be about, so that a cast to float32 rounds.
        entries: of all constants so far.
        left_out: outputs that no reader provides (a Dropout's mask), and which node they are of.
        tails: softmaxes that were left out, by the graph's node that stands for their output.
        counted: what depends on whole numbers alone.
        may_be_empty: whether tensors without entries are read, too.
    """

    def __init__(
        self, input_name: str, shape: tuple[int, ...], *, free_batch: bool, double: bool = False
    ) -> None:
        """Start with the input, whose `shape` is the file's for one sample."""
        batch = leads_with_batch(shape)
        self.free_batch = free_batch
        self.double = double
        self.entries = 0
        self.left_out: dict[str, str] = {}
        self.tails: dict[str, OnnxNode] = {}
        self.counted = Counted()
        self.may_be_empty = False
        self.input = Variable(input_name, shape, leads_with_batch(shape))
        self.builder = GraphBuilder(input_name, shape[1:] if batch else shape)
        self.values: dict[str, Value] = {input_name: self.input}

    # What a reader asks of its inputs.

    def value(self, node: OnnxNode, position: int, *, tail: bool = False) -> Value:
        """The tensor at an input; `tail` allows the output of a softmax.

        Raises:
            ModelError: if there is none.
            UnsupportedOperator: if a softmax comes before it.
        """
        if not node.has(position):
            raise node.invalid(f"input {position} is missing")
        name = node.inputs[position]
        if name in self.left_out:
            raise node.unsupported(f"it reads {name!r}, a further output of {self.left_out[name]}")
        if name not in self.values:
            raise node.invalid(
                f"it reads {name!r}, which no earlier node, input or initializer provides "
                "(nodes must be sorted, without cycles)"
            )
        found = self.values[name]
        if isinstance(found, Variable) and found.tail is not None and not tail:
            from verify.readers.onnx_smooth import settled  # it imports this module

            found = settled(self, node, found)
            self.values[name] = found
        return found

    def variable(self, node: OnnxNode, position: int) -> Variable:
        """An input that depends on the network's input."""
        found = self.value(node, position)
        if not isinstance(found, Variable):
            raise node.unsupported(f"input {position} ({node.inputs[position]!r}) is constant")
        return found

    def standing(self, node: OnnxNode, position: int) -> Variable:
        """A constant input as a node of the graph: 0·x + constant, for x any entry of the input.

        So what is computed from it is bounded like anything else, in whatever order a machine
        computes it.
        """
        constant = self.weights(node, position)
        step = f"constant{position}"
        size = int(prod(self.input.shape))
        flat = self.viewed(node, self.input, (size,), batch=False, step=f"{step}/flat")
        repeated = self.select(node, flat, 0, [0] * constant.numel(), step=f"{step}/repeat")
        zeros = torch.zeros(constant.numel(), dtype=torch.float64)
        level = self.scale_shift(node, repeated, zeros, constant.reshape(-1), step=step)
        return self.reshape(node, level, tuple(constant.shape), step=f"{step}/shape")

    def constant(self, node: OnnxNode, position: int) -> np.ndarray:
        """An input that is known at load time."""
        found = self.value(node, position)
        if isinstance(found, Variable):
            raise node.unsupported(
                f"input {position} ({node.inputs[position]!r}) depends on the network's input, "
                "only a constant can stand there"
            )
        return found

    def optional(self, node: OnnxNode, position: int) -> np.ndarray | None:
        """A constant input that may be left out."""
        return self.constant(node, position) if node.has(position) else None

    def integers(self, node: OnnxNode, position: int) -> tuple[int, ...]:
        """A constant input of integers, flattened."""
        found = self.constant(node, position)
        if found.dtype.kind not in "iu":
            raise node.invalid(f"input {position} holds {found.dtype}, expected integers")
        self.guard(node, found.shape)
        return tuple(int(i) for i in found.reshape(-1))

    def listed(self, node: OnnxNode, name: str, position: int) -> tuple[int, ...] | None:
        """Integers given as an attribute (older opsets) or as an input (newer), or not at all."""
        if node.has(position):
            return self.integers(node, position)
        return node.integers(name)

    def scalar(self, node: OnnxNode, position: int) -> float:
        """A constant input of one number."""
        found = self.constant(node, position)
        if found.size != 1 or found.dtype.kind not in "fiu":
            raise node.invalid(f"input {position} has shape {found.shape}, expected one number")
        return float(found.reshape(-1)[0])

    def weights(self, node: OnnxNode, position: int) -> Tensor:
        """A constant input of finite numbers, float64."""
        return self.finite(node, self.constant(node, position), node.inputs[position])

    def finite(self, node: OnnxNode, array: np.ndarray, name: str) -> Tensor:
        """An array as float64; raises ModelError at the first entry that is NaN or infinite."""
        if array.dtype.kind not in "fiu":
            raise node.invalid(f"{name!r} holds {array.dtype}, expected numbers")
        tensor = torch.from_numpy(np.array(array, dtype=np.float64))
        refuse_nonfinite(array, name, node.where)
        return tensor

    # What a reader does.

    def guard(self, node: OnnxNode, shape: tuple[int, ...] | torch.Size) -> None:
        """Raise if a tensor of this shape is empty or too large to hold."""
        if any(d < 1 for d in shape) and not self.may_be_empty:
            raise node.invalid(f"it produces an empty tensor, shape {tuple(shape)}")
        if prod(shape) > MAX_ENTRIES:
            raise node.invalid(
                f"it produces a tensor of shape {tuple(shape)}: more than {MAX_ENTRIES} entries"
            )

    def count(self, node: OnnxNode, entries: int) -> None:
        """Add to the entries of all constants; raise if there are too many."""
        self.entries += entries
        if self.entries > MAX_CONSTANTS:
            raise node.invalid(f"the constants so far hold more than {MAX_CONSTANTS} entries")

    def emit(
        self,
        op: str,
        inputs: tuple[Variable, ...],
        node: OnnxNode,
        *,
        batch: bool,
        tensors: Mapping[str, Tensor] | None = None,
        settings: Mapping[str, tuple[int, ...]] | None = None,
        inner: tuple[int, ...] | None = None,
        step: str = "",
        output: int = 0,
        program: Program | None = None,
    ) -> Variable:
        """Add a node to the graph.

        Args:
            op: the graph's operator.
            inputs: in order.
            node: what is being read; the new node is named after its output.
            batch: whether the result stands for a tensor with a leading batch axis.
            tensors: constants.
            settings: integer attributes.
            inner: the shape without batch axis, only for Reshape.
            step: set for intermediate results, which get a name of their own.
            output: which output of the node is being produced.
            program: of a Program node.
        """
        name = node.outputs[output] or f"{node.name}/output{output}"
        self.count(node, sum(t.numel() for t in (tensors or {}).values()))
        wished = f"{name}/{step}" if step else name
        added = self.builder.add(
            op,
            tuple(v.name for v in inputs),
            wished,
            tensors=tensors,
            settings=settings,
            shape=inner,
            program=program,
        )
        shape = self.builder.shape(added)
        if shape == (1,) and all(v.shape == () for v in inputs):
            shape = ()
        self.guard(node, shape)
        return Variable(added, (1, *shape) if batch else shape, batch)

    def reshape(
        self, node: OnnxNode, value: Variable, shape: tuple[int, ...], *, step: str = ""
    ) -> Variable:
        """The same entries in another shape of the file; a leading 1 is read as the batch."""
        batch = leads_with_batch(shape)
        return self.viewed(node, value, shape, batch=batch, step=step)

    def viewed(
        self, node: OnnxNode, value: Variable, shape: tuple[int, ...], *, batch: bool, step: str
    ) -> Variable:
        """The same entries in another shape, with or without batch axis as stated."""
        inner = (shape[1:] if batch else shape) or (1,)
        if inner == value.inner:
            return replace(value, shape=shape, batch=batch)
        moved = self.emit("Reshape", (value,), node, batch=batch, inner=inner, step=step)
        if value.tail is not None:
            self.tails[moved.name] = self.tails[value.name]
        return replace(moved, shape=shape, tail=value.tail)

    def whole(self, node: OnnxNode, value: Variable, what: str) -> Variable:
        """The tensor with its batch axis as an ordinary axis of length 1.

        Raises:
            UnsupportedOperator: if the file leaves the batch size open: `what` would mix samples.
        """
        if not value.batch:
            return value
        if self.free_batch:
            raise node.unsupported(
                f"{what} acts on the batch axis and so mixes samples",
                remedy="Export the model with batch size 1, or keep samples apart",
            )
        return self.viewed(node, value, value.shape, batch=False, step="whole")

    def batched(self, node: OnnxNode, value: Variable) -> Variable:
        """The tensor with its leading 1 as the batch axis, for operators that need one."""
        if value.batch:
            return value
        if not leads_with_batch(value.shape):
            raise node.unsupported(
                f"its input has shape {value.shape}, whose first axis is not a batch of one",
                remedy="Export the model with batch size 1 or an open batch size",
            )
        return self.viewed(node, value, value.shape, batch=True, step="batched")

    def expand(
        self, node: OnnxNode, value: Variable, shape: tuple[int, ...], *, batch: bool, step: str
    ) -> Variable:
        """Repeat axes of length 1 until the tensor has the given shape (numpy's broadcasting)."""
        self.guard(node, shape)
        padded = (1,) * (len(shape) - len(value.shape)) + value.shape
        keep = batch and shape[0] == 1
        result = self.viewed(node, value, padded, batch=keep, step=f"{step}/align")
        for axis, (have, want) in enumerate(zip(padded, shape, strict=True)):
            if have == want:
                continue
            if have != 1:
                raise node.invalid(f"shapes {value.shape} and {shape} do not broadcast")
            result = self.select(node, result, axis, [0] * want, step=f"{step}/repeat{axis}")
        return result

    def select(
        self,
        node: OnnxNode,
        value: Variable,
        axis: int,
        index: list[int],
        *,
        step: str = "",
        output: int = 0,
    ) -> Variable:
        """Entries of one axis of the file's tensor, which is not its batch axis."""
        if index == list(range(value.shape[axis])):
            return value
        self.guard(node, (*value.shape[:axis], len(index), *value.shape[axis + 1 :]))
        return self.emit(
            "Select",
            (value,),
            node,
            batch=value.batch,
            tensors={"index": torch.tensor(index, dtype=torch.int64)},
            settings={"axis": (axis - value.batch,)},
            step=step,
            output=output,
        )

    def scale_shift(
        self,
        node: OnnxNode,
        value: Variable,
        scale: Tensor,
        shift: Tensor,
        *,
        magnitude: Tensor | None = None,
        step: str = "",
    ) -> Variable:
        """x·scale + shift; the constants broadcast to the graph's shape of the tensor."""
        tensors = {"scale": scale, "shift": shift}
        if magnitude is not None:
            tensors["shift_magnitude"] = magnitude
        for name, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise node.invalid(f"its {name} is not finite (a division by zero, or overflow)")
        return self.emit(
            "ScaleShift", (value,), node, batch=value.batch, tensors=tensors, step=step
        )

    def read(self, node: OnnxNode) -> None:
        """Read one node and file its outputs.

        Raises:
            UnsupportedOperator: if no reader knows the operator.
            ModelError: if the node is invalid.
        """
        reader = READERS.get(node.op)
        if reader is None:
            raise node.unsupported(f"there is no sound rule for the operator {node.op!r}")
        results = read_counted(self, node, reader)
        for name in filter(None, node.outputs):
            if name in self.values or name in self.left_out or node.outputs.count(name) > 1:
                raise node.invalid(f"the name {name!r} is produced twice")
        for name, result in zip(node.outputs, results, strict=False):
            if isinstance(result, np.ndarray):
                self.count(node, result.size)
            if name:
                self.values[name] = result
        self.left_out.update((name, node.where) for name in node.outputs[len(results) :] if name)
