"""auto_LiRPA beside us: its margins and seconds for the methods that we also have.

Nothing of auto_LiRPA is in this repository. Clone its repository anywhere and name the clone by
--peer-path or by the environment variable TASHIKA_AUTO_LIRPA; it is put on sys.path, not installed.

Fairness: the peer runs without recording gradients where it needs none, bounds only the side that
is asked for, keeps all its sparsity defaults, and its conversion of the model is not counted.

Source:
    Xu et al. 2020, arXiv:2002.12920 (the library); Xu et al. 2021, arXiv:2011.13824 (alpha-CROWN).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.outcome import Outcome, margin_rows
from benchmarks.peers.onnx_module import load_module

ENVIRONMENT = "TASHIKA_AUTO_LIRPA"
Method = Literal["ibp", "crown", "alpha-crown"]
ConvMode = Literal["patches", "matrix"]
THEIR_NAME: dict[Method, str] = {
    "ibp": "ibp",
    "crown": "backward",
    "alpha-crown": "CROWN-Optimized",
}


class PeerMissingError(ImportError):
    """auto_LiRPA is not where it was said to be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the peer is asked to work.

    Attributes:
        method: interval, CROWN with CROWN intermediate bounds, or alpha-CROWN, whose intermediate
            bounds are optimised jointly (so it works when none are given).
        conv_mode: its two representations of linear forms over images.
        lr_alpha: Adam's first step in alpha; 0.1 in its examples, 0.25 in competition settings,
            0.5 in the library's default.
        iterations: of alpha-CROWN.
    """

    method: Method
    conv_mode: ConvMode = "patches"
    lr_alpha: float = 0.1
    iterations: int = 20


@dataclass(frozen=True, slots=True, eq=False)
class Converted:
    """A model as the peer holds it.

    Attributes:
        bounded: the peer's BoundedModule.
        outputs: number of model outputs.
        lower: the batch of boxes for which it was converted, shape (batch, *input).
        seconds: what the conversion took.
    """

    bounded: nn.Module
    outputs: int
    lower: Tensor
    seconds: float


def import_peer(path: Path | None = None) -> ModuleType:
    """The auto_LiRPA package of a clone.

    Args:
        path: the clone; by default what the environment variable TASHIKA_AUTO_LIRPA names, else
            whatever is installed.

    Raises:
        PeerMissingError: if it cannot be imported.
    """
    named = path or os.environ.get(ENVIRONMENT)
    if named and str(named) not in sys.path:
        sys.path.insert(0, str(named))
    try:
        # It resets the warning filters while it is imported, so they cannot silence it.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            return importlib.import_module("auto_LiRPA")
    except ImportError as error:
        raise PeerMissingError(
            f"cannot import auto_LiRPA from {named or 'the environment'}: {error}. Clone its "
            f"repository and pass the clone by --peer-path or {ENVIRONMENT}."
        ) from error


@dataclass(frozen=True, slots=True, eq=False)
class AutoLirpa:
    """The peer, with the models that it has converted so far.

    Attributes:
        package: what `import_peer` returned.
        converted: models by file and representation.
    """

    package: ModuleType
    converted: dict[tuple[Path, ConvMode, bool], Converted] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The version that the package states."""
        return str(self.package.__version__)

    def convert(self, model: Path, lower: Tensor, upper: Tensor, settings: Settings) -> Converted:
        """The model in the peer's form, built when first needed and kept.

        alpha-CROWN gets a new conversion for each new batch of boxes: its slopes are laid out for
        the neurons that are unstable in one box, and version 0.7.1 fails with a KeyError when a
        module that has optimised one box is given another.
        """
        optimised = settings.method == "alpha-crown"
        key = (model, settings.conv_mode, optimised)
        known = self.converted.get(key)
        if known and (not optimised or torch.equal(known.lower, lower)):
            return known
        module = load_module(model, lower[:1], upper[:1])
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bounded = self.package.BoundedModule(
                module, torch.zeros_like(lower[:1]), bound_opts={"conv_mode": settings.conv_mode}
            )
        bounded.requires_grad_(False)  # else alpha-CROWN would also differentiate by the weights
        seconds = time.perf_counter() - start
        self.converted[key] = Converted(bounded, module(lower[:1]).shape[1], lower, seconds)
        return self.converted[key]

    def bound(
        self, model: Path, lower: Tensor, upper: Tensor, label: Tensor, *, settings: Settings
    ) -> Outcome:
        """The peer's margins of a batch of boxes.

        Args:
            model: ONNX file, unpacked.
            lower: shape (batch, *input), float32.
            upper: the same shape.
            label: shape (batch,), integer.
            settings: method and its parameters.
        """
        converted = self.convert(model, lower, upper, settings)
        bounded, rows = converted.bounded, margin_rows(label, converted.outputs)
        bounded.set_bound_opts(  # type: ignore[operator]  # a method of the peer's own class
            {
                "optimize_bound_args": {
                    "iteration": settings.iterations,
                    "lr_alpha": settings.lr_alpha,
                }
            }
        )
        optimised = settings.method == "alpha-crown"
        gradients = contextlib.nullcontext() if optimised else torch.no_grad()
        # Its remarks on early stops would break the progress display.
        with gradients, contextlib.redirect_stdout(io.StringIO()):
            start = time.perf_counter()
            region = self.package.PerturbationLpNorm(x_L=lower, x_U=upper)
            boxed = self.package.BoundedTensor((lower + upper) / 2, region)
            margins, _ = bounded.compute_bounds(  # type: ignore[operator]  # as above
                x=(boxed,), C=rows, method=THEIR_NAME[settings.method], bound_upper=False
            )
            seconds = time.perf_counter() - start
        return Outcome(margins.detach(), seconds, converted.seconds)
