"""`verify report`: from files and runs, in a real browser where there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import CONV, DENSE, Run, write_identity
from verify.cli.reporting import source_of
from verify.report import ModelStamp, make_record, write_json

BROWSER = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--hide-scrollbars", "--window-size=400,800"),
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, its record and its certificates."""
    from verify.cli import main

    folder = tmp_path_factory.mktemp("stored")
    code = main(
        [
            *("certify", DENSE, "--eps", "0.09", "--limit", "8", "--quiet"),
            *("--run", "night", "--runs", str(folder), "--json", str(folder / "c.json")),
            *("--certificate", str(folder / "proofs")),
        ]
    )
    assert code == 1
    return folder


def test_a_run_shows_its_counterexamples(verify: Run, stored: Path, tmp_path: Path) -> None:
    """Three pictures for each falsified input, and the class that ONNX Runtime gives."""
    page = tmp_path / "r.html"
    assert verify("report", "night", "--runs", stored, "-o", page).code == 0
    html = page.read_text()
    assert html.count("<img ") == 6  # inputs 4 and 7
    assert "verify certify" in html
    assert "input 4: changes at distance 0.0" in html


def test_pictures_of_a_normalised_model(
    verify: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given in another folder, behind mean and std: the counterexample's class is still told.

    Logits are ((x0 - 0.5) / 0.5, (x1 - 0) / 0.5): (0.9, 0.1) is class 0, (0.5, 0.5) no longer.
    """
    home = tmp_path / "home"
    home.mkdir()
    write_identity(home, np.array([[0.9, 0.1]]), np.array([0]))
    monkeypatch.chdir(home)
    asked = ("certify", "model.onnx", "--eps", "0.3", "--mean", "0.5,0", "--std", "0.5,0.5")
    assert verify(*asked, "--run", "n", "--runs", tmp_path).code == 1
    monkeypatch.chdir(tmp_path)
    (source,) = [source_of("n", tmp_path, 12)]
    assert [shown.became for shown in source.pictures.values()] == [1]


def test_files_and_certificates(verify: Run, stored: Path, tmp_path: Path) -> None:
    """All are accepted, until one is changed: exit code 1, and the page says which."""
    page, proofs = tmp_path / "r.html", tmp_path / "proofs"
    shutil.copytree(stored / "proofs", proofs)
    asked = ("report", stored / "c.json", "--certificates", proofs, "-o", page)
    assert verify(*asked).code == 0
    count = len(list(proofs.glob("*.cert")))
    assert f"{count} of {count} accepted" in page.read_text()
    victim = next(proofs.glob("*.cert"))
    victim.write_bytes(b"x" + victim.read_bytes())
    (proofs / "input_99.cert").write_bytes(b"")  # has no property
    outcome = verify(*asked)
    assert outcome.code == 1
    assert f"{count - 1} of {count + 1} accepted" in page.read_text()
    assert victim.name in outcome.err


def test_tables(verify: Run, stored: Path, tmp_path: Path) -> None:
    """Markdown and LaTeX without the page."""
    md, tex = tmp_path / "r.md", tmp_path / "r.tex"
    assert verify("report", stored / "c.json", "--markdown", md, "--latex", tex).code == 0
    assert "| c.json | 0.09 | 8 |" in md.read_text()
    assert r"c.json & 0.09 & 8 &" in tex.read_text()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nothing.json", "-o", "r.html"), "neither a record nor a run"),
        (("no_run", "-o", "r.html"), "neither a record nor a run"),
        ((DENSE, "-o", "r.html"), "cannot be read"),
        (("c.json",), "at least one of -o"),
        (("c.json", "-o", "r.html", "--eps", "-1"), "expected a number > 0"),
        (("c.json", "-o", "r.html", "--certificates", "."), "no certificate"),
        (("c.json", "-o", "nowhere/r.html"), "cannot be written"),
    ],
)
def test_what_cannot_be_used_is_refused(
    verify: Run,
    stored: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    """One line, exit code 2, no file."""
    monkeypatch.chdir(stored)
    outcome = verify("report", *arguments)
    assert outcome.code == 2
    assert complaint in outcome.err
    assert not (stored / "r.html").exists()


def write_many(path: Path, count: int) -> None:
    """A record of `count` brackets."""
    rng = np.random.default_rng(0)
    low = rng.gamma(4.0, 0.02, count)
    high = low * (1 + rng.random(count))
    rows = [
        {
            "index": i,
            "label": i % 10,
            "predicted": i % 10,
            "verdict": "verified",
            "method": "crown",
            "seconds": 0.01 + 0.001 * (i % 97),
            "radius_certified": float(low[i]),
            "radius_attacked": float(high[i]),
        }
        for i in range(count)
    ]
    model = ModelStamp("many.onnx", "00ff")
    write_json(make_record("radius", rows, settings={"norm": "inf"}, model=model), path)


@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
def test_a_browser_shows_ten_thousand_inputs_without_complaint(verify: Run, tmp_path: Path) -> None:
    """Small, drawn, nothing on the console: not even of the page's own security policy."""
    write_many(tmp_path / "r.json", 10_000)
    page, shot = tmp_path / "r.html", tmp_path / "r.png"
    assert verify("report", tmp_path / "r.json", "-o", page).code == 0
    assert page.stat().st_size < 10 * 2**20
    assert BROWSER is not None
    done = subprocess.run(
        [
            *(BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}"),
            *(f"--screenshot={shot}", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert shot.stat().st_size > 10_000
    assert "CONSOLE" not in done.stderr


def test_inputs_of_records_come_from_the_data(verify: Run, tmp_path: Path) -> None:
    """--data: the worst inputs of a file as pictures, though it holds none; runs keep their own."""
    record = tmp_path / "a.json"
    verify("attack", CONV, "--eps", "0.2", "--limit", 6, "--json", record, "-q")
    assert verify("report", record, "-o", tmp_path / "a.html").code == 0
    assert "data:image/png" not in (tmp_path / "a.html").read_text()
    done = verify("report", record, "-o", tmp_path / "b.html", "--data", "digits", "--worst", 3)
    assert done.code == 0, done.err
    assert (tmp_path / "b.html").read_text().count("data:image/png") == 3
    found = json.loads(record.read_text())
    found["model"]["path"] = "gone.onnx"
    record.write_text(json.dumps(found))
    done = verify("report", record, "-o", tmp_path / "c.html", "--data", "digits")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "needs the model" in done.err
