"""DeepG's transformations in our words, so that both tools can be asked the same.

    python -m benchmarks.deepg_text "Scale(0.95,1.05);Rotation(-5,5)" "Brightness(.9,1.1,0,.01)"

prints what `verify geometric --transform` takes. DeepG (Balunovic et al. 2019) samples on a lattice
of step 2 about the centre, y downward. One transformation alone is applied to output coordinates as
it stands, so that Scale(s) samples at s·p and shrinks; several, joined by ";", are inverted, so
that they act on the image in the order written, as ours do. Translation counts lattice units, which
are half pixels. Brightness(a,b,c,d) is contrast over a..b, then brightness over c..d.
"""

from __future__ import annotations

import argparse
import re

CALL = re.compile(r"(\w+)\(([^()]*)\)")
COUNTS = {"Rotation": 2, "Scale": 2, "Shear": 2, "Translation": 4, "Brightness": 4}


def calls(text: str) -> list[tuple[str, list[float]]]:
    """Names and numbers of calls joined by ";".

    Raises:
        ValueError: if it cannot be read, or means nothing here (Translation1d moves both axes by
            one parameter, which no step of ours does).
    """
    found = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        call = CALL.fullmatch(part)
        name = call.group(1) if call else part
        numbers = [float(cell) for cell in call.group(2).split(",")] if call else []
        if COUNTS.get(name) != len(numbers):
            raise ValueError(f"{part!r} is not one of {', '.join(COUNTS)} with its numbers")
        found.append((name, numbers))
    return found


def spatial(name: str, n: list[float], *, alone: bool) -> str:
    """One spatial transformation; `alone` is applied to coordinates as it stands."""
    if name == "Rotation":
        low, high = (n[0], n[1]) if alone else (-n[1], -n[0])
        return f"rotation({low!r},{high!r})"
    if name == "Scale":
        low, high = (1 / n[1], 1 / n[0]) if alone else (n[0], n[1])
        return f"scale({low!r},{high!r})"
    if name == "Shear":
        low, high = (-n[1], -n[0]) if alone else (n[0], n[1])
        return f"shear_x({low!r},{high!r})"
    pixels = [cell / 2 for cell in n]
    a, b, c, d = [-pixels[i] for i in (1, 0, 3, 2)] if alone else pixels
    return f"translation({a!r},{b!r},{c!r},{d!r})"


def from_deepg(text: str, pixel: str = "") -> str:
    """Our text for DeepG's `spatial_transform` and `pixel_transform`."""
    moves, values = calls(text), calls(pixel)
    said = [spatial(name, numbers, alone=len(moves) == 1) for name, numbers in moves]
    for _, (a, b, c, d) in values:
        said.append(f"contrast({a!r},{b!r}) brightness({c!r},{d!r})")
    return " ".join(said)


def main() -> None:
    """Print one text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spatial")
    parser.add_argument("pixel", nargs="?", default="")
    arguments = parser.parse_args()
    print(from_deepg(arguments.spatial, arguments.pixel))  # noqa: T201


if __name__ == "__main__":
    main()
