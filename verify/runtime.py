"""Runtime: the original file in ONNX Runtime, which judges candidates and checks our reading.

The claim that tashika makes is about the file as ONNX Runtime executes it. So the sessions here are
made from the very bytes that were read, know nothing of our graph, and have the last word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from verify.errors import MismatchError, ModelError, ShapeError
from verify.graph.ir import Graph
from verify.traverse import run

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SAMPLES = 3
"""Random inputs per magnitude in `cross_check`."""

MAGNITUDES = (1.0, 100.0)
"""Standard deviations of normal inputs in `cross_check`; others are uniform in [0, 1]."""

RELATIVE = 1e-4
"""Difference allowed between the file in float32 and our graph in float64, relative to the largest
output: some 1,700 float32 roundings, while a wrong reading is off by far more."""

SENSITIVITY = 32.0
"""Further difference allowed, in units of what float32 costs our own graph at the same input: nets
that cancel large terms lose more than RELATIVE, in any order of summation, and by a like amount."""

KERNEL = 1e-6
"""Further difference allowed where deployed kernels of activations are only accurate absolutely: a
sigmoid of -10, say, is off by a few 1e-7 of 1 and not of itself."""

KERNELS = ("Sigmoid", "Tanh", "Erf", "Gelu", "GeluTanh", "Softmax", "Softplus", "Sin", "Cos")
"""The operators of which that is so."""

SILENT = 4
"""ONNX Runtime's log level "fatal": its errors arrive as exceptions, once."""


class Bytes(Protocol):
    """What a session is made from."""

    @property
    def path(self) -> Path:
        """Where it was read from, for messages."""

    @property
    def data(self) -> bytes:
        """The serialised model."""


class RunnableModel(Protocol):
    """What the runtime needs of a model that was read; `verify.readers.onnx.OnnxModel` is one."""

    @property
    def graph(self) -> Graph:
        """Our reading of it."""

    @property
    def path(self) -> Path:
        """Where it was read from, for messages."""

    @property
    def data(self) -> bytes:
        """The serialised model that was read."""

    @property
    def input_name(self) -> str:
        """Of the one input."""

    @property
    def output_name(self) -> str:
        """Of the one output."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample, without batch axis."""

    @property
    def has_batch_axis(self) -> bool:
        """Whether the file's input has a batch axis in front of that."""

    @property
    def batched(self) -> bool:
        """Whether the file leaves the batch size open."""

    @property
    def dtype(self) -> str:
        """Of the file's input: "float32" or "float64"."""


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """How far our graph and the file's own runtime were apart.

    Attributes:
        samples: inputs compared, each with and without the runtime's graph optimisations.
        difference: the largest difference of two outputs, in the units of the output.
        share: the largest difference as a share of what was allowed there; at most 1.
    """

    samples: int
    difference: float
    share: float


