"""OnnxNode: one node of the file with typed access to attributes that nobody has checked yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

import onnx

from verify.errors import ModelError, UnsupportedOperator

STANDARD_DOMAINS = ("", "ai.onnx")

Attribute = onnx.AttributeProto


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One operation as the file states it.

    Attributes:
        op: operator type, e.g. "Conv".
        name: the node's name, or its first output's where it has none.
        inputs: tensor names; an empty name is an optional input left out.
        outputs: tensor names.
        attributes: by name.
        opset: version of the standard operator set that the file asks for.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, onnx.AttributeProto]
    opset: int

    @property
    def where(self) -> str:
        """How messages name this node."""
        return f"node {self.name!r} ({self.op})"

    def invalid(self, what: str) -> ModelError:
        """The error for a node that no valid file contains."""
        return ModelError(f"{self.where}: {what}. Check or export the model again.")

    def unsupported(self, what: str, *, remedy: str = "") -> UnsupportedOperator:
        """The error for a valid node that has no sound rule here."""
        remedy = remedy or "Export the model without it, or simplify it (onnxsim) first"
        return UnsupportedOperator(f"{self.where} is not supported: {what}. {remedy}.")

    def has(self, position: int) -> bool:
        """Whether the optional input at `position` is given."""
        return position < len(self.inputs) and self.inputs[position] != ""

    def _typed(self, name: str, kind: int) -> onnx.AttributeProto | None:
        attribute = self.attributes.get(name)
        if attribute is None:
            return None
        if attribute.ref_attr_name:
            raise self.unsupported(f"attribute {name!r} refers to a function's attribute")
        if attribute.type != kind:
            raise self.invalid(
                f"attribute {name!r} has type {attribute.type}, expected {kind} "
                f"({Attribute.AttributeType.Name(kind)})"
            )
        return attribute

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        attribute = self._typed(name, Attribute.INT)
        return default if attribute is None else int(attribute.i)

    def flag(self, name: str, default: bool) -> bool:
        """An integer attribute that must be 0 or 1."""
        value = self.integer(name, int(default))
        if value not in (0, 1):
            raise self.invalid(f"attribute {name!r} is {value}, expected 0 or 1")
        return bool(value)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """A list of integers, or None where it is not given."""
        attribute = self._typed(name, Attribute.INTS)
        return None if attribute is None else tuple(int(i) for i in attribute.ints)

    def number(self, name: str, default: float) -> float:
        """A finite real attribute (the float32 of the file, exactly)."""
        attribute = self._typed(name, Attribute.FLOAT)
        value = default if attribute is None else float(attribute.f)
        if not isfinite(value):
            raise self.invalid(f"attribute {name!r} is {value}, expected a finite number")
        return value

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        attribute = self._typed(name, Attribute.STRING)
        return default if attribute is None else attribute.s.decode("utf-8", "replace")

    def axis(self, axis: int, rank: int) -> int:
        """A possibly negative axis, counted from the front."""
        if not -rank <= axis < rank:
            raise self.invalid(f"axis {axis} is out of range for a tensor of rank {rank}")
        return axis + rank if axis < 0 else axis

    def axes(self, axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
        """Several axes, counted from the front, ascending and different."""
        found = sorted(self.axis(axis, rank) for axis in axes)
        if len(set(found)) != len(found):
            raise self.invalid(f"axes {axes} name one axis twice")
        return tuple(found)


def wrap(proto: onnx.NodeProto, opset: int, index: int) -> OnnxNode:
    """The node of a file, once it is known to be one of the standard operators without subgraphs.

    Raises:
        UnsupportedOperator: for another domain, or a node that holds graphs (If, Loop, Scan).
        ModelError: if attributes repeat or there is no output.
    """
    texts = (proto.op_type, proto.name, proto.domain, *proto.input, *proto.output)
    if any(not isinstance(t, str) for t in (*texts, *(a.name for a in proto.attribute))):
        raise ModelError(f"node #{index} holds a name that is no text. Export the model again.")
    label = proto.name or next((o for o in proto.output if o), f"#{index}")
    attributes = {a.name: a for a in proto.attribute}
    node = OnnxNode(
        proto.op_type, label, tuple(proto.input), tuple(proto.output), attributes, opset
    )
    if proto.domain not in STANDARD_DOMAINS:
        raise UnsupportedOperator(
            f"{node.where} belongs to the operator domain {proto.domain!r}; only the standard "
            "ONNX operators are supported. Export the model without custom operators."
        )
    if any(a.type in (Attribute.GRAPH, Attribute.GRAPHS) for a in proto.attribute):
        raise node.unsupported("it runs subgraphs, so the network has no fixed structure")
    if len(attributes) != len(proto.attribute):
        raise node.invalid("an attribute is given twice")
    if not any(proto.output):
        raise node.invalid("it has no output")
    return node
