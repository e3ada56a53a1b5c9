"""The command line as a process: start-up, Ctrl-C, a closed pipe, `python -m`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.commands import DENSE
from verify.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "matplotlib", "scipy", "attacks")
COMMANDS = (
    "certify",
    "prop",
    "attack",
    "spatial",
    "transfer",
    "radius",
    "compare",
    "train",
    "confidence",
    "calibrate",
    "coverage",
    "uncertainty",
    "ood",
    "geometric",
    "explore",
    "check",
    "report",
    "info",
)


def call(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["certify", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """A newcomer's first question is answered without torch, NumPy, ONNX or matplotlib."""
    code = (
        "import sys; from verify.cli import main; code = main(sys.argv[1:]); "
        f"print('loaded:', [name for name in {HEAVY} if name in sys.modules]); sys.exit(code)"
    )
    done = call("-c", code, *arguments)
    assert done.returncode == 0
    assert done.stdout.endswith("loaded: []\n")


def test_help_lists_every_command() -> None:
    """And no command is without a line of its own."""
    done = call("-m", "verify", "--help")
    for command in COMMANDS:
        assert re.search(rf"^\s+{command}\s+\S+", done.stdout, re.MULTILINE), command
    assert {info.name for info in app.registered_commands} == set(COMMANDS)


def test_without_arguments_there_is_help() -> None:
    """Rather than an error."""
    done = call("-m", "verify")
    assert (done.returncode, "Usage: verify" in done.stdout) == (0, True)


def test_exit_codes_leave_the_process() -> None:
    """`python -m verify` ends with the command's own code."""
    assert call("-m", "verify", "certify", DENSE, "--eps", "-1").returncode == 2
    done = call("-m", "verify", "certify", DENSE, "--eps", "0.3", "--limit", "1", "--json", "-")
    assert done.returncode == 1
    assert json.loads(done.stdout)["summary"]["falsified"] == 1


def test_ctrl_c_leaves_the_results_so_far(tmp_path: Path) -> None:
    """SIGINT in a long run: exit code 130, the finished inputs are written, no traceback."""
    target = tmp_path / "partial.json"
    arguments = ["radius", DENSE, "--limit", "360", "--batch", "1", "--json", str(target)]
    process = subprocess.Popen(
        [sys.executable, "-m", "verify", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell may have started the tests in the background, where SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("labels:"):
            break
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    record = json.loads(target.read_text())
    assert record["summary"]["interrupted"] is True
    assert 0 < len(record["results"]) < 360
    assert f"{len(record['results'])} inputs" in out
    assert "interrupted" in err
    assert "Traceback" not in err


def test_a_closed_pipe_is_no_verdict() -> None:
    """`verify info ... | head -1`: quiet, and not exit code 1, which would say "falsified"."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "verify", "info", DENSE],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert done.returncode == 141
    assert done.stderr == ""
