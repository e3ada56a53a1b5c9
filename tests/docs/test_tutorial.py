"""docs/tutorial.md is run: its shell blocks as processes, its Python blocks in one namespace.

A block marked `output` states lines that the block before it prints: all of them must occur, in
this order. Numbers and the lines of tables are left out of the comparison; words are not.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?")
DRAWN = re.compile(r"[│┃━─┏┓┡┩┗┛└┘├┤┬┴┼╇┳┻┷]+")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, its line in the file."""

    language: str
    text: str
    line: int


def blocks(text: str) -> list[Block]:
    return [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 1)
        for match in FENCE.finditer(text)
    ]


def words(text: str) -> list[str]:
    """The lines without numbers and table lines, blanks collapsed; empty lines are dropped."""
    plain = (" ".join(NUMBER.sub("#", DRAWN.sub(" ", line)).split()) for line in text.splitlines())
    return [line for line in plain if line]


def missing(expected: str, printed: str) -> list[str]:
    """The expected lines that do not follow each other, gaps allowed, in what was printed."""
    left = iter(words(printed))
    return [line for line in words(expected) if line not in left]


def run_shell(text: str, folder: Path) -> str:
    """The output of each line, standard error included; exit codes are as the comments say."""
    printed = ""
    for line in text.strip().splitlines():
        command, _, comment = line.partition("  # exit code ")
        name, *arguments = shlex.split(command)
        assert name == "verify", line
        done = subprocess.run(
            [sys.executable, "-m", "verify", *arguments],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_WAIT_POLICY": "PASSIVE"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == int(comment or 0), f"{line}\n{done.stdout}"
        printed += done.stdout
    return printed


def run_python(text: str, namespace: dict[str, object]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(text, str(TUTORIAL), "exec"), namespace)
    return printed.getvalue()


def test_the_tutorial_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block runs, and prints what the block after it states."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    printed = ""
    found = blocks(TUTORIAL.read_text())
    assert {"sh", "python", "output"} == {block.language for block in found}
    for block in found:
        if block.language == "sh":
            printed = run_shell(block.text, tmp_path)
        elif block.language == "python":
            printed = run_python(block.text, namespace)
        else:
            lost = missing(block.text, printed)
            assert lost == [], f"line {block.line}: not printed: {lost}\n{printed}"


def test_the_comparison_above_can_fail() -> None:
    """Another word, another order and a missing line are each noticed; another number is not."""
    printed = "│ 0 │ verified │ 0.5 │\n1 inputs, 0.1 s\n"
    assert missing("0 verified 0.7\n2 inputs, 3 s", printed) == []
    assert missing("0 falsified 0.5", printed) != []
    assert missing("1 inputs, 0.1 s\n0 verified 0.5", printed) != []
    assert missing("nothing", printed) == ["nothing"]


def test_links_of_the_tutorial_lead_somewhere() -> None:
    """Relative links name files of the repository."""
    for target in re.findall(r"\]\(([^)#:]+)\)", TUTORIAL.read_text()):
        assert (TUTORIAL.parent / target).exists(), target
