"""Certificates of `certify`: for what it verifies, files that the checker accepts by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.cli.commands import CONV, DENSE, Run, verify  # noqa: F401  (a fixture)
from verify import Network, certify, load, load_dataset
from verify.api import certify_each
from verify.bounders.alpha_crown import AlphaCrown
from verify.certificates import properties
from verify.certificates.diary import Diary
from verify.certificates.labels import certify_label
from verify.certificates.proving import NoCertificate
from verify.check.__main__ import check, main
from verify.check.vnnlib import read_property
from verify.values.budget import Budget
from verify.values.question import question
from verify.values.result import Verdict


@pytest.mark.parametrize(("path", "eps"), [(DENSE, 0.09), (CONV, 0.05)])
def test_all_that_is_verified_has_a_certificate(path: str, eps: float) -> None:
    """Those that interval bounds prove, and those that take optimised slopes."""
    network = load(path)
    digits = load_dataset("digits", input_shape=network.input_shape, limit=6)
    model = Path(path).read_bytes()
    results = certify(network, digits.x, digits.labels, eps=eps, input_range=(0, 1))
    verified = [r for r in results if r.verdict is Verdict.VERIFIED]
    assert len(verified) >= 3
    for result in verified:
        one = slice(result.index, result.index + 1)
        asked = question(digits.x[one], digits.labels[one], eps, input_range=(0, 1))
        found = certify_label(network.graph, model, asked, Budget().within(60), "a test")
        assert "1 leaves" in check(found.proof, model, found.prop.encode())


def test_the_property_is_the_neighbourhood() -> None:
    """Every number exact: the box is the region's own, to the bit."""
    network: Network = load(DENSE)
    digits = load_dataset("digits", input_shape=network.input_shape, limit=1)
    asked = question(digits.x, digits.labels, 0.01, input_range=(0, 1))
    found = certify_label(
        network.graph, Path(DENSE).read_bytes(), asked, Budget().within(60), "a test"
    )
    (case,) = read_property(found.prop, 64, 10)
    box = asked.region().bounds()
    assert [float(v) for v in case.lower] == box.lower.flatten().tolist()
    assert [float(v) for v in case.upper] == box.upper.flatten().tolist()
    assert len(case.clauses) == 9


def test_what_cannot_be_certified_says_why() -> None:
    """Other norms, and claims that do not hold."""
    network = load(DENSE)
    digits = load_dataset("digits", input_shape=network.input_shape, limit=1)
    model = Path(DENSE).read_bytes()
    not_so = "could not be repeated|do not prove it|the time for"
    for eps, p, message in ((0.1, 2.0, "norm inf only"), (0.5, float("inf"), not_so)):
        asked = question(digits.x, digits.labels, eps, p, input_range=(0, 1))
        with pytest.raises(NoCertificate, match=message):
            certify_label(network.graph, model, asked, Budget().within(1), "a test")
    asked = question(digits.x, torch.zeros(1), 0.0, input_range=(0, 1))
    with pytest.raises(NoCertificate, match=not_so):
        certify_label(network.graph, model, asked, Budget().within(1), "a test")


def test_the_command_writes_files_that_the_checker_accepts(verify: Run, tmp_path: Path) -> None:  # noqa: F811
    """`certify --certificate DIR`, then `check` on each; a folder that is a file is refused."""
    folder = tmp_path / "proofs"
    arguments = ("certify", DENSE, "--eps", "0.05", "--limit", "3")
    done = verify(*arguments, "--certificate", folder, "--json", "-")
    summary = done.record["summary"]
    assert (summary["certificates"], summary["without_certificate"]) == (3, [])
    for index in range(3):
        files = [str(folder / f"input_{index}.cert"), DENSE, str(folder / f"input_{index}.vnnlib")]
        assert main(files) == 0
        assert verify("check", *files).code == 0
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = verify(*arguments, "--certificate", blocked)
    assert (done.code, "is a file" in done.err) == (2, True)


def test_a_normalisation_outside_the_file_has_no_certificate(verify: Run, tmp_path: Path) -> None:  # noqa: F811
    """It is said, not passed over."""
    done = verify(
        *("certify", DENSE, "--eps", "0.01", "--indices", "1", "--mean", "0", "--std", "1"),
        *("--certificate", tmp_path, "--attack", "none"),
    )
    assert "input 1 has no certificate: --mean and --std" in done.out
    assert not list(tmp_path.iterdir())


def test_a_batch_is_certified_from_its_own_diary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slopes of two inputs at once, each found again by its box: nothing is searched twice."""
    network = load(CONV)
    digits = load_dataset("digits", input_shape=network.input_shape, limit=6)
    model, diary = Path(CONV).read_bytes(), Diary(network.graph)
    # One that slopes do not prove, and one that takes them.
    asked = question(digits.x[[4, 2]], digits.labels[[4, 2]], 0.05, input_range=(0, 1))
    (results,) = certify_each(network, asked, batch=2, diary=diary)
    assert results[1].verdict is Verdict.VERIFIED
    assert results[1].method.startswith("alpha")

    def never(*_: object) -> None:
        raise AssertionError("something was searched or bounded once more")

    monkeypatch.setattr(properties, "searched", never)
    monkeypatch.setattr(AlphaCrown, "__call__", never)
    one = asked.take(torch.tensor([1]))
    found = certify_label(network.graph, model, one, Budget().within(60), "a test", diary)
    assert "for every float32" in check(found.proof, model, found.prop.encode())


def test_workers_bring_certificates_with_their_answers(verify: Run, tmp_path: Path) -> None:  # noqa: F811
    """The same files, made where the proof was found; a run keeps them and finds none again."""
    folders = [tmp_path / "here", tmp_path / "there", tmp_path / "again"]
    arguments = ("certify", DENSE, "--eps", "0.09", "--limit", "4", "--attack", "none")
    stored = ("--run", "one", "--runs", tmp_path / "runs")
    for folder, more in zip(folders, ((), ("--workers", "2", *stored), stored), strict=True):
        done = verify(*arguments, *more, "--certificate", folder, "--json", "-")
        assert done.record["summary"]["certificates"] >= 2
    names = sorted(path.name for path in folders[0].iterdir())
    for folder in folders[1:]:
        assert sorted(path.name for path in folder.iterdir()) == names
        for name in names:
            assert (folder / name).read_bytes() == (folders[0] / name).read_bytes()
