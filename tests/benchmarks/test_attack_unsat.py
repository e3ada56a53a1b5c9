"""The attack on answers finds a counterexample in a corner, and none beyond what is reached."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.attack_unsat import attacked
from verify.export import onnx_bytes

INPUTS = 12


@pytest.mark.parametrize(("threshold", "there"), [(11.9, True), (12.1, False)])
def test_a_corner_is_found_and_nothing_more(tmp_path: Path, threshold: float, there: bool) -> None:
    """The sum of 12 absolute values reaches 12 in the corners of the box only."""
    first, last = nn.Linear(INPUTS, 2 * INPUTS), nn.Linear(2 * INPUTS, 2)
    with torch.no_grad():
        first.weight.copy_(torch.cat((torch.eye(INPUTS), -torch.eye(INPUTS))))
        last.weight.copy_(torch.stack((torch.ones(2 * INPUTS), torch.zeros(2 * INPUTS))))
        first.bias.zero_()
        last.bias.zero_()
    net = nn.Sequential(first, nn.ReLU(), last)
    model, spec = tmp_path / "net.onnx", tmp_path / "spec.vnnlib"
    model.write_bytes(onnx_bytes(net, (INPUTS,), 2, "net"))
    lines = [f"(declare-const X_{i} Real)" for i in range(INPUTS)]
    lines += ["(declare-const Y_0 Real)", "(declare-const Y_1 Real)"]
    lines += [f"(assert (>= X_{i} -1)) (assert (<= X_{i} 1))" for i in range(INPUTS)]
    spec.write_text("\n".join([*lines, f"(assert (>= Y_0 {threshold}))"]))
    found = attacked(model, spec, restarts=50, seconds=60)
    assert ("contradicted" in found) == there
    assert there or (found["starts"] == 50 and found["in_time"])
