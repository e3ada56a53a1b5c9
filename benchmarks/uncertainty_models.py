"""Epistemic models and OOD detection against what is known, in numbers.

    python -m benchmarks.uncertainty_models [STUDY...] [--full]     all studies if none is named

    mixture    a Gaussian mixture whose posterior is known: NLL and Brier beside the oracle's
    sine       the notes' example, oracle's expected NLL -0.3923 nats
    diabetes   442 x 10, random 90/10 splits, with constant and linear Bayesian rows
    digits     does an ensemble beat its members in NLL and Brier?
    epistemic  digits: is the epistemic part larger on letters, turned digits and noise? with and
               without weight decay, by ensembles and dropout
    ood        trained on digits 0 to 7: held-out digits, permuted, inverted, turned, letters,
               photographs, noise; AUROC with DeLong's intervals
    peers      the same arrays through pytorch-ood and laplace-torch, where they are installed

Seeded; without --full fewer splits and seeds. Everything that is printed is means over splits with
standard errors.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits, load_sample_images
from sklearn.linear_model import BayesianRidge
from torch import nn

from uncertainty.heads import GaussianHead
from uncertainty.models import (
    DeepEnsemble,
    HeteroscedasticGaussian,
    MCDropout,
    Training,
)
from uncertainty.models.training import build_network
from uncertainty.ood import TorchActivations, detector_named, evaluate, letters
from uncertainty.predictions import CategoricalMixture, GaussianMixture

DETECTORS = (
    "msp", "max-logit", "energy", "entropy", "mahalanobis", "relative-mahalanobis", "knn",
    "input-knn", "vim", "react", "ash", "gradnorm",
)  # fmt: skip


def mlp(inputs: int, outputs: int, width: int, rate: float = 0.0) -> Callable[[], nn.Module]:
    """Two hidden ReLU layers, with dropout behind each where a rate is given."""

    def build() -> nn.Module:
        drop = [nn.Dropout(rate)] if rate else []
        return nn.Sequential(
            nn.Linear(inputs, width), nn.ReLU(), *drop,
            nn.Linear(width, width), nn.ReLU(), *drop, nn.Linear(width, outputs),
        )  # fmt: skip

    return build


def told(name: str, rows: Sequence[Sequence[float]], digits: int = 4) -> None:
    """Mean and standard error of each column over the splits."""
    table = np.array(rows)
    error = table.std(0, ddof=1) / np.sqrt(len(table)) if len(table) > 1 else 0 * table[0]
    cells = "".join(
        f"{m:10.{digits}f} ±{e:.{digits}f}" for m, e in zip(table.mean(0), error, strict=True)
    )
    print(f"{name:26}{cells}", flush=True)


def class_scores(found: CategoricalMixture, y: np.ndarray) -> list[float]:
    """Accuracy in percent, NLL in nats, Brier score."""
    nll = -found.log_prob[np.arange(len(y)), y].mean()
    brier = ((found.probs - np.eye(found.probs.shape[1])[y]) ** 2).sum(1).mean()
    return [100 * float((found.labels == y).mean()), float(nll), float(brier)]


def member(found: CategoricalMixture, i: int) -> CategoricalMixture:
    """One member alone."""
    return CategoricalMixture(found.log_probs[i : i + 1])


def mixture(full: bool) -> None:
    """K = 4, d = 10, |mu| = 1.6, 400 to train on, 20 000 to test."""
    print("mixture                     accuracy %          NLL              Brier")
    rows: dict[str, list[list[float]]] = {}
    for seed in range(5 if full else 3):
        rng = np.random.default_rng(seed)
        means = rng.normal(size=(4, 10))
        means *= 1.6 / np.linalg.norm(means, axis=1, keepdims=True)
        y, test = rng.integers(4, size=400), rng.integers(4, size=20_000)
        x, new = means[y] + rng.normal(size=(400, 10)), means[test] + rng.normal(size=(20_000, 10))
        true = -((new[:, None] - means) ** 2).sum(2) / 2
        settings = Training(epochs=60, batch=64)
        ensemble = DeepEnsemble(mlp(10, 4, 64), members=5, training=settings, seed=seed).fit(x, y)
        found = ensemble.predict_distribution(new)
        dropped = MCDropout(
            build_network(mlp(10, 4, 64, 0.3), seed), passes=50, training=settings, seed=seed
        ).fit(x, y)
        for name, one in (
            ("oracle", CategoricalMixture.from_logits(true)),
            ("single", member(found, 0)),
            ("ensemble of 5", found),
            ("MC dropout .3 x 50", dropped.predict_distribution(new)),
        ):
            rows.setdefault(name, []).append(class_scores(one, test))
    for name, found_rows in rows.items():
        told(name, found_rows)


def sine(full: bool) -> None:
    """n = 500, MLP 64-64: single, ensembles, beta-NLL; test sets of 5000."""
    print("sine                       RMSE             NLL              PICP90 %")
    rows: dict[str, list[list[float]]] = {}
    rise = []
    for seed in range(5 if full else 2):
        rng = np.random.default_rng(seed)
        x, new = (rng.uniform(0, 2 * np.pi, (n, 1)) for n in (500, 5000))
        y, test = (
            np.sin(v[:, 0]) + 0.005**0.5 * v[:, 0] * rng.normal(size=len(v)) for v in (x, new)
        )
        true = GaussianMixture(np.sin(new[:, 0])[None], 0.005 * new[:, 0][None] ** 2)
        rows.setdefault("oracle", []).append(number_scores(true, test))

        def scaled(v: np.ndarray) -> np.ndarray:
            return v / np.pi - 1

        # A rate that falls to 0 does for one network what averaging does for several.
        steady, falling = Training(epochs=200), Training(epochs=200, rate=3e-3, cosine=True)
        for name, beta, how in (
            ("steady rate", 0.0, steady),
            ("falling rate", 0.0, falling),
            ("beta .5, falling", 0.5, falling),
        ):
            build = lambda: nn.Sequential(  # noqa: E731
                nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), GaussianHead(64)
            )
            ensemble = DeepEnsemble(
                build,
                likelihood=HeteroscedasticGaussian(beta),
                training=how,
                seed=seed,
            ).fit(scaled(x), y)
            found = ensemble.predict_distribution(scaled(new))
            alone = np.mean([number_scores(single(found, i), test) for i in range(5)], 0)
            together = number_scores(found, test)
            rows.setdefault(f"{name}, single (mean of 5)", []).append(alone.tolist())
            rows.setdefault(f"{name}, ensemble of 5", []).append(together)
            rows.setdefault(f"{name}, single - ensemble", []).append((alone - together).tolist())
            if how is steady:
                at = np.array([[-3.0], [0.5], [3.0], [6.0], [9.0], [12.0]])
                rise.append(ensemble.predict_distribution(scaled(at)).epistemic)
    for name, found_rows in rows.items():
        told(name, found_rows)
    inside, outside = np.mean(rise, 0)[1:4].max(), np.mean(rise, 0)[[0, 4, 5]].min()
    print(f"epistemic variance at -3 .5 3 6 9 12: {np.mean(rise, 0).round(4)}")
    print(f"least outside / largest inside: {outside / inside:.0f}")


def single(found: GaussianMixture, i: int = 0) -> GaussianMixture:
    """One member alone."""
    return GaussianMixture(found.means[i : i + 1], found.variances[i : i + 1])


def number_scores(found: GaussianMixture, y: np.ndarray) -> list[float]:
    """RMSE, NLL in nats, share within the 90 % interval in percent."""
    low, high = found.interval(0.9)
    return [
        float(np.sqrt(((found.mean - y) ** 2).mean())),
        float(-found.log_prob(y).mean()),
        100 * float(((low <= y) & (y <= high)).mean()),
    ]


def diabetes(full: bool) -> None:
    """Original units; inputs and targets standardised on the training part."""
    print("diabetes                   RMSE             NLL              PICP90 %")
    x, y = load_diabetes(return_X_y=True)
    rows: dict[str, list[list[float]]] = {}
    for seed in range(20 if full else 5):
        order = np.random.default_rng(seed).permutation(len(x))
        train, test = order[44:], order[:44]
        middle, scale = x[train].mean(0), x[train].std(0)
        shift, unit = y[train].mean(), y[train].std()
        seen, new = (x[train] - middle) / scale, (x[test] - middle) / scale
        target = (y[train] - shift) / unit
        constant = GaussianMixture(np.zeros((1, 44)), np.ones((1, 44))).scaled(unit, shift)
        linear = BayesianRidge().fit(seen, target)
        mean, deviation = linear.predict(new, return_std=True)
        ridge = GaussianMixture(mean[None], deviation[None] ** 2).scaled(unit, shift)
        rows.setdefault("constant", []).append(number_scores(constant, y[test]))
        rows.setdefault("BayesianRidge", []).append(number_scores(ridge, y[test]))
        settings = Training(epochs=100, batch=64, rate=1e-3, weight_decay=1e-2)
        for name, beta, how in (
            ("NLL", 0.0, replace(settings, weight_decay=0.0)),
            ("beta-NLL, decay 1e-2", 0.5, settings),
        ):
            ensemble = DeepEnsemble(
                mlp(10, 2, 50), likelihood=HeteroscedasticGaussian(beta), training=how, seed=seed
            ).fit(seen, target)
            found = ensemble.predict_distribution(new).scaled(unit, shift)
            rows.setdefault(f"{name}, single", []).append(number_scores(single(found), y[test]))
            rows.setdefault(f"{name}, ens. 5", []).append(number_scores(found, y[test]))
    for name, found_rows in rows.items():
        told(name, found_rows, 3)


def digits(full: bool) -> None:
    """300 to train on, 1197 to test, MLP 64-64."""
    print("digits                      accuracy %          NLL              Brier")
    data = load_digits()
    rows: dict[str, list[list[float]]] = {}
    for seed in range(10 if full else 4):
        order = np.random.default_rng(seed).permutation(len(data.data))
        x, y = data.data / 16, data.target
        train, test = order[:300], order[600:]
        ensemble = DeepEnsemble(mlp(64, 10, 64), training=Training(epochs=60), seed=seed)
        found = ensemble.fit(x[train], y[train]).predict_distribution(x[test])
        alone = [class_scores(member(found, i), y[test]) for i in range(5)]
        together = class_scores(found, y[test])
        rows.setdefault("single (mean of 5)", []).append(np.mean(alone, 0).tolist())
        rows.setdefault("ensemble of 5", []).append(together)
        rows.setdefault("single - ensemble", []).append((np.mean(alone, 0) - together).tolist())
    for name, found_rows in rows.items():
        told(name, found_rows)


@dataclass(frozen=True)
class OodData:
    """Digits 0 to 7 to train and test on, and what is neither."""

    train: np.ndarray
    labels: np.ndarray
    inside: np.ndarray
    outside: dict[str, np.ndarray]


def ood_data(seed: int) -> OodData:
    """700 to train on, the others of 0 to 7 as ID; photo patches are real photographs, 8 x 8."""
    rng, data = np.random.default_rng(seed), load_digits()
    x, y = data.data / 16, data.target
    known = rng.permutation(np.flatnonzero(y < 8))
    train, test = known[:700], known[700:]
    inside, images = x[test], load_sample_images().images
    patches = []
    for _ in range(500):
        grey = images[rng.integers(2)].mean(2) / 255
        row, column = rng.integers(grey.shape[0] - 64), rng.integers(grey.shape[1] - 64)
        block = grey[row : row + 64, column : column + 64]
        patches.append(block.reshape(8, 8, 8, 8).mean((1, 3)).ravel())
    outside = {
        "digits 8, 9": x[y >= 8],
        "permuted": rng.permuted(inside, axis=1),
        "inverted": 1 - inside,
        "turned 90": np.rot90(inside.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64),
        "turned 180": inside[:, ::-1].copy(),
        "letters": letters(500, seed=seed)[0].reshape(-1, 64),
        "photographs": np.array(patches),
        "noise": rng.uniform(size=(500, 64)),
    }
    return OodData(x[train], y[train], inside, outside)


def epistemic(full: bool) -> None:
    """Digits, 900 to train on: mean epistemic part in nats, and AUROC by it with its interval.

    Digits turned by 90 degrees have ink at the left and right edges, where upright ones are empty
    but for the bar of a 4. So every member calls nearly every one of them a 4, at a confidence of
    .995: a feature that all members have learnt, which more members do not unlearn. Weight decay,
    the prior of `uncertainty.models.map`, bounds the logits that it can lead to.
    """
    data = load_digits()
    x, y = (data.data / 16).astype(np.float32), data.target
    build, plain = mlp(64, 10, 64), Training(epochs=60)
    kinds: dict[str, Callable[[int], DeepEnsemble | MCDropout]] = {
        "5, no decay": lambda s: DeepEnsemble(build, training=plain, seed=s),
        "20, no decay": lambda s: DeepEnsemble(build, members=20, training=plain, seed=s),
        **{
            f"5, decay {decay:g}": lambda s, decay=decay: DeepEnsemble(  # type: ignore[misc]
                build, training=replace(plain, weight_decay=decay), seed=s
            )
            for decay in (3e-4, 1e-3, 3e-3)
        },
        "MC dropout .3 x 50": lambda s: MCDropout(
            build_network(mlp(64, 10, 64, 0.3), s), passes=50, training=plain, seed=s
        ),
    }
    table: dict[str, list[list[float]]] = {}
    first: dict[str, list[str]] = {}
    for seed in range(5 if full else 2):
        order = np.random.default_rng(seed).permutation(len(x))
        train, test = order[:900], order[900:]
        inside = x[test]
        outside = {
            "turned 90": np.rot90(inside.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64).copy(),
            "turned 180": inside[:, ::-1].copy(),
            "letters": letters(len(test), seed=seed)[0].reshape(-1, 64),
            "noise": np.random.default_rng(seed).uniform(size=inside.shape).astype(np.float32),
        }
        for name, make in kinds.items():
            model = make(seed).fit(x[train], y[train])
            own = as_classes(model.predict_distribution(inside))
            others = [as_classes(model.predict_distribution(v)) for v in outside.values()]
            found = [evaluate(own.epistemic, o.epistemic, resamples=10).auroc for o in others]
            row = class_scores(own, y[test])[:2]
            row += [float(m.epistemic.mean()) for m in (own, *others)]
            table.setdefault(name, []).append([*row, *(f.value for f in found)])
            if not seed:
                first[name] = [f"{f.low:.3f}-{f.high:.3f}" for f in found]
    columns = ("turned 90", "turned 180", "letters", "noise")
    print("accuracy %, NLL; mean epistemic part on digits, " + ", ".join(columns))
    for name, values in table.items():
        told(name, [row[:7] for row in values])
    print("AUROC by the epistemic part on " + ", ".join(columns) + "; then seed 0's 95 % intervals")
    for name, values in table.items():
        told(name, [row[7:] for row in values], 3)
        print(f"{'':26}" + "  ".join(first[name]))


def as_classes(found: CategoricalMixture | GaussianMixture) -> CategoricalMixture:
    """The predictive distribution, which is one of classes here."""
    assert isinstance(found, CategoricalMixture)
    return found


def ood(full: bool) -> None:
    """AUROC in percent, mean over seeds, and DeLong's interval of the first seed."""
    rows: dict[str, list[list[float]]] = {}
    first: dict[str, list[str]] = {}
    parts: list[list[float]] = []
    for seed in range(5 if full else 2):
        data = ood_data(seed)
        ensemble = DeepEnsemble(mlp(64, 8, 64), training=Training(epochs=60), seed=seed)
        ensemble.fit(data.train, data.labels)
        assert ensemble.networks_ is not None
        look = TorchActivations(ensemble.networks_[0])
        seen, inside = look(data.train), look(data.inside)
        pooled = ensemble.predict_distribution(data.inside)
        strange = {k: ensemble.predict_distribution(v) for k, v in data.outside.items()}
        scores = {}
        for name in DETECTORS:
            detector = detector_named(name).fit(seen, data.labels)
            scores[name] = (
                detector.score(inside),
                [detector.score(look(v)) for v in data.outside.values()],
            )
        scores["ensemble entropy"] = (pooled.total, [m.total for m in strange.values()])
        scores["ensemble MI"] = (pooled.epistemic, [m.epistemic for m in strange.values()])
        parts.append([m.epistemic.mean() for m in (pooled, *strange.values())])
        for name, (own, others) in scores.items():
            found = [evaluate(own, other, resamples=10).auroc for other in others]
            rows.setdefault(name, []).append([100 * f.value for f in found])
            if not seed:
                first[name] = [f"{100 * f.low:.1f}-{100 * f.high:.1f}" for f in found]
    names = list(data.outside)
    print("ood, AUROC %; below each: DeLong's 95 % interval of seed 0")
    print(f"{'':24}" + "".join(f"{name:>14}" for name in names))
    for name, values in rows.items():
        print(f"{name:24}" + "".join(f"{v:14.1f}" for v in np.mean(values, 0)))
        print(f"{'':24}" + "".join(f"{v:>14}" for v in first[name]))
    means = dict(zip(["digits 0-7", *names], np.mean(parts, 0).round(4).tolist(), strict=True))
    print("mean epistemic part of the ensemble, nats:", means)


def peers(full: bool) -> None:
    """Largest relative differences from pytorch-ood and laplace-torch on the same arrays."""
    data = ood_data(0)
    for peer, module in (("pytorch-ood", "pytorch_ood"), ("laplace-torch", "laplace_torch")):
        differences = import_module(f"benchmarks.peers.{module}").differences
        try:
            found = differences(data.train, data.labels)
        except ImportError as error:
            print(f"{peer} is not here: {error}")
            continue
        for name, value in found.items():
            print(f"{peer:16}{name:44}{value:.2e}")


STUDIES = {f.__name__: f for f in (mixture, sine, diabetes, digits, epistemic, ood)}


def main(arguments: Sequence[str]) -> None:
    """Run the studies named, or all."""
    torch.set_num_threads(1)
    full = "--full" in arguments
    wanted = [a for a in arguments if not a.startswith("-")] or ["all"]
    for name, study in {**STUDIES, "peers": peers}.items():
        if name in wanted or ("all" in wanted and name in STUDIES):
            study(full)
            print()


if __name__ == "__main__":
    main(sys.argv[1:])
