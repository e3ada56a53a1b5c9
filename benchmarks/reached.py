"""How often named pieces of the searches are really reached, so that a fuzzer can say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from typing import Any

Happened = Callable[[tuple[Any, ...], Any], bool]
"""(arguments, what was returned) -> whether the piece did what it is for."""


def always(_arguments: tuple[Any, ...], _result: Any) -> bool:
    """Every call counts."""
    return True


def something(_arguments: tuple[Any, ...], result: Any) -> bool:
    """It returned something."""
    return bool(result) if isinstance(result, list | tuple) else result is not None


def clipped(arguments: tuple[Any, ...], result: Any) -> bool:
    """Some domain became empty or smaller."""
    before = arguments[1]
    return any(
        new is None or bool((new.lower > old.lower).any() or (new.upper < old.upper).any())
        for old, new in zip(before, result, strict=True)
    )


def shrunk(arguments: tuple[Any, ...], result: Any) -> bool:
    """Some box became smaller, or one of its clauses was closed."""
    low, high, still = result
    smaller = (low > arguments[0]).any() or (high < arguments[1]).any()
    return bool(smaller or (still != arguments[5]).any())


def divided(arguments: tuple[Any, ...], result: Any) -> bool:
    """There are more parts than cases."""
    return len(result) > len(arguments[1])


PIECES: dict[str, tuple[str, str, Happened]] = {
    "halves of a box": ("verify.search.halving", "Halving.halves", something),
    "points cut": ("verify.search.point_split", "Tree.divide", always),
    "parts proved": ("verify.search.point_split", "proved", always),
    "signs split": ("verify.search.looking", "Looking.split", always),
    "base divided": ("verify.search.sign_tree", "SignTree.divide", something),
    "base bounded anew": ("verify.search.sign_tree", "SignTree.sharpen", always),
    "small trees": ("verify.search.sign_tree", "SignTree.deepen", always),
    "leaf by a program": ("verify.search.sign_tree", "SignTree.finish", always),
    "slopes for longer": ("verify.search.sign_tree", "lengthened", always),
    "cuts made": ("verify.search.cutting", "Cutting.__call__", something),
    "cuts used": ("verify.bounders.cuts", "Cuts.kept_by", always),
    "programs clipped": ("verify.search.lp_clipping", "Clipper.__call__", clipped),
    "boxes clipped": ("verify.search.input_split", "hull", shrunk),
    "whole parts": ("verify.search.complete", "in_whole_parts", divided),
}
"""By name: module, what in it, and what counts as reached."""


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Counts what is reached while it is open."""
    count: Counter[str] = Counter()
    undo: list[tuple[Any, str, Any]] = []
    for name, (module, path, happened) in PIECES.items():
        owner: Any = import_module(module)
        *outer, last = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        real = getattr(owner, last)
        undo.append((owner, last, real))
        setattr(owner, last, watched(real, name, happened, count))
    try:
        yield count
    finally:
        for owner, last, real in undo:
            setattr(owner, last, real)


def watched(
    real: Callable[..., Any], name: str, happened: Happened, count: Counter[str]
) -> Callable[..., Any]:
    """The function, counting."""

    @wraps(real)
    def call(*arguments: Any, **named: Any) -> Any:
        result = real(*arguments, **named)
        count[name] += happened(arguments, result)
        return result

    return call
