"""Two moons: which inputs are between the classes, and which are like nothing seen?

Run from anywhere: `python examples/uncertainty_moons.py [FOLDER]` (about half a minute on one
core; needs scikit-learn). It draws uncertainty_moons.png: for each model the entropy of the mean
prediction (total), the members' mean entropy (aleatoric) and their mutual information (epistemic).

The aleatoric part should lie along the border between the moons, the epistemic part away from both.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import make_moons
from torch import nn

from uncertainty.models import (
    HMC,
    DeepEnsemble,
    Laplace,
    MCDropout,
    Posterior,
    Training,
    weight_decay_of,
)
from uncertainty.predictions import CategoricalMixture

SAMPLES = 300
TRAINING = Training(epochs=200, batch=50, rate=5e-3)
SIDE = 90


def plain() -> nn.Module:
    """32-32, ReLU."""
    return nn.Sequential(
        nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
    )


def dropping() -> nn.Module:
    """The same with dropout."""
    return nn.Sequential(
        nn.Linear(2, 64), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 2),
    )  # fmt: skip


def narrow() -> nn.Module:
    """12-12, tanh, for HMC."""
    return nn.Sequential(
        nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 2)
    )


def models(x: np.ndarray, y: np.ndarray) -> dict[str, Posterior]:
    """Fitted, by name."""
    ensemble = DeepEnsemble(plain, members=8, training=TRAINING).fit(x, y)
    assert ensemble.networks_ is not None
    # Laplace expands around the most probable weights of its own prior, here of variance 1.
    decaying = replace(TRAINING, weight_decay=weight_decay_of(1.0, SAMPLES))
    most_probable = DeepEnsemble(plain, members=1, training=decaying).fit(x, y)
    assert most_probable.networks_ is not None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = dropping()
    return {
        "deep ensemble (8)": ensemble,
        "MC dropout (0.2)": MCDropout(network, passes=100, training=TRAINING).fit(x, y),
        "Laplace (all weights)": Laplace(
            most_probable.networks_[0], subset="all", prior_precision=1.0
        ).fit(x, y),
        "HMC": HMC(narrow, prior_variance=4.0, draws=150, warm_up=150, leapfrogs=40).fit(x, y),
    }


def main(folder: Path) -> dict[str, tuple[float, float]]:
    """Fit, draw; returns the mean epistemic part near the data and far from them, in nats."""
    torch.set_num_threads(1)
    x, y = make_moons(SAMPLES, noise=0.15, random_state=0)
    x = x.astype(np.float32)
    across, up = np.meshgrid(np.linspace(-3, 4, SIDE), np.linspace(-2.5, 3, SIDE))
    grid = np.stack([across.ravel(), up.ravel()], axis=1).astype(np.float32)
    distance = np.sqrt(((grid[:, None] - x[None]) ** 2).sum(2)).min(axis=1)
    parts: dict[str, Callable[[CategoricalMixture], np.ndarray]] = {
        "total": lambda m: m.total,
        "aleatoric": lambda m: m.aleatoric,
        "epistemic": lambda m: m.epistemic,
    }
    found: dict[str, tuple[float, float]] = {}
    figure = Figure(figsize=(9.5, 10), layout="constrained")
    panels = figure.subplots(4, 3)
    for line, (name, model) in zip(panels, models(x, y).items(), strict=True):
        mixture = model.predict_distribution(grid)
        assert isinstance(mixture, CategoricalMixture)
        for axes, (part, value) in zip(line, parts.items(), strict=True):
            shown = axes.pcolormesh(
                across,
                up,
                value(mixture).reshape(SIDE, SIDE),
                vmin=0,
                vmax=np.log(2),
                cmap="viridis",
            )
            axes.scatter(*x.T, c=y, s=3, cmap="coolwarm")
            axes.set_title(f"{name}: {part}", fontsize=9)
            axes.set_xticks([])
            axes.set_yticks([])
        near, far = mixture.epistemic[distance < 0.2].mean(), mixture.epistemic[distance > 1].mean()
        found[name] = (float(near), float(far))
        print(f"{name:24} epistemic near the data {near:.4f}, more than 1 away {far:.4f} nats")
    figure.colorbar(shown, ax=panels, shrink=0.5, label="nats")
    figure.savefig(folder / "uncertainty_moons.png", dpi=100)
    print(f"drawn: {folder / 'uncertainty_moons.png'}")
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd())
