"""How far ONNX Runtime's float32 activations are from the true functions, over every float.

    python -m benchmarks.kernel_sweep --out sweep.jsonl      (all 2^32 patterns; resumes)
    python -m benchmarks.kernel_sweep --far 64 --out sweep.jsonl

What the rules charge (`KERNEL_DEVIATION` in verify/ops/s_shaped.py, `DEVIATIONS` in
verify/ops/curve.py) has to be above what this prints, by a factor of two where other builds of the
kernels may differ. The reference is torch's float64 function, itself within a few 1e-16.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor

from verify.bounders.interval import Interval
from verify.graph.ir import Node
from verify.ops.affine import EXTRA_ROUNDINGS
from verify.ops.curve import DEVIATIONS
from verify.ops.curves import FARTHEST, FLUSHED
from verify.ops.registry import lookup, noise_of
from verify.ops.s_shaped import KERNEL_DEVIATION
from verify.problem import Problem
from verify.readers.onnx import read_model
from verify.readers.onnx_file import ModelFile
from verify.values.bounds import Bounds
from verify.values.region import Box
from verify.values.rounding import FLOAT32, UNIT_FLOAT32
from verify.values.spec import Spec

Single = NDArray[np.float32]
BLOCK = 2**16
"""Values per call: what a cache holds."""
CHUNK = 2**26
"""Bit patterns per line of the file of results."""
PATTERNS = 2**32
TAIL = 3
"""Values dropped from each chunk's last block, so that the scalar tail of the vectorised kernel is
exercised as well as its body."""


Truth = Callable[[Tensor], Tensor]


def gelu(x: Tensor) -> Tensor:
    """x·Phi(x); erfc does not cancel for negative x."""
    return torch.special.erfc(x * -math.sqrt(0.5)).mul_(x).mul_(0.5)


def elu(scale: float, alpha: float) -> Truth:
    """scale·(x, or alpha·(exp(x) - 1) below 0)."""
    return lambda x: torch.where(x > 0, x, alpha * torch.expm1(x)) * scale


def gelu_by_tanh(x: Tensor) -> Tensor:
    """x·sigmoid(2u) with u = sqrt(2/pi)·(x + 0.044715·x^3)."""
    return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3)))


SELU = (float(np.float32(1.05070102214813232421875)), float(np.float32(1.67326319217681884765625)))
"""gamma and alpha of the ONNX standard."""
TRUTH: dict[str, Truth] = {
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal,
    "Softplus": lambda x: x.abs().neg_().exp_().log1p_().add_(x.clamp(min=0)),
    "Erf": torch.erf,
    "Gelu": gelu,
    "GeluTanh": gelu_by_tanh,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Pow2": torch.square,
    "Pow3": lambda x: x * x * x,
    "Pow7": lambda x: x.pow(7),
    "Elu": elu(1.0, 1.0),
    "Selu": elu(*SELU),
}
"""In float64, from torch's vectorised functions: within a few 1e-16."""
FARTHER = {"Pow": "Power", "Elu": "Exp", "Selu": "Exp"}
"""Operators that are read as another one with an entry of its own."""
DOMAINS: dict[str, Callable[[Tensor], Tensor]] = {
    "Log": lambda x: x > FLUSHED,
    "Sqrt": lambda x: x >= 0,
    "Reciprocal": lambda x: x.abs() > FLUSHED,
    "Sin": lambda x: x.abs() < FARTHEST,
    "Cos": lambda x: x.abs() < FARTHEST,
}
"""Where the rules claim anything; everywhere unless said."""
COMPOSED = ("Softmax", "HardSigmoid", "HardSwish", "LogSoftmax", "LeakyRelu", "Celu")
PAIRED = ("Softmax", "LogSoftmax")
"""Of x and 0."""
"""Charged what the rules charge at a point: dearer to compute."""


