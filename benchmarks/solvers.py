"""Verifiers as processes: a command, a time limit, and the answer that is read back."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

ANSWERS = ("unsat", "sat", "unknown", "timeout", "error")
GRACE = 10.0
"""Seconds beyond the time limit after which a process is ended."""

PEERS = {
    "nnenum": "python -m nnenum.nnenum {onnx} {vnnlib} {timeout} {out}",
    "abcrown": "python abcrown.py --device cpu --onnx_path {onnx} --vnnlib_path {vnnlib} "
    "--timeout {timeout} --results_file {out}",
    "marabou": "Marabou {onnx} {vnnlib} --timeout {timeout} --summary-file {out}",
}
"""Commands of peers; TASHIKA_<NAME> replaces one, TASHIKA_<NAME>_FOLDER is where it runs."""

SERVER = (
    "import sys, json\n"
    "from verify.cli import main\n"
    "import torch, onnxruntime\n"
    "for line in sys.stdin:\n"
    "    code = main(json.loads(line))\n"
    "    sys.stdout.write(f'done {code}\\n'); sys.stdout.flush()\n"
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one solver made of one instance.

    Attributes:
        answer: one of `ANSWERS`.
        seconds: wall clock of the whole process; of the call where processes are shared.
        cpu: seconds of processor time, NaN where it is not known.
        method: what decided, if the solver says.
        domains: sub-problems bounded, if the solver says.
        note: why there is no answer.
    """

    answer: str
    seconds: float
    cpu: float = float("nan")
    method: str = ""
    domains: int = 0
    note: str = ""


class Solver(Protocol):
    """Something that decides instances."""

    name: str

    def __call__(self, onnx: Path, vnnlib: Path, timeout: float) -> Attempt:
        """One instance."""
        ...


@dataclass(frozen=True, slots=True)
class Tashika:
    """`verify prop` in a fresh process for each instance."""

    name: str = "tashika"

    def __call__(self, onnx: Path, vnnlib: Path, timeout: float) -> Attempt:
        """One instance."""
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder) / "record.json"
            command = [sys.executable, "-m", "verify", *arguments(onnx, vnnlib, timeout, record)]
            ran = run(command, timeout, None)
            return attempt_of(record, ran)


@dataclass(eq=False)
class Resident:
    """`verify prop` in one process for all: without start-up, which is not what counts."""

    name: str = "tashika-resident"
    process: subprocess.Popen[str] | None = field(default=None, init=False)

    def __call__(self, onnx: Path, vnnlib: Path, timeout: float) -> Attempt:
        """One instance."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            record = Path(folder) / "record.json"
            started, used = time.monotonic(), processor_time(self.process.pid)
            self.process.stdin.write(
                json.dumps([*arguments(onnx, vnnlib, timeout, record), "-q"]) + "\n"
            )
            self.process.stdin.flush()
            for line in self.process.stdout:
                if line.startswith("done"):
                    break
            used = processor_time(self.process.pid) - used
            return attempt_of(record, Ran(time.monotonic() - started, used, ""))


@dataclass(frozen=True, slots=True)
class Peer:
    """Another tool by its command line."""

    name: str

    def __call__(self, onnx: Path, vnnlib: Path, timeout: float) -> Attempt:
        """One instance; packed files are unpacked first, outside of the time."""
        template = os.environ.get(f"TASHIKA_{self.name.upper()}", PEERS[self.name])
        where = os.environ.get(f"TASHIKA_{self.name.upper()}_FOLDER")
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.txt"
            places = {
                "onnx": plain(onnx, Path(folder)),
                "vnnlib": plain(vnnlib, Path(folder)),
                "timeout": f"{timeout:g}",
                "out": out,
            }
            command = [part.format(**places) for part in shlex.split(template)]
            ran = run(command, timeout, where)
            text = out.read_text() if out.is_file() else ran.output
            return Attempt(answer_in(text), ran.seconds, ran.cpu, note=ran.output[-200:])


@dataclass(frozen=True, slots=True)
class Ran:
    """A process that ended."""

    seconds: float
    cpu: float
    output: str


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used; NaN where the system does not say."""
    listing = Path(f"/proc/{pid}/stat")
    if not listing.exists():
        return float("nan")
    fields = listing.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def arguments(onnx: Path, vnnlib: Path, timeout: float, record: Path) -> list[str]:
    """Of `verify`."""
    return ["prop", str(onnx), str(vnnlib), "--timeout", f"{timeout:g}", "--json", str(record)]


def run(command: list[str], timeout: float, where: str | None) -> Ran:
    """Run a command, ended with its children a little after the time limit."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            cwd=where,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        return Ran(0.0, 0.0, f"error: cannot run {command[0]}: {error}")
    try:
        output, _ = process.communicate(timeout=timeout + GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        output += "\ntimeout: ended from outside"
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ran(seconds, used, output)


def attempt_of(record: Path, ran: Ran) -> Attempt:
    """What `verify prop` wrote."""
    if not record.is_file():
        late = ran.output.rstrip().endswith("ended from outside")
        note = " ".join(ran.output.split())[-200:]
        return Attempt("timeout" if late else "error", ran.seconds, ran.cpu, note=note)
    (result,) = json.loads(record.read_text())["results"]
    return Attempt(
        result["answer"],
        ran.seconds,
        ran.cpu,
        result["method"],
        result["domains"],
        result["reason"],
    )


def answer_in(text: str) -> str:
    """The answer in a peer's output: the first of the words that a line starts with."""
    words = {"holds": "unsat", "verified": "unsat", "violated": "sat", "safe": "unsat"}
    for line in text.splitlines():
        match = re.match(r"(?:Result: )?([a-z-]+)", line.strip(), re.IGNORECASE)
        word = match.group(1).lower() if match else ""
        word = words.get(word, word)
        if word in ANSWERS:
            return word
    return "error"


def plain(path: Path, folder: Path) -> Path:
    """The file unpacked, if it is packed."""
    if path.suffix != ".gz":
        return path
    import gzip

    target = folder / path.name.removesuffix(".gz")
    target.write_bytes(gzip.decompress(path.read_bytes()))
    return target
