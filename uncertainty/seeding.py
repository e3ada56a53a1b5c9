"""Random numbers that depend on a seed and labels, and leave the global generator as it was."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derived_seed(seed: int, *labels: int | str) -> int:
    """A 63-bit seed that differs for every tuple of labels; the same on every machine."""
    text = "/".join([str(int(seed)), *(str(label) for label in labels)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *labels: int | str) -> torch.Generator:
    """A fresh CPU generator for (seed, labels)."""
    return torch.Generator().manual_seed(derived_seed(seed, *labels))


@contextmanager
def seeded(seed: int, *labels: int | str) -> Iterator[None]:
    """torch's global generators set for (seed, labels) inside the block, and put back after it.

    For what can only draw from the global generator: initialising layers, dropout in training.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derived_seed(seed, *labels))
        yield
