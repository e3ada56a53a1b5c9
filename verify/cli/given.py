"""The command line as it was given, for runs that are to be resumed."""

from contextvars import ContextVar

given_arguments: ContextVar[tuple[str, ...]] = ContextVar("given_arguments", default=())
"""The process's arguments, or those of the call of `verify.cli.main`."""
