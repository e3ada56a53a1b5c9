"""Recipes: the methods of the command line, composed of bounders; `auto` picks and says why."""

from __future__ import annotations

from verify.bounders.alpha_crown import AlphaCrown, Ascent
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.bounders.zonotope import Zonotope
from verify.errors import SettingError
from verify.search.strategy import Stage, Strategy

METHODS = {
    "auto": "attack, then interval, CROWN and alpha-CROWN, each on the inputs still open",
    "ibp": "interval bounds (IBP): fastest, loosest",
    "zonotope": "forward zonotopes (DeepZ)",
    "crown-ibp": "backward bounds of the margin over interval bounds of the neurons",
    "crown": "backward linear bounds (CROWN, the same relaxation as DeepPoly)",
    "alpha-crown": "CROWN with optimised slopes: tightest, slowest",
}
"""Names on the command line, with one line each."""


def recipe(name: str, *, iterations: int = 20) -> Strategy:
    """The strategy of that name.

    Args:
        name: one of `METHODS`.
        iterations: of the slope optimisation, where there is one.

    Raises:
        SettingError: if there is no such method, or iterations < 1.
    """
    if iterations < 1:
        raise SettingError(f"iterations is {iterations}, but at least 1 is needed")
    alpha = Stage("alpha-crown", AlphaCrown(ascent=Ascent(iterations), enough=0.0))
    stages = {
        "ibp": (Stage("ibp", Interval()),),
        "zonotope": (Stage("zonotope", Zonotope()),),
        "crown-ibp": (Stage("crown-ibp", Crown(intermediate=False)),),
        "crown": (Stage("crown", Crown()),),
        "alpha-crown": (alpha,),
        "auto": (Stage("ibp", Interval()), Stage("crown", Crown()), alpha),
    }
    if name not in stages:
        raise SettingError(
            f"there is no method {name!r}; choose one of {', '.join(METHODS)} "
            "(verify certify --help says what each does)"
        )
    why = "cheap methods first; each sees only what is still open" if name == "auto" else ""
    return Strategy(stages[name], why)
