"""Certificates of a category's unsat instances: how many, how large, how long they take to check.

    python -m benchmarks.certificates ../shared/data/vnncomp/acasxu --sample 20 --timeout 60

Each instance: `verify prop` as a process, the same with `--certificate` (which decides once more,
keeps what proves it, and checks it), and `python -m verify.check` as a third.
One JSON line an instance goes to --out; an instance that is already there is not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from verify import Network, load
from verify.api import prove_property
from verify.certificates.diary import Diary
from verify.certificates.properties import certify_property
from verify.certificates.proving import NoCertificate
from verify.check.__main__ import check
from verify.readers.vnnlib import StatedProperty, read_vnnlib
from verify.search.complete import Decision
from verify.values.budget import Budget


def seconds(
    command: list[str], limit: float
) -> tuple[float, float, subprocess.CompletedProcess[str]]:
    """Wall-clock and processor seconds of a process, and what it said."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        done = subprocess.CompletedProcess(command, 124, "timeout", "timeout")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - start, used, done


def present(path: Path) -> Path:
    """The file, or its packed form."""
    return path if path.exists() else path.with_name(f"{path.name}.gz")


def one(folder: Path, row: dict[str, str], timeout: float) -> dict[str, object]:
    """Decide, certify and check one instance."""
    model, spec = present(folder / row["onnx"]), present(folder / row["vnnlib"])
    found: dict[str, object] = {"onnx": row["onnx"], "vnnlib": row["vnnlib"]}
    prop = [sys.executable, "-m", "verify", "prop", str(model), str(spec)]
    prop += ["--timeout", str(timeout), "--quiet"]
    wall, used, done = seconds(prop, timeout + 60)
    found |= {"answer": done.stdout.strip(), "find_s": wall, "find_cpu_s": used}
    if found["answer"] != "unsat":
        return found
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(temporary) / "proof.cert"
        wall, used, done = seconds([*prop, "--certificate", str(where)], 3 * timeout + 700)
        found |= {"certify_s": wall, "certify_cpu_s": used}
        if not where.exists():
            return found | {"certificate": done.stderr.strip().splitlines()[-1:]}
        found["bytes"] = where.stat().st_size
        check = [sys.executable, "-m", "verify.check", str(where), str(model), str(spec)]
        wall, used, done = seconds(check, 1000)
        accepted = done.returncode == 0 and done.stdout.startswith("accepted")
        return found | {"check_s": wall, "check_cpu_s": used, "accepted": accepted}


def inside(folder: Path, row: dict[str, str], timeout: float) -> dict[str, object]:
    """The same within this process: processor seconds without anybody's start-up."""
    model, spec = present(folder / row["onnx"]), present(folder / row["vnnlib"])
    found: dict[str, object] = {"onnx": row["onnx"], "vnnlib": row["vnnlib"]}

    def decided(kept: bool) -> tuple[Decision, Diary | None, StatedProperty, Network]:
        start = time.process_time()
        network, stated = load(model), read_vnnlib(spec)
        diary = Diary(network.graph) if kept else None
        decision = prove_property(network, stated, timeout=timeout, diary=diary)
        found["recorded_find_cpu_s" if kept else "find_cpu_s"] = time.process_time() - start
        return decision, diary, stated, network

    found["answer"] = decided(False)[0].answer
    if found["answer"] != "unsat":
        return found
    _, diary, stated, network = decided(True)
    start, files = time.process_time(), (model.read_bytes(), spec.read_bytes())
    try:
        budget = Budget().within(600)
        data = certify_property(network.graph, stated.property, *files, budget, diary)
    except NoCertificate as reason:
        return found | {"certificate": str(reason)}
    found |= {"certify_cpu_s": time.process_time() - start, "bytes": len(data)}
    start = time.process_time()
    found["accepted"] = check(data, *files).startswith("the property holds")
    return found | {"check_cpu_s": time.process_time() - start}


def summary(rows: list[dict[str, object]]) -> str:
    """One line a figure."""
    unsat = [row for row in rows if row["answer"] == "unsat"]
    checked = [row for row in unsat if row.get("accepted")]
    lines = [
        f"{len(rows)} instances, {len(unsat)} found unsat, {len(checked)} with an accepted "
        "certificate"
    ]
    if checked:
        for what in checked[0]:
            found = (row.get(what) for row in checked)
            values = [float(v) for v in found if isinstance(v, (int, float)) and v is not True]
            if not values:
                continue
            lines.append(
                f"  {what}: median {statistics.median(values):.3g}, mean "
                f"{statistics.mean(values):.3g}, largest {max(values):.3g}"
            )
    for row in unsat:
        if not row.get("accepted"):
            lines.append(f"  without: {row['onnx']} {row['vnnlib']} {row.get('certificate')}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--sample", type=int, default=0, help="instances, drawn with seed 0")
    parser.add_argument("--inside", action="store_true", help="in this process, without start-up")
    arguments = parser.parse_args()
    with (arguments.folder / "expected.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["expected"] == "unsat"]
    if arguments.sample:
        rows = random.Random(0).sample(rows, min(arguments.sample, len(rows)))
    out = arguments.out or Path(f"{arguments.folder.name}_certificates.jsonl")
    known = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    have = {(row["onnx"], row["vnnlib"]) for row in known}
    for row in rows:
        if (row["onnx"], row["vnnlib"]) in have:
            continue
        found = (inside if arguments.inside else one)(arguments.folder, row, arguments.timeout)
        known.append(found)
        with out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)
    print(summary(known))


if __name__ == "__main__":
    main()
