"""Ensembles of ONNX files, and one ONNX file whose Dropout nodes drop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from uncertainty.errors import UncertaintyInputError
from uncertainty.models.base import Posterior
from uncertainty.models.dropout import refuse_no_spread
from uncertainty.models.likelihoods import CLASSES, Likelihood
from uncertainty.onnx_network import OnnxNetwork
from uncertainty.seeding import derived_seed


class OnnxEnsemble(Posterior):
    """Files trained from different seeds, as the members of an ensemble.

    Args:
        sources: paths of the files, or their bytes.
        likelihood: what their outputs mean.

    Raises:
        UncertaintyInputError: if there are none, or one cannot be run.
    """

    def __init__(
        self, sources: Sequence[str | Path | bytes], likelihood: Likelihood = CLASSES
    ) -> None:
        if not sources:
            raise UncertaintyInputError("an ensemble needs at least one ONNX file; name one.")
        self.networks = [OnnxNetwork(source) for source in sources]
        self.likelihood = likelihood

    def member_outputs(self, x: ArrayLike | Tensor) -> Tensor:
        """Outputs of every file, shape (I, N, O).

        Raises:
            UncertaintyInputError: if the files differ in their outputs.
        """
        outputs = [flat(network.run(x)[0]) for network in self.networks]
        if len({found.shape for found in outputs}) > 1:
            shapes = ", ".join(
                f"{network.name}: {found.shape[1]}"
                for network, found in zip(self.networks, outputs, strict=True)
            )
            raise UncertaintyInputError(
                f"the files differ in their numbers of outputs ({shapes}); an ensemble needs "
                "members that answer the same question."
            )
        return torch.from_numpy(np.stack(outputs))


class OnnxDropout(Posterior):
    """One file with its Dropout nodes active: each pass is one thinned network, as in MCDropout.

    Args:
        source: path of the file, or its bytes.
        passes: networks drawn.
        likelihood: what the outputs mean.
        seed: pass t depends on (seed, t) only.

    Raises:
        UncertaintyInputError: if the file has no Dropout node that drops anything.
    """

    def __init__(
        self,
        source: str | Path | bytes,
        *,
        passes: int = 50,
        likelihood: Likelihood = CLASSES,
        seed: int = 0,
    ) -> None:
        if passes < 2:
            raise UncertaintyInputError(f"passes is {passes}, expected at least 2.")
        self.network = OnnxNetwork(source, dropout=True)
        self.passes, self.likelihood, self.seed = passes, likelihood, seed

    def member_outputs(self, x: ArrayLike | Tensor) -> Tensor:
        """Outputs of every pass, shape (passes, N, O).

        Raises:
            UncertaintyInputError: if no two passes differ.
        """
        return refuse_no_spread(self.first_outputs(x, self.passes))

    def first_outputs(self, x: ArrayLike | Tensor, passes: int) -> Tensor:
        """Outputs of the first passes, shape (passes, N, O), though they may all be the same."""
        found = [
            flat(self.network.run(x, seed=derived_seed(self.seed, "pass", t))[0])
            for t in range(passes)
        ]
        return torch.from_numpy(np.stack(found))


def flat(outputs: np.ndarray) -> np.ndarray:
    """(N, ...) -> (N, O)."""
    return outputs.reshape(len(outputs), -1)
