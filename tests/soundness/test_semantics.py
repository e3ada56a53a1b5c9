"""`--semantics real`: what holds in real arithmetic only is never called verified plainly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.bounders.hostile import backdoor_layers
from tests.cli.commands import DENSE, Run, verify  # noqa: F401 - a fixture
from tests.soundness.traps import gemms
from verify.recipes import METHODS


@pytest.mark.parametrize("method", METHODS)
def test_the_backdoor_holds_in_real_arithmetic_only(
    method: str,
    tmp_path: Path,
    verify: Run,  # noqa: F811
) -> None:
    """The table, the summary and the record say so; float32 is the default, and proves nothing."""
    # In ONNX Runtime's order the small term survives, so no witness is found either.
    onnx.save(gemms(backdoor_layers(2.0**26, 1.0, (0, 1, 2))), tmp_path / "net.onnx")
    np.savez(tmp_path / "net.npz", x=np.array([[0.5, 0.5]], dtype=np.float32), y=np.array([0]))
    ask = ("certify", tmp_path / "net.onnx", "--eps", "0.1", "--method", method)
    real = verify(*ask, "--semantics", "real", "--json", "-").record
    (result,) = real["results"]
    assert result["verdict"] == "verified (real arithmetic)"
    assert real["settings"]["semantics"] == "real"
    assert real["summary"]["verified"] == 0
    assert real["summary"]["verified (real arithmetic)"] == 1
    plain = verify(*ask, "--json", "-").record
    assert plain["results"][0]["verdict"] == "unknown"
    assert plain["settings"]["semantics"] == "float32"
    shown = verify(*ask, "--semantics", "real", "--quiet")
    assert shown.code == 0
    assert "0 verified, 0 falsified, 0 unknown, 1 verified (real arithmetic)" in shown.out


@pytest.mark.parametrize("more", [("--complete",), ("--confidence",), ("--certificate", "x")])
def test_what_proves_float32_only_is_refused_beside_it(
    more: tuple[str, ...],
    verify: Run,  # noqa: F811
) -> None:
    """No answer of the wrong kind may come out."""
    done = verify("certify", DENSE, "--eps", "0.01", "--semantics", "real", *more)
    assert done.code == 2
    assert "--semantics real" in done.err


def test_other_semantics_do_not_exist(verify: Run) -> None:  # noqa: F811
    """A misspelt name is refused."""
    assert verify("certify", DENSE, "--eps", "0.01", "--semantics", "double").code == 2
