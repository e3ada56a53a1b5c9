"""Mutants of what charges rounding and covers splits: does some test notice each of them?

    python -m benchmarks.mutation --out mutants.jsonl      (resumes; --only WORDS for some)

A mutant is one piece of text in one file put in place of another (`benchmarks/mutants.json`). The
tests that are there for its room run in a process of its own, forked once the libraries are loaded
and before any of the project is. "killed": a test failed; "late": it ran into the limit of CPU
time, which counts as noticed, since the tests themselves take far less; "lives": all passed. Exit
code 1 if one lives that is not said to be equivalent, with the reason.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import json
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import numpy  # noqa: F401, ICN001 - loaded before the fork
import onnx  # noqa: F401
import onnxruntime  # noqa: F401
import pytest
import scipy.optimize  # noqa: F401
import torch

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("mutants.json")
SECONDS = 150
"""Of CPU, for one mutant's tests."""
PASSED, FAILED = 0, 1


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change.

    Attributes:
        file: what it is in.
        old, new: text that is there once, and what is put in its place.
        tests: files, each perhaps with words for `-k`, run until one fails.
        equivalent: why nothing can notice it, or empty.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    equivalent: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.file}: {' '.join(self.old.split())} -> {' '.join(self.new.split())}"


def mutants() -> list[Mutant]:
    """All of them."""
    return [Mutant(**{**one, "tests": tuple(one["tests"])}) for one in json.loads(LIST.read_text())]


def mutated(mutant: Mutant) -> str:
    """The file's text with the change.

    Raises:
        ValueError: if what is to be changed is not there, or more than once.
    """
    text = (ROOT / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {text.count(mutant.old)} places, expected 1")
    return text.replace(mutant.old, mutant.new)


def tested(mutant: Mutant) -> int:
    """Run its tests in this process, which is thrown away afterwards; the exit status."""
    target, text = str(ROOT / mutant.file), mutated(mutant)
    real = importlib.machinery.SourceFileLoader.get_code

    def get_code(self: Any, fullname: str) -> CodeType | None:
        if Path(self.get_filename(fullname)).resolve() == Path(target):
            return compile(text, target, "exec")
        found: CodeType | None = real(self, fullname)
        return found

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]
    torch.set_num_threads(1)
    worst = PASSED
    for tests in mutant.tests:
        words = tests.split(" ", 1)
        chosen = [words[0], *(["-k", words[1]] if len(words) > 1 else [])]
        quiet = ("-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no")
        worst = int(pytest.main([*quiet, *chosen]))
        if worst != PASSED:
            break
    return worst


def fate(mutant: Mutant) -> str:
    """What becomes of a mutant."""
    child = os.fork()
    if child == 0:
        status = 3
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            os.chdir(ROOT)
            status = tested(mutant)
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "late"
    code = os.WEXITSTATUS(status)
    return {PASSED: "lives", FAILED: "killed"}.get(code, f"broken ({code})")


def main(arguments: list[str] | None = None) -> int:
    """Try what the file does not hold yet, then count."""
    parser = argparse.ArgumentParser(prog="benchmarks.mutation")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", help="of the mutants whose name holds this")
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    known: dict[str, str] = {}
    if given.out is not None and given.out.exists():
        lines = (json.loads(line) for line in given.out.read_text().splitlines())
        known = {line["name"]: line["fate"] for line in lines}
    fates, every = {}, mutants()
    for mutant in every:
        if given.only and given.only not in mutant.name:
            continue
        if mutant.name not in known or mutant.name in fates:
            known[mutant.name] = found = fate(mutant)
            print(f"{found:8} {mutant.name}", flush=True)
            if given.out is not None:
                with given.out.open("a") as file:
                    file.write(json.dumps({"name": mutant.name, "fate": found}) + "\n")
        fates[mutant.name] = known[mutant.name]
    living = [m for m in every if fates.get(m.name, "") not in ("", "killed", "late")]
    odd = [m for m in living if not m.equivalent]
    for mutant in living:
        print(f"{fates[mutant.name]}: {mutant.name}: {mutant.equivalent or 'NOT EXPLAINED'}")
    print(f"{len(fates)} mutants, {len(living)} live, {len(odd)} of them unexplained")
    return int(bool(odd))


if __name__ == "__main__":
    raise SystemExit(main())
