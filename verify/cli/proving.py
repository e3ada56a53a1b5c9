"""The work of `verify prop`: the decision in words, in the competition's format, as a record."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from verify.api import prove_property
from verify.cli import parsing
from verify.cli.failures import INTERRUPTED
from verify.cli.growth import Growth, peak_memory
from verify.cli.overtime import Overtime
from verify.cli.refuting import refuters
from verify.errors import SettingError
from verify.network import Network, load
from verify.readers.vnnlib import StatedProperty, read_vnnlib
from verify.search.complete import Decision
from verify.values.budget import Budget
from verify.values.result import Verdict
from verify.values.semantics import EXECUTED, Semantics

if TYPE_CHECKING:
    from verify.certificates.diary import Diary

EXIT = {
    Verdict.VERIFIED: 0,
    Verdict.VERIFIED_REAL: 0,
    Verdict.FALSIFIED: 1,
    Verdict.UNKNOWN: 3,
}
OVERDUE = "one step outlasted the timeout by far, and was left; give more with --timeout"
CERTIFYING = 600.0
"""Seconds for a certificate; what has none by then is said to have none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks; see `verify.cli.prop`."""

    model: Path
    spec: Path
    timeout: str | None
    memory: str
    seed: int
    certificate: Path | None = None
    semantics: Semantics = EXECUTED


def prove(asked: Asked, *, out: Path | None, json: str | None, quiet: bool) -> int:
    """Decide, print and write; returns the exit code.

    Raises:
        InputError: if anything given cannot be used.
    """
    started = time.monotonic()
    seconds = parsing.positive(asked.timeout, "--timeout")
    memory = parsing.size(asked.memory)
    files = (("--out", out), ("--json", json), ("--certificate", asked.certificate))
    for option, path in files:
        if path not in (None, "-") and not Path(str(path)).resolve().parent.is_dir():
            raise SettingError(
                f"{option} is {path}, which lies in no folder that is there; make it"
            )
    clock = Overtime(seconds, lambda: overdue(out, quiet))
    stated = read_vnnlib(asked.spec)
    network = load(asked.model)
    clock.last_words = lambda: overdue(out, quiet, json, asked, network, stated)
    left = None if seconds is None else max(0.05, seconds - (time.monotonic() - started))
    diary = None
    if asked.certificate is not None:
        from verify.certificates.diary import Diary

        diary = Diary(network.graph)
    with progress(shown=not quiet and sys.stderr.isatty()) as watch:
        decision = prove_property(
            network,
            stated,
            refuters=refuters(asked.seed),
            timeout=left,
            memory=memory,
            watch=watch,
            semantics=asked.semantics.name,
            diary=diary,
        )
    clock.answer()
    text = written(network, stated, decision)
    if out is not None:
        write_text(out, text)
    if json is not None:
        write_record(json, asked, network, stated, decision, watch, time.monotonic() - started)
    if json != "-":
        print(decision.answer if quiet else text, end="\n" if quiet else "")
    if asked.certificate is not None and decision.verdict is Verdict.VERIFIED:
        certified(asked, network, stated, diary)
    if not quiet:
        sys.stdout.flush()
        for line in explained(decision, time.monotonic() - started):
            print(line, file=sys.stderr)
    return INTERRUPTED if decision.interrupted else EXIT[decision.verdict]


def overdue(
    out: Path | None,
    quiet: bool,
    json: str | None = None,
    asked: Asked | None = None,
    network: Network | None = None,
    stated: StatedProperty | None = None,
) -> None:
    """Say "timeout", wherever an answer was to be said, of a step that did not end in time."""
    decision = Decision(Verdict.UNKNOWN, "", reason=OVERDUE, late=True)
    if out is not None:
        write_text(out, "timeout\n")
    if json is not None and asked is not None and network is not None and stated is not None:
        write_record(json, asked, network, stated, decision, Growth(), float(asked.timeout or 0))
    if json != "-":
        print("timeout")
    if not quiet:
        print(OVERDUE, file=sys.stderr)


def certified(asked: Asked, network: Network, stated: StatedProperty, diary: Diary | None) -> None:
    """Write a certificate, or say on standard error why there is none."""
    from verify.certificates.properties import certify_property
    from verify.certificates.proving import NoCertificate
    from verify.report.writers import write_whole

    model, prop = asked.model.read_bytes(), asked.spec.read_bytes()
    budget = Budget().within(CERTIFYING)
    try:
        data = certify_property(network.graph, stated.property, model, prop, budget, diary)
    except NoCertificate as reason:
        print(f"no certificate: {reason}", file=sys.stderr)
        return
    where = asked.certificate
    assert where is not None
    write_whole(where, data)
    print(f"certificate: {where}, {len(data)} bytes, accepted by verify.check", file=sys.stderr)


def explained(decision: Decision, seconds: float) -> list[str]:
    """What was done and why, a line each."""
    by = f"by {decision.method}" if decision.verdict is not Verdict.UNKNOWN else decision.reason
    rate = decision.domains / max(decision.seconds, 1e-9)
    parts = [
        f"{decision.answer} {by}",
        f"{seconds:.2f} s",
        f"{decision.domains} domains ({rate:.0f}/s)",
        f"{peak_memory():.0f} MiB at most",
    ]
    return [*decision.why, ", ".join(parts)]


def written(network: Network, stated: StatedProperty, decision: Decision) -> str:
    """The answer and, if there is one, the counterexample, as the competition reads them.

    Version 2.0 of the language names entries as its standard does: X[0,2]=0.5.
    """
    if decision.witness is None:
        return f"{decision.answer}\n"
    entries = assignment(network, stated, decision.witness)
    if stated.version == "2.0":
        return "\n".join([decision.answer, *(f"{name}={value}" for name, value in entries), ""])
    inner = "\n ".join(f"({name} {value})" for name, value in entries)
    return f"{decision.answer}\n({inner})\n"


def assignment(
    network: Network, stated: StatedProperty, witness: Tensor
) -> Iterator[tuple[str, str]]:
    """The variables in order and their values; outputs as ONNX Runtime gives them."""
    from verify.runtime import Runtime

    assert isinstance(network.judge, Runtime)
    output = network.judge.run(witness[None])
    for (name, shape), values in zip(stated.names, (witness, output), strict=True):
        for i, value in enumerate(values.flatten().tolist()):
            label = f"{name}_{i}" if stated.version == "1.0" else f"{name}{list(place(i, shape))}"
            # 17 digits: every float32 and float64 is read back as itself.
            yield label.replace(" ", ""), f"{value:.17g}"


def place(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index of an entry, from its number in row-major order."""
    index = []
    for length in reversed(shape):
        flat, rest = divmod(flat, length)
        index.append(rest)
    return tuple(reversed(index))


