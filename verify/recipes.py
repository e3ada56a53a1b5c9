"""Recipes: the methods of the command line, composed of bounders; `auto` picks and says why."""

from __future__ import annotations

from verify.bounders.alpha_crown import AlphaCrown
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.bounders.slopes import Ascent
from verify.bounders.zonotope import Zonotope
from verify.errors import SettingError
from verify.search.strategy import Stage, Strategy
from verify.values.semantics import semantics_of

METHODS = {
    "auto": "attack, then interval, CROWN, alpha-CROWN of the margin, and of all neurons; each "
    "stage only on the inputs still open",
    "ibp": "interval bounds (IBP): fastest, loosest",
    "zonotope": "forward zonotopes (DeepZ)",
    "crown-ibp": "backward bounds of the margin over interval bounds of the neurons",
    "crown": "backward linear bounds (CROWN, the same relaxation as DeepPoly)",
    "alpha-crown": "CROWN with optimised slopes: tightest, slowest",
}
"""Names on the command line, with one line each."""


def recipe(name: str, *, iterations: int = 20, semantics: str = "float32") -> Strategy:
    """The strategy of that name.

    Args:
        name: one of `METHODS`.
        iterations: of the slope optimisation, where there is one.
        semantics: "float32": proofs hold for every float32 execution; "real": for the real-valued
            network only, and the verdict says so.

    Raises:
        SettingError: if there is no such method or semantics, or iterations < 1.
    """
    if iterations < 1:
        raise SettingError(f"iterations is {iterations}, but at least 1 is needed")
    kind = semantics_of(semantics)
    rounding = kind.rounding
    ascent = Ascent(iterations)
    slopes = AlphaCrown(ascent=ascent, enough=0.0, intermediate=False, rounding=rounding)
    spec = Stage("alpha-crown (spec)", slopes, slopes)
    both = AlphaCrown(ascent=ascent, enough=0.0, rounding=rounding)
    alpha = Stage("alpha-crown", both, both)
    ibp, crown = Stage("ibp", Interval(rounding=rounding)), Stage("crown", Crown(rounding=rounding))
    mixed = Stage("crown-ibp", Crown(intermediate=False, rounding=rounding))
    stages = {
        "ibp": (ibp,),
        "zonotope": (Stage("zonotope", Zonotope(rounding=rounding)),),
        "crown-ibp": (mixed,),
        "crown": (crown,),
        "alpha-crown": (alpha,),
        "auto": (ibp, crown, spec, alpha),
    }
    if name not in stages:
        raise SettingError(
            f"there is no method {name!r}; choose one of {', '.join(METHODS)} "
            "(verify certify --help says what each does)"
        )
    why = "cheap methods first; each sees only what is still open" if name == "auto" else ""
    return Strategy(stages[name], why, kind.proof)
