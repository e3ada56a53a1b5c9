"""MAPIE beside us: adaptive sets and conformalised quantile regression on the same arrays.

Their sets are randomised at calibration. A source of random numbers that are all 0 makes their
scores what ours are with `randomised=False`: the mass of all classes down to the label's, with it.
Theirs never hand out an empty set, so ours are filled the same way before they are compared. RAPS
takes its penalty from a part of the calibration data; ours is given what theirs has found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from uncertainty import ConformalClassifier, ConformalInterval
from uncertainty.conformal import Penalty

Array = NDArray[np.float64]
Row = tuple[str, str, Callable[[], float], Callable[[], float]]
ALPHA = 0.1


class NoRandomness(np.random.RandomState):
    """Uniform numbers that are 0; shuffles stay what they were."""

    def uniform(self, *_: object, size: int | None = None, **__: object) -> Array:  # type: ignore[override]
        """Zeros."""
        return np.zeros(() if size is None else size)


def their_sets(name: str, p: Array, y: NDArray[np.int64], new: Array) -> tuple[Array, object]:
    """MAPIE's sets (inputs, classes) of `new`, and its score object."""
    from mapie.classification import SplitConformalClassifier
    from mapie.conformity_scores import APSConformityScore, RAPSConformityScore
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        classes_ = np.arange(p.shape[1])
        fitted_ = True

        def fit(self, x: Array, y: Array) -> Given:
            return self

        def predict_proba(self, x: Array) -> Array:
            return x

        def predict(self, x: Array) -> Array:
            return np.asarray(x.argmax(axis=1))

    score = APSConformityScore() if name == "aps" else RAPSConformityScore(size_raps=0.3)
    other = SplitConformalClassifier(
        Given(),
        confidence_level=1 - ALPHA,
        conformity_score=score,
        prefit=True,
        random_state=NoRandomness(0),
    )
    other.conformalize(p, y)
    _, sets = other.predict_set(new, conformity_score_params={"include_last_label": False})
    return sets[:, :, 0], other._mapie_classifier.conformity_score_function_


def set_rows(p: Array, y: NDArray[np.int64], new: Array) -> Iterator[Row]:
    """Share of (input, class) pairs on which the sets differ: 0 means the same sets."""
    for name in ("aps", "raps"):

        def theirs(name: str = name) -> float:
            sets, score = their_sets(name, p, y, new)
            rows, penalty = np.arange(len(p)), Penalty()
            if name == "raps":
                tuned_on = np.asarray(score.X_raps)  # type: ignore[attr-defined]
                spent = {row.tobytes() for row in tuned_on}
                rows = np.array([i for i in rows if p[i].tobytes() not in spent])
                penalty = Penalty(
                    weight=float(np.ravel(score.lambda_star)[0]),  # type: ignore[attr-defined]
                    free=int(np.ravel(score.k_star)[0]),  # type: ignore[attr-defined]
                )
            own = ConformalClassifier(name, ALPHA, randomised=False, penalty=penalty)
            own.fit(p[rows], y[rows])
            mine = own.predict_set(new)
            # They put the likeliest class into a set that would be empty.
            mine[np.arange(len(new)), new.argmax(axis=1)] |= ~mine.any(axis=1)
            return float((mine != sets).mean())

        yield f"{name}, share of entries that differ", "MAPIE", lambda: 0.0, theirs


def quantile_rows(x: Array, y: Array, new: Array) -> Iterator[Row]:
    """CQR around two given quantiles: mean lower end and mean width."""
    bands = (lambda v: v - 0.8, lambda v: v + 0.5 + 0.1 * np.abs(v), lambda v: v)
    own = ConformalInterval(ALPHA).fit(bands[0](x), bands[1](x), y)

    def theirs() -> tuple[Array, Array]:
        from mapie.regression import ConformalizedQuantileRegressor
        from sklearn.base import BaseEstimator, RegressorMixin

        class Given(RegressorMixin, BaseEstimator):  # type: ignore[misc]
            def __init__(self, which: int = 0) -> None:
                self.which = which
                self.fitted_ = True

            def fit(self, x: Array, y: Array) -> Given:
                return self

            def predict(self, x: Array) -> Array:
                return np.asarray(bands[self.which](x[:, 0]))

        other = ConformalizedQuantileRegressor(
            [Given(0), Given(1), Given(2)], confidence_level=1 - ALPHA, prefit=True
        )
        other.conformalize(x[:, None], y)
        _, ends = other.predict_interval(new[:, None], symmetric_correction=True)
        return ends[:, 0, 0], ends[:, 1, 0]

    for name, pick in (("lower end", 0), ("upper end", 1)):
        yield (
            f"CQR, mean {name}",
            "MAPIE",
            lambda pick=pick: float(
                own.predict_interval(bands[0](new), bands[1](new))[pick].mean()
            ),
            lambda pick=pick: float(theirs()[pick].mean()),
        )
