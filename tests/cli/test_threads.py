"""--threads: how many cores a command uses, from the command line to the search's own workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.commands import Run, write_identity
from tests.cli.test_prop import BOX, spec
from verify.bounders.crew import available
from verify.network import load
from verify.readers.vnnlib import read_vnnlib
from verify.search import input_split
from verify.values.budget import Budget
from verify.values.result import Verdict


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Torch's own number, as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_number_below_1_is_refused(tmp_path: Path, verify: Run) -> None:
    """In one line, before anything is read."""
    net = write_identity(tmp_path, [[0.2, 0.8]])
    for done in (
        verify("prop", net, spec(tmp_path, BOX), "--threads", "0"),
        verify("certify", net, "--eps", "0.1", "--threads", "-1"),
    ):
        assert done.code == 2
        assert "expected at least 1" in done.err
        assert "Traceback" not in done.err


def test_the_record_says_what_was_used(tmp_path: Path, verify: Run) -> None:
    """As it was asked."""
    net = write_identity(tmp_path, [[0.2, 0.8]])
    done = verify("certify", net, "--eps", "0.1", "--threads", "1", "--json", "-")
    assert json.loads(done.out)["settings"]["threads"] == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_searches_take_no_more_cores_than_they_were_given(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not all processors, where there are several workers or one core was asked for."""
    asked: list[int] = []

    def counting(workers: int, **settings: Any) -> ThreadPoolExecutor:
        asked.append(workers)
        return ThreadPoolExecutor(workers, **settings)

    monkeypatch.setattr(input_split, "ThreadPoolExecutor", counting)
    graph = load(write_identity(tmp_path, [[0.2, 0.8]])).graph
    (case,) = read_vnnlib(spec(tmp_path, BOX + "(assert (<= Y_1 0.49))")).property.cases
    torch.set_num_threads(threads)
    outcome = input_split.InputSplit()(graph, case, None, Budget())
    assert outcome.verdict is Verdict.VERIFIED
    assert asked == [available()]
    assert available() <= threads
