"""A category folder of the competition: instances.csv, expected.csv, and the files they name."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of instances.csv.

    Attributes:
        category: name of the folder.
        onnx, vnnlib: as the line names them; files may carry .gz besides.
        timeout: seconds.
        expected: "sat", "unsat", "unknown", or "" where nothing is known.
    """

    category: str
    onnx: str
    vnnlib: str
    timeout: float
    expected: str


def listed(folder: Path) -> list[Listed]:
    """The instances of a category, with what is known of their answers."""
    known: dict[tuple[str, str], str] = {}
    if (folder / "expected.csv").is_file():
        with (folder / "expected.csv").open(newline="") as stream:
            known = {(r["onnx"], r["vnnlib"]): r["expected"] for r in csv.DictReader(stream)}
    with (folder / "instances.csv").open(newline="") as stream:
        rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if row]
    return [
        Listed(folder.name, onnx, vnnlib, float(timeout), known.get((onnx, vnnlib), ""))
        for onnx, vnnlib, timeout in rows
    ]


def sampled(instances: list[Listed], count: int | None, seed: int) -> list[Listed]:
    """Some of the instances, in their order."""
    if count is None or count >= len(instances):
        return instances
    chosen = sorted(random.Random(seed).sample(range(len(instances)), count))
    return [instances[i] for i in chosen]


def found(folder: Path, name: str) -> Path:
    """The file of that name, or the same name with .gz.

    Raises:
        FileNotFoundError: if neither is there.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder / name}: neither it nor {name}.gz is there")
