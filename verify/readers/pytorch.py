"""torch.nn.Module -> Graph: `read_module`, and the module itself as judge.

The module is copied, put into evaluation mode and exported by `torch.export`; what is exported is
read operator by operator. The user's own module is neither changed nor kept.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from verify.errors import MismatchError, ModelError
from verify.graph.ir import Graph
from verify.graph.passes import simplify
from verify.readers import (  # noqa: F401  (each fills the table of operators)
    pytorch_elementwise,
    pytorch_layers,
    pytorch_movement,
    pytorch_nonlinear,
    pytorch_pool,
)
from verify.readers.pytorch_importer import BATCH, read_program
from verify.traverse import run

AT_ONCE = 256
"""Inputs that the judge runs at once."""

SAMPLES = 3
"""Random inputs per magnitude in the comparison with the module."""

RELATIVE = 1e-4
"""Difference allowed between module and graph, relative to the largest output."""

SENSITIVITY = 32.0
"""Further difference allowed, in units of what float32 costs our own graph at the same input."""

KEPT = ("aten.linear", "aten.matmul", "aten.prelu", "aten._prelu_kernel")
"""Operators that are read as they are; their decompositions fold the batch into other axes."""


@dataclass(frozen=True, slots=True, eq=False)
class ModuleJudge:
    """A module in float32 on the CPU, without gradients; a `verify.protocols.Judge`.

    Attributes:
        module: a copy of the user's, in evaluation mode.
    """

    module: nn.Module

    def run(self, x: Tensor) -> Tensor:
        """The module's own outputs, shape (batch, classes).

        Args:
            x: inputs of shape (batch, *input); rounded to float32.
        """
        single = x.detach().to("cpu", torch.float32)
        with torch.no_grad():
            parts = [
                self.module(single[i : i + AT_ONCE]).reshape(len(single[i : i + AT_ONCE]), -1)
                for i in range(0, len(single), AT_ONCE)
            ]
        return torch.cat(parts)

    def misclassified(self, x: Tensor, labels: Tensor) -> Tensor:
        """Which inputs the module puts strictly above their label, alone and in the batch."""
        verdict = strictly_above(self.run(x), labels) if len(x) else labels.bool()
        for i in verdict.nonzero().flatten().tolist():
            one = slice(i, i + 1)
            verdict[one] = strictly_above(self.run(x[one]), labels[one])
        return verdict

    def predict(self, x: Tensor) -> Tensor:
        """The class of the largest output, the first of equals; int64, (batch,)."""
        return self.run(x).argmax(dim=1) if len(x) else torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True, slots=True, eq=False)
class ModuleReading:
    """A module as read.

    Attributes:
        graph: the network, float64.
        judge: runs a copy of the module.
        notes: what a user should know of the reading.
    """

    graph: Graph
    judge: ModuleJudge
    notes: tuple[str, ...] = ()


def read_module(module: nn.Module, input_shape: tuple[int, ...]) -> ModuleReading:
    """Read a feed-forward classifier.

    Args:
        module: float32; anything that `torch.export` can trace, from one tensor of shape
            (batch, *input) to logits (batch, classes).
        input_shape: of one input, without batch axis.

    Raises:
        UnsupportedOperator: if it uses an operator, or a form of one, without a rule.
        MismatchError: if our reading and the module disagree on random inputs.
        ModelError: if it cannot be exported, or its weights are not finite float32 numbers.
    """
    name = type(module).__name__
    if not input_shape or any(length < 1 for length in input_shape):
        raise ModelError(
            f"input_shape is {input_shape}, expected the shape of one input without batch axis; "
            "give for example (3, 32, 32)"
        )
    own = private_copy(module, name)
    check_weights(own, name)
    program = exported(own, input_shape, name)
    graph = simplify(read_program(program, input_shape, name))
    judge = ModuleJudge(own)
    compare(graph, judge, input_shape, name)
    return ModuleReading(graph, judge)


def private_copy(module: nn.Module, name: str) -> nn.Module:
    """A copy on the CPU, in evaluation mode, without gradients."""
    try:
        own = copy.deepcopy(module)
    except Exception as error:  # whatever a user's own __deepcopy__ raises
        raise ModelError(
            f"module {name} cannot be copied: {error}. Give a module whose tensors are parameters "
            "or buffers, or export it to ONNX."
        ) from error
    return own.cpu().eval().requires_grad_(False)


def check_weights(module: nn.Module, name: str) -> None:
    """Raise ModelError unless every weight is a finite float32 number."""
    for key, tensor in (*module.named_parameters(), *module.named_buffers()):
        if not tensor.is_floating_point():
            continue
        if tensor.dtype != torch.float32:
            raise ModelError(
                f"tensor {key!r} of module {name} holds {tensor.dtype}, expected torch.float32. "
                "Convert it with module.float()."
            )
        if not bool(torch.isfinite(tensor).all()):
            at = (~torch.isfinite(tensor)).nonzero()[0].tolist()
            raise ModelError(
                f"tensor {key!r} of module {name} is {float(tensor[tuple(at)])} at {at}, "
                "expected finite numbers. The training diverged; train or load it again."
            )


def exported(module: nn.Module, input_shape: tuple[int, ...], name: str) -> ExportedProgram:
    """The module as a flat program of a few kinds of operators.

    Raises:
        ModelError: if `torch.export` cannot trace it.
    """
    example = torch.zeros(BATCH, *input_shape)
    try:
        # torch's own deprecations are no news for a user of ours.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (example,))
            table = torch.export.default_decompositions()
            for operator in list(table):
                if str(operator).rsplit(".", 1)[0] in KEPT:
                    del table[operator]
            flat: ExportedProgram = program.run_decompositions(table)
            return flat
    except Exception as error:  # torch.export has no common base for what it raises
        reason = str(error).strip().splitlines()[:1] or [""]
        raise ModelError(
            f"module {name} cannot be exported for inputs of shape {(BATCH, *input_shape)}: "
            f"{type(error).__name__}: {reason[0]}. Check input_shape, and that forward has no "
            "branches that depend on values; or export it to ONNX."
        ) from error


def compare(graph: Graph, judge: ModuleJudge, input_shape: tuple[int, ...], name: str) -> None:
    """Compare graph and module on random inputs, together and one by one.

    Raises:
        MismatchError: if an output differs by more than rounding can explain.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (SAMPLES, *input_shape)
    x = torch.cat([torch.rand(shape, generator=generator), torch.randn(shape, generator=generator)])
    exact = with_tail(run(graph, x).flatten(1), graph.tail)
    single = with_tail(run(graph.to(torch.float32), x).flatten(1), graph.tail)
    cost = (single - exact).abs().amax(dim=1)
    allowed = RELATIVE * exact.abs().amax(dim=1) + SENSITIVITY * cost + 2.0**-126
    for theirs in (judge.run(x), torch.cat([judge.run(row[None]) for row in x])):
        if theirs.shape != exact.shape:
            raise MismatchError(
                f"module {name} gives outputs of shape {tuple(theirs.shape)} for {len(x)} inputs, "
                f"our reading {tuple(exact.shape)}. Please report this module."
            )
        gap = (theirs - exact).abs().amax(dim=1)
        # A NaN, of theirs or ours, must not pass: hence not "gap > allowed".
        if not bool((gap <= allowed).all()):
            row = int((~(gap <= allowed)).nonzero()[0])
            raise MismatchError(
                f"our reading of module {name} and the module itself disagree: outputs differ by "
                f"{float(gap[row]):.3g} on random input {row}, where rounding explains at most "
                f"{float(allowed[row]):.3g}. Nothing is certified; if forward is deterministic, "
                "please report this module."
            )


def with_tail(output: Tensor, tail: str | None) -> Tensor:
    """Outputs of shape (batch, classes) with the operator that the reading left out applied."""
    if tail == "Softmax":
        return output.softmax(dim=1)
    return output.log_softmax(dim=1) if tail == "LogSoftmax" else output


def strictly_above(output: Tensor, labels: Tensor) -> Tensor:
    """Where some other output is strictly larger than the label's; bool, (batch,)."""
    own = output.gather(1, labels.to(torch.int64)[:, None])
    return (output > own).any(dim=1)
