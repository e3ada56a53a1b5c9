"""How far ONNX Runtime's float32 activations are from the true functions, over every float.

    python -m benchmarks.kernel_sweep            (minutes each; all finite numbers)
    python -m benchmarks.kernel_sweep --every 64 --op Exp Sin

What the rules charge (`KERNEL_DEVIATION` in verify/ops/s_shaped.py, `DEVIATIONS` in
verify/ops/curve.py) has to be above what this prints, by a factor of two where other builds of the
kernels may differ. The reference is torch's float64 function, itself within a few 1e-16.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper
from rich.console import Console
from rich.progress import track
from torch import Tensor

from verify.graph.ir import Node
from verify.ops.curve import DEVIATIONS
from verify.ops.registry import lookup, noise_of
from verify.ops.s_shaped import KERNEL_DEVIATION
from verify.values.bounds import Bounds
from verify.values.rounding import FLOAT32

BLOCK = 2**20
"""Bit patterns per call."""
PATTERNS = 2**32
OPERATORS = (*KERNEL_DEVIATION, *(op for op in DEVIATIONS if op != "Power"), "Softmax")
"""What is swept; a power is one product after the other, or std::pow."""


@dataclass(frozen=True, slots=True)
class Worst:
    """The largest deviation met as a share of what the rules charge, and where.

    Attributes:
        share: deviation / charge.
        deviation: absolute.
        at: the input.
        value: of the function there.
    """

    share: float
    deviation: float
    at: float
    value: float


def session(op: str) -> onnxruntime.InferenceSession:
    """A one-node model in ONNX Runtime."""
    dims = [None, 2] if op == "Softmax" else [None]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], op, values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def blocks(every: int) -> Iterator[np.ndarray]:
    """All finite float32 values, or every so many of them, in blocks."""
    for start in range(0, PATTERNS, BLOCK * every):
        bits = np.arange(start, min(start + BLOCK * every, PATTERNS), every, dtype=np.uint64)
        values = bits.astype(np.uint32).view(np.float32)
        yield values[np.isfinite(values)]


def given_to(op: str, values: np.ndarray) -> np.ndarray:
    """The inputs of one call: single values, or for a softmax pairs of a value and zero."""
    if op != "Softmax":
        return values
    return np.stack((values, np.zeros_like(values)), axis=1)


def charged(op: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """The function's values at float64 inputs, and what the rules charge for executing it."""
    batch = x if op == "Softmax" else x[:, None]
    node = Node("y", op, ("x",), tuple(batch.shape[1:]), (tuple(batch.shape[1:]),))
    charge = noise_of(node, FLOAT32, torch.float64, (Bounds(batch, batch.clone()),))
    assert charge is not None
    return lookup(node).forward(node, batch), charge


def sweep(op: str, every: int, odd: int) -> Worst:
    """The worst deviation of one operator.

    Args:
        op: one of `OPERATORS`.
        every: take every so many bit patterns.
        odd: drop so many values from each block's end, so that the scalar tail of the vectorised
            kernel is exercised as well as its body.
    """
    run, worst = session(op), Worst(0.0, 0.0, 0.0, 0.0)
    total = -(-PATTERNS // (BLOCK * every))
    for values in track(blocks(every), description=op, total=total):
        taken = values[: len(values) - odd]
        if not len(taken):
            continue
        fed = given_to(op, taken)
        found = torch.from_numpy(run.run(None, {"x": fed})[0]).to(torch.float64)
        value, charge = charged(op, torch.from_numpy(fed).to(torch.float64))
        gap = (found.view_as(value) - value).abs()
        # Where nothing is claimed the charge is infinite; a NaN elsewhere must show.
        share = torch.where(torch.isinf(charge), 0.0, gap / charge).nan_to_num(nan=torch.inf)
        place = int(share.flatten().argmax())
        if not float(share.flatten()[place]) <= worst.share:
            row = place // value[0].numel()
            worst = Worst(
                float(share.flatten()[place]),
                float(gap.flatten()[place]),
                float(taken[row]),
                float(value.flatten()[place]),
            )
    return worst


def main(arguments: list[str] | None = None) -> int:
    """Sweep the operators; the exit code is 1 if a charge is too small."""
    parser = argparse.ArgumentParser(prog="benchmarks.kernel_sweep")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--op", nargs="*", choices=OPERATORS, default=list(OPERATORS))
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    console, bad = Console(), False
    for op in given.op:
        worst = sweep(op, given.every, odd=3)
        bad |= not worst.share <= 1
        console.print(
            f"{op}: at most {worst.share:.3f} of the charge "
            f"({worst.deviation:.3e} at x = {worst.at:.9g}, where f = {worst.value:.6g})"
        )
    return int(bad)


if __name__ == "__main__":
    raise SystemExit(main())
