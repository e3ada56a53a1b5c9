"""Deferred: what the file computes from whole numbers that its input is cut to.

Slices whose start is an input, for instance.

Shapes in between may depend on those numbers, so nothing of it can be a node. It is kept as a list
of steps until it meets a tensor with a fixed shape; there it becomes one `Program` node, which runs
the steps on given whole numbers, by the same readers that fold constants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from verify.errors import UnsupportedOperator, VerifyError
from verify.readers.onnx_node import OnnxNode
from verify.readers.onnx_whole import INT32, INT64, read_typed

if TYPE_CHECKING:
    from verify.readers.onnx_importer import Importer, Value, Variable

    Reader = Callable[[Importer, OnnxNode], list[Value]]

WHOLE: dict[int, type[np.signedinteger[Any]]] = {INT32: np.int32, INT64: np.int64}
"""By the element types of ONNX: sums and products of the narrower ones wrap around earlier."""
REMEMBERED = 256
"""Results that a program keeps."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """A tensor of which only the steps are known; its shape may depend on whole numbers."""

    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Not known: nobody may ask."""
        raise UnsupportedOperator(f"the shape of {self.name!r} depends on the network's input")


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Nodes that compute one tensor from whole numbers and constants.

    Attributes:
        nodes: in order.
        sources: names of the whole numbers, their shapes and element types in the file.
        constants: that the nodes read.
        name: of the result.
        batch: whether the leading 1 of the result is left out.
        shape: that the result must have, in the file.
        known: results so far.
    """

    nodes: tuple[OnnxNode, ...]
    sources: tuple[tuple[str, tuple[int, ...], int], ...]
    constants: dict[str, np.ndarray]
    name: str
    batch: bool = False
    shape: tuple[int, ...] = ()
    known: dict[tuple[int, ...], Tensor] = field(default_factory=dict)

    def array(self, whole: tuple[int, ...]) -> np.ndarray:
        """The result in the file's shape; raises what the readers raise."""
        from verify.readers.onnx_importer import Importer

        run = Importer("input", (1, 1), free_batch=False)
        run.may_be_empty = True
        run.values.update(self.constants)
        for (name, shape, kind), number in zip(self.sources, whole, strict=True):
            run.values[name] = np.full(shape, number, dtype=WHOLE[kind])
        for node in self.nodes:
            run.read(node)
        found = run.values[self.name]
        assert isinstance(found, np.ndarray)
        return found

    def __call__(self, *whole: int) -> Tensor:
        """The result without batch axis, float64; NaN where the file fails or changes its shape."""
        found = self.known.get(whole)
        if found is not None:
            return found
        inner = self.shape[1:] if self.batch else self.shape
        try:
            array = self.array(whole)
        except VerifyError:
            array = np.empty(0)
        if array.shape == self.shape and array.dtype.kind in "fiub":
            found = torch.from_numpy(np.array(array, dtype=np.float64)).view(inner or (1,))
        else:
            found = torch.full(inner or (1,), torch.nan, dtype=torch.float64)
        if len(self.known) >= REMEMBERED:
            self.known.clear()
        self.known[whole] = found
        return found


@dataclass(slots=True)
class Counted:
    """What of a file depends on nothing but whole numbers.

    Attributes:
        sources: scalars that were cut to whole numbers, as nodes of the graph.
        whole: element types of all nodes that hold whole numbers.
        steps: which node of the file computes each further tensor.
    """

    sources: dict[str, Variable] = field(default_factory=dict)
    whole: dict[str, int] = field(default_factory=dict)
    steps: dict[str, OnnxNode] = field(default_factory=dict)

    def holds(self, name: str) -> bool:
        """Whether a tensor is one of them."""
        return name in self.sources or name in self.steps


def read_counted(importer: Importer, node: OnnxNode, reader: Reader) -> list[Value]:
    """What a reader makes of a node, or steps where whole numbers stand where constants should."""
    counted, names = importer.counted, [name for name in node.inputs if name]
    if not any(counted.holds(name) for name in names):
        found = read_typed(importer, node, reader)
        is_cut = node.op == "Cast" and node.integer("to", 0) in WHOLE
        if is_cut and not isinstance(found[0], np.ndarray) and np.prod(found[0].shape) == 1:
            counted.sources[node.outputs[0]] = found[0]
        return found
    deferred = [name for name in names if isinstance(importer.values.get(name), Deferred)]
    alone = all(counted.holds(n) or isinstance(importer.values.get(n), np.ndarray) for n in names)
    if not alone:
        for name in deferred:
            importer.values[name] = stood(importer, node, name)
        return read_typed(importer, node, reader)
    counted.steps.update((name, node) for name in node.outputs if name)
    if not deferred:
        try:
            return read_typed(importer, node, reader)
        except UnsupportedOperator:
            pass
    return [Deferred(name) for name in node.outputs]  # type: ignore[misc]


def stood(importer: Importer, node: OnnxNode, name: str) -> Variable:
    """A deferred tensor as a node of the graph."""
    steps = steps_to(importer, name)
    try:
        shape = steps.array((0,) * len(steps.sources)).shape
    except VerifyError as error:
        raise node.unsupported(
            f"{name!r} depends on whole numbers in the input, and computing it fails: {error}"
        ) from error
    importer.guard(node, shape)
    from verify.readers.onnx_importer import leads_with_batch

    batch = leads_with_batch(shape)
    fixed = Steps(steps.nodes, steps.sources, steps.constants, name, batch, shape)
    sources = tuple(importer.counted.sources[source] for source, *_ in steps.sources)
    whole = tuple(
        importer.viewed(node, source, (1,), batch=False, step=f"whole{i}/{name}")
        for i, source in enumerate(sources)
    )
    return importer.emit("Program", whole, node, batch=batch, step=name, program=fixed)


def steps_to(importer: Importer, name: str) -> Steps:
    """The nodes that a deferred tensor needs, from whole numbers on."""
    counted = importer.counted
    wanted, nodes = [name], {}
    sources: dict[str, tuple[tuple[int, ...], int]] = {}
    constants: dict[str, np.ndarray] = {}
    while wanted:
        each = wanted.pop()
        value = importer.values.get(each)
        if each in counted.sources:
            sources[each] = counted.sources[each].shape, counted.whole[each]
        elif isinstance(value, np.ndarray):
            constants[each] = value
        elif each not in nodes:
            nodes[each] = counted.steps[each]
            wanted += [i for i in counted.steps[each].inputs if i]
    # In the order of the file, each once though it may have several outputs.
    order = list(dict.fromkeys(id(node) for node in counted.steps.values()))
    chosen = {id(node): node for node in nodes.values()}
    ordered = tuple(chosen[i] for i in order if i in chosen)
    whole = tuple((source, *known) for source, known in sources.items())
    return Steps(ordered, whole, constants, name)
