"""VNN-LIB text -> trees: one regular expression, one pass, an explicit stack.

The two shapes that large files consist of, `(declare-const X_7 Real)` and `(<= X_7 0.5)`, are one
token each. A tree is a list of its start (an offset into the text) and its parts; a part is a tree,
a `Word`, or one of those two tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from verify.errors import PropertyError

MOST_NESTED = 200
"""Parentheses within parentheses; people's properties need five."""

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
TOKEN = re.compile(
    rf"""
      ;[^\n]*
    | \(\s*(<=|>=)\s+([A-Za-z]\w*(?:\[[\d,]*\])?)\s+({NUMBER})\s*\)
    | \(\s*declare-const\s+([A-Za-z]\w*)\s+Real\s*\)
    | ([()])
    | ("[^"\n]*" | \[[^\]()\n]*\] | [^\s();\[\]"]+)
    | (\S)
    """,
    re.VERBOSE,
)
COMPARED, VARIABLE, LIMIT, DECLARED, PARENTHESIS, WORD, STRAY = range(1, 8)


class Word(NamedTuple):
    """A name, number, string or bracketed index, and where it starts."""

    text: str
    start: int


class Simple(NamedTuple):
    """`(<= variable limit)` or `(>= variable limit)`."""

    upper: bool
    variable: str
    limit: str
    start: int


class Declared(NamedTuple):
    """`(declare-const name Real)`."""

    name: str
    start: int


Tree: TypeAlias = "list[int | Tree | Word | Simple | Declared]"
Part: TypeAlias = "int | Tree | Word | Simple | Declared"


@dataclass(frozen=True, slots=True)
class Source:
    """A text and its name, for messages.

    Attributes:
        path: of the file.
        text: all of it.
    """

    path: Path
    text: str

    def error(self, start: int, what: str) -> PropertyError:
        """An error with line and column, both from 1."""
        line = self.text.count("\n", 0, start) + 1
        column = start - (self.text.rfind("\n", 0, start) + 1) + 1
        return PropertyError(f"{self.path}, line {line}, column {column}: {what}")


def trees(source: Source) -> list[Tree | Simple | Declared]:
    """The statements of a file.

    Raises:
        PropertyError: if parentheses do not match, or something stands outside of them.
    """
    top: Tree = [0]
    open_: list[Tree] = [top]
    here = top
    for match in TOKEN.finditer(source.text):
        kind = match.lastindex
        if kind is None:
            continue  # a comment
        start = match.start()
        if kind == LIMIT:
            compared, variable, limit = match.group(COMPARED, VARIABLE, LIMIT)
            here.append(Simple(compared == "<=", variable, limit, start))
        elif kind == DECLARED:
            here.append(Declared(match.group(DECLARED), start))
        elif kind == PARENTHESIS:
            if match.group() == "(":
                inner: Tree = [start]
                here.append(inner)
                open_.append(inner)
                here = inner
                if len(open_) > MOST_NESTED:
                    raise source.error(
                        start, f"more than {MOST_NESTED} parentheses within each other; flatten it"
                    )
            elif len(open_) == 1:
                raise source.error(start, "this closing parenthesis has no opening one; remove it")
            else:
                open_.pop()
                here = open_[-1]
        elif kind == WORD and len(open_) > 1:
            here.append(Word(match.group(), start))
        else:
            raise source.error(start, f"unexpected {match.group()!r}; expected '(' and a statement")
    if len(open_) > 1:
        raise source.error(start_of(here), "this parenthesis is never closed; the file may be cut")
    return [part for part in top[1:] if isinstance(part, list | Simple | Declared)]


def start_of(part: Part) -> int:
    """Where a part starts."""
    if isinstance(part, int):
        return part
    if isinstance(part, list):
        first = part[0]
        assert isinstance(first, int)
        return first
    return part.start


def head_of(part: Part) -> str:
    """The first word of a tree, or ""."""
    if isinstance(part, list) and len(part) > 1 and isinstance(part[1], Word):
        return part[1].text
    return ""
