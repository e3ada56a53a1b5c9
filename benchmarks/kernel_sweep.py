"""How far ONNX Runtime's float32 sigmoid and tanh are from the true functions, over every float.

    python -m benchmarks.kernel_sweep            (a few minutes; all 2^32 bit patterns but NaN)
    python -m benchmarks.kernel_sweep --every 64

The constant `KERNEL_DEVIATION` in verify/ops/s_shaped.py has to be above what this prints. The
reference is torch's float64 function, itself within a few 1e-16.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper
from rich.console import Console
from rich.progress import track
from torch import Tensor

from verify.ops.s_shaped import KERNEL_DEVIATION

BLOCK = 2**22
"""Bit patterns per call."""
PATTERNS = 2**32
TRUE: dict[str, Callable[[Tensor], Tensor]] = {"Sigmoid": torch.sigmoid, "Tanh": torch.tanh}


@dataclass(frozen=True, slots=True)
class Worst:
    """The largest absolute deviation met, and where."""

    deviation: float
    at: float


def session(op: str) -> onnxruntime.InferenceSession:
    """A one-node model in ONNX Runtime."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"])], op, values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def blocks(every: int) -> Iterator[np.ndarray]:
    """All float32 values that are not NaN, or every so many of them, in blocks."""
    for start in range(0, PATTERNS, BLOCK * every):
        bits = np.arange(start, min(start + BLOCK * every, PATTERNS), every, dtype=np.uint64)
        values = bits.astype(np.uint32).view(np.float32)
        yield values[~np.isnan(values)]


def sweep(op: str, every: int, odd: int) -> Worst:
    """The worst deviation of one operator.

    Args:
        op: "Sigmoid" or "Tanh".
        every: take every so many bit patterns.
        odd: drop so many values from each block's end, so that the scalar tail of the vectorised
            kernel is exercised as well as its body.
    """
    run, worst = session(op), Worst(0.0, 0.0)
    total = -(-PATTERNS // (BLOCK * every))
    for values in track(blocks(every), description=op, total=total):
        taken = values[: len(values) - odd]
        if not len(taken):
            continue
        found = torch.from_numpy(run.run(None, {"x": taken})[0]).to(torch.float64)
        gap = (found - TRUE[op](torch.from_numpy(taken).to(torch.float64))).abs()
        place = int(gap.argmax())
        if not float(gap[place]) <= worst.deviation:
            worst = Worst(float(gap[place]), float(taken[place]))
    return worst


def main(arguments: list[str] | None = None) -> int:
    """Sweep both operators; the exit code is 1 if the constant is too small."""
    parser = argparse.ArgumentParser(prog="benchmarks.kernel_sweep")
    parser.add_argument("--every", type=int, default=1)
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    console, bad = Console(), False
    for op in TRUE:
        worst = sweep(op, given.every, odd=3)
        bad |= not worst.deviation <= KERNEL_DEVIATION[op]
        console.print(
            f"{op}: at most {worst.deviation:.3e} (at x = {worst.at:.9g}); "
            f"the rules allow {KERNEL_DEVIATION[op]:.0e}"
        )
    return int(bad)


if __name__ == "__main__":
    raise SystemExit(main())
