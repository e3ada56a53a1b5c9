"""What fuzzers ask of the command line, and the records that an earlier run left."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def asked_of(
    arguments: list[str] | None, text: str, *, nets: int, every: int, which: str
) -> argparse.Namespace:
    """The options of a fuzzer.

    Args:
        arguments: of the command line; None for the process's own.
        text: whose first line describes the command.
        nets, every: defaults.
        which: help of `--every`.
    """
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--nets", type=int, default=nets)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--every", type=int, default=every, help=which)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path)
    return parser.parse_args(arguments)


def held(path: Path | None) -> list[dict[str, object]]:
    """The records of a file of JSON lines; none without it."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]
