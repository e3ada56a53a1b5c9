"""How the process ends: quickly, but not before those who asked for it were told."""

import subprocess
import sys

import pytest


def ended(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("exit_code", [0, 3])
def test_functions_of_atexit_are_called_and_output_is_kept(exit_code: int) -> None:
    """Buffered output and exit functions are not lost, and the code is the one given."""
    done = ended(
        "import atexit, sys; from verify.cli.process import leave\n"
        "atexit.register(lambda: print('told'))\n"
        f"sys.stdout.write('kept '); leave({exit_code})"
    )
    assert (done.returncode, done.stdout, done.stderr) == (exit_code, "kept told\n", "")


def test_modules_are_not_taken_apart() -> None:
    """That is the time saved: nothing is finalised after leaving."""
    done = ended(
        "from verify.cli.process import leave\n"
        "class Late:\n"
        "    def __del__(self): print('finalised')\n"
        "kept = Late(); leave(0)"
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_a_thread_that_still_works_is_waited_for() -> None:
    """Such as one that writes a file."""
    done = ended(
        "import threading, time; from verify.cli.process import leave\n"
        "threading.Thread(target=lambda: (time.sleep(0.3), print('written'))).start()\n"
        "leave(1)"
    )
    assert (done.returncode, done.stdout) == (1, "written\n")


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    """Flushing into a closed pipe ends like any process does."""
    done = subprocess.run(
        f"{sys.executable} -m verify --help | head -c 1", shell=True, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
