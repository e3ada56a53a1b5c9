"""An ONNX file as a network: its outputs, any inner value beside them, its Dropout nodes active.

The file itself is never changed: what is added is added to a copy in memory. Inputs are run as the
file wants them: many at once where it leaves its batch axis open, else as many as it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from uncertainty.errors import UncertaintyInputError
from uncertainty.seeding import derived_seed

if TYPE_CHECKING:
    import onnx

Array = NDArray[np.float64]
CHUNK = 1024
"""Inputs run at once where the file leaves that open."""


class OnnxNetwork:
    """A one-input ONNX model in ONNX Runtime on the CPU.

    Args:
        source: path of the file, or its bytes (unpacked, with external data brought in).
        node: an inner value to return beside the first output: a value's name, or the name of the
            node that makes it.
        dropout: make Dropout nodes drop, with masks that a seed decides (see `run`).

    Attributes:
        input_name: of the input.
        input_shape: without the batch axis; lengths that the file leaves open are None.
        output_names: the first output, then the inner value where one was asked for.

    Raises:
        UncertaintyInputError: if the file cannot be read or run, has several inputs, has no value
            of that name, or has no active Dropout node where `dropout` is asked for.
    """

    def __init__(
        self, source: str | Path | bytes, *, node: str | None = None, dropout: bool = False
    ) -> None:
        import onnxruntime

        self.name = "the model" if isinstance(source, bytes) else str(source)
        proto = read(source)
        weights = {tensor.name for tensor in proto.graph.initializer}
        given = [value for value in proto.graph.input if value.name not in weights]
        if len(given) != 1 or not proto.graph.output:
            raise UncertaintyInputError(
                f"{self.name} has {len(given)} inputs and {len(proto.graph.output)} outputs, "
                "expected one input and at least one output."
            )
        self.input_name = given[0].name
        lengths = [
            d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None
            for d in given[0].type.tensor_type.shape.dim
        ]
        self.batch, self.input_shape = (lengths[0], tuple(lengths[1:])) if lengths else (None, ())
        self.dtype = (
            np.float64 if given[0].type.tensor_type.elem_type == 11 else np.float32  # DOUBLE
        )
        self.output_names = [proto.graph.output[0].name]
        if node is not None:
            self.output_names.append(expose(proto, node, self.name))
        self.rates: dict[str, float] = activate_dropout(proto, self.name) if dropout else {}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise UncertaintyInputError(
                f"ONNX Runtime does not run {self.name}: {error}. Check that the file is whole."
            ) from error
        self._mask_shapes = self._shapes_of_masks()

    def run(self, x: ArrayLike | Tensor, *, seed: int | None = None) -> list[Array]:
        """The output, then the inner value where one was asked for, each of shape (N, ...).

        Args:
            x: shape (N, *input).
            seed: of the dropout masks: one mask a node, the same for every input, so that a seed
                is one thinned network. None drops nothing.

        Raises:
            UncertaintyInputError: if the inputs do not fit the file.
        """
        array = np.asarray(x.detach().cpu().numpy() if isinstance(x, Tensor) else x)
        if array.ndim < 1 or array.dtype.kind not in "fiub" or not np.isfinite(array).all():
            raise UncertaintyInputError("x must hold finite numbers, shape (N, *input).")
        if all(length is not None for length in self.input_shape):
            shape = tuple(int(length) for length in self.input_shape if length is not None)
            if int(np.prod(array.shape[1:])) != int(np.prod(shape)):
                raise UncertaintyInputError(
                    f"x has inputs of shape {array.shape[1:]}, but {self.name} takes {shape}."
                )
            array = array.reshape(len(array), *shape)
        if not len(array):
            raise UncertaintyInputError("there are no inputs; give at least one.")
        masks = self._masks(seed)
        parts = [self._run_batch(part, masks) for part in self._batches(array)]
        return [np.concatenate(outputs)[: len(array)] for outputs in zip(*parts, strict=True)]

    def _batches(self, array: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        size = CHUNK if self.batch is None else self.batch
        short = -len(array) % size if self.batch is not None else 0
        full = np.concatenate([array, np.repeat(array[-1:], short, axis=0)]) if short else array
        return [full[i : i + size] for i in range(0, len(full), size)]

    def _run_batch(
        self, part: NDArray[np.generic], masks: Mapping[str, NDArray[np.generic]]
    ) -> list[Array]:
        feed = {self.input_name: part.astype(self.dtype), **masks}
        try:
            found = self._session.run(self.output_names, feed)
        except Exception as error:  # as above
            raise UncertaintyInputError(
                f"{self.name} cannot be run on inputs of shape {part.shape}: {error}."
            ) from error
        if any(value.ndim < 1 or len(value) != len(part) for value in found):
            raise UncertaintyInputError(
                f"{self.name} gives {[value.shape for value in found]} for {len(part)} inputs, "
                "expected one row for each; name a value that keeps the batch axis."
            )
        return [np.asarray(value, dtype=np.float64) for value in found]

    def _masks(self, seed: int | None) -> dict[str, NDArray[np.generic]]:
        masks: dict[str, NDArray[np.generic]] = {}
        for i, (name, rate) in enumerate(self.rates.items()):
            shape = self._mask_shapes[name]
            if seed is None:
                masks[name] = np.ones(shape, dtype=self.dtype)
                continue
            draws = np.random.default_rng(derived_seed(seed, "dropout", i)).random(shape)
            masks[name] = ((draws >= rate) / (1 - rate)).astype(self.dtype)
        return masks

    def _shapes_of_masks(self) -> dict[str, tuple[int, ...]]:
        """One row of each dropped value: its shape behind the batch axis, from the session."""
        shapes: dict[str, tuple[int, ...]] = {}
        for value in self._session.get_inputs():
            if value.name in self.rates:
                shapes[value.name] = tuple(int(length) for length in value.shape)
        return shapes


def read(source: str | Path | bytes) -> onnx.ModelProto:
    """The model as protobuf; the caller may change it, the file stays.

    Raises:
        UncertaintyInputError: if it cannot be read.
    """
    import onnx

    try:
        if isinstance(source, bytes):
            return onnx.load_model_from_string(source)
        return onnx.load(str(source))
    except Exception as error:  # protobuf's, the file system's and onnx's own share no base
        what = "the bytes given" if isinstance(source, bytes) else str(source)
        raise UncertaintyInputError(f"cannot read {what} as an ONNX model: {error}.") from error


def expose(proto: onnx.ModelProto, wanted: str, name: str) -> str:
    """Make an inner value an output of this copy; returns the value's name.

    Raises:
        UncertaintyInputError: if no value and no node has that name.
    """
    import onnx

    by_node = {node.name: node.output[0] for node in proto.graph.node if node.output and node.name}
    values = [output for node in proto.graph.node for output in node.output]
    value = wanted if wanted in values else by_node.get(wanted)
    if value is None:
        raise UncertaintyInputError(
            f"{name} has no value or node {wanted!r}; it has: {', '.join(values)}."
        )
    if value not in {output.name for output in proto.graph.output}:
        # Type and shape are left to ONNX Runtime, which infers both.
        proto.graph.output.append(onnx.ValueInfoProto(name=value))
    return value


def head_inputs(proto: onnx.ModelProto) -> str | None:
    """The value that enters the last Gemm or MatMul: what is usually called the features."""
    for node in reversed(proto.graph.node):
        if node.op_type in {"Gemm", "MatMul"}:
            return str(node.input[0])
    return None


def activate_dropout(proto: onnx.ModelProto, name: str) -> dict[str, float]:
    """Replace Dropout nodes in this copy by products with masks that become inputs.

    Returns:
        The dropping rate of each mask, by its name, in the order of the nodes.

    Raises:
        UncertaintyInputError: if there is no Dropout node that would drop anything.
    """
    import onnx
    from onnx import numpy_helper

    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    shapes = shapes_of_values(proto)
    rates: dict[str, float] = {}
    for node in proto.graph.node:
        if node.op_type != "Dropout":
            continue
        stated = [a.f for a in node.attribute if a.name == "ratio"]  # before opset 12
        if len(node.input) > 1 and node.input[1]:
            stated = [float(constants[node.input[1]])] if node.input[1] in constants else [0.5]
        rate = stated[0] if stated else 0.5
        shape = shapes.get(node.input[0])
        if not 0 < rate < 1:
            continue
        if shape is None:
            raise UncertaintyInputError(
                f"the shape of {node.input[0]!r}, which a Dropout node of {name} drops from, "
                "cannot be inferred; export the file with fixed shapes behind the batch axis."
            )
        if len(node.output) > 1 and node.output[1]:
            raise UncertaintyInputError(
                f"a Dropout node of {name} gives out its mask; export without that."
            )
        mask = f"tashika_mask_{len(rates)}"
        kind = next(v for v in proto.graph.input).type.tensor_type.elem_type
        proto.graph.input.append(onnx.helper.make_tensor_value_info(mask, kind, [1, *shape]))
        data, out = node.input[0], node.output[0]
        node.Clear()
        node.CopyFrom(onnx.helper.make_node("Mul", [data, mask], [out]))
        rates[mask] = rate
    if not rates:
        raise UncertaintyInputError(
            f"{name} has no Dropout node, and one network without dropout has no spread: exporters "
            "drop these nodes in eval mode. Export with "
            "torch.onnx.export(..., training=torch.onnx.TrainingMode.PRESERVE, "
            "do_constant_folding=False) from a network in train mode, or give several files."
        )
    return rates


def shapes_of_values(proto: onnx.ModelProto) -> dict[str, Sequence[int]]:
    """Shapes behind the batch axis, of all values whose shape is known there."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto)
    known: dict[str, Sequence[int]] = {}
    for value in [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]:
        lengths = [d.dim_value for d in value.type.tensor_type.shape.dim][1:]
        if all(length > 0 for length in lengths):
            known[value.name] = lengths
    return known


