"""A reader for the classification properties of VNN-COMP: one input box, one label.

It knows only this family (bounds on single inputs, and a disjunction in which each other output
reaches the label's), and refuses anything else. The full VNN-LIB reader belongs to `verify`; this
one is separate so that the benchmark does not judge the tool with the tool's own reader.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
INPUT_BOUND = re.compile(rf"\((<=|>=)\s+X_(\d+)\s+({NUMBER})\s*\)")
OUTPUT_COMPARISON = re.compile(r"\((<=|>=)\s+Y_(\d+)\s+Y_(\d+)\s*\)")
DECLARATION = re.compile(r"\(declare-const\s+([XY])_(\d+)\s+Real\)")
COMMENT = re.compile(r";[^\n]*")


class PropertyFormatError(ValueError):
    """The file is not a box with a label, so this reader does not know it."""


@dataclass(frozen=True, slots=True, eq=False)
class BoxProperty:
    """Every input of the box must be classified as `label`.

    Attributes:
        lower: shape (inputs,), float64, in model input units, flattened in ONNX order.
        upper: the same shape.
        label: the output that must stay above all others.
    """

    lower: Tensor
    upper: Tensor
    label: int


def read_text(path: Path) -> str:
    """The text of a file, unpacked if its name ends in .gz."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


def parse_box_property(text: str, where: str) -> BoxProperty:
    """The box and the label that a VNN-LIB text states.

    Args:
        text: the property file's content.
        where: the file's name, for messages.

    Raises:
        PropertyFormatError: if an input lacks a bound, or the output condition is not "some other
            output reaches the label's".
    """
    text = COMMENT.sub("", text)
    declared = {axis: 0 for axis in "XY"}
    for axis, _ in DECLARATION.findall(text):
        declared[axis] += 1
    lower = torch.full((declared["X"],), float("nan"), dtype=torch.float64)
    upper = lower.clone()
    for comparison, index, value in INPUT_BOUND.findall(text):
        (upper if comparison == "<=" else lower)[int(index)] = float(value)
    missing = int((lower.isnan() | upper.isnan()).sum())
    if missing:
        raise PropertyFormatError(
            f"cannot read the input box of {where}: {missing} of {declared['X']} inputs lack a "
            "bound, expected (<= X_i c) and (>= X_i c) for each. Use a file with a full box."
        )
    return BoxProperty(lower, upper, label_of(text, declared["Y"], where))


def label_of(text: str, outputs: int, where: str) -> int:
    """The output that every term of the disjunction compares another output with."""
    # (>= Y_j Y_label) and (<= Y_label Y_j) both say that output j reaches the label's.
    pairs = [
        (int(left), int(right)) if comparison == ">=" else (int(right), int(left))
        for comparison, left, right in OUTPUT_COMPARISON.findall(text)
    ]
    labels = {label for _, label in pairs}
    others = {other for other, _ in pairs}
    if len(labels) != 1 or others != set(range(outputs)) - labels or "(or" not in text:
        raise PropertyFormatError(
            f"cannot read the label of {where}: expected a disjunction comparing each of the other "
            f"{outputs - 1} outputs with one label, got {len(pairs)} comparisons with labels "
            f"{sorted(labels)}. This reader serves robustness properties only."
        )
    return labels.pop()


def read_box_property(path: Path) -> BoxProperty:
    """The box and the label of a VNN-LIB file, packed with gzip or not."""
    return parse_box_property(read_text(path), path.name)
