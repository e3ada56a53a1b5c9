"""main: run the command line and turn whatever happens into an exit code and at most one line."""

import os
import sys
import traceback
from collections.abc import Sequence

from verify.cli.app import app
from verify.cli.failures import BROKEN_PIPE, INTERRUPTED, Interrupted, PipeClosed, describe
from verify.cli.given import given_arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `verify` with these arguments (by default the process's own) and return its exit code."""
    # Read by OpenMP when torch is loaded: threads that wait for each other sleep, not spin. On a
    # machine that others use too, spinning made a run of 0.2 s take 5.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    given_arguments.set(tuple(given))
    try:
        code = app(args=given, prog_name="verify", standalone_mode=False)
        sys.stdout.flush()
    except (PipeClosed, BrokenPipeError):
        # What is left in the buffer has no reader; without this Python complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (Interrupted, KeyboardInterrupt):
        print("interrupted before there was a result", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if "--debug" in given:
            traceback.print_exc()
        failure = describe(error)
        print(f"error: {failure.line}", file=sys.stderr)
        return failure.code
    return code if isinstance(code, int) else 0