class Runtime:
    """An ONNX model in ONNX Runtime on the CPU; a `verify.protocols.Judge`.

    Attributes:
        model: as read.
        batchable: whether many inputs may be run at once: the file leaves the batch size open, and
            two inputs at once gave what they gave one by one.
    """

    def __init__(self, model: RunnableModel, *, threads: int = 1) -> None:
        """Start the sessions.

        Args:
            model: as read by `verify.readers.onnx.read_onnx`.
            threads: for one operator; the results of more than one may vary in the last bits.

        Raises:
            ModelError: if ONNX Runtime does not accept the model.
        """
        self.model = model
        self._threads = threads
        self._optimised = session(model, threads, optimise=True)
        self._literal: InferenceSession | None = None
        self.batchable = model.batched and self._batches_agree()

    def run(self, x: Tensor) -> Tensor:
        """The file's own output, the final softmax included.

        Args:
            x: inputs of shape (batch, *input); rounded to float32.

        Returns:
            Shape (batch, *output) as in the graph, in the dtype of the file.

        Raises:
            ShapeError: if the inputs do not have the model's shape.
            ModelError: if the runtime fails.
        """
        if self.batchable and len(x) > 1:
            return self._outputs(self._optimised, x)
        return self._one_by_one(self._optimised, x)

    def predict(self, x: Tensor) -> Tensor:
        """The class of the largest output of each input, the first of equals; int64, (batch,)."""
        return self.run(x).flatten(1).argmax(dim=1)

    def misclassified(self, x: Tensor, labels: Tensor) -> Tensor:
        """Which inputs the file itself puts strictly above their label, with any optimisation.

        Each input is run alone, with and without the runtime's graph optimisations; it counts only
        if some other output is strictly larger than the label's in both. NaN counts as not shown.

        Args:
            x: shape (batch, *input); rounded to float32.
            labels: int64, shape (batch,).

        Returns:
            bool, shape (batch,).
        """
        verdict = strictly_above(self.run(x), labels)
        for position in verdict.nonzero().flatten().tolist():
            one = slice(position, position + 1)
            verdict[one] = torch.stack(
                [strictly_above(self._outputs(s, x[one]), labels[one]) for s in self.sessions()]
            ).all(dim=0)
        return verdict

    def sessions(self) -> Iterator[InferenceSession]:
        """The optimised session, then the literal one, which is started when first asked for."""
        yield self._optimised
        if self._literal is None:
            self._literal = session(self.model, self._threads, optimise=False)
        yield self._literal

    def each_way(self, x: Tensor) -> list[Tensor]:
        """The outputs of every session, each input run alone; shape (batch, *output) each."""
        return [self._one_by_one(s, x) for s in self.sessions()]

    def _one_by_one(self, which: InferenceSession, x: Tensor) -> Tensor:
        if not len(x):
            return torch.zeros(0, *self.model.graph.output.shape)
        return torch.cat([self._outputs(which, row[None]) for row in x])

    def _outputs(self, which: InferenceSession, x: Tensor) -> Tensor:
        model = self.model
        if tuple(x.shape[1:]) != model.input_shape:
            raise ShapeError(
                f"{model.path} takes inputs of shape {model.input_shape}, "
                f"but got {tuple(x.shape[1:])}. Reshape the data."
            )
        # Rounded to float32 first, whatever the file computes in: those are the inputs certified.
        fed = x.detach().to("cpu", torch.float32).contiguous().numpy().astype(model.dtype)
        fed = fed if model.has_batch_axis else fed[0]
        try:
            (found,) = which.run([model.output_name], {model.input_name: fed})
        except Exception as error:  # onnxruntime has no common base for what it raises
            raise ModelError(
                f"ONNX Runtime cannot run {model.path}: {one_line(error)}. Export the model again."
            ) from error
        expected = len(x) * model.graph.output.size
        if found.size != expected:
            raise MismatchError(
                f"{model.path} gives {found.size} outputs for {len(x)} inputs, expected {expected} "
                f"(shape {found.shape}). Please report this model."
            )
        return torch.from_numpy(np.asarray(found)).reshape(len(x), *model.graph.output.shape)

    def _batches_agree(self) -> bool:
        x = torch.rand(2, *self.model.input_shape, generator=torch.Generator().manual_seed(0))
        alone = self._one_by_one(self._optimised, x)
        try:
            together = self._outputs(self._optimised, x)
        except ModelError:
            return False
        scale = float(alone.abs().max())
        return bool(((together - alone).abs() <= RELATIVE * scale).all())


def session(model: Bytes, threads: int, *, optimise: bool) -> InferenceSession:
    """A CPU session on the bytes that were read.

    Raises:
        ModelError: if ONNX Runtime does not accept them.
    """
    import onnxruntime  # 60 ms that `verify --help` need not wait for

    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common base for what it raises
        raise ModelError(
            f"ONNX Runtime does not accept {model.path}: {one_line(error)}. Export the model again."
        ) from error


def one_line(error: Exception) -> str:
    """What an exception says, without line breaks."""
    return " ".join(str(error).split())


def strictly_above(output: Tensor, labels: Tensor) -> Tensor:
    """Where some other output is strictly larger than the label's; bool, (batch,)."""
    flat = output.flatten(1)
    own = flat.gather(1, labels.to(torch.int64)[:, None])
    # The label's own output is never above itself, and a comparison with NaN is false.
    return (flat > own).any(dim=1)


