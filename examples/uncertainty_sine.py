"""What is noise and what is ignorance: y = sin x + N(0, 0.005 x^2), seen on 0 < x < 2 pi only.

Run from anywhere: `python examples/uncertainty_sine.py [FOLDER]` (about two minutes on one core).
It fits six kinds of Bayesian or nearly Bayesian networks, prints how they compare with the true
distribution, which is known here, and draws uncertainty_sine.png.

Inside (0, 2 pi) the aleatoric band should be that of the noise, sqrt(0.005) x. Outside the
epistemic band should open; HMC, which samples the posterior itself, shows how far. The aleatoric
head says nothing true out there: it was never trained. Mean field and SWAG stay too sure outside:
one factorises the posterior, the other describes the surroundings of one minimum.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from uncertainty.heads import GaussianHead
from uncertainty.models import (
    HMC,
    SWAG,
    DeepEnsemble,
    HeteroscedasticGaussian,
    Laplace,
    MCDropout,
    MeanField,
    Posterior,
    Training,
)
from uncertainty.predictions import GaussianMixture

NOISE = 0.005  # variance of the noise is NOISE * x^2
END = 2 * math.pi
SAMPLES, TESTED = 500, 5000
POINTS = (-3.0, 0.5, 3.0, 6.0, 9.0, 12.0)
ORACLE_NLL = 0.5 * math.log(2 * math.pi * math.e * NOISE) + math.log(END) - 1
"""Mean of log(2 pi e NOISE x^2) / 2 over (0, END): no prediction has a lower expected NLL."""

LIKELIHOOD = HeteroscedasticGaussian()
GREY, BLUE, ORANGE = "#5F5F5F", "#0072B2", "#E69F00"


class Centred(nn.Module):
    """x -> (x - pi) / (pi / 2), so that inputs are of order 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return (x - math.pi) / (math.pi / 2)


def wide() -> nn.Module:
    """64-64, ReLU."""
    return nn.Sequential(
        Centred(), nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), GaussianHead(64)
    )


def dropping() -> nn.Module:
    """The same with dropout."""
    return nn.Sequential(
        Centred(),
        nn.Linear(1, 64),
        nn.ReLU(),
        nn.Dropout(0.05),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Dropout(0.05),
        GaussianHead(64),
    )


def narrow() -> nn.Module:
    """20, tanh: for posteriors over all weights."""
    return nn.Sequential(Centred(), nn.Linear(1, 20), nn.Tanh(), GaussianHead(20))


