"""What detectors look at: inputs, features and logits of a torch module or of an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from uncertainty.arrays import as_floats
from uncertainty.errors import UncertaintyInputError
from uncertainty.models.base import CHUNK, evaluating
from uncertainty.models.training import inputs
from uncertainty.onnx_network import OnnxNetwork, head_inputs, last_dense, read

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """The last dense layer: logits = features W^T + b.

    Attributes:
        weight: shape (K, F).
        bias: shape (K,).
    """

    weight: Array
    bias: Array

    def __call__(self, features: Array) -> Array:
        """Shape (N, F) -> (N, K)."""
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """What a network made of N inputs.

    Attributes:
        logits: shape (N, K), K >= 2.
        features: shape (N, F), or None; as a rule what enters the last dense layer.
        inputs: shape (N, D), flattened, or None.
        head: from features to logits, or None where the features are of another layer.

    Raises:
        UncertaintyInputError: if their lengths differ, or a number is not finite.
    """

    logits: Array
    features: Array | None = None
    inputs: Array | None = None
    head: Head | None = None

    def __post_init__(self) -> None:
        for name in ("logits", "features", "inputs"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, as_floats(value, name, axes=2))
                if len(value) != len(self.logits):
                    raise UncertaintyInputError(
                        f"{name} has {len(value)} rows, logits {len(self.logits)}; give one each."
                    )
        if self.logits.shape[1] < 2:
            raise UncertaintyInputError(
                f"logits have shape {self.logits.shape}; a detector needs two classes or more."
            )

    def __len__(self) -> int:
        return len(self.logits)

    def rows(self, which: NDArray[np.int64] | slice) -> Activations:
        """Some of the inputs."""
        return Activations(
            self.logits[which],
            None if self.features is None else self.features[which],
            None if self.inputs is None else self.inputs[which],
            self.head,
        )

    def need(self, name: str, who: str) -> Array:
        """The features or inputs.

        Raises:
            UncertaintyInputError: if they were not kept.
        """
        value: Array | None = getattr(self, name)
        if value is None:
            raise UncertaintyInputError(f"{who} needs {name}, which these activations lack.")
        return value

    def need_head(self, who: str) -> Head:
        """The head, checked to belong to these features.

        Raises:
            UncertaintyInputError: if there is none.
        """
        if self.head is None:
            raise UncertaintyInputError(
                f"{who} needs the features that enter the last dense layer, and that layer; leave "
                "out the layer's name, or use another method."
            )
        return self.head


def pooled(values: Array) -> Array:
    """Features as vectors: maps (N, C, *space) are averaged over space, as heads usually do."""
    if values.ndim > 2:
        values = values.reshape(*values.shape[:2], -1).mean(axis=2)
    return values


class TorchActivations:
    """Activations of a torch module, taken by a hook; the module is left as it was.

    Args:
        network: gives logits, shape (N, K).
        layer: name (as in `named_modules`) of the layer whose output is the feature; by default the
            input of the last Linear layer.

    Raises:
        UncertaintyInputError: if there is no such layer.
    """

    def __init__(self, network: nn.Module, layer: str | None = None) -> None:
        self.network, self.layer = network, layer
        modules = dict(network.named_modules())
        linear = [m for m in modules.values() if isinstance(m, nn.Linear)]
        if layer is not None and layer not in modules:
            raise UncertaintyInputError(
                f"the network has no layer {layer!r}; it has: {', '.join(n for n in modules if n)}."
            )
        if layer is None and not linear:
            raise UncertaintyInputError("the network has no Linear layer; name a layer.")
        self._last = linear[-1] if linear else None
        self._watched = self._last if layer is None else modules[layer]

    def __call__(self, x: ArrayLike | Tensor) -> Activations:
        """Activations of these inputs."""
        x = inputs(x, self.network)
        logits, features = [], []
        caught: list[Tensor] = []

        def before(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            caught.append(given[0])

        def after(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            caught.append(output)

        assert self._watched is not None
        hook = (
            self._watched.register_forward_pre_hook(before)
            if self.layer is None
            else self._watched.register_forward_hook(after)
        )
        try:
            with evaluating(self.network), torch.no_grad():
                for part in x.split(CHUNK):
                    caught.clear()
                    logits.append(self.network(part).double().cpu())
                    if len(caught) != 1:
                        raise UncertaintyInputError(
                            f"the layer ran {len(caught)} times for one batch; name another."
                        )
                    features.append(caught[0].double().cpu())
        finally:
            hook.remove()
        return made(torch.cat(logits).numpy(), torch.cat(features).numpy(), x.cpu(), self._head())

    def _head(self) -> Head | None:
        if self.layer is not None or self._last is None:
            return None
        weight = self._last.weight.detach().double().cpu().numpy()
        bias = self._last.bias
        return Head(
            weight, np.zeros(len(weight)) if bias is None else bias.detach().double().cpu().numpy()
        )


class OnnxActivations:
    """Activations of an ONNX file in ONNX Runtime; the file is never changed.

    Args:
        source: path of the file, or its bytes.
        node: name of a value, or of the node that makes it; by default what enters the last Gemm or
            MatMul.

    Raises:
        UncertaintyInputError: if the file cannot be run or has no such value.
    """

    def __init__(self, source: str | Path | bytes, node: str | None = None) -> None:
        proto = read(source)
        default = head_inputs(proto)
        chosen = node or default
        inner = [output for n in proto.graph.node for output in n.output]
        if chosen is None:
            raise UncertaintyInputError(
                "the file has no Gemm or MatMul to take features from; name a node."
            )
        # What enters the only layer is the input itself.
        self._of_input = node is None and chosen not in inner
        self.network = OnnxNetwork(source, node=None if self._of_input else chosen)
        self.node = chosen
        own = last_dense(proto) if node in {None, default} else None
        self._head = None if own is None else Head(*own)

    def __call__(self, x: ArrayLike | Tensor) -> Activations:
        """Activations of these inputs."""
        outputs = self.network.run(x)
        raw = torch.as_tensor(np.asarray(x) if not isinstance(x, Tensor) else x)
        features = raw.flatten(1).double().numpy() if self._of_input else outputs[1]
        logits = outputs[0].reshape(len(raw), -1)
        return made(logits, features, raw, self._head)


def made(logits: Array, features: Array, x: Tensor, head: Head | None) -> Activations:
    """Activations whose head is kept only if it does lead from the features to the logits."""
    if features.ndim > 2:
        head = None
    features = pooled(features.reshape(len(features), -1) if features.ndim < 2 else features)
    if head is not None:
        fits = head.weight.shape == (logits.shape[1], features.shape[1])
        scale = 1 + np.abs(logits).max(initial=0)
        if not fits or np.abs(head(features) - logits).max(initial=0) > 1e-3 * scale:
            head = None
    return Activations(logits, features, x.flatten(1).double().cpu().numpy(), head)