def probes(model: RunnableModel, seed: int) -> Tensor:
    """Random inputs of several magnitudes, float32, shape (batch, *input)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (SAMPLES, *model.input_shape)
    uniform = torch.rand(shape, generator=generator)
    normal = [torch.randn(shape, generator=generator) * size for size in MAGNITUDES]
    return torch.cat((uniform, *normal))


def cross_check(model: RunnableModel, runtime: Runtime, *, seed: int = 0) -> CrossCheck:
    """Compare our graph in float64 with the file in ONNX Runtime on random inputs.

    Args:
        model: as read.
        runtime: of the same model.
        seed: of the inputs.

    Raises:
        MismatchError: if an output differs by more than rounding can explain.
        ModelError: if the runtime does not accept or run the model.
    """
    x = probes(model, seed)
    exact = with_tail(run(model.graph, x), model.graph.tail)
    single = with_tail(run(model.graph.to(torch.float32), x), model.graph.tail).to(torch.float64)
    scale = exact.flatten(1).abs().amax(dim=1)
    cost = (single - exact).abs().flatten(1).amax(dim=1)
    # Our own float32 may overflow where the runtime's operators do not (a LogSoftmax, which is put
    # together of others here): then it explains nothing, and the rest has to do.
    cost = torch.where(torch.isnan(cost) & torch.isfinite(scale), 0.0, cost)
    allowed = RELATIVE * scale + SENSITIVITY * cost + torch.finfo(torch.float32).tiny
    if any(node.op in KERNELS for node in model.graph.nodes):
        allowed = allowed + KERNEL
    worst, share = 0.0, 0.0
    for output in runtime.each_way(x):
        gap = (output.to(torch.float64) - exact).abs().flatten(1).amax(dim=1)
        # A NaN, of theirs or ours, must not pass: hence not "gap > allowed".
        if not bool((gap <= allowed).all()):
            row = int((~(gap <= allowed)).nonzero()[0])
            raise MismatchError(
                f"our reading of {model.path} and ONNX Runtime disagree: outputs differ by "
                f"{float(gap[row]):.3g} on random input {row} (seed {seed}), where rounding "
                f"explains at most {float(allowed[row]):.3g} (largest output "
                f"{float(scale[row]):.3g}). Nothing is certified; please report this model."
            )
        worst = max(worst, float(gap.max()))
        share = max(share, float((gap / allowed).max()))
    return CrossCheck(len(x), worst, share)


def with_tail(output: Tensor, tail: str | None) -> Tensor:
    """The graph's output with the operator that the import left out applied."""
    flat = output.flatten(1)
    if tail == "Softmax":
        return flat.softmax(dim=1).view_as(output)
    return flat.log_softmax(dim=1).view_as(output) if tail == "LogSoftmax" else output


class Tap:
    """Inner tensors of a file, as ONNX Runtime computes them without graph optimisations.

    The user's file is not touched: a copy in memory gets more outputs.

    Attributes:
        model: as read.
        names: of the tensors.
    """

    def __init__(self, model: RunnableModel, names: Sequence[str], *, threads: int = 1) -> None:
        """Start a session on the copy.

        Raises:
            ModelError: if the file has no such tensor, or ONNX Runtime refuses the copy.
        """
        import onnx

        self.model, self.names = model, tuple(names)
        proto = onnx.load_from_string(model.data)
        known = {output for node in proto.graph.node for output in node.output}
        for name in names:
            if name not in known:
                raise ModelError(
                    f"{model.path} has no tensor {name!r}, so ONNX Runtime cannot show it. "
                    "Watch other layers."
                )
        present = {output.name for output in proto.graph.output}
        for name in dict.fromkeys(names):
            if name not in present:
                proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        self._session = session(_Copy(model, proto.SerializeToString()), threads, optimise=False)

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """The tensors at inputs of shape (batch, *input), one input at a time; (batch, *tensor)."""
        model = self.model
        rows: list[list[Tensor]] = []
        for one in x.detach().to("cpu", torch.float32):
            fed = one.contiguous().numpy().astype(model.dtype)
            fed = fed[None] if model.has_batch_axis else fed
            found = self._session.run(list(self.names), {model.input_name: fed})
            rows.append([torch.from_numpy(np.asarray(part)) for part in found])
        return {
            name: torch.cat([row[i] if model.has_batch_axis else row[i][None] for row in rows])
            for i, name in enumerate(self.names)
            if rows
        }


@dataclass(frozen=True, slots=True)
class _Copy:
    """A model with other bytes."""

    model: RunnableModel
    data: bytes

    @property
    def path(self) -> Path:
        """Of the original."""
        return self.model.path
