"""pytorch-ood beside us: the same network and arrays through both, largest relative difference.

pytorch-ood imports torchvision when it is imported, though none of the detectors here use it. A
build of torchvision fits one build of torch only, so an empty module stands in where there is none.
Its ReAct and ASH take feature maps, so features go in as maps of one pixel.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import numpy as np
import torch
from torch import nn

from uncertainty.models import DeepEnsemble, Training
from uncertainty.ood import (
    ASH,
    Detector,
    Mahalanobis,
    Nearest,
    TorchActivations,
    detector_named,
    odin,
)


class _Empty(types.ModuleType):
    """A module whose every name is an empty class."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torchvision and everything in it."""

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def build() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 8)
    )


def differences(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Largest |ours - theirs| / max |theirs| of each detector, in float64.

    Where a constant or a factor is a matter of definition it is taken out: their MSP is ours - 1;
    their Mahalanobis is ours by 2 n (half the square; their covariance is a sum), with a ridge of
    1e-6 on that sum. Their entropy clips probabilities at 1e-7, so it gets logits of a third of the
    size as well, whose probabilities are all above that; their ViM casts all to float32, so it is
    run once as it is and once with that cast going to float64.
    """
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_StandIn())
    from pytorch_ood import detector as theirs

    network = DeepEnsemble(build, members=1, training=Training(epochs=30)).fit(x, y).networks_[0]
    network.double()
    torch.set_default_dtype(torch.float64)  # their covariance takes it
    inputs, labels = torch.as_tensor(x[:500]).double(), torch.as_tensor(y[:500]).long()
    new = torch.rand(300, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    look = TorchActivations(network)
    seen, found = look(inputs), look(new)
    z, f = torch.as_tensor(seen.features), torch.as_tensor(found.features)
    logits = torch.as_tensor(found.logits)
    last = network[-1]
    head = lambda maps: last(maps.flatten(1))  # noqa: E731

    def ours(detector: Detector) -> np.ndarray:
        return detector.fit(seen, y[:500]).score(found)

    def ridge() -> Mahalanobis:
        means = np.stack([seen.features[y[:500] == k].mean(0) for k in range(8)])
        away = seen.features - means[y[:500]]
        return Mahalanobis(jitter=1e-6 / (away**2).sum() * away.shape[1])

    react = theirs.ReAct(None, head, percentile=0.9)
    react.fit_feature_maps(z[..., None, None], labels)

    def vim() -> torch.Tensor:
        other = theirs.ViM(None, d=16, w=last.weight.detach(), b=last.bias.detach())
        scores: torch.Tensor = other.fit_features(z, labels).predict_features(f)
        return scores

    def vim_in_float64() -> torch.Tensor:
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            return vim()

    calm = replace(found, logits=found.logits / 3)
    assert logits.div(3).softmax(dim=1).min() > 1e-7
    grad = theirs.GradNorm(network, param_filter=lambda name: name == "4.weight")
    pairs = {
        "msp": (ours(detector_named("msp")) - 1, theirs.MaxSoftmax.score(logits)),
        "max-logit": (ours(detector_named("max-logit")), theirs.MaxLogit.score(logits)),
        "energy": (ours(detector_named("energy")), theirs.EnergyBased.score(logits)),
        "entropy": (ours(detector_named("entropy")), theirs.Entropy.score(logits)),
        "entropy, unclipped": (
            detector_named("entropy").score(calm),
            theirs.Entropy.score(logits / 3),
        ),
        "mahalanobis": (
            ours(ridge()) / 1000,
            theirs.Mahalanobis(None).fit_features(z, labels).predict_features(f),
        ),
        "knn": (
            ours(Nearest(k=5)),
            theirs.KNN(None, k=5).fit_features(z, labels).predict_features(f),
        ),
        "vim": (ours(detector_named("vim")), vim()),
        "vim, its code in float64": (ours(detector_named("vim")), vim_in_float64()),
        "react": (ours(detector_named("react")), react.predict_feature_maps(f[..., None, None])),
        **{
            f"ash-{variant}": (
                ours(ASH(variant=variant)),
                theirs.ASH(None, head, variant=f"ash-{variant}").predict_feature_maps(
                    f[..., None, None].clone()
                ),
            )
            for variant in ("s", "p", "b")
        },
        "gradnorm": (ours(detector_named("gradnorm")), grad.predict(new)),
        "odin": (odin(network, new) - 1, theirs.ODIN(network).predict(new)),
    }
    return {
        name: float(
            np.abs(own - np.asarray(peer.detach())).max() / np.abs(np.asarray(peer.detach())).max()
        )
        for name, (own, peer) in pairs.items()
    }
