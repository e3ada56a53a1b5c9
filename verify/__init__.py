"""Robustness verification of neural networks: certified bounds, brackets, and what they rest on.

    import attacks, verify
    results = verify.certify("model.onnx", x, labels, eps=0.03, input_range=(0, 1))

Importing the package is cheap; torch is imported with the first name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from verify.version import __version__

if TYPE_CHECKING:
    from verify.api import certify, prove_property, radius
    from verify.errors import InputError, VerifyError
    from verify.network import Network, load
    from verify.protocols import Falsifier, Proposal
    from verify.readers.datasets import Dataset, load_dataset
    from verify.recipes import METHODS
    from verify.values.question import Question
    from verify.values.result import Bracket, Result, Verdict

_HOMES = {
    "METHODS": "verify.recipes",
    "Bracket": "verify.values.result",
    "Dataset": "verify.readers.datasets",
    "Falsifier": "verify.protocols",
    "InputError": "verify.errors",
    "Network": "verify.network",
    "Proposal": "verify.protocols",
    "Question": "verify.values.question",
    "Result": "verify.values.result",
    "Verdict": "verify.values.result",
    "VerifyError": "verify.errors",
    "certify": "verify.api",
    "load": "verify.network",
    "load_dataset": "verify.readers.datasets",
    "prove_property": "verify.api",
    "radius": "verify.api",
}

__all__ = [
    "METHODS",
    "Bracket",
    "Dataset",
    "Falsifier",
    "InputError",
    "Network",
    "Proposal",
    "Question",
    "Result",
    "Verdict",
    "VerifyError",
    "__version__",
    "certify",
    "load",
    "load_dataset",
    "prove_property",
    "radius",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'verify' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
