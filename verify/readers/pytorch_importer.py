"""The walk over an exported program, and what every operator's reader works with.

The program was exported for a batch of `BATCH`; axis 0 of every tensor that depends on the input
is the batch and stays in front, which is checked after each operator. Readers of operators live in
the pytorch_*.py files beside this one and enter themselves with `reads`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from verify.errors import ModelError, UnsupportedOperator
from verify.graph.ir import Graph
from verify.readers.builder import GraphBuilder

BATCH = 3
"""Batch size of the export: no length that a model is likely to hard-code."""

MAX_ENTRIES = 2**26
"""Largest tensor per sample, as in the ONNX reader."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A tensor that depends on the input.

    Attributes:
        name: of its node in the graph.
        tail: the output operator left out just before it ("Softmax"), or None.
    """

    name: str
    tail: str | None = None


Value = object
"""A Variable, a constant Tensor, a number, None, or a list of these."""

Reader = Callable[["Call"], Value]

READERS: dict[str, Reader] = {}

IGNORED = (
    "aten._assert_tensor_metadata",
    "aten._assert_async",
    "aten.sym_constrain_range_for_size",
)
"""Checks without a result."""


def reads(*operators: str) -> Callable[[Reader], Reader]:
    """Enter a reader for the named operators, such as "aten.relu"."""

    def enter(reader: Reader) -> Reader:
        for name in operators:
            READERS[name] = reader
        return reader

    return enter


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One operation of the program, with typed access to its arguments.

    Attributes:
        builder: collects the graph's nodes.
        name: of the operation in the program.
        op: such as "aten.relu".
        arguments: by the schema's names, defaults filled in.
        shape: of the result without batch axis; None where it has several results, or none.
    """

    builder: GraphBuilder
    name: str
    op: str
    arguments: Mapping[str, Value]
    shape: tuple[int, ...] | None

    def unsupported(self, what: str) -> UnsupportedOperator:
        """The error for an operation without a sound rule."""
        return UnsupportedOperator(
            f"node {self.name!r} ({self.op}) is not supported: {what}. "
            "Rewrite the module without it, or simplify it."
        )

    def variable(self, key: str, *, tail: bool = False) -> Variable:
        """An argument that depends on the input; `tail` allows the output of a softmax."""
        found = self.arguments.get(key)
        if not isinstance(found, Variable):
            raise self.unsupported(f"its argument {key!r} does not depend on the input")
        return self.without_tail(found) if not tail else found

    def without_tail(self, found: Variable) -> Variable:
        """The variable, unless a softmax comes before it."""
        if found.tail is not None:
            raise self.unsupported(
                f"it reads the output of a {found.tail}, which is only supported at the very end"
            )
        return found

    def constant(self, key: str) -> Tensor:
        """An argument that is a constant tensor or number, float64."""
        found = self.arguments.get(key)
        if isinstance(found, Tensor):
            return found.detach().to(torch.float64)
        if isinstance(found, int | float):
            # torch rounds a number to the dtype of the tensor that it meets.
            return torch.tensor(found, dtype=torch.float32).to(torch.float64)
        raise self.unsupported(f"its argument {key!r} depends on the input, or is missing")

    def optional(self, key: str) -> Tensor | None:
        """A constant that may be left out."""
        return None if self.arguments.get(key) is None else self.constant(key)

    def number(self, key: str) -> float:
        """An argument of one number, as a float32 holds it."""
        found = self.constant(key)
        if found.numel() != 1:
            raise self.unsupported(f"its argument {key!r} has shape {tuple(found.shape)}")
        return float(found)

    def integer(self, key: str) -> int:
        """An integer argument."""
        found = self.arguments.get(key)
        if not isinstance(found, int):
            raise self.unsupported(f"its argument {key!r} is {found!r}, expected an integer")
        return found

    def integers(self, key: str, count: int | None = None) -> tuple[int, ...]:
        """A list of integers; one stands for `count` equal ones."""
        found = self.arguments.get(key)
        listed = [found] if isinstance(found, int) else found
        if not isinstance(listed, list | tuple) or not all(isinstance(i, int) for i in listed):
            raise self.unsupported(f"its argument {key!r} is {found!r}, expected integers")
        values = tuple(listed)
        return values * count if count is not None and len(values) == 1 else values

    def flag(self, key: str) -> bool:
        """A truth value."""
        return bool(self.arguments.get(key))

    def inner(self, value: Variable) -> tuple[int, ...]:
        """The shape of a variable without batch axis."""
        return self.builder.shape(value.name)

    def axis(self, axis: int, rank: int) -> int:
        """An axis of a tensor of that rank (batch included), counted without the batch axis.

        Raises:
            UnsupportedOperator: if it is the batch axis.
        """
        found = axis + rank if axis < 0 else axis
        if found == 0:
            raise self.unsupported("it acts on the batch axis and so mixes samples")
        return found - 1

    def result_shape(self) -> tuple[int, ...]:
        """The shape of the one result without batch axis."""
        if self.shape is None:
            raise self.unsupported("it has not one result, or one without a batch axis in front")
        return self.shape

    def emit(
        self,
        op: str,
        inputs: tuple[Variable, ...],
        *,
        tensors: Mapping[str, Tensor] | None = None,
        settings: Mapping[str, tuple[int, ...]] | None = None,
        shape: tuple[int, ...] | None = None,
        step: str = "",
    ) -> Variable:
        """Add a node to the graph; `step` names intermediate results."""
        for key, tensor in (tensors or {}).items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ModelError(
                    f"node {self.name!r} ({self.op}): its {key} is not finite (a division by "
                    "zero, or overflow). Check the module's weights and constants."
                )
        added = self.builder.add(
            op,
            tuple(self.without_tail(value).name for value in inputs),
            f"{self.name}/{step}" if step else self.name,
            tensors=tensors,
            settings=settings,
            shape=shape,
        )
        return Variable(added)

    def reshape(self, value: Variable, shape: tuple[int, ...], *, step: str = "") -> Variable:
        """The same entries in another shape; a softmax before it stays remembered."""
        if self.inner(value) == shape:
            return value
        bare = Variable(value.name)
        return Variable(self.emit("Reshape", (bare,), shape=shape, step=step).name, value.tail)

    def expand(self, value: Variable, shape: tuple[int, ...], *, step: str = "expand") -> Variable:
        """The variable broadcast to a shape, both without batch axis."""
        have = self.inner(value)
        if have == shape:
            return value
        if len(have) > len(shape):
            raise self.unsupported(f"shapes {have} and {shape} do not broadcast")
        padded = (1,) * (len(shape) - len(have)) + have
        result = self.reshape(value, padded, step=f"{step}_align")
        for axis, (old, new) in enumerate(zip(padded, shape, strict=True)):
            if old == new:
                continue
            if old != 1:
                raise self.unsupported(f"shapes {have} and {shape} do not broadcast")
            result = self.select(result, axis, [0] * new, step=f"{step}{axis}")
        return result

    def select(self, value: Variable, axis: int, index: list[int], *, step: str = "") -> Variable:
        """Entries of one axis, counted without the batch axis."""
        if index == list(range(self.inner(value)[axis])):
            return value
        if not index:
            raise self.unsupported("it produces an empty tensor")
        return self.emit(
            "Select",
            (value,),
            tensors={"index": torch.tensor(index, dtype=torch.int64)},
            settings={"axis": (axis,)},
            step=step,
        )


