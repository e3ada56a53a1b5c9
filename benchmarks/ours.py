"""The adapter through which the benchmarks call our own bounds.

Kept thin so that the driver does not change when the library does: load the model once (cached,
its time reported apart), then time the bound computation alone.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from benchmarks.outcome import Outcome


def bound(model: Path, lower: Tensor, upper: Tensor, label: Tensor, method: str) -> Outcome:
    """Our margins of a batch of boxes.

    Args:
        model: ONNX file, unpacked.
        lower: shape (batch, *input), float32, in model input units.
        upper: the same shape.
        label: shape (batch,), integer.
        method: "ibp", "crown" or "alpha-crown" (20 iterations).

    Raises:
        NotImplementedError: until the bounders are joined to it.
    """
    raise NotImplementedError(
        f"cannot bound {model.name} by {method}: benchmarks/ours.py is not joined to the bounders "
        "yet. Fill in `bound`, or run the driver with --only peer."
    )
