"""Where and with what a measurement was made, so that two files can be compared honestly."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "numpy", "onnx", "onnxruntime")


def commit() -> str:
    """The checked-out commit, with "+" when the library or the benchmarks differ from it."""

    def git(*arguments: str) -> str:
        command = ("git", "-C", str(ROOT), *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", "verify", "benchmarks")
    return f"{git('rev-parse', '--short=12', 'HEAD')}{'+' if changed else ''}"


def processor() -> str:
    """The processor's model name, or what the platform calls it."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe(threads: int) -> dict[str, str | int]:
    """Commit, processor, cores, threads used and versions, flat, ready for JSON."""
    return {
        "commit": commit(),
        "processor": processor(),
        "cores": os.cpu_count() or 0,
        "threads": threads,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }
