"""Fixtures of the page's tests."""

from tests.cli.commands import verify

__all__ = ["verify"]
