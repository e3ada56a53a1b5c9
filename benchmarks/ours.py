"""The adapter through which the benchmarks call our own bounds.

Kept thin so that the driver does not change when the library does: load the model once (cached,
its time reported apart), then time the bound computation alone. By default the bounds are plain
float32 like the peers'; `rigorous` gives the ones that verdicts rest on (float64, with every
rounding of ours and of a float32 execution charged).
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.outcome import Outcome
from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.bounders.slopes import Ascent
from verify.graph.ir import Graph
from verify.memory import keep_freed_memory
from verify.problem import Problem
from verify.protocols import Bounder
from verify.readers.onnx import read_onnx
from verify.values.budget import Budget
from verify.values.region import Box
from verify.values.rounding import FLOAT32, Rounding
from verify.values.spec import classified_as

ITERATIONS = 20
"""Of alpha-CROWN, for us and for the peer."""


@lru_cache(maxsize=64)
def loaded(model: Path, dtype: torch.dtype) -> tuple[Graph, float]:
    """The graph in one arithmetic, and the seconds it took to read."""
    keep_freed_memory()
    start = time.perf_counter()
    graph = read_onnx(model).graph.to(dtype)
    return graph, time.perf_counter() - start


def bounder(method: str, rounding: Rounding | None) -> Bounder:
    """Our method of that name; raises KeyError for an unknown one."""
    known: dict[str, Bounder] = {
        "ibp": Interval(rounding),
        "crown": Crown(rounding),
        "alpha-crown": AlphaCrown(rounding, Ascent(ITERATIONS)),
    }
    return known[method]


@torch.no_grad()
def bound(
    model: Path,
    lower: Tensor,
    upper: Tensor,
    label: Tensor,
    method: str,
    *,
    rigorous: bool = False,
) -> Outcome:
    """Our margins of a batch of boxes.

    Args:
        model: ONNX file, unpacked.
        lower: shape (batch, *input), float32, in model input units.
        upper: the same shape.
        label: shape (batch,), integer.
        method: "ibp", "crown" or "alpha-crown" (20 iterations).
        rigorous: with rounding accounted for, in float64.
    """
    dtype = torch.float64 if rigorous else torch.float32
    graph, build_seconds = loaded(model, dtype)
    spec = classified_as(label, graph.output.size).to(dtype)
    box = Box(lower.to(dtype), upper.to(dtype))
    method_ = bounder(method, FLOAT32 if rigorous else None)
    start = time.perf_counter()
    enclosure = method_(Problem(graph, box, spec), Budget())
    seconds = time.perf_counter() - start
    return Outcome(enclosure.margin.to(torch.float32), seconds, build_seconds)
