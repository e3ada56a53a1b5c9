"""The Gauss-Newton matrix of a network's weights: in full, or as Kronecker factors of each layer.

Both are sums over samples, are diagonalised once, and then answer for any prior precision delta:
eigenvalues, and J (H + delta I)^-1 J^T for the outputs' derivatives J.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uncertainty.errors import UncertaintyInputError
from uncertainty.models.base import evaluating
from uncertainty.models.weights import WeightSpace, linear_layers

MOST_WEIGHTS = 8_000
"""Of a full matrix: its float64 entries take half a gigabyte, its eigenvectors as much."""


class FullCurvature:
    """sum_n J_n^T C_n J_n, shape (P, P).

    Raises:
        UncertaintyInputError: if there are too many weights for that.
    """

    def __init__(self, space: WeightSpace) -> None:
        if space.size > MOST_WEIGHTS:
            raise UncertaintyInputError(
                f"{space.size} weights are too many for a full curvature, at most {MOST_WEIGHTS}; "
                "use structure='kron' or subset='last_layer'."
            )
        self.matrix = torch.zeros((space.size, space.size), dtype=torch.float64)
        self._values, self._vectors = torch.zeros(0), torch.zeros(0)

    def add(self, x: Tensor, jacobians: Tensor, fisher: Tensor) -> None:
        """Take more samples: derivatives (N, O, P) and Fisher information (N, O, O)."""
        weighted = fisher @ jacobians
        self.matrix += torch.einsum("nop,noq->pq", jacobians, weighted).cpu()

    def finish(self) -> None:
        """Diagonalise."""
        values, vectors = torch.linalg.eigh((self.matrix + self.matrix.T) / 2)
        # A sum of squares: what is below 0 is rounding.
        self._values, self._vectors = values.clamp(min=0), vectors

    def eigenvalues(self) -> NDArray[np.float64]:
        """Shape (P,), >= 0."""
        return self._values.numpy()

    def function_covariance(self, jacobians: Tensor, delta: float) -> Tensor:
        """J (H + delta I)^-1 J^T, shape (N, O, O)."""
        turned = jacobians.cpu() @ self._vectors
        return torch.einsum("nop,nqp->noq", turned / (self._values + delta), turned)


@dataclass(slots=True, eq=False)
class Factors:
    """Of one Linear layer: sums of a a^T over inputs (a 1 for the bias), of g g^T over outputs.

    Attributes:
        inputs: A, shape (in + 1, in + 1) or (in, in).
        outputs: G, shape (out, out).
        columns: where the layer's weight, then its bias, lie in the vector of weights.
        bias: whether there is one.
    """

    inputs: Tensor
    outputs: Tensor
    columns: tuple[slice, ...]
    bias: bool


class KroneckerCurvature:
    """One pair of factors for each Linear layer: its block of the matrix is about A x G.

    Exact for a layer whose input and output side do not depend on each other (one sample, or the
    only layer of a regression), an approximation otherwise (Martens and Grosse 2015,
    arXiv:1503.05671). Blocks between layers are left out.
    """

    def __init__(self, space: WeightSpace) -> None:
        self.space, self.count = space, 0
        places, start = dict[str, slice](), 0
        for name, shape in zip(space.names, space.shapes, strict=True):
            places[name] = slice(start, start + shape.numel())
            start += shape.numel()
        self.factors: dict[str, Factors] = {}
        for name, layer in linear_layers(space.network).items():
            own = [f"{name}.{p}" if name else p for p in ("weight", "bias")]
            columns = tuple(places[p] for p in own if p in places)
            if columns:
                bias = layer.bias is not None
                wide, tall = layer.in_features + bias, layer.out_features
                self.factors[name] = Factors(
                    torch.zeros((wide, wide), dtype=torch.float64),
                    torch.zeros((tall, tall), dtype=torch.float64),
                    columns,
                    bias,
                )
        self._turned: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def add(self, x: Tensor, jacobians: Tensor, fisher: Tensor) -> None:
        """Take more samples; see `FullCurvature.add`."""
        self.count += len(x)
        values, vectors = torch.linalg.eigh(fisher)
        root = vectors * values.clamp(min=0).sqrt()[:, None, :]  # C = root root^T
        for name, a in self._layer_inputs(x).items():
            factor = self.factors[name]
            block = self._block(jacobians, factor)  # (N, O, out, in + 1) = g a^T
            # The derivative in the bias is g itself; without one, g is read off by projection.
            g = (
                block[..., -1]
                if factor.bias
                else torch.einsum("nkoi,ni->nko", block, a)
                / (a**2).sum(dim=1).clamp(min=1e-300)[:, None, None]
            )
            weighted = torch.einsum("nkc,nko->nco", root, g)
            factor.inputs += torch.einsum("ni,nj->ij", a, a).cpu()
            factor.outputs += torch.einsum("nco,ncp->op", weighted, weighted).cpu()

    def finish(self) -> None:
        """Diagonalise every factor; the sum over samples is counted once, not twice."""
        for name, factor in self.factors.items():
            a_values, a_vectors = torch.linalg.eigh(factor.inputs / self.count)
            g_values, g_vectors = torch.linalg.eigh(factor.outputs)
            spread = g_values.clamp(min=0)[:, None] * a_values.clamp(min=0)[None, :]
            self._turned[name] = (spread, a_vectors, g_vectors)

    def eigenvalues(self) -> NDArray[np.float64]:
        """Of all blocks, shape (P,), >= 0."""
        return torch.cat([spread.reshape(-1) for spread, _, _ in self._turned.values()]).numpy()

    def function_covariance(self, jacobians: Tensor, delta: float) -> Tensor:
        """J (H + delta I)^-1 J^T, shape (N, O, O): exact for these factors, without damping."""
        jacobians = jacobians.cpu()
        count, outputs = jacobians.shape[:2]
        found = torch.zeros((count, outputs, outputs), dtype=torch.float64)
        for name, (spread, a_vectors, g_vectors) in self._turned.items():
            block = self._block(jacobians, self.factors[name])
            turned = g_vectors.T @ block @ a_vectors
            found += torch.einsum("nkoi,nloi->nkl", turned / (spread + delta), turned)
        return found

    def _block(self, jacobians: Tensor, factor: Factors) -> Tensor:
        """One layer's columns as matrices, the bias as a last column; (N, O, out, in + bias)."""
        tall = len(factor.outputs)
        parts = [
            jacobians[..., columns].reshape(*jacobians.shape[:2], tall, -1)
            for columns in factor.columns
        ]
        return torch.cat(parts, dim=-1)

    def _layer_inputs(self, x: Tensor) -> dict[str, Tensor]:
        """What enters each layer, with a 1 for the bias, shape (N, in + bias)."""
        seen: dict[str, Tensor] = {}
        network = self.space.network
        layers = linear_layers(network)

        def keep(name: str) -> None:
            def hook(module: object, given: tuple[Tensor, ...]) -> None:
                if name in seen or given[0].ndim != 2:
                    raise UncertaintyInputError(
                        f"layer {name!r} is used twice or on more than one vector a sample; "
                        "Kronecker factors are not there for that."
                    )
                seen[name] = given[0].detach().double()

            hooks.append(layers[name].register_forward_pre_hook(hook))

        hooks: list[torch.utils.hooks.RemovableHandle] = []
        try:
            for name in self.factors:
                keep(name)
            with evaluating(network), torch.no_grad():
                network(x)
        finally:
            for hook in hooks:
                hook.remove()
        return {
            name: torch.cat((a, torch.ones_like(a[:, :1])), dim=1) if self.factors[name].bias else a
            for name, a in seen.items()
        }
