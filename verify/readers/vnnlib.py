"""VNN-LIB file -> Property: `read_vnnlib`.

Version 1.0: `declare-const` of X_0, X_1, ... and Y_0, Y_1, ..., and assertions whose conjunction is
what must never happen. Version 2.0: `declare-network` with one input and one output tensor, whose
entries are written X[0,2]. The file is untrusted: sizes and nesting are bounded, and whatever is
wrong with it is one PropertyError with line and column.

Sources:
    VNN-LIB 1.0: Demarchi, Guidotti, Pulina, Tacchella 2023, www.vnnlib.org (SMT-LIB 2 syntax).
    VNN-LIB 2.0: the standard's grammar and chapter "Query language", www.vnnlib.org.
"""

from __future__ import annotations

import gc
import re
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from verify.errors import PropertyError, VerifyError
from verify.readers.vnnlib_cases import NoEnd, property_of
from verify.readers.vnnlib_file import PropertyText, read_text
from verify.readers.vnnlib_terms import Conjunction, Reader
from verify.readers.vnnlib_tokens import (
    Declared,
    Simple,
    Source,
    Tree,
    Word,
    head_of,
    start_of,
    trees,
)
from verify.values.property import Property

FLAT_NAME = re.compile(r"([XY])_(\d{1,9})")
MOST_ENTRIES = 50_000_000
"""Of one tensor."""
IGNORED = ("set-logic", "set-info", "set-option", "check-sat", "get-model", "exit")
REAL_TYPES = ("real", "float32", "float", "float64", "double")


