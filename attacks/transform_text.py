"""Transformations as people write them: "scale(0.95,1.05) rotation(-2,2) brightness(-0.1,0.1)"."""

import difflib
import re

from attacks.errors import AttackInputError
from attacks.transforms import KINDS, Parameter

# Names for one kind, or for two that come with a range each, or share one.
PAIRS = {
    "translation": ("translation_x", "translation_y"),
    "scale": ("scale_x", "scale_y"),
    "shear": ("shear_x", "shear_y"),
}
TERM = re.compile(r"\s*([A-Za-z_]+)\s*\(([^()]*)\)\s*[;,]?\s*")
EXAMPLE = "write for example 'rotation(-5,5)' or 'scale(0.95,1.05) rotation(-2,2)'"
KNOWN = (*KINDS, "translation", "shear")


def parameters_of(text: str) -> tuple[Parameter, ...]:
    """The parameters and their ranges, in the order written.

    Each is a name and two numbers, low and high; angles in degrees, translations in pixels.
    `translation(l,h)` moves along both axes by their own amounts, each in that range, and
    `translation(lx,hx,ly,hy)` in two ranges; `scale` and `shear` with four numbers likewise.
    `scale(l,h)` scales both axes by one factor; `shear(l,h)` is `shear_x(l,h)`.

    Raises:
        AttackInputError: if a part is no such term; the message says which.
    """
    found: list[Parameter] = []
    at = 0
    while at < len(text.rstrip()):
        term = TERM.match(text, at)
        if term is None:
            raise AttackInputError(
                f"The transformation {text!r} cannot be read from {text[at:].strip()!r} on: "
                f"expected a name and a range in brackets; {EXAMPLE}."
            )
        found.extend(term_of(term[1].lower(), term[2]))
        at = term.end()
    if not found:
        raise AttackInputError(f"The transformation {text!r} is empty; {EXAMPLE}.")
    return tuple(found)


def term_of(name: str, inside: str) -> tuple[Parameter, ...]:
    """The one or two parameters of a name and the text between its brackets."""
    if name not in KNOWN:
        near = difflib.get_close_matches(name, KNOWN, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(KNOWN)}."
        raise AttackInputError(f"There is no transformation {name!r}; {hint}")
    try:
        ends = [float(part) for part in inside.split(",")]
    except ValueError:
        raise AttackInputError(
            f"{name}({inside}) has a range that is no numbers; {EXAMPLE}."
        ) from None
    if len(ends) == 4 and name in PAIRS:
        first, second = PAIRS[name]
        return Parameter(first, *ends[:2]), Parameter(second, *ends[2:])
    if len(ends) != 2:
        also = ", or four, a range for each axis" if name in PAIRS else ""
        raise AttackInputError(
            f"{name}({inside}) has {len(ends)} numbers; expected two, low and high{also}; "
            f"{EXAMPLE}."
        )
    if name == "translation":
        return tuple(Parameter(kind, *ends) for kind in PAIRS[name])
    return (Parameter("shear_x" if name == "shear" else name, *ends),)
