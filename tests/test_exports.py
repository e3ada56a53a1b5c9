"""What a package says it exports is what can be imported from it."""

import importlib
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("verify", "attacks", "uncertainty")
PACKAGES = sorted(
    ".".join(path.parent.relative_to(ROOT).parts)
    for package in OURS
    for path in (ROOT / package).rglob("__init__.py")
)


def undeclared(module: ModuleType) -> list[str]:
    """Public names of ours that the package holds without listing them in `__all__`."""
    listed = getattr(module, "__all__", [])
    found = []
    for name, value in vars(module).items():
        origin = getattr(value, "__module__", module.__name__) or module.__name__
        foreign = isinstance(value, ModuleType) or origin.split(".")[0] not in OURS
        if name.startswith("_") or name == "TYPE_CHECKING":  # a plain truth value, of nobody's
            continue
        if not foreign and name not in listed:
            found.append(name)
    return found


def misdeclared(module: ModuleType) -> list[str]:
    """Names in `__all__` that are not there, or there more than once."""
    counts = Counter(getattr(module, "__all__", []))
    return [name for name, count in counts.items() if count > 1 or not hasattr(module, name)]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_exports_what_it_lists(name: str) -> None:
    """`__all__` has every public name once and no other; its order is ruff's to check."""
    module = importlib.import_module(name)
    assert undeclared(module) == []
    assert misdeclared(module) == []


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_what_it_is_for(name: str) -> None:
    """The first thing that `help()` shows."""
    assert importlib.import_module(name).__doc__


def test_the_check_above_can_fail() -> None:
    """A name too few, one too many and one twice are each found."""
    module = ModuleType("verify.made_up")
    module.shown = module.hidden = 1  # type: ignore[attr-defined]
    module.__all__ = ["shown", "absent", "twice", "twice"]  # type: ignore[attr-defined]
    module.twice = 2  # type: ignore[attr-defined]
    assert undeclared(module) == ["hidden"]
    assert misdeclared(module) == ["absent", "twice"]