@dataclass(frozen=True, slots=True, eq=False)
class StatedProperty:
    """A property file as read.

    Attributes:
        property: what must never happen.
        path: of the file.
        sha256: hex digest of the file's bytes on disk.
        version: "1.0" or "2.0".
        names: of the input's and the output's variable, and their shapes; version 1.0 numbers the
            entries of X and Y, and states no shape.
    """

    property: Property
    path: Path
    sha256: str
    version: str
    names: tuple[tuple[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]


@dataclass(eq=False)
class Statements:
    """What the statements of a file said so far.

    Attributes:
        source: for messages.
        reader: of formulas.
        counts: highest number of an input and an output, plus 1.
        shapes: of version 2.0's tensors, by name; (is an output, shape).
        assertions: each a disjunction of conjunctions.
        version: of the language.
    """

    source: Source
    reader: Reader
    counts: list[int] = field(default_factory=lambda: [0, 0])
    declared: set[str] = field(default_factory=set)
    shapes: dict[str, tuple[bool, tuple[int, ...]]] = field(default_factory=dict)
    assertions: list[list[Conjunction]] = field(default_factory=list)
    version: str = "1.0"

    def read(self, part: Tree | Simple | Declared) -> None:
        """One statement."""
        if isinstance(part, Simple):
            raise self.source.error(part.start, "a comparison outside of (assert ...); wrap it")
        if isinstance(part, Declared):
            self.declare(part.name, part.start)
            return
        head, start = head_of(part), start_of(part)
        if head == "assert":
            if len(part) != 3:
                raise self.source.error(start, f"(assert ...) takes 1 formula, got {len(part) - 2}")
            self.assertions.append(self.reader.terms(part[2]))
        elif head in ("declare-const", "declare-fun"):
            self.declare_one(part)
        elif head == "declare-network":
            self.declare_network(part)
        elif head == "vnnlib-version":
            words = [w.text for w in part[2:] if isinstance(w, Word)]
            if words not in (["<2.0>"], ["<1.0>"]):
                raise self.source.error(
                    start, f"version {' '.join(words)} is not read; 1.0, 2.0 are"
                )
            self.version = words[0].strip("<>")
        elif head not in IGNORED:
            raise self.source.error(
                start, f"unknown statement {head or '(...)'!r}; expected assert or a declaration"
            )

    def declare_one(self, part: Tree) -> None:
        """(declare-const name Real), or the older (declare-fun name () Real)."""
        name, *rest = part[2:] or [0]
        kind = rest[-1] if rest else None
        bare = len(rest) == 1 or (len(rest) == 2 and isinstance(rest[0], list) and len(rest[0]) < 2)
        if not isinstance(name, Word) or not isinstance(kind, Word) or not bare:
            raise self.source.error(start_of(part), "expected (declare-const X_0 Real)")
        if kind.text.lower() not in REAL_TYPES:
            raise self.source.error(kind.start, f"type {kind.text} is not read; expected Real")
        self.declare(name.text, name.start)

    def declare(self, name: str, start: int) -> None:
        """A variable of version 1.0."""
        match = FLAT_NAME.fullmatch(name)
        if match is None:
            raise self.source.error(start, f"the variable {name} is neither X_i nor Y_i; rename it")
        if name in self.reader.variables:
            raise self.source.error(start, f"the variable {name} is declared twice; drop one")
        output, index = match.group(1) == "Y", int(match.group(2))
        if index >= MOST_ENTRIES or self.shapes:
            raise self.source.error(start, f"{name} cannot be declared here; see the standard")
        self.reader.variables[name] = (output, index)
        self.counts[output] = max(self.counts[output], index + 1)

    def declare_network(self, part: Tree) -> None:
        """Version 2.0: (declare-network name (declare-input X Real [1,5]) (declare-output ...))."""
        start = start_of(part)
        if self.shapes or self.reader.variables:
            raise self.source.error(start, "several networks in one property are not supported yet")
        for inner in part[3:]:
            head = head_of(inner)
            if head not in ("declare-input", "declare-output") or not isinstance(inner, list):
                raise self.source.error(
                    start_of(inner), f"{head or 'this'} is not supported in declare-network yet"
                )
            words = [w for w in inner[2:] if isinstance(w, Word)]
            if len(words) not in (3, 4) or len(words) != len(inner) - 2:
                raise self.source.error(start_of(inner), f"expected ({head} X Real [1,5])")
            self.declare_tensor(head == "declare-output", words)
        if sorted(output for output, _ in self.shapes.values()) != [False, True]:
            raise self.source.error(
                start, "expected one declare-input and one declare-output; more are not supported"
            )
        self.reader.tensors.update(self.shapes)
        self.version = "2.0"

    def declare_tensor(self, output: bool, words: list[Word]) -> None:
        """One tensor of version 2.0; as there is one of a kind, its name in the file is unused."""
        name, kind, shape = words[:3]
        if kind.text.lower() not in REAL_TYPES:
            raise self.source.error(
                kind.start, f"type {kind.text} is not read; Real, float32 and float64 are"
            )
        inside = shape.text[1:-1].replace(",", " ").split()
        if not shape.text.startswith("[") or not all(n.isdecimal() and len(n) < 9 for n in inside):
            raise self.source.error(shape.start, f"{shape.text} is no shape such as [1,5]")
        lengths = tuple(int(n) for n in inside)
        if not 0 < prod(lengths) <= MOST_ENTRIES or name.text in self.shapes:
            raise self.source.error(name.start, f"{name.text} is empty, too large or named twice")
        self.shapes[name.text] = (output, lengths)
        self.counts[output] = prod(lengths)

    def names(self) -> tuple[tuple[str, tuple[int, ...]], tuple[str, tuple[int, ...]]]:
        """The tensors' names and shapes, the input's first."""
        if not self.shapes:
            return ("X", (self.counts[0],)), ("Y", (self.counts[1],))
        by_kind = {output: (name, shape) for name, (output, shape) in self.shapes.items()}
        return by_kind[False], by_kind[True]


def read_vnnlib(path: str | Path) -> StatedProperty:
    """Read a property from a .vnnlib or .vnnlib.gz file.

    Raises:
        PropertyError: if it is missing, damaged, malformed, or states what is not supported.
    """
    file = read_text(path)
    source = Source(file.path, file.text)
    collecting = gc.isenabled()
    gc.disable()  # a large file makes a million small tuples, none of them garbage
    try:
        return stated(file, source)
    except NoEnd as error:
        raise PropertyError(f"{file.path}: {error}") from error
    except VerifyError:
        raise
    except MemoryError as error:
        raise PropertyError(f"{path} needs more memory than there is; split it") from error
    finally:
        if collecting:
            gc.enable()


def stated(file: PropertyText, source: Source) -> StatedProperty:
    """The property that a text states; raises as `read_vnnlib` does."""
    said = Statements(source, Reader(source))
    for part in trees(source):
        said.read(part)
    if not said.counts[0] or not said.counts[1]:
        raise PropertyError(f"{file.path} declares no inputs or no outputs; declare X_0 and Y_0")
    if not said.assertions:
        raise PropertyError(f"{file.path} asserts nothing; state what must never happen")
    found = property_of(said.assertions, *said.counts)
    return StatedProperty(found, file.path, file.sha256, said.version, said.names())
