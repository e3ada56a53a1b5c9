"""Fixtures of the command line's tests."""

from tests.cli.commands import verify

__all__ = ["verify"]
