"""Imports point down only: which part of the library may look into which."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("verify", "attacks", "uncertainty")
MOST_LINES = 400  # past that a noun is missing: name it

# From the bottom up: each may import those before it.
BASE = ("version", "errors", "memory", "values", "graph", "ops", "traverse", "problem", "protocols")
METHODS = ("bounders", "branchers")
INPUT = ("readers", "runtime", "network")
FRONT = (*BASE, *METHODS, *INPUT, "search", "recipes", "check", "certificates", "brackets", "api")
STUDIES = ("geometric", "coverage", "confidence")

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    **{part: BASE[:i] for i, part in enumerate(BASE)},
    "readers": BASE,
    "runtime": BASE,
    "network": (*BASE, "readers", "runtime"),
    "export": BASE,
    "bounders": BASE,
    "branchers": (*BASE, "bounders"),  # they rank by what a bounder's walk found
    "check": (),  # re-derives what everything else claims, so it shares nothing with it
    "search": (*BASE, *METHODS),
    "certificates": (*BASE, *METHODS, "search", "check"),
    "recipes": (*BASE, *METHODS, "search"),
    "brackets": (*BASE, *METHODS, "search"),
    "api": FRONT[:-1],
    **dict.fromkeys(STUDIES, (*BASE, *METHODS, "search")),
    "report": ("version", "errors", "values", "runs"),
    "runs": ("version", "errors"),  # what is decided is passed in
    # Attacks and uncertainty are passed in; only its server knows HTTP.
    "explore": (*FRONT, "geometric", "confidence"),
    "__init__": (*FRONT, *STUDIES, "report", "runs"),
    "__main__": ("cli",),
    "cli": (
        *("__init__", *FRONT, *STUDIES, "explore", "export", "report", "runs"),
        *("attacks", "uncertainty"),
    ),
    "attacks": (),
    "uncertainty": (),
}


def library_files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def part_of(name: str) -> str | None:
    """The part that a dotted module or imported name belongs to; None outside the library."""
    head, _, rest = name.partition(".")
    if head in {"attacks", "uncertainty"}:
        return head
    if head != "verify":
        return None
    first = rest.split(".")[0]
    # What is no part of its own is one of the names that verify/__init__.py gives out.
    is_part = first in MAY_IMPORT or (ROOT / "verify" / first).is_dir()
    return (
        first if first and (is_part or (ROOT / "verify" / f"{first}.py").is_file()) else "__init__"
    )


def imported(node: ast.AST) -> list[str]:
    """Full dotted names that an import statement reaches; empty for other nodes."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
    return []


def violations(module: str, source: str) -> list[str]:
    """What one library module imports and should not, and whether it is too long."""
    own = part_of(module)
    if own not in MAY_IMPORT:
        return [f"{module} is in no part of MAY_IMPORT: decide where it belongs"]
    found = []
    if (lines := source.count("\n")) > MOST_LINES:
        found.append(f"{module} has {lines} lines, at most {MOST_LINES}")
    for node in ast.walk(ast.parse(source)):
        for name in imported(node):
            if name.startswith(".") or name.endswith(".*"):
                found.append(f"{module}: import {name}; use absolute names and no star")
            elif part_of(name) not in {None, own, *MAY_IMPORT[own]}:
                found.append(f"{module}: {own} may not import {name}")
    return found


@pytest.mark.parametrize("path", library_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    """Every module of the three packages keeps to the table and to the length."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if path.name == "__init__.py" and path.parent != ROOT / "verify":
        module = module.removesuffix(".__init__")
    assert violations(module, path.read_text()) == []


@pytest.mark.parametrize("folder", ["benchmarks", "examples", "tests"])
def test_files_beside_the_library_are_short_too(folder: str) -> None:
    """One screen, one idea, there as well."""
    lengths = {path: path.read_text().count("\n") for path in (ROOT / folder).rglob("*.py")}
    assert [path for path, length in lengths.items() if length > MOST_LINES] == []


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_nothing_beside_the_library_imports_the_command_line(folder: str) -> None:
    """What the command line can do, the library can."""
    for path in (ROOT / folder).rglob("*.py"):
        names = [name for node in ast.walk(ast.parse(path.read_text())) for name in imported(node)]
        assert [name for name in names if part_of(name) == "cli"] == [], path


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("verify.values.bounds", "from verify.graph.ir import Node", "values may not import"),
        ("verify.values.bounds", "def f():\n    import verify.ops", "values may not import"),
        ("verify.report.tables", "from verify import api", "report may not import verify.api"),
        ("verify.report.tables", "from verify import certify", "report may not import verify.cert"),
        ("verify.bounders.crown", "import attacks.pgd", "bounders may not import attacks.pgd"),
        ("attacks.pgd", "from verify.errors import DataError", "attacks may not import"),
        ("uncertainty.x", "import attacks", "uncertainty may not import attacks"),
        ("verify.api", "from verify.cli import main", "api may not import verify.cli.main"),
        ("verify.check.replay", "from verify.errors import DataError", "check may not import"),
        ("verify.ops.relu", "from .registry import register", "use absolute names"),
        ("verify.ops.relu", "from verify.ops.registry import *", "no star"),
        ("verify.values.bounds", "\n" * 401, "has 401 lines, at most 400"),
    ],
)
def test_the_check_above_can_fail(module: str, source: str, complaint: str) -> None:
    """Each kind of violation is found in a module made up for it."""
    (found,) = violations(module, source)
    assert complaint in found


def test_a_part_that_is_not_in_the_table_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new folder in `verify` needs a decision; it is not free to import what it likes."""
    (tmp_path / "verify" / "novel").mkdir(parents=True)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert violations("verify.novel.thing", "") == [
        "verify.novel.thing is in no part of MAY_IMPORT: decide where it belongs"
    ]


def test_the_table_has_no_circle() -> None:
    """Every order of reading the table ends: parts can be built one after another."""
    left = dict(MAY_IMPORT)
    while ready := [part for part, needs in left.items() if not set(needs) & set(left)]:
        for part in ready:
            del left[part]
    assert left == {}


@pytest.mark.parametrize("part", sorted({name for names in MAY_IMPORT.values() for name in names}))
def test_the_table_names_only_parts_that_it_lists(part: str) -> None:
    """A misspelt part would allow nothing and forbid nothing."""
    assert part in MAY_IMPORT
