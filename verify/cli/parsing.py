"""Text from the command line -> numbers, each mistake in one line that says what to write."""

import math
import re

from verify.errors import SettingError

NORMS = {"inf": math.inf, "linf": math.inf, "2": 2.0, "l2": 2.0, "1": 1.0, "l1": 1.0}
UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}
MOST_POINTS = 10_000
"""Of an eps grid, and of a range of indices times ten: more is a slip of the finger."""


def number(text: str, option: str) -> float:
    """A finite number or a fraction such as 8/255.

    Raises:
        SettingError: if it is neither.
    """
    try:
        parts = [float(part) for part in text.split("/")]
        value = parts[0] if len(parts) == 1 else parts[0] / parts[1]
        if len(parts) > 2 or not math.isfinite(value):
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise SettingError(
            f"{option} is {text!r}, expected a finite number or a fraction; "
            "write for example 0.03 or 8/255"
        ) from None
    return value


def radius(text: str, option: str = "--eps") -> float:
    """A number >= 0."""
    value = number(text, option)
    if value < 0:
        raise SettingError(
            f"{option} is {text}, but a radius is >= 0; give it in model input units, "
            f"for example {option} 0.03"
        )
    return value


def positive(text: str | None, option: str) -> float | None:
    """A number > 0, or None where nothing was given."""
    if text is None:
        return None
    value = number(text, option)
    if value <= 0:
        raise SettingError(f"{option} is {text}, expected a number > 0; correct it")
    return value


def threads(count: int | None) -> None:
    """Let this process use so many cores; None leaves it as it is.

    Raises:
        SettingError: if it is not at least 1.
    """
    if count is None:
        return
    if count < 1:
        raise SettingError(f"--threads is {count}, expected at least 1; correct it")
    import torch  # not before: `verify --help` need not wait for it

    torch.set_num_threads(count)


def norm(text: str) -> float:
    """Infinity, 2 or 1."""
    try:
        return NORMS[text.strip().lower()]
    except KeyError:
        raise SettingError(f"--norm is {text!r}, expected inf, 2 or 1; choose one") from None


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Numbers with commas or blanks between, or None where nothing was given."""
    if text is None:
        return None
    parts = re.split(r"[,\s]+", text.strip())
    return tuple(number(part, option) for part in parts)


def interval(text: str | None) -> tuple[float, float] | None:
    """Two ends from "LOW HIGH"; None from "none" or nothing."""
    if text is None or text.strip().lower() == "none":
        return None
    ends = numbers(text, "--input-range") or ()
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise SettingError(
            f"--input-range is {text!r}, expected two numbers, the lower first, or 'none'; "
            "write for example --input-range '0 1'"
        )
    return ends[0], ends[1]


def indices(text: str | None) -> tuple[int, ...] | None:
    """Row numbers from "0,3,5-9", in the order given; None where nothing was given.

    Raises:
        SettingError: if a part is neither a number nor a range.
    """
    if text is None:
        return None
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part, re.ASCII)
        first, last = (int(g) if g else None for g in match.groups()) if match else (None, None)
        if first is None or (last is not None and not first <= last < first + 10 * MOST_POINTS):
            raise SettingError(
                f"--indices has the part {part.strip()!r}, expected row numbers from 0 and "
                "ranges; write for example --indices 0,3,5-9"
            )
        found.extend(range(first, (first if last is None else last) + 1))
    return tuple(found)


def size(text: str, option: str = "--memory") -> int:
    """Bytes from "2GB" (10^9 each), "2GiB" or "2G" (2^30 each), "1500MB" or a plain number."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*([kmg]?)(i?b|)\s*", text.lower())
    try:
        if match is None:
            raise ValueError
        amount, prefix, suffix = float(match[1]), match[2], match[3]
    except ValueError:
        raise SettingError(
            f"{option} is {text!r}, expected a size; write for example 2GB or 1500MB"
        ) from None
    decimal = suffix == "b" and prefix
    unit = {"k": 10**3, "m": 10**6, "g": 10**9}[prefix] if decimal else UNITS[prefix]
    return int(amount * unit)


def grid(text: str | None) -> tuple[float, ...] | None:
    """Ascending radii from "FIRST:LAST:COUNT" or a list; None where nothing was given."""
    if text is None:
        return None
    parts = text.split(":")
    if len(parts) == 3:
        first, last = (radius(part, "--eps-grid") for part in parts[:2])
        count = int(number(parts[2], "--eps-grid"))
        if 2 <= count <= MOST_POINTS and first < last:
            return tuple(first + (last - first) * i / (count - 1) for i in range(count))
    elif len(parts) == 1:
        values = numbers(text, "--eps-grid") or ()
        if values and min(values) >= 0:
            return tuple(sorted(set(values)))
    raise SettingError(
        f"--eps-grid is {text!r}, expected FIRST:LAST:COUNT or a list of radii; "
        "write for example 0:0.1:11 or 0,0.01,8/255"
    )
