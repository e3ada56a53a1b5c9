"""The fuzzers: no bound of ours is wrong, plain bounds are, and damaged files are refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import malformed, soundness_fuzz
from benchmarks.provocative import EXACT, KINDS, exactly, executed, graph_of, make
from verify.bounders.crown import Crown
from verify.traverse import run


@pytest.mark.parametrize("kind", KINDS)
def test_the_judges_compute_the_net_that_the_bounders_see(kind: str) -> None:
    """Rational numbers and executions agree with the graph in float64, where nothing cancels."""
    for seed in range(20):
        net = make(kind, seed)
        x = np.random.default_rng(seed).random((3, int(np.prod(net.shape)))).astype(np.float32)
        graph = graph_of(net)
        ours = run(graph, torch.tensor(x).double().view(3, *net.shape)).numpy()
        size = max(float(np.abs(s.weight).max()) for s in net.steps if s.op == "affine")
        if size > 10:
            continue
        if kind in EXACT:
            assert np.allclose(np.array(exactly(net, x), dtype=float), ours, rtol=1e-12, atol=1e-12)
        for values in executed(net, x, np.random.default_rng(0)):
            assert np.allclose(values, ours, rtol=1e-3, atol=1e-3)


def test_rigorous_bounds_survive_and_plain_ones_fall(capsys: pytest.CaptureFixture[str]) -> None:
    """Our answers are never wrong, searches included; those without the charge are, on dozens."""
    assert soundness_fuzz.main(["--nets", "70", "--every", "5", "--first", "100000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    plain = [line.split() for line in lines if line.startswith("crown, plain")]
    assert len(plain) == 2
    assert all(int(line[-1]) > 20 for line in plain)


def test_a_bound_without_the_charge_is_counted_as_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant: plain CROWN in the place of the rigorous one ends with exit code 1."""
    monkeypatch.setitem(soundness_fuzz.BOUNDERS, "crown", Crown(rounding=None))
    assert soundness_fuzz.main(["--nets", "7", "--every", "1000000", "--first", "1"]) == 1


def test_the_exact_judge_is_exact() -> None:
    """Whole numbers of 2^-149 and back."""
    values = np.array([1.0, -1e-45, 3.4e38, 1e-10], dtype=np.float32)
    from benchmarks.provocative import SHIFT, whole

    assert [Fraction(int(v), 2**SHIFT) for v in whole(values)] == [
        Fraction(float(v)) for v in values
    ]


def test_damaged_files_end_in_one_clear_error(tmp_path: Path) -> None:
    """A few of each kind, in child processes with limits."""
    good = malformed.samples(tmp_path)
    for kind in malformed.KINDS:
        came = malformed.run(kind, 40, tmp_path, good[kind], first=50_000)
        assert came["wrong"] == 0
        assert came["read"] + came["refused"] == 40
