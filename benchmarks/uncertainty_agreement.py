"""The same quantities by us and by other libraries on the same arrays; see the suite."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers import mapie_sets
from uncertainty import (
    ConformalClassifier,
    ConformalInterval,
    IsotonicCalibration,
    TemperatureScaling,
    brier_decomposition,
    calibration_error,
    gaussian_crps,
    gaussian_log_score,
    gaussian_pit,
    interval_calibration_error,
    interval_score,
    quantile_calibration_error,
    sample_crps,
    score_events,
    score_probabilities,
    sharpness,
    smooth_calibration_error,
)

Array = NDArray[np.float64]
Row = tuple[str, str, Callable[[], float], Callable[[], float]]


def predictions(inputs: int, classes: int, seed: int) -> tuple[Array, NDArray[np.int64]]:
    """Logits of an overconfident model and labels."""
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=(inputs, classes))
    y = (z - np.log(-np.log(rng.random(z.shape)))).argmax(axis=1)
    return 2 * z, y


def softmax(z: Array) -> Array:
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def classification_rows() -> Iterator[Row]:
    z, y = predictions(2000, 5, 0)
    p = softmax(z)
    scored = score_probabilities(p, y)
    event_p, event_y = p[:, 1], (y == 1).astype(int)
    event = score_events(event_p, event_y)

    def torchmetrics(norm: str) -> Callable[[], float]:
        def value() -> float:
            from torchmetrics.functional.classification import multiclass_calibration_error as other

            return float(other(torch.from_numpy(p), torch.from_numpy(y), 5, n_bins=15, norm=norm))

        return value

    for ours, theirs in (("l1", "l1"), ("max", "max"), ("l2", "l2")):
        yield (
            f"calibration error {ours}",
            "torchmetrics",
            lambda ours=ours: calibration_error(scored, norm=ours).value,
            torchmetrics(theirs),
        )

    def netcal(name: str, **options: object) -> Callable[[], float]:
        def value() -> float:
            import netcal.metrics

            return float(getattr(netcal.metrics, name)(15, **options).measure(p, y))

        return value

    yield "ECE", "netcal", lambda: calibration_error(scored).value, netcal("ECE")
    yield "MCE", "netcal", lambda: calibration_error(scored, norm="max").value, netcal("MCE")
    yield (
        "ECE, equal mass",
        "netcal",
        lambda: calibration_error(scored, binning="mass").value,
        netcal("ECE", equal_intervals=False),
    )

    def sklearn(name: str, *arguments: object, **options: object) -> Callable[[], float]:
        def value() -> float:
            import sklearn.metrics

            return float(getattr(sklearn.metrics, name)(*arguments, **options))

        return value

    yield "NLL", "scikit-learn", lambda: scored.nll, sklearn("log_loss", y, p)
    yield (
        "Brier, event",
        "scikit-learn",
        lambda: event.brier,
        sklearn("brier_score_loss", event_y, event_p),
    )
    yield (
        "Brier parts, sum",
        "scikit-learn",
        lambda: brier_decomposition(event).brier,
        sklearn("brier_score_loss", event_y, event_p),
    )

    def relplot() -> float:
        import relplot as other

        return float(other.smECE(f=scored.confidence, y=scored.correct.astype(float)))

    yield "smooth ECE", "relplot", lambda: smooth_calibration_error(scored), relplot

    def mapie() -> float:
        from mapie.metrics.calibration import expected_calibration_error as other

        return float(other(scored.correct.astype(int), scored.confidence, num_bins=16))

    # Its linspace(0, 1, b) makes b - 1 bins.
    yield "ECE", "MAPIE (16: 15 bins)", lambda: calibration_error(scored).value, mapie


def calibrator_rows() -> Iterator[Row]:
    z, y = predictions(2000, 5, 1)
    ours = TemperatureScaling().fit(z, y)

    def sklearn() -> float:
        from sklearn.calibration import _TemperatureScaling

        return float(1 / _TemperatureScaling().fit(z, y).beta_)

    yield "temperature", "scikit-learn", lambda: ours.temperature_, sklearn

    def netcal() -> float:
        from netcal.scaling import TemperatureScaling as Other

        other = Other()
        other.fit(softmax(z), y)
        return float(1 / other.temperature[0])  # its attribute is 1/T

    yield "temperature", "netcal", lambda: ours.temperature_, netcal
    two, hit = predictions(2000, 2, 2)
    q = softmax(two)[:, 1]
    fitted = IsotonicCalibration().fit(two, hit)
    grid = np.linspace(0.01, 0.99, 200)
    logits = np.stack((np.zeros(200), np.log(grid / (1 - grid))), axis=1)

    def isotonic() -> float:
        from sklearn.isotonic import IsotonicRegression

        other = IsotonicRegression(out_of_bounds="clip").fit(q, hit)
        return float(other.predict(grid).mean())

    yield (
        "isotonic, mean of curve",
        "scikit-learn",
        lambda: float(fitted.predict_proba(logits)[:, 1].mean()),
        isotonic,
    )


def conformal_rows() -> Iterator[Row]:
    z, y = predictions(1500, 8, 3)
    p = softmax(z)

    def mapie(name: str) -> Callable[[], float]:
        def value() -> float:
            from mapie.classification import SplitConformalClassifier
            from sklearn.base import BaseEstimator, ClassifierMixin

            class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
                classes_ = np.arange(8)
                fitted_ = True

                def fit(self, x: Array, y: Array) -> Given:
                    return self

                def predict_proba(self, x: Array) -> Array:
                    return x

                def predict(self, x: Array) -> Array:
                    return np.asarray(x.argmax(axis=1))

            other = SplitConformalClassifier(
                Given(), confidence_level=0.9, conformity_score=name, prefit=True
            )
            other.conformalize(p[:500], y[:500])
            options = {} if name == "lac" else {"include_last_label": "randomized"}
            _, sets = other.predict_set(p[500:], conformity_score_params=options)
            return float(sets[:, :, 0].sum(axis=1).mean())

        return value

    for name in ("lac", "aps"):
        fitted = ConformalClassifier(name, 0.1)
        fitted.fit(p[:500], y[:500])
        yield (
            f"{name}, mean set size" + ("" if name == "lac" else " (own random numbers)"),
            "MAPIE",
            lambda fitted=fitted: float(fitted.predict_set(p[500:]).sum(axis=1).mean()),
            mapie(name),
        )
    yield from mapie_sets.set_rows(p[:500], y[:500], p[500:])
    rng = np.random.default_rng(4)
    x = rng.normal(size=1200)
    target = x + rng.normal(size=1200)
    yield from mapie_sets.quantile_rows(x[:500], target[:500], x[500:])
    interval = ConformalInterval(0.1).fit(x[:500], x[:500], target[:500])

    def split() -> float:
        from mapie.regression import SplitConformalRegressor
        from sklearn.base import BaseEstimator, RegressorMixin

        class Given(RegressorMixin, BaseEstimator):  # type: ignore[misc]
            fitted_ = True

            def fit(self, x: Array, y: Array) -> Given:
                return self

            def predict(self, x: Array) -> Array:
                return np.asarray(x[:, 0])

        other = SplitConformalRegressor(Given(), confidence_level=0.9, prefit=True)
        other.conformalize(x[:500, None], target[:500])
        _, ends = other.predict_interval(x[500:, None])
        return float((ends[:, 1, 0] - ends[:, 0, 0]).mean())

    def ours() -> float:
        low, high = interval.predict_interval(x[500:], x[500:])
        return float((high - low).mean())

    yield "split interval, width", "MAPIE", ours, split


def regression_rows() -> Iterator[Row]:
    rng = np.random.default_rng(5)
    mu, sigma = rng.normal(size=1000), rng.uniform(0.3, 2, 1000)
    y = rng.normal(mu, 1.3 * sigma)
    samples = rng.normal(mu, sigma, (40, 1000))
    pit = gaussian_pit(y, mu, sigma)

    def toolbox(name: str, *arguments: object, **options: object) -> Callable[[], float]:
        def value() -> float:
            import uncertainty_toolbox.metrics as other

            return float(getattr(other, name)(*arguments, **options))

        return value

    def properscoring(name: str, *arguments: object) -> Callable[[], float]:
        def value() -> float:
            import properscoring as other

            return float(getattr(other, name)(*arguments).mean())

        return value

    crps = lambda: float(gaussian_crps(y, mu, sigma).mean())  # noqa: E731
    yield "CRPS, Gaussian", "properscoring", crps, properscoring("crps_gaussian", y, mu, sigma)
    yield "CRPS, Gaussian", "uncertainty-toolbox", crps, toolbox("crps_gaussian", mu, sigma, y)
    yield (
        "CRPS, samples",
        "properscoring",
        lambda: float(sample_crps(y, samples).mean()),
        properscoring("crps_ensemble", y, samples.T),
    )
    yield (
        "NLL, Gaussian",
        "uncertainty-toolbox",
        lambda: float(gaussian_log_score(y, mu, sigma).mean()),
        toolbox("nll_gaussian", mu, sigma, y),
    )
    yield (
        "sharpness",
        "uncertainty-toolbox",
        lambda: sharpness(sigma),
        toolbox("sharpness", sigma),
    )
    # They take 100 levels from 0 to 1, of which the two ends cannot be wrong; ours are 99 inside.
    levels = np.linspace(0, 1, 100)

    def at_their_levels(values: Array) -> float:
        shares = np.searchsorted(np.sort(values), levels, side="right") / len(values)
        return float(np.abs(shares - levels).mean())

    for name, values, prop, value in (
        ("interval", np.abs(2 * pit - 1), "interval", interval_calibration_error(pit)),
        ("quantile", pit, "quantile", quantile_calibration_error(pit)),
    ):
        yield (
            f"{name} calibration (99 levels {value:.6f})",
            "uncertainty-toolbox",
            lambda values=values: at_their_levels(values),
            toolbox("mean_absolute_calibration_error", mu, sigma, y, prop_type=prop),
        )
    low, high = mu - 1.6448536269514722 * sigma, mu + 1.6448536269514722 * sigma

    def winkler() -> float:
        from mapie.metrics.regression import regression_mwi_score as other

        ends = np.stack((low, high), axis=1)[:, :, None]
        return float(other(y, ends, confidence_level=0.9))

    yield (
        "interval score",
        "MAPIE",
        lambda: float(interval_score(y, low, high, 0.1).mean()),
        winkler,
    )


def agreement() -> None:
    """One line for each quantity and library."""
    print(f"{'quantity':<42}{'library':<22}{'ours':>14}{'theirs':>14}{'difference':>12}")
    for rows in (classification_rows, calibrator_rows, conformal_rows, regression_rows):
        for name, library, ours, theirs in rows():
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                mine = ours()
                try:
                    other: float | str = theirs()
                except Exception as error:  # whatever a peer raises is its own answer
                    other = f"{type(error).__name__}: {str(error)[:60]}"
            if isinstance(other, str):
                print(f"{name:<42}{library:<22}{mine:>14.8f}  {other}")
            else:
                print(f"{name:<42}{library:<22}{mine:>14.8f}{other:>14.8f}{mine - other:>12.1e}")
