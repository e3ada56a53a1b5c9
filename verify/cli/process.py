"""run: the command line as a whole process, which starts and ends no slower than it must.

Importing torch makes some hundred thousand objects that live to the end. Python's collector walks
them again and again while they are made, and takes them apart one by one at exit: together half a
second, which is more than many a verdict takes.
"""

import atexit
import gc
import os
import sys
import threading
from threading import main_thread
from typing import NoReturn

from verify.cli.entry import main
from verify.cli.overtime import Overtime

COLLECT_AFTER = 100_000
"""New objects between two collections, in place of Python's 700 or 2,000. What is held in cycles,
tracebacks mostly, may take some megabytes longer to be freed; tensors are not held in cycles."""


def run() -> NoReturn:
    """Run `verify` with the process's own arguments, and end the process."""
    gc.set_threshold(COLLECT_AFTER, 50, 100)
    Overtime.own_process = True
    leave(main())


def leave(code: int) -> NoReturn:
    """End the process with this exit code, without taking modules apart first.

    Whatever asked to be told of the end is told: functions of atexit, among them those that end
    worker processes. A thread that still works is waited for in the ordinary way, but for daemons,
    which nobody waits for: taking modules apart under one of them would abort the process.
    """
    if any(not thread.daemon for thread in threading.enumerate() if thread is not main_thread()):
        sys.exit(code)
    # There is no public name for it; without it sys.exit is the only way to have them called.
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(code)
    os._exit(code)
