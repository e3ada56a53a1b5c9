"""Every attack of the package behind `--attack`."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from attacks import ATTACKS, MINIMISERS
from tests.cli.commands import DENSE, Run, write_identity
from verify.cli.falsifiers import falsifier_of
from verify.cli.options import ATTACK_NAMES, AttackOptions
from verify.values.question import Question

SINGLE = sorted(set(ATTACKS) | set(MINIMISERS))
# Enough to see that it runs; what each one finds is tested in tests/attacks.
FEW = {"boundary": 60}


def one_point(p: float) -> Question:
    """x = (0.8, 0.2) under logits = x: its radii are 0.3, 0.6 / sqrt(2) and 0.6."""
    return Question(
        torch.tensor([[0.8, 0.2]]),
        torch.tensor([0]),
        torch.tensor([1.2], dtype=torch.float64),
        p,
        torch.tensor(0.0),
        torch.tensor(1.0),
    )


def test_the_help_names_every_attack() -> None:
    named = set(re.findall(r"[\w-]+", ATTACK_NAMES)) - {"or"}
    assert named == {*SINGLE, "auto", "portfolio", "none"}


@pytest.mark.parametrize("name", [*SINGLE, "auto", "portfolio"])
def test_each_attack_proposes_inside_the_ball_and_comes_near(name: str) -> None:
    """At one radius and for the nearest point, in a norm that the attack knows."""
    entry = MINIMISERS.get(name)
    p = math.inf if entry is None else entry.norms[0]
    if p == 0:
        pytest.skip("counts changed entries; the command line has no such norm")
    found = falsifier_of(AttackOptions(attack=name, attack_steps=FEW.get(name)), None)
    assert found is not None
    asked, exact = one_point(p), {math.inf: 0.3, 2.0: 0.6 / math.sqrt(2), 1.0: 0.6}[p]
    # Of these, a search runs thousands of queries in each of its rounds.
    slow = name == "square" or name.startswith("autoattack")
    ways = [found.propose] if slow else [found.propose, found.nearest]
    for way in ways:
        proposal = way(lambda x: x, asked)
        assert proposal.attack != ("",)
        assert bool(asked.distance(proposal.candidate) <= asked.eps)
        assert float(proposal.candidate[0, 0]) < float(proposal.candidate[0, 1])
    nearest = float(asked.distance(proposal.candidate))
    assert exact <= nearest * (1 + 1e-6)
    assert slow or nearest <= (1.1 if name != "boundary" else 1.5) * exact


def test_an_attack_that_does_not_know_the_norm_is_one_line(tmp_path: Path, verify: Run) -> None:
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    done = verify("radius", path, "--attack", "ddn", "--norm", "1")
    assert done.code == 2
    assert "norm" in done.err
    assert len(done.err.splitlines()) == done.err.count("data:") + done.err.count("labels:") + 1


@pytest.mark.parametrize("attack", ["portfolio", "fmn", "apgd-ce"])
def test_the_record_names_who_found_it(tmp_path: Path, verify: Run, attack: str) -> None:
    path = write_identity(tmp_path, [[0.8, 0.2], [0.6, 0.5]], [0, 0])
    done = verify("radius", path, "--attack", attack, "--json", "-")
    assert done.code == 0
    winners = {row["attack"] for row in done.record["results"]}
    parts = {"line", "afar", "scout", "pgd", *MINIMISERS}
    assert winners <= ({attack} if attack != "portfolio" else parts)
    for row, exact in zip(done.record["results"], (0.3, 0.05), strict=True):
        assert exact <= row["radius_attacked"] * (1 + 1e-6) <= 1.01 * exact


def test_what_the_portfolio_finds_stands_in_the_runtime(verify: Run) -> None:
    """Its nearest points are pushed until they do; this input's radius is about 0.0454."""
    done = verify(
        "attack", DENSE, "--eps", "0.09", "--attack", "portfolio", "--indices", "4", "--json", "-"
    )
    assert done.code == 1
    (row,) = done.record["results"]
    assert row["verdict"] == "falsified"
    assert row["distance"] < 0.046
