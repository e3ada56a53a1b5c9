"""ONNX file -> Graph: `read_onnx`.

The file is untrusted: sizes are bounded before memory is asked for, external data stay in the
model's folder, nothing of it is executed, and whatever is wrong with it is one ModelError.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from verify.errors import ModelError, UnsupportedOperator, VerifyError
from verify.graph.ir import Graph
from verify.graph.passes import simplify
from verify.readers import (  # noqa: F401  (each fills the table of operators)
    onnx_conv,
    onnx_counting,
    onnx_dense,
    onnx_elementwise,
    onnx_fold,
    onnx_movement,
    onnx_norm,
    onnx_pool,
    onnx_product,
    onnx_resize,
    onnx_shapes,
    onnx_smooth,
)
from verify.readers.onnx_deferred import Deferred
from verify.readers.onnx_file import ModelFile, array_of, read_model_file, refuse_nonfinite
from verify.readers.onnx_importer import (
    MAX_ENTRIES,
    Importer,
    Variable,
    leads_with_batch,
)
from verify.readers.onnx_node import STANDARD_DOMAINS, wrap

OPSETS = range(7, 24)
"""Versions of the standard operator set whose forms are read; 7 brought numpy's broadcasting."""

DTYPES = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}


@dataclass(frozen=True, slots=True, eq=False)
class OnnxModel:
    """A model file as read.

    Attributes:
        graph: the network, float64.
        path: of the file.
        sha256: hex digest of the file's bytes on disk.
        data: the serialised model that was read, for the runtime.
        input_name: of the one real input.
        output_name: of the one output.
        input_shape: of one sample, without batch axis.
        onnx_input_shape: as the file states it; a symbolic length is its name or "?".
        batched: whether the file leaves the batch size open.
        dtype: of the input: "float32" or "float64".
        opset: version of the standard operator set.
        operators: how often the file uses each operator.
        notes: what a user should know of the reading.
    """

    graph: Graph
    path: Path
    sha256: str
    data: bytes = field(repr=False)
    input_name: str
    output_name: str
    input_shape: tuple[int, ...]
    onnx_input_shape: tuple[int | str, ...]
    batched: bool
    dtype: str
    opset: int
    operators: Counter[str]
    notes: tuple[str, ...]

    @property
    def has_batch_axis(self) -> bool:
        """Whether axis 0 of the file's input is a batch axis; if not, a sample is all of it."""
        return len(self.onnx_input_shape) == len(self.input_shape) + 1


@dataclass(frozen=True, slots=True)
class InputDeclaration:
    """What the file says of its input: the name, the shape as stated, and the element type."""

    name: str
    stated: tuple[int | str, ...]
    dtype: str


def read_onnx(path: str | Path) -> OnnxModel:
    """Read a feed-forward network from an .onnx or .onnx.gz file.

    Raises:
        UnsupportedOperator: if the network uses an operator, or a form of one, without a rule.
        ModelError: if the file is missing, damaged, or not one network with one input and output.
    """
    path = Path(path)
    try:
        return read_model(read_model_file(path))
    except VerifyError:
        raise
    except MemoryError as error:
        raise ModelError(f"{path} needs more memory than there is. Use a smaller model.") from error
    except RecursionError as error:
        raise ModelError(f"{path} is nested too deeply. Export the model again.") from error
    except Exception as error:  # an untrusted file must not escape as anything else
        raise ModelError(
            f"{path} cannot be read: {type(error).__name__}: {error}. "
            "If the model runs in ONNX Runtime, please report this."
        ) from error


def read_model(file: ModelFile) -> OnnxModel:
    """The network that a parsed file holds; raises as `read_onnx` does."""
    proto, path = file.proto, file.path
    opset = opset_of(proto, path)
    if proto.functions:
        raise UnsupportedOperator(
            f"{path} defines {len(proto.functions)} operators of its own (functions). "
            "Export the model with them inlined."
        )
    if proto.graph.sparse_initializer:
        raise UnsupportedOperator(f"{path} holds sparse weights. Export them as dense ones.")
    arrays = initializers(proto, path)
    declared = input_of(proto, arrays, path)
    output = output_of(proto, path)
    shape = sample_shape(declared, path)
    free = declared.stated[0] != shape[0]
    importer = Importer(declared.name, shape, free_batch=free, double=declared.dtype == "float64")
    clash = importer.values.keys() & arrays.keys()
    if clash:
        raise ModelError(f"{path}: the name {sorted(clash)[0]!r} is given twice. Export it again.")
    importer.values.update(arrays)
    for index, entry in enumerate(proto.graph.node):
        importer.read(wrap(entry, opset, index))
    result: object = importer.values.get(output)
    if not isinstance(result, Variable):
        what = "does not depend on the input" if result is not None else "is produced by no node"
        if isinstance(result, Deferred):
            what = "is computed from whole numbers alone, which is not supported"
        raise ModelError(f"{path}: the output {output!r} {what}. Export the model again.")
    return OnnxModel(
        graph=simplify(importer.builder.build(result.name, result.tail)),
        path=path,
        sha256=file.sha256,
        data=file.data,
        input_name=declared.name,
        output_name=output,
        input_shape=shape[1:] if leads_with_batch(shape) else shape,
        onnx_input_shape=declared.stated,
        batched=free,
        dtype=declared.dtype,
        opset=opset,
        operators=Counter(node.op_type for node in proto.graph.node),
        notes=file.notes + notes_on(declared, shape),
    )