def last_dense(proto: onnx.ModelProto) -> tuple[Array, Array] | None:
    """Weight (K, F) and bias (K,) of the last Gemm or MatMul (and its Add), if constant."""
    from onnx import numpy_helper

    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    nodes = list(proto.graph.node)
    for i, node in reversed(list(enumerate(nodes))):
        if node.op_type not in {"Gemm", "MatMul"}:
            continue
        if node.input[1] not in constants:
            return None
        weight = constants[node.input[1]].astype(np.float64)
        values = {a.name: a for a in node.attribute}
        turned = node.op_type == "Gemm" and "transB" in values and values["transB"].i
        weight = weight if turned else weight.T
        bias = np.zeros(len(weight))
        if node.op_type == "Gemm":
            weight = weight * (values["alpha"].f if "alpha" in values else 1.0)
            if len(node.input) > 2 and node.input[2] in constants:
                beta = values["beta"].f if "beta" in values else 1.0
                bias = bias + beta * constants[node.input[2]].astype(np.float64).reshape(-1)
        for later in nodes[i + 1 :]:
            if later.op_type == "Add" and node.output[0] in later.input:
                other = next(name for name in later.input if name != node.output[0])
                if other in constants:
                    bias = bias + constants[other].astype(np.float64).reshape(-1)
        return weight, bias
    return None