def draw_data(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs, shape (count, 1), and targets, shape (count,)."""
    numbers = np.random.default_rng(seed)
    x = numbers.uniform(0, END, size=(count, 1))
    y = np.sin(x[:, 0]) + math.sqrt(NOISE) * x[:, 0] * numbers.standard_normal(count)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


def oracle(x: NDArray[np.float64]) -> GaussianMixture:
    """The true distribution."""
    return GaussianMixture(np.sin(x)[None], NOISE * x[None] ** 2 + 1e-12)


TRAINING = Training(epochs=300, batch=64, rate=3e-3, cosine=True)


def models() -> dict[str, Callable[[Tensor, Tensor], Posterior]]:
    """Name -> how it is fitted."""

    def laplace(x: Tensor, y: Tensor) -> Posterior:
        trained = DeepEnsemble(narrow, members=1, likelihood=LIKELIHOOD, training=TRAINING).fit(
            x, y
        )
        assert trained.networks_ is not None
        return Laplace(trained.networks_[0], subset="all", likelihood=LIKELIHOOD).fit(x, y)

    return {
        "deep ensemble (5)": lambda x, y: DeepEnsemble(
            wide, members=5, likelihood=LIKELIHOOD, training=TRAINING
        ).fit(x, y),
        "MC dropout (0.05)": lambda x, y: MCDropout(
            torch_seeded(dropping), passes=100, likelihood=LIKELIHOOD, training=TRAINING
        ).fit(x, y),
        "mean-field BNN": lambda x, y: MeanField(
            narrow,
            draws=200,
            likelihood=LIKELIHOOD,
            training=Training(epochs=2000, batch=125, rate=1e-2, cosine=True),
        ).fit(x, y),
        "Laplace (all weights)": laplace,
        "SWAG": lambda x, y: SWAG(
            wide,
            draws=200,
            likelihood=LIKELIHOOD,
            training=TRAINING,
            collect=Training(epochs=60, rate=1e-4, optimiser="sgd"),
        ).fit(x, y),
        "HMC": lambda x, y: HMC(
            narrow,
            prior_variance=4.0,
            likelihood=LIKELIHOOD,
            chains=4,
            draws=300,
            warm_up=300,
            leapfrogs=100,
        ).fit(x, y),
    }


def torch_seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """A network with the first weights of seed 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


@dataclass(frozen=True)
class Row:
    """How one model compares with the truth on fresh data, and what it does not know where.

    Attributes:
        rmse, nll, covered: of the test set; nll in nats, covered of the 90 % interval.
        epistemic: variance of the members' means at POINTS.
        curve: the prediction over the drawn range.
    """

    name: str
    rmse: float
    nll: float
    covered: float
    epistemic: NDArray[np.float64]
    curve: GaussianMixture
    seconds: float


def as_mixture(model: Posterior, x: Tensor) -> GaussianMixture:
    """The predictive distribution, which is one of numbers here."""
    found = model.predict_distribution(x)
    assert isinstance(found, GaussianMixture)
    return found


def row_of(
    name: str, predict: Callable[[Tensor], GaussianMixture], seconds: float, grid: Tensor
) -> Row:
    """Figures on the test set and curves for the picture."""
    x, y = draw_data(TESTED, seed=1)
    found, target = predict(x), y.double().numpy()
    low, high = found.interval(0.9)
    return Row(
        name,
        float(np.sqrt(np.mean((found.mean - target) ** 2))),
        float(-found.log_prob(target).mean()),
        float(((low <= target) & (target <= high)).mean()),
        predict(torch.tensor(POINTS)[:, None]).epistemic,
        predict(grid),
        seconds,
    )


def draw(rows: list[Row], grid: NDArray[np.float64], path: Path) -> None:
    """One panel a model: data, mean, the aleatoric band, and the epistemic one around it."""
    (x, y), truth = draw_data(SAMPLES, seed=0), oracle(grid)
    figure = Figure(figsize=(12, 6.6), layout="constrained")
    for axes, row in zip(figure.subplots(2, 3).flat, rows, strict=True):
        curve = row.curve
        inner, outer = 2 * np.sqrt(curve.aleatoric), 2 * np.sqrt(curve.variance)
        axes.axvspan(0, END, color="#F2F2F2", zorder=0)
        for sign in (1, -1):
            edge, end = curve.mean + sign * inner, curve.mean + sign * outer
            label = "epistemic on top" if sign > 0 else None
            axes.fill_between(grid, edge, end, color=ORANGE, alpha=0.6, lw=0, label=label)
        axes.fill_between(
            grid, curve.mean - inner, curve.mean + inner, color=BLUE, alpha=0.35, lw=0,
            label="aleatoric",
        )  # fmt: skip
        axes.plot(x[:, 0], y, ".", color="black", ms=2, alpha=0.5, label="data")
        axes.plot(grid, curve.mean, color=BLUE, label="mean")
        true = 2 * np.sqrt(truth.aleatoric)
        axes.plot(grid, truth.mean - true, color=GREY, ls="--", lw=0.8, label="truth, 2 deviations")
        axes.plot(grid, truth.mean + true, color=GREY, ls="--", lw=0.8)
        axes.set_title(f"{row.name}: NLL {row.nll:.3f} (oracle {ORACLE_NLL:.3f})", fontsize=9)
        axes.set_ylim(-5, 5)
        axes.set_xlim(grid[0], grid[-1])
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.suptitle("y = sin x + noise, seen on the grey part only; bands are 2 deviations")
    figure.savefig(path, dpi=110)


def main(folder: Path) -> list[Row]:
    """Fit all, print the table, draw."""
    torch.set_num_threads(1)
    x, y = draw_data(SAMPLES, seed=0)
    grid = torch.linspace(-3, 12, 301)[:, None]
    rows = []
    for name, fit in models().items():
        begin = time.perf_counter()
        model = fit(x, y)
        seconds = time.perf_counter() - begin
        rows.append(row_of(name, lambda v, m=model: as_mixture(m, v), seconds, grid))
    true = row_of("oracle", lambda v: oracle(v[:, 0].double().numpy()), 0.0, grid)
    print(f"expected NLL of the oracle {ORACLE_NLL:.4f} nats; epistemic variance at x =")
    print(f"{'':24}RMSE    NLL   PICP90 " + "".join(f"{p:>8g}" for p in POINTS) + "   seconds")
    for row in (true, *rows):
        parts = "".join(f"{value:8.4f}" for value in row.epistemic)
        print(
            f"{row.name:22}{row.rmse:6.3f}{row.nll:8.3f}{100 * row.covered:7.1f} %{parts}"
            f"{row.seconds:8.1f}"
        )
    draw(rows, grid[:, 0].double().numpy(), folder / "uncertainty_sine.png")
    print(f"drawn: {folder / 'uncertainty_sine.png'}")
    return rows


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd())
