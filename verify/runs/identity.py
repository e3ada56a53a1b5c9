"""What makes two runs the same run, and two instances the same instance: hashes of all they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

UNDECIDING = frozenset({"data", "limit", "indices", "threads", "plot", "save"})
"""Settings that say where inputs came from, how many cores there were or what was drawn, and decide
no verdict. The inputs themselves are hashed."""


CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
"""Equal values are equal text."""


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One thing to decide.

    Attributes:
        index: number in its source.
        label: class that the claim is about, if it is about one.
        eps: radius in model input units, or the largest that is searched; None without one.
        content: the input's own bytes (float32, little-endian, in row-major order), or those of
            whatever else is decided.
    """

    index: int
    label: int | None
    eps: float | None
    content: bytes

    @property
    def content_sha256(self) -> str:
        """Of the content alone: the same input in two runs, whatever was asked of it."""
        return hashlib.sha256(self.content).hexdigest()

    def key(self, base: str) -> str:
        """Of everything that decides its result, in hexadecimal."""
        eps = None if self.eps is None else float(self.eps).hex()
        text = f"{base} {self.index} {self.label} {eps} {self.content_sha256}"
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Head:
    """What a run is about.

    Attributes:
        command: name of the command, such as "certify".
        settings: every option that decided the outcome, plain values, as in a record.
        model_path, model_sha256: as in a record.
        version: of the tool.
        argv: the command line, from the command's name on; what `verify runs resume` runs again.
        folder: where it was run.
        input_shape: of one input; empty where instances are no inputs of one model.
        undeciding: names of settings left out of the identity.
    """

    command: str
    settings: Mapping[str, object]
    model_path: str | None
    model_sha256: str | None
    version: str
    argv: tuple[str, ...] = ()
    folder: str = ""
    input_shape: tuple[int, ...] = ()
    undeciding: frozenset[str] = field(default=UNDECIDING)

    @property
    def base(self) -> str:
        """Of all but the instances: results under the same base may be taken over."""
        deciding = {k: v for k, v in self.settings.items() if k not in self.undeciding}
        return digest([self.model_sha256, self.command, deciding, self.version])

    def differences(self, other: Head) -> list[str]:
        """What of the other run is not the same, in words."""
        pairs: list[tuple[str, object, object]] = [
            ("the command", self.command, other.command),
            ("the model", self.model_sha256, other.model_sha256),
            ("the version of the tool", self.version, other.version),
        ]
        names = sorted({*self.settings, *other.settings} - self.undeciding)
        pairs += [(name, self.settings.get(name), other.settings.get(name)) for name in names]
        return [f"{name} ({mine}, now {its})" for name, mine, its in pairs if mine != its]


def identity(head: Head, keys: Sequence[str]) -> str:
    """Of a whole run, in hexadecimal: what it is about, and its instances in order."""
    return digest([head.base, *keys])


def digest(parts: Sequence[object]) -> str:
    """SHA-256 of plain values, in hexadecimal, through `CANONICAL`."""
    return hashlib.sha256(CANONICAL.encode(list(parts)).encode()).hexdigest()