def read_program(program: ExportedProgram, input_shape: tuple[int, ...], name: str) -> Graph:
    """The graph of an exported module.

    Raises:
        UnsupportedOperator: if an operation has no reader, or mixes samples.
        ModelError: if the module does not go from one tensor to one tensor.
    """
    values = constants_of(program)
    inputs = [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind == InputKind.USER_INPUT
    ]
    builder = GraphBuilder(inputs[0], input_shape)
    values[inputs[0]] = Variable(inputs[0])
    result: Value = None
    for node in program.graph.nodes:
        if node.op == "output":
            listed = node.args[0]
            result = [values.get(item.name) for item in listed if isinstance(item, fx.Node)]
        elif node.op == "call_function":
            values[node.name] = step(builder, node, values)
        elif node.op != "placeholder":
            raise UnsupportedOperator(
                f"node {node.name!r} ({node.op}) of module {name} is not supported: "
                "the program has parts that are run under conditions. Rewrite the module."
            )
    if not isinstance(result, list) or len(result) != 1 or not isinstance(result[0], Variable):
        raise ModelError(
            f"module {name} does not return one tensor that depends on its input. "
            "Wrap it so that forward returns the logits alone."
        )
    return builder.build(result[0].name, result[0].tail)


def constants_of(program: ExportedProgram) -> dict[str, Value]:
    """Parameters, buffers and lifted constants by the names of their placeholders."""
    found: dict[str, Value] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT or spec.target is None:
            continue
        held = program.state_dict.get(spec.target)
        found[spec.arg.name] = program.constants.get(spec.target) if held is None else held
    return found


