"""What goes wrong, as one line and an exit code."""

import sys
from dataclasses import dataclass

from verify.errors import InputError

BAD_INPUT = 2
UNEXPECTED = 70
"""EX_SOFTWARE of sysexits.h: the fault is ours."""
INTERRUPTED = 130
BROKEN_PIPE = 141
"""What a shell reports of a process that SIGINT or SIGPIPE ended."""


class PipeClosed(Exception):
    """The reader of our output has gone (`verify ... | head`)."""


class Interrupted(Exception):
    """Ctrl-C before there was anything to keep."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How the process ends.

    Attributes:
        line: without a line break.
        code: exit code.
    """

    line: str
    code: int


def describe(error: Exception) -> Failure:
    """The line and the exit code for an exception that ended a command."""
    if is_users(error):
        return Failure(one_line(str(error)), BAD_INPUT)
    # Mistakes in the arguments: typer raises its own or click's classes, depending on its version.
    say = getattr(error, "format_message", None)
    if callable(say):
        return Failure(f"{one_line(str(say()))} (see verify --help)", BAD_INPUT)
    if isinstance(error, MemoryError):
        return Failure("out of memory; give less with --batch 1, or lower --memory", UNEXPECTED)
    return Failure(
        f"unexpected {type(error).__name__}: {one_line(str(error))} "
        "(this is a bug: run again with --debug for the traceback, and please report it)",
        UNEXPECTED,
    )


def is_users(error: Exception) -> bool:
    """Whether the user can mend it: an input error of verify, or any of attacks or uncertainty."""
    if isinstance(error, InputError):
        return True
    # Looked up rather than imported: importing attacks imports torch, which --help must not.
    attacks = sys.modules.get("attacks.errors")
    uncertainty = sys.modules.get("uncertainty.errors")
    return (attacks is not None and isinstance(error, attacks.AttackError)) or (
        uncertainty is not None and isinstance(error, uncertainty.UncertaintyError)
    )


def one_line(text: str) -> str:
    """The text with every run of white space as one blank."""
    return " ".join(text.split())