def opset_of(proto: onnx.ModelProto, path: Path) -> int:
    """The version of the standard operator set that the file asks for."""
    versions = {o.version for o in proto.opset_import if o.domain in STANDARD_DOMAINS}
    if len(versions) != 1:
        raise ModelError(
            f"{path} asks for versions {sorted(versions)} of the standard operators, expected "
            "one. Export the model again."
        )
    (version,) = versions
    if version not in OPSETS:
        raise ModelError(
            f"{path} uses opset {version}; {OPSETS.start} to {OPSETS.stop - 1} are read. "
            "Export the model with one of these (opset_version=17, say)."
        )
    return int(version)


def initializers(proto: onnx.ModelProto, path: Path) -> dict[str, np.ndarray]:
    """The stored tensors by name, checked for NaN; single infinite entries may be bounds."""
    arrays: dict[str, np.ndarray] = {}
    for tensor in proto.graph.initializer:
        if tensor.name in arrays or not tensor.name:
            raise ModelError(
                f"{path}: the initializer {tensor.name!r} is given twice or has no name. "
                "Export the model again."
            )
        array = array_of(tensor)
        refuse_nonfinite(array, tensor.name, str(path), nan_only=array.size == 1)
        arrays[tensor.name] = array
    return arrays


def input_of(proto: onnx.ModelProto, arrays: dict[str, np.ndarray], path: Path) -> InputDeclaration:
    """The one input that is not an initializer (old exporters list those as inputs, too)."""
    inputs = [i for i in proto.graph.input if i.name not in arrays]
    if len(inputs) != 1 or not inputs[0].name:
        raise ModelError(
            f"{path} has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}), expected "
            "one. Export the model with a single input."
        )
    (only,) = inputs
    kind = only.type.tensor_type
    dtype = DTYPES.get(kind.elem_type)
    if not only.type.HasField("tensor_type") or dtype is None:
        known = TensorProto.DataType.items()
        name = next((k for k, v in known if v == kind.elem_type), kind.elem_type)
        raise ModelError(
            f"{path}: the input {only.name!r} holds {name}, expected FLOAT or DOUBLE. "
            "Export the model in float32."
        )
    if not kind.HasField("shape"):
        raise ModelError(
            f"{path}: the input {only.name!r} has no stated shape. Export it with a fixed one."
        )
    stated = tuple(
        int(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim
    )
    return InputDeclaration(only.name, stated, dtype)


def output_of(proto: onnx.ModelProto, path: Path) -> str:
    """The name of the one output."""
    names = [o.name for o in proto.graph.output]
    if len(names) != 1 or not names[0]:
        raise ModelError(
            f"{path} has {len(names)} outputs ({', '.join(names)}), expected one. "
            "Export the model with the logits as its only output."
        )
    return str(names[0])


def sample_shape(declared: InputDeclaration, path: Path) -> tuple[int, ...]:
    """The input's shape for one sample: an open batch size is read as 1."""
    where = f"{path}: the input {declared.name!r} has shape {list(declared.stated)}"
    # Some exporters write an open batch size as 0 or -1.
    first, *rest = [
        "?" if isinstance(n, int) and n < 1 and axis == 0 else n
        for axis, n in enumerate(declared.stated)
    ] or ["?"]
    fixed = [n for n in rest if isinstance(n, int)]
    if len(fixed) < len(rest) or any(n < 1 for n in fixed) or (isinstance(first, str) and not rest):
        raise ModelError(
            f"{where}; only its first axis, the batch, may be open. Export it with a fixed shape."
        )
    shape = (first if isinstance(first, int) else 1, *fixed)
    if np.prod([float(n) for n in shape]) > MAX_ENTRIES:
        raise ModelError(f"{where}: more than {MAX_ENTRIES} entries. Use a smaller input.")
    return shape


def notes_on(declared: InputDeclaration, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Remarks on how the input is read."""
    notes = []
    if not leads_with_batch(shape):
        notes.append(f"no batch axis: the whole input of shape {shape} is one sample")
    if declared.dtype == "float64":
        notes.append("the file computes in float64; inputs are float32 values")
    return tuple(notes)