def step(builder: GraphBuilder, node: fx.Node, values: Mapping[str, Value]) -> Value:
    """The value of one operation: read into the graph, or computed if everything is constant."""

    def given(argument: object) -> Value:
        if isinstance(argument, fx.Node):
            return values[argument.name]
        if isinstance(argument, list | tuple):
            return [given(item) for item in argument]
        return argument

    arguments = [given(argument) for argument in node.args]
    named = {key: given(argument) for key, argument in node.kwargs.items()}
    if node.target is operator.getitem:
        parts, position = arguments
        assert isinstance(parts, list | tuple)
        assert isinstance(position, int)
        return parts[position]
    target = node.target
    call = Call(builder, node.name, str(target), {}, None)
    if not isinstance(target, torch._ops.OpOverload):
        raise call.unsupported("there is no sound rule for it")
    op = target._schema.name.replace("::", ".")
    if op in IGNORED:
        return None
    call = Call(builder, node.name, op, bound(target, arguments, named), inner_shape(node))
    if not any(depends(value) for value in (*arguments, *named.values())):
        return computed(call, target, arguments, named)
    reader = READERS.get(op)
    if reader is None:
        raise call.unsupported(f"there is no sound rule for the operator {op!r}")
    return checked(call, reader(call))


def bound(
    target: torch._ops.OpOverload, arguments: list[Value], named: Mapping[str, Value]
) -> dict[str, Value]:
    """Arguments by the names of the operator's schema, with its defaults."""
    found: dict[str, Value] = {}
    for position, parameter in enumerate(target._schema.arguments):
        if position < len(arguments):
            found[parameter.name] = arguments[position]
        elif parameter.name in named:
            found[parameter.name] = named[parameter.name]
        elif parameter.has_default_value():
            found[parameter.name] = parameter.default_value
    return found


def inner_shape(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of the node's one result without batch axis; None if it is not of that form."""
    shape = getattr(node.meta.get("val"), "shape", None)
    if shape is None or len(shape) < 1 or shape[0] != BATCH:
        return None
    inner = tuple(int(length) for length in shape[1:])
    if torch.Size(inner).numel() > MAX_ENTRIES:
        raise ModelError(
            f"node {node.name!r} has a result of shape {inner}: more than {MAX_ENTRIES} entries. "
            "Use a smaller model."
        )
    return inner


def depends(value: Value) -> bool:
    """Whether a value, or one in a list, depends on the input."""
    if isinstance(value, list | tuple):
        return any(depends(item) for item in value)
    return isinstance(value, Variable)


def computed(
    call: Call,
    target: torch._ops.OpOverload,
    arguments: list[Value],
    named: Mapping[str, Value],
) -> Value:
    """The value of an operation on constants, in the module's own arithmetic."""
    if torch.Tag.nondeterministic_seeded in target.tags:
        raise call.unsupported("it draws random numbers, so the module has no fixed function")
    with torch.no_grad():
        found: Value = target(*arguments, **named)
    return found


def checked(call: Call, found: Value) -> Value:
    """What a reader returned, after a check that the batch axis is still in front.

    Raises:
        UnsupportedOperator: if the program's own shape says otherwise.
    """
    if isinstance(found, Variable) and call.shape != call.inner(found):
        raise call.unsupported(
            f"its result has shape {call.shape} per sample in the module, "
            f"{call.inner(found)} in our reading; it mixes samples or moves the batch axis"
        )
    return found
