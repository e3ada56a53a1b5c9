"""What one timed call of one tool gave: the only thing that the driver compares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Certified margins of a batch of inputs and what they cost.

    Attributes:
        margins: shape (batch, outputs - 1); lower bounds of y_label - y_j over the input box, for
            every j other than the label in increasing order, in the units of the model output.
        seconds: wall-clock time of the bound computation alone.
        build_seconds: wall-clock time of reading and converting the model, paid once per model.
    """

    margins: Tensor
    seconds: float
    build_seconds: float = 0.0


def margin_rows(label: Tensor, outputs: int) -> Tensor:
    """The rows e_label - e_j, j other than the label, as every tool here is asked for them.

    Args:
        label: shape (batch,), integer.
        outputs: number of model outputs.

    Returns:
        Shape (batch, outputs - 1, outputs), float32.
    """
    eye = torch.eye(outputs)
    others = torch.stack([torch.cat((eye[:j], eye[j + 1 :])) for j in label.tolist()])
    return eye[label].unsqueeze(1) - others
