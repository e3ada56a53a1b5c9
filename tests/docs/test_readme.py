"""README.md tells what is so: its methods, attacks, exit codes, links and Python block."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from verify.cli import failures
from verify.cli.app import COMMANDS
from verify.cli.options import ATTACK_NAMES
from verify.recipes import METHODS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def rows(heading: str) -> list[str]:
    """First cells of the table whose heading row begins with this cell."""
    _, _, after = README.partition(f"| {heading} |")
    table = after.partition("\n\n")[0].splitlines()[2:]
    return [line.split("|")[1].strip() for line in table]


def test_the_table_of_methods_is_complete() -> None:
    """One row for each name that `--method` takes."""
    assert {cell.strip("`") for cell in rows("`--method`")} == set(METHODS)


def test_the_table_of_attacks_is_complete() -> None:
    """A row names each name that `--attack` takes, first where it is explained."""
    named = {name for cell in rows("`--attack`") for name in re.findall(r"`([\w-]+)`", cell)}
    assert named == set(re.findall(r"[\w-]+", ATTACK_NAMES)) - {"or"}


def test_the_table_of_exit_codes_is_complete() -> None:
    """The verdicts' codes, and those of failures.py."""
    ends = {failures.BAD_INPUT, failures.UNEXPECTED, failures.INTERRUPTED, failures.BROKEN_PIPE}
    assert {int(cell) for cell in rows("code")} == {0, 1, 3} | ends


@pytest.mark.parametrize(
    ("block", "printed"), [(0, "<= radius <="), (1, "fooled by a turn:"), (2, "by chance alone")]
)
def test_the_python_blocks_run(monkeypatch: pytest.MonkeyPatch, block: int, printed: str) -> None:
    """From the repository's folder, and print what they are there for."""
    found = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(found) == 3
    monkeypatch.chdir(ROOT)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(found[block], "README.md", "exec"), {})
    assert printed in output.getvalue()


def test_the_table_of_commands_is_complete() -> None:
    """Each command has its place."""
    named = set(
        re.findall(r"[a-z]+", " ".join(re.findall(r"`([^`]*)`", " ".join(rows("command")))))
    )
    assert {command.__name__ for command in COMMANDS} <= named


def test_links_and_pictures_lead_somewhere() -> None:
    """Relative ones name files of the repository."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_two_commands_are_those_of_the_makefile() -> None:
    """`make demo` and `make test`, each a goal."""
    makefile = (ROOT / "Makefile").read_text()
    for goal in ("demo", "test"):
        assert f"```sh\nmake {goal}\n```" in README
        assert re.search(rf"^{goal}:", makefile, re.MULTILINE)
