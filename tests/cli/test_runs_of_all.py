"""Runs of the commands that say something of all inputs together: killed, resumed, exported.

What they say is the same to the bit whether they were interrupted or not, and whoever worked.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.cli.commands import CONV, DENSE, Run
from verify.cli import running
from verify.report import read_json
from verify.runs import read_run
from verify.runs.engine import Alone

ROOT = Path(__file__).resolve().parents[2]
TURNED = ("--transform", "rotation(-30,30)")
COMMANDS = {
    "spatial": ("spatial", CONV, *TURNED, "--limit", "34", "--search", "random"),
    "uncertainty": ("uncertainty", DENSE, CONV, "--limit", "300"),
    "confidence": (
        *("confidence", DENSE, "--eps", "0.02", "--limit", "8", "--batch", "4", "--ood", "noise"),
        *("--attack-steps", "3", "--restarts", "1"),
    ),
    "coverage": (
        *("coverage", CONV, "--criteria", "nc,kmnc,nbc,snac,tknc,tknp,nlc,ssc,vsc,dsc,idc"),
        *("--against", "digits", "--indices", "0-199"),
    ),
    "ood": ("ood", CONV, "--ood", "noise", "--method", "msp,odin,knn,vim"),
    "transfer": (
        *("transfer", DENSE, CONV, "--eps", "0.15", "--limit", "70", "--attack", "fgsm,ifgsm"),
    ),
}
KILLED_AFTER = 1
"""Writes to the store, each of one task."""
KILLER = f"""
import os, signal, sys
import onnxruntime, torch
import verify.cli.assuring, verify.cli.covering, verify.cli.detecting, verify.cli.doubting
import verify.cli.moving, verify.cli.transferring
torch.set_num_threads(1)
from verify.cli import main
from verify.runs.store import Store

add, left = Store.add, [{KILLED_AFTER}]

def counting(store, answers, **rest):
    add(store, answers, **rest)
    if answers:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

Store.add = counting
for name, words in {COMMANDS!r}.items():
    child = os.fork()
    if not child:
        sys.stdout = open(os.devnull, "w")
        os._exit(main([*words, "--run", name]))
    print(name, os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of many threads may differ in their last bit from those of one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each command that kill -9 ended."""
    folder = tmp_path_factory.mktemp("killed")
    done = subprocess.run(
        [sys.executable, "-c", KILLER],
        cwd=ROOT,
        env={**os.environ, "TASHIKA_RUNS": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [word for name in COMMANDS for word in (name, "9")], done.stderr
    return folder


PLAIN: dict[str, dict] = {}


def plainly(name: str, verify: Run) -> dict:
    """The record of a command that stores nothing; made once."""
    if name not in PLAIN:
        PLAIN[name] = verify(*COMMANDS[name], "--json", "-").record
    return PLAIN[name]


def rows_of(record: dict) -> list[dict]:
    """Results, but for the time they took."""
    return [{**row, "seconds": 0} for row in record["results"]]


def said(record: dict) -> dict:
    """The summary, but for what belongs to one run of it."""
    own = ("seconds", "run", "stored_before", "workers", "without_result")
    return {key: value for key, value in record["summary"].items() if key not in own}


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_and_resumed_is_the_same_as_never_killed(
    name: str, killed: Path, tmp_path: Path, verify: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing is left to do, and the export says what the command says."""
    monkeypatch.setenv("TASHIKA_RUNS", str(killed))
    store = read_run(killed, name)
    before, count = len(store.done()), store.count()
    assert 0 < before < count
    assert store.conclusion() == {}
    store.close()
    half = verify("runs", "export", name, "--json", "-").record
    assert (len(half["results"]), half["summary"]["missing"]) == (before, count - before)
    plain = plainly(name, verify)
    resumed = verify(*COMMANDS[name], "--json", "-", "--run", name).record
    assert resumed["summary"]["stored_before"] == before
    assert rows_of(resumed) == rows_of(plain)
    assert said(resumed) == said(plain)
    assert resumed["settings"] == plain["settings"]

    def solve(*_: object) -> None:
        raise AssertionError("done twice")

    monkeypatch.setattr(Alone, "submit", solve)
    again = verify("runs", "resume", name)
    assert again.code in (0, 1), again.err
    verify("runs", "export", name, "--json", tmp_path / "e.json", "--csv", tmp_path / "e.csv")
    exported = read_json(tmp_path / "e.json").to_dict()
    assert exported["results"] == resumed["results"]
    assert said(exported) == {**said(plain), "missing": 0}
    assert verify("runs", "show", name).code == 0
    compared = verify("runs", "compare", name, name, "--json", "-").record
    assert (compared["only_first"], compared["figures"]) == (0, [])
    assert len(compared["instances"]) >= len(resumed["results"])

    # The table for people, of runs without verdicts too.
    assert "0 only in" in verify("runs", "compare", name, name).out


@pytest.mark.parametrize("name", COMMANDS)
def test_what_travels_to_a_worker_is_all_that_it_needs(
    name: str, verify: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickled and opened as a worker does it: the same results to the bit."""
    plain = plainly(name, verify)

    def crew(self: running.Running) -> Alone:
        return Alone(pickle.loads(pickle.dumps(self.job.work)).open())

    monkeypatch.setattr(running.Running, "crew", crew)
    sent = verify(*COMMANDS[name], "--json", "-").record
    assert rows_of(sent) == rows_of(plain)
    assert said(sent) == said(plain)


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_keeps_what_came(
    name: str, tmp_path: Path, verify: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 130, a record of the rest, and no conclusion in the run; then it goes on."""
    monkeypatch.setenv("TASHIKA_RUNS", str(tmp_path))
    submit, calls = Alone.submit, []

    def cut_short(self: Alone, positions: tuple[int, ...]) -> object:
        calls.append(positions)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return submit(self, positions)

    monkeypatch.setattr(Alone, "submit", cut_short)
    done = verify(*COMMANDS[name], "--json", tmp_path / "a.json", "--run", "a")
    assert done.code == 130
    assert "interrupted: these are the results so far" in done.err
    assert json.loads((tmp_path / "a.json").read_text())["summary"]["interrupted"] is True
    store = read_run(tmp_path, "a")
    assert (store.done(), store.conclusion()) == (set(calls[0]), {})
    store.close()
    assert "interrupted" in verify("runs", "show", "a").out
