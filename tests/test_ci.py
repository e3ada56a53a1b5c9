"""The CI script runs the checks and then what the README tells its reader to run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "run"
MARKED = "# t\n<!-- test-command -->\n```\nmake test\n```\n<!-- /test-command -->\nmake other\n"


def ci(
    folder: Path, readme: str | None, fails: str = "nothing"
) -> subprocess.CompletedProcess[str]:
    """Run the script in a made-up checkout whose `make` writes down its goals and fails at one."""
    (folder / ".ci").mkdir()
    shutil.copy(SCRIPT, folder / ".ci" / "run")
    if readme is not None:
        (folder / "README.md").write_text(readme)
    stub = folder / "bin" / "make"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\necho "$@" >> {folder}/goals\ntest "$1" != {fails}\n')
    stub.chmod(0o755)
    # Where there is none, the script would try to install one, for real.
    (stub.parent / "chromium").symlink_to(stub)
    return subprocess.run(
        [folder / ".ci" / "run"],
        env={**os.environ, "PATH": f"{stub.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def goals(folder: Path) -> list[str]:
    path = folder / "goals"
    return path.read_text().split() if path.exists() else []


def test_the_checks_come_first_then_the_command_of_the_readme(tmp_path: Path) -> None:
    """Only what stands between the marks is run."""
    done = ci(tmp_path, MARKED)
    assert (done.returncode, goals(tmp_path)) == (0, ["check", "test"])


@pytest.mark.parametrize("goal", ["check", "test"])
def test_a_failure_of_either_fails_the_run(tmp_path: Path, goal: str) -> None:
    """And nothing runs after it."""
    done = ci(tmp_path, MARKED, fails=goal)
    assert done.returncode != 0
    assert goals(tmp_path)[-1] == goal


@pytest.mark.parametrize("fails", ["true", "false"])
def test_a_browser_that_cannot_be_had_fails_nothing(tmp_path: Path, fails: str) -> None:
    """As root without chromium, apt-get is asked for it; the run goes on anyway."""
    stubs = tmp_path / "bin"
    stubs.mkdir()
    for name in ("bash", "awk", "dirname", "touch", "timeout", "sh", "cat", "true", "false"):
        (stubs / name).symlink_to(shutil.which(name) or name)
    for name, text in (
        ("id", "echo 0"),
        ("apt-get", f'echo "$*" >> {tmp_path}/asked; {fails}'),
        ("make", f'echo "$@" >> {tmp_path}/goals'),
    ):
        (stubs / name).write_text(f"#!/bin/sh\n{text}\n")
        (stubs / name).chmod(0o755)
    (tmp_path / ".ci").mkdir()
    shutil.copy(SCRIPT, tmp_path / ".ci" / "run")
    (tmp_path / "README.md").write_text(MARKED)
    done = subprocess.run(
        [tmp_path / ".ci" / "run"], env={"PATH": str(stubs)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert goals(tmp_path) == ["check", "test"]
    asked = (tmp_path / "asked").read_text()
    assert asked.startswith("-qq update")
    assert ("install" in asked) == (fails == "true")


@pytest.mark.parametrize("readme", [None, "", "make test\n", "<!-- test-command -->\n\n```\n```\n"])
def test_a_readme_without_a_test_command_fails_in_words(tmp_path: Path, readme: str | None) -> None:
    """Rather than passing with nothing run."""
    done = ci(tmp_path, readme)
    assert done.returncode == 1
    assert "README.md has no test command between" in done.stderr
    assert goals(tmp_path) == []
