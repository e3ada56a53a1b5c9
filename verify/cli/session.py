"""What every command does first: load the model, read the data, put the question."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from verify.api import asked_of, granted, largest_radius
from verify.cli import parsing
from verify.cli.options import AttackOptions, BoundOptions, DataOptions
from verify.errors import DataError, SettingError
from verify.network import Network, load, with_normalisation
from verify.readers.datasets import Dataset, channel_values, default_source, load_dataset
from verify.recipes import recipe
from verify.report import ModelStamp
from verify.values.question import Question

UNIT_RANGE = (0.0, 1.0)
LABELS = ("auto", "data", "predicted")


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """A model and inputs, ready to be asked about.

    Attributes:
        network: behind the normalisation, if one was given.
        data: the chosen rows.
        asked: the question; `eps` is what the command put there.
        input_range: that inputs never leave, or None.
        settings: what of the data decided the outcome, for the record.
        notes: what was assumed, for people.
    """

    network: Network
    data: Dataset
    asked: Question
    input_range: tuple[float, float] | None
    settings: dict[str, object]
    notes: tuple[str, ...]


def open_session(model: Path, options: DataOptions, eps: float | None) -> Session:
    """Load, read and ask; `eps` None asks about everything within the range.

    Raises:
        InputError: if any of it cannot be used.
    """
    norm, ends = parsing.norm(options.norm), parsing.interval(options.input_range)
    if options.labels not in LABELS:
        raise SettingError(f"--labels is {options.labels!r}, expected {', '.join(LABELS)}")
    if options.limit is not None and options.limit < 1:
        raise SettingError(f"--limit is {options.limit}, expected at least 1; correct it")
    network = normalised(load(model), options)
    shape = network.input_shape
    source = options.data or default_source(model, input_shape=shape)
    data = load_dataset(
        source,
        input_shape=shape,
        channels_last=options.channels_last,
        scale=parsing.positive(options.scale, "--scale"),
        input_range=ends,
        limit=options.limit,
        indices=parsing.indices(options.indices),
        classes=None if options.labels == "predicted" else network.classes,
    )
    if not len(data.x):
        raise DataError(f"{data.source} has no rows; choose others with --data or --indices")
    labels, whose = labels_of(data, options.labels)
    ends, why = (ends, "as given") if options.input_range else default_range(data.x)
    radius = largest_radius(data.x, norm, ends) if eps is None else eps
    asked = asked_of(network, data.x, labels, radius, norm, ends)
    said = "none" if ends is None else f"{ends[0]:g} to {ends[1]:g}"
    chosen = "" if options.data else ", as no --data was given"
    notes = (
        *network.notes,
        f"data: {data.source}{chosen}; {len(data.x)} inputs",
        *data.notes,
        f"labels: {whose}; input range: {said} ({why})",
    )
    settings: dict[str, object] = {
        "data": data.source,
        "limit": options.limit,
        "indices": options.indices,
        "labels": "predicted" if labels is None else "data",
        "input_range": None if ends is None else list(ends),
        "mean": list(parsing.numbers(options.mean, "--mean") or ()) or None,
        "std": list(parsing.numbers(options.std, "--std") or ()) or None,
        "scale": options.scale,
        "channels_last": options.channels_last,
        "norm": asked.p,
    }
    return Session(network, data, asked, ends, settings, notes)


def stamp(session: Session) -> ModelStamp:
    """Which model the session is about."""
    return ModelStamp(session.network.path, session.network.sha256)


def normalised(network: Network, options: DataOptions) -> Network:
    """The network behind (x - mean) / std, if either was given."""
    mean, std = parsing.numbers(options.mean, "--mean"), parsing.numbers(options.std, "--std")
    if mean is None and std is None:
        return network
    shape = network.input_shape
    return with_normalisation(
        network,
        channel_values(mean or (0.0,), shape, name="mean"),
        channel_values(std or (1.0,), shape, name="std", positive=True),
    )


def labels_of(data: Dataset, which: str) -> tuple[Tensor | None, str]:
    """The labels to hold, None for the model's own predictions, and whose they are, in words."""
    if which == "data" and data.labels is None:
        raise DataError(
            f"{data.source} has no labels; leave out --labels data, or give data that has them"
        )
    if which == "predicted" or data.labels is None:
        why = "" if which == "predicted" else ", as the data have none"
        return None, f"the model's own predictions{why}"
    return data.labels, "of the data"


def default_range(x: Tensor) -> tuple[tuple[float, float] | None, str]:
    """The range where none was given: 0 to 1 if every value lies in it; and why, in words."""
    low, high = float(x.min()), float(x.max())
    if UNIT_RANGE[0] <= low and high <= UNIT_RANGE[1]:
        return UNIT_RANGE, "all chosen values lie in it; --input-range says otherwise"
    return None, f"values reach from {low:g} to {high:g}; --input-range can limit them"


def bound_arguments(options: BoundOptions) -> BoundArguments:
    """The options in the units of `verify.api`, checked before any work is done; cores are set.

    Raises:
        SettingError: if one of them cannot be read, or is out of its range.
    """
    recipe(options.method, iterations=options.iterations)
    parsing.threads(options.threads)
    memory = parsing.size(options.memory)
    granted(memory)
    if options.batch is not None and options.batch < 1:
        raise SettingError(f"--batch is {options.batch}, expected at least 1; correct it")
    return BoundArguments(
        method=options.method,
        timeout=parsing.positive(options.timeout, "--timeout"),
        memory=memory,
        batch=options.batch,
        iterations=options.iterations,
    )


@dataclass(frozen=True, slots=True)
class BoundArguments:
    """Arguments that `certify_each` and `radius_each` share; see `verify.api.certify`."""

    method: str
    timeout: float | None
    memory: int
    batch: int | None
    iterations: int

    def settings(self, attack: AttackOptions) -> dict[str, object]:
        """These and the attack's options as the record holds them."""
        return {
            "method": self.method,
            "iterations": self.iterations,
            "timeout": self.timeout,
            "memory": self.memory,
            "batch": self.batch,
            "attack": attack.attack,
            "attack_steps": attack.attack_steps,
            "restarts": attack.restarts,
            "seed": attack.seed,
            "threads": torch.get_num_threads(),
        }
