"""What every attack refuses before it begins, each in one line that says what to change."""

import torch
from torch import Tensor, nn

from attacks.errors import AttackInputError
from attacks.protocol import Model
from attacks.randomness import content_keys

# Layers whose output in training mode is random or depends on the rest of the batch.
UNSTEADY = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.RReLU)


def check_steady(model: Model) -> None:
    """Refuse a module in training mode whose answers would be random or depend on the batch."""
    if not isinstance(model, nn.Module):
        return
    for name, module in model.named_modules():
        if module.training and isinstance(module, UNSTEADY):
            raise AttackInputError(
                f"The model is in training mode: its layer {name or 'itself'!r} "
                f"({type(module).__name__}) answers at random or depending on the batch. "
                "Call model.eval() first."
            )


def check_logits(logits: Tensor, batch: int) -> None:
    """Refuse outputs that are not (batch, classes) with two classes at least."""
    if logits.dim() != 2 or logits.shape[0] != batch or logits.shape[1] < 2:
        raise AttackInputError(
            f"The model returned shape {tuple(logits.shape)} for a batch of {batch}; expected "
            "(batch, classes) with at least 2 classes. Wrap the model so that it does; a single "
            "score s is the logits (0, s)."
        )


def check_classes(name: str, classes: Tensor, batch: int, count: int) -> Tensor:
    """Labels or targets as int64, refused where they are no class of the model."""
    if classes.shape != (batch,) or classes.dtype.is_floating_point or classes.dtype == torch.bool:
        raise AttackInputError(
            f"{name} need shape ({batch},) and an integer dtype, got {tuple(classes.shape)} of "
            f"{classes.dtype}. Give one class index per sample."
        )
    classes = classes.long()
    wrong = ((classes < 0) | (classes >= count)).nonzero().flatten()
    if len(wrong):
        row = int(wrong[0])
        raise AttackInputError(
            f"{name}[{row}] is {int(classes[row])}, but the model has {count} classes; expected "
            f"0 to {count - 1}. Check that the labels count from 0."
        )
    return classes


def check_keys(sample_keys: Tensor | None, x: Tensor) -> Tensor:
    """The caller's keys as int64, or a hash of each sample."""
    if sample_keys is None:
        return content_keys(x)
    if sample_keys.shape != (len(x),) or sample_keys.dtype.is_floating_point:
        raise AttackInputError(
            f"sample_keys need shape ({len(x)},) and an integer dtype, got "
            f"{tuple(sample_keys.shape)} of {sample_keys.dtype}. Give one integer per sample, "
            "for instance its index in the data set."
        )
    return sample_keys.to(x.device, torch.int64)
