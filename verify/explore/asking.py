"""Ask: what a page may ask, read from JSON that nobody trusts."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from verify.errors import DataError, SettingError
from verify.explore.subject import MOST_DEGREES, Subject

BALL, ANGLE = "ball", "angle"
PREDICTED = "predicted"
"""In place of a class that must hold: the one that the model itself gives."""
KEYS = {"client", "position", "values", "held", "threat", "size", "attack"}
CLIENT = re.compile(r"[0-9a-f]{8,64}")
ROOM = 4096
"""Bytes of an ask beside its values."""


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One question of a page.

    Attributes:
        client: the page.
        x: shape (1, *input), float32.
        held: the class that must hold.
        threat: `BALL` or `ANGLE`.
        size: radius in model input units, or degrees.
        attack: name of the attack on the ball.
    """

    client: str
    x: Tensor
    held: int
    threat: str
    size: float
    attack: str


def most_bytes(subject: Subject) -> int:
    """What the longest ask takes: values in base64, and some room."""
    return 4 * math.ceil(4 * subject.layout.size / 3) + ROOM


def read_ask(body: bytes, subject: Subject, attacks: Collection[str]) -> Ask:
    """The question in a request's body.

    Raises:
        InputError: if it is none; the message says what is wrong.
    """
    found = members(body)
    client = found.get("client")
    if not (isinstance(client, str) and CLIENT.fullmatch(client)):
        raise SettingError("client is not 8 to 64 hexadecimal digits; load the page again")
    threat = found.get("threat", BALL)
    if threat not in (BALL, ANGLE) or (threat == ANGLE and not subject.turns):
        raise SettingError(f"threat is {shown(threat)}, which this model has not; choose {BALL}")
    size = number(found.get("size"), "size")
    most = MOST_DEGREES if threat == ANGLE else subject.largest
    if not 0 <= size <= most:
        raise SettingError(f"size is {size:g}, expected 0 to {most:g}; correct it")
    attack = found.get("attack", next(iter(attacks)))
    if not (isinstance(attack, str) and attack in attacks):
        raise SettingError(f"there is no attack {shown(attack)} here; choose one of the list")
    x, label = chosen(found, subject)
    held = found.get("held")
    if held not in (None, PREDICTED):
        label = whole(held, "held", subject.network.classes)
    if label is None or held == PREDICTED:
        label = int(subject.network.judge.predict(x)[0])
    subject.question(x, label, 0.0)
    return Ask(client, x, label, str(threat), size, attack)


def members(body: bytes) -> dict[str, object]:
    """The members of a JSON object, none but those that are known."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        found = json.loads(body.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError):
        raise DataError("the question is no JSON; load the page again") from None
    if not isinstance(found, dict) or not set(found) <= KEYS:
        raise DataError("the question has members that are not known; load the page again")
    return found


def chosen(found: dict[str, object], subject: Subject) -> tuple[Tensor, int | None]:
    """The input, by its position or its values, and its label where one is known."""
    position, values = found.get("position"), found.get("values")
    if (position is None) == (values is None):
        raise DataError("either position or values says which input is meant; give one of them")
    if position is not None:
        place = whole(position, "position", len(subject.asked.x))
        return subject.asked.x[place : place + 1], int(subject.asked.labels[place])
    if not isinstance(values, str):
        raise DataError("values are not base64; load the page again")
    try:
        raw = base64.b64decode(values, validate=True)
    except (binascii.Error, ValueError):
        raise DataError("values are not base64; load the page again") from None
    size = subject.layout.size
    if len(raw) != 4 * size:
        raise DataError(
            f"values hold {len(raw) / 4:g} numbers, expected {size}: the model's input has the "
            f"shape {subject.network.input_shape}"
        )
    x = torch.from_numpy(np.frombuffer(raw, dtype="<f4").astype(np.float32))
    return x.reshape(1, *subject.network.input_shape), None


def number(value: object, name: str) -> float:
    """A finite number that is none of Python's other ideas of one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingError(f"{name} is {shown(value)}, expected a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise SettingError(f"{name} is not finite, expected a number")
    return found


def whole(value: object, name: str, end: int) -> int:
    """A whole number from 0 to below the end."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < end:
        raise SettingError(f"{name} is {shown(value)}, expected a whole number from 0 to {end - 1}")
    return value


def shown(value: object) -> str:
    """Something of a request in a message, cut short."""
    return repr(value)[:40]