def write_text(path: Path, text: str) -> None:
    """Write a whole file."""
    from verify.report.writers import write_whole

    write_whole(path, text.encode())


def write_record(
    where: str,
    asked: Asked,
    network: Network,
    stated: StatedProperty,
    decision: Decision,
    growth: Growth,
    seconds: float,
) -> None:
    """The decision as a record; see docs/record-schema.md."""
    from verify.report.records import ModelStamp, make_record
    from verify.report.writers import json_text, write_json

    result = {
        "index": 0,
        "verdict": decision.verdict,
        "margin": decision.bound,
        "method": decision.method,
        "seconds": decision.seconds,
        "reason": decision.reason,
        "answer": decision.answer,
        "case": decision.case,
        "domains": decision.domains,
        "domains_per_second": decision.domains / max(decision.seconds, 1e-9),
        "peak_memory_mib": peak_memory(),
        "growth": growth.marks,
        "why": decision.why,
        "witness": decision.witness,
    }
    record = make_record(
        "prop",
        [result],
        settings={
            "property": str(stated.path),
            "property_sha256": stated.sha256,
            "property_version": stated.version,
            "cases": len(stated.property.cases),
            "timeout": asked.timeout,
            "memory": asked.memory,
            "seed": asked.seed,
            "semantics": asked.semantics.name,
        },
        model=ModelStamp(network.path, network.sha256),
        seconds=seconds,
        summary={"interrupted": decision.interrupted},
    )
    if where == "-":
        sys.stdout.write(json_text(record))
    else:
        write_json(record, where)


@contextmanager
def progress(*, shown: bool) -> Iterator[Growth]:
    """What watches the search; on a terminal it says how far it is, nothing elsewhere."""
    if not shown:
        yield Growth()
        return
    from rich.console import Console

    with Console(stderr=True).status("bounding") as status:
        yield Growth(status.update)
