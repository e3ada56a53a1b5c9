"""The state of training on disk: written whole or not at all, read without running anything.

A checkpoint holds tensors, numbers and text only, so that `torch.load(weights_only=True)` reads it;
a file from elsewhere can be wrong, but not act.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attacks.errors import AttackInputError

NAME = "checkpoint.pt"
PARTS = ("plan", "epoch", "model", "optimiser", "guard", "history")


def path_in(folder: str | Path) -> Path:
    """Where a folder's checkpoint lies."""
    return Path(folder) / NAME


def save(folder: str | Path, state: Mapping[str, Any]) -> None:
    """Put the state in place of the last, in one step; the folder is made where it is missing.

    Raises:
        AttackInputError: if it cannot be written.
    """
    target = path_in(folder)
    draft = target.with_name(f".{NAME}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("wb") as stream:
                torch.save(dict(state), stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(draft, target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise AttackInputError(
            f"The checkpoint {target} cannot be written: {error.strerror}. Name a folder that may "
            "be written."
        ) from None


def load(folder: str | Path, plan: Mapping[str, str]) -> dict[str, Any]:
    """The state in a folder, refused unless it was made by the same plan.

    Args:
        plan: what decides the outcome; see `attacks.defences.fitting.Plan.fingerprint`.

    Raises:
        AttackInputError: if there is none, it cannot be read, or its plan is another.
    """
    target = path_in(folder)
    if not target.is_file():
        raise AttackInputError(
            f"There is no checkpoint {target} to resume from. Check the folder, or start without "
            "resuming."
        )
    try:
        state = torch.load(target, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle have no common base for a damaged file
        raise AttackInputError(
            f"The checkpoint {target} cannot be read ({type(error).__name__}). It is damaged, or "
            "no checkpoint; start again without resuming, in another folder."
        ) from None
    if not isinstance(state, dict) or set(state) != set(PARTS):
        raise AttackInputError(f"{target} is no checkpoint of this program. Check the folder.")
    theirs = state["plan"]
    differing = [key for key in plan if theirs.get(key) != plan[key]]
    if differing:
        key = differing[0]
        raise AttackInputError(
            f"The checkpoint {target} was made with another {', '.join(differing)}: "
            f"{key} was {theirs.get(key)}, now {plan[key]}. Give the same, or another folder."
        )
    return state
