"""The work of `verify info`: tables of layers, operators and methods."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.table import Table
from rich.text import Text

from verify.cli.presenting import Presenter
from verify.graph.ir import Node
from verify.readers.onnx import OnnxModel
from verify.readers.onnx_file import read_model_file
from verify.readers.onnx_importer import READERS
from verify.recipes import METHODS
from verify.report import ModelStamp, Record
from verify.runtime import CrossCheck


def record_of(model: OnnxModel, check: CrossCheck) -> Record:
    """The same as data; the layers are in the summary, as no input is judged."""
    graph = model.graph
    summary: dict[str, object] = {
        "supported": True,
        "input": model.input_name,
        "input_shape": list(model.input_shape),
        "output": model.output_name,
        "outputs": graph.output.size,
        "tail": graph.tail,
        "opset": model.opset,
        "dtype": model.dtype,
        "parameters": graph.parameters(),
        "operators": dict(sorted(model.operators.items())),
        "layers": [
            {
                "name": node.name,
                "operator": node.op,
                "shape": list(node.shape),
                "parameters": parameters(node),
            }
            for node in graph.nodes
        ],
        "largest_difference": check.difference,
        "notes": list(model.notes),
        "methods": dict(METHODS),
    }
    return Record("info", {}, ModelStamp(str(model.path), model.sha256), summary, ())


def print_model(model: OnnxModel, check: CrossCheck, show: Presenter) -> None:
    """Layers, totals, how our reading compares with ONNX Runtime, and the methods there are."""
    console, graph = show.console, model.graph
    facts = {
        "file": str(model.path),
        "sha256": model.sha256,
        "opset": str(model.opset),
        "input": f"{model.input_name} {shape_text(model.onnx_input_shape)}, {model.dtype}",
        "output": f"{model.output_name}, {graph.output.size} classes"
        + (f" (after {graph.tail})" if graph.tail else ""),
        "operators": ", ".join(f"{n} {op}" for op, n in sorted(model.operators.items())),
    }
    for name, value in facts.items():
        console.print(Text(f"{name + ':':<11}{value}"), soft_wrap=True)
    table = Table(title="layers, after folding")
    for heading in ("name", "operator", "shape"):
        table.add_column(heading)
    table.add_column("parameters", justify="right")
    for node in graph.nodes:
        cells = (node.name, node.op, shape_text(node.shape), f"{parameters(node):,}")
        table.add_row(*(Text(cell) for cell in cells))
    table.add_section()
    table.add_row(f"{len(graph.nodes)} layers", "", "", f"{graph.parameters():,}")
    console.print(table)
    lines = [
        "supported: every operator has sound bounds",
        f"checked against ONNX Runtime on {check.samples} random inputs: "
        f"largest difference {check.difference:.1e}",
        *model.notes,
        "methods:",
        *(f"  {name:<12} {what}" for name, what in METHODS.items()),
    ]
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def print_unsupported(path: Path, show: Presenter) -> None:
    """Each operator of a file that cannot be read, and whether it is known here."""
    proto = read_model_file(path).proto
    counts = Counter(node.op_type for node in proto.graph.node)
    table = Table(title=Text(f"operators of {path}"))
    table.add_column("operator")
    table.add_column("nodes", justify="right")
    table.add_column("supported")
    for name, count in sorted(counts.items()):
        known = "yes (in some forms)" if name in READERS else "no"
        table.add_row(Text(name), str(count), known)
    if not show.options.quiet:
        show.console.print(table)


def parameters(node: Node) -> int:
    """How many constants a node holds."""
    return sum(tensor.numel() for tensor in node.tensors.values())


def shape_text(shape: tuple[int | str, ...]) -> str:
    """A shape as people write it."""
    return " x ".join(str(length) for length in shape) or "scalar"