@dataclass(frozen=True, slots=True)
class Worst:
    """The largest deviation met as a share of what the rules charge, and where.

    Attributes:
        share: deviation / charge.
        deviation: absolute.
        at: the input.
        value: of the function there.
    """

    share: float = 0.0
    deviation: float = 0.0
    at: float = 0.0
    value: float = 0.0


def model_of(op: str) -> onnx.ModelProto:
    """A one-node model."""
    dims = [None, 2 if op in PAIRED else 1]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in ("x", "y")]
    node, constants = helper.make_node(op, ["x"], ["y"]), []
    more = []
    if op == "GeluTanh":
        node = helper.make_node("Gelu", ["x"], ["y"], approximate="tanh")
    if op == "LogSoftmax":  # as the last one it would be left out
        node, more = helper.make_node(op, ["x"], ["z"]), [helper.make_node("Neg", ["z"], ["y"])]
    if op.startswith("Pow"):
        node = helper.make_node("Pow", ["x", "n"], ["y"])
        power = float(op.removeprefix("Pow"))
        constants = [helper.make_tensor("n", TensorProto.FLOAT, [], [power])]
    graph = helper.make_graph([node, *more], op, values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


class Kernel:
    """One operator: its deployed kernel, the truth, and what the rules charge."""

    def __init__(self, op: str) -> None:
        """Open the model."""
        self.op, data = op, model_of(op).SerializeToString()
        self.session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def executed(self, x: Single) -> Tensor:
        """What the runtime makes of the values, float64, shape (n, 1), or (n, 2) of a softmax."""
        found = self.session.run(None, {"x": self.fed(x)})[0]
        wide = torch.from_numpy(found).to(torch.float64)
        return wide[:, :1] if self.op == "LogSoftmax" else wide

    def fed(self, x: Single) -> Single:
        """The values as inputs; those of a softmax are pairs with 0."""
        return np.stack((x, np.zeros_like(x)), axis=1) if self.op in PAIRED else x[:, None]

    def worst(self, x: Single) -> Worst:
        """The worst of some values."""
        found, at = self.executed(x), torch.from_numpy(self.fed(x)).to(torch.float64)
        middle, charge = self.table(at) if self.op in TRUTH else self.point(at)
        gap = (found - middle).abs_()
        # Where nothing is claimed the charge is infinite; a NaN elsewhere must show.
        share = (gap / charge).masked_fill_(torch.isinf(charge) | (gap == 0), 0.0)
        flat = share.nan_to_num_(nan=torch.inf).flatten()
        place = int(flat.argmax())
        values = flat[place], gap.flatten()[place], at[place // found.shape[1], 0]
        return Worst(*(float(v) for v in values), float(middle.flatten()[place]))

    def table(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The truth, and the charge of the tables: the least that a rule charges at a point."""
        value, op = TRUTH[self.op](x), self.op.rstrip("237")
        if op in KERNEL_DEVIATION:
            return value, torch.full_like(value, KERNEL_DEVIATION[op])
        known = DEVIATIONS[FARTHER.get(op, op)]
        charge = known.relative * value.abs() + (known.absolute + FLOAT32.smallest)
        if FARTHER.get(op) == "Exp":  # of exp(min(x, 0)), and of subtracting 1
            power, scale = x.clamp(max=0).exp_(), math.prod(SELU) if op == "Selu" else 1.0
            charge = power * known.relative + (1 + power) * (EXTRA_ROUNDINGS * UNIT_FLOAT32)
            charge *= scale
            if op == "Selu":  # the scaling rounds what it makes, and what is linear above 0
                charge += value.abs() * (EXTRA_ROUNDINGS * UNIT_FLOAT32)
        return value, charge.masked_fill_(value.abs() >= FLOAT32.largest, torch.inf)

    def point(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Middle and half width of what the rules give each point."""
        if self.op == "Softmax":
            node = Node("y", "Softmax", ("x",), (2,), ((2,),))
            charge = noise_of(node, FLOAT32, torch.float64, (Bounds(x, x.clone()),))
            assert charge is not None
            return lookup(node).forward(node, x), charge
        model = ModelFile(Path(self.op), "", b"", model_of(self.op), ())
        graph = read_model(model).graph
        one = torch.zeros(len(x), 1, graph.output.size, dtype=x.dtype)
        one[:, :, 0] = 1.0
        zero = torch.zeros(len(x), 1, dtype=x.dtype)
        at = x.view(len(x), *graph.input.shape)
        low, high = (
            side * Interval()(Problem(graph, Box(at, at.clone()), Spec(side * one, zero))).margin
            for side in (1, -1)
        )
        half = ((high - low) / 2).nan_to_num_(nan=torch.inf)
        return torch.where(torch.isinf(half), 0.0, (low + high) / 2), half


def blocks(op: str, start: int, every: int) -> Iterator[Single]:
    """Float32 values of one chunk at which the rules claim something, or every so many of them."""
    for first in range(start, start + CHUNK, BLOCK * every):
        bits = np.arange(first, min(first + BLOCK * every, start + CHUNK), every, dtype=np.uint64)
        values = bits.astype(np.uint32).view(np.float32)
        last = first + BLOCK * every >= start + CHUNK
        taken = values[: len(values) - TAIL * last]
        taken = taken[np.isfinite(taken)]
        if op in DOMAINS:
            taken = taken[DOMAINS[op](torch.from_numpy(taken)).numpy()]
        if len(taken):
            yield taken


def swept(kernel: Kernel, start: int, every: int) -> Worst:
    """The worst deviation of one chunk."""
    worst = Worst()
    for values in blocks(kernel.op, start, every):
        found = kernel.worst(values)
        if not found.share <= worst.share:
            worst = found
    return worst


def is_near(start: int) -> bool:
    """Whether a chunk holds values from 2^-31 to 2^25, of either sign: where activations bend."""
    return 96 <= (start >> 23) % 256 < 152


def chunks(op: str, near: int, far: int, out: Path | None) -> Iterator[Worst]:
    """The worst of each chunk; those that the file holds are not swept again."""
    known: dict[int, tuple[int, Worst]] = {}
    if out is not None and out.exists():
        for line in out.read_text().splitlines():
            record = json.loads(line)
            if record.pop("op") == op:
                record.pop("seconds")
                start, step = record.pop("start"), record.pop("every")
                known[start] = step, Worst(**record)
    kernel = None
    for start in range(0, PATTERNS, CHUNK):
        every = near if is_near(start) else far
        if start in known and known[start][0] <= every:
            yield known[start][1]
            continue
        kernel, began = kernel or Kernel(op), time.process_time()
        found = swept(kernel, start, every)
        if out is not None:
            seconds = time.process_time() - began
            record = {"op": op, "every": every, "start": start, "seconds": seconds, **asdict(found)}
            with out.open("a") as file:
                file.write(json.dumps(record) + "\n")
        yield found


def main(arguments: list[str] | None = None) -> int:
    """Sweep the operators; the exit code is 1 if a charge is too small."""
    parser = argparse.ArgumentParser(prog="benchmarks.kernel_sweep")
    operators = (*TRUTH, *COMPOSED)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--far", type=int, help="likewise, where no activation bends (`is_near`)")
    parser.add_argument("--op", nargs="*", choices=operators, default=list(operators))
    parser.add_argument("--out", type=Path, help="file of results, which is also resumed from")
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    torch.set_num_threads(1)
    bad = False
    for op in given.op:
        worst = max(
            chunks(op, given.every, given.far or given.every, given.out),
            key=lambda found: found.share,
        )
        bad |= not worst.share <= 1
        print(
            f"{op}: at most {worst.share:.3f} of the charge "
            f"({worst.deviation:.3e} at x = {worst.at:.9g}, where f = {worst.value:.6g})",
            flush=True,
        )
    return int(bad)


if __name__ == "__main__":
    raise SystemExit(main())
