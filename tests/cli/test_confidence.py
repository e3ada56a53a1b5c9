"""`verify confidence`: closed forms, the sandwich, records, pictures, and bad input in one line."""

from __future__ import annotations

import csv
import io
import math
from decimal import ROUND_CEILING, ROUND_FLOOR
from pathlib import Path

import pytest

from tests.cli.commands import DENSE, Run, write_identity
from verify.cli import judged
from verify.report import RESULT_FIELDS
from verify.report.confidence import _percent, _shown

QUICK = ("--method", "crown", "--attack-steps", 4, "--restarts", 1)


def sigmoid(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


def test_bounds_of_the_identity_are_those_of_the_formula(tmp_path: Path, verify: Run) -> None:
    """logits = x: the margin x0 - x1 moves by 2 eps, within the range 0 to 1."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    done = verify(
        "confidence", path, "--eps", "0.1", "--temperature", "0.25", *QUICK, "--json", "-"
    )
    assert done.code == 0
    (row,) = done.record["results"]
    ends = sigmoid(0.4 / 0.25), sigmoid(0.8 / 0.25)
    assert row["confidence"]["clean"] == pytest.approx(sigmoid(0.6 / 0.25), rel=1e-5)
    for kind in ("attacked", "certified"):
        found = row["confidence"][f"{kind}_low"], row["confidence"][f"{kind}_high"]
        assert found == pytest.approx(ends, rel=1e-5), kind
    assert row["verdict"] == "verified"
    assert row["nll"]["certified_high"] == pytest.approx(-math.log(ends[0]), rel=1e-5)
    assert row["energy"]["certified_high"] >= row["energy"]["clean"]


def test_the_verdict_is_about_confident_wrong_answers(tmp_path: Path, verify: Run) -> None:
    """At eps .4 the class changes with confidence .55 at most: wrong, but not confidently."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    options = ("confidence", path, "--eps", "0.4", *QUICK, "--json", "-")
    verdicts = {
        threshold: verify(*options, "--threshold", threshold).record["results"][0]["verdict"]
        for threshold in ("0.51", "0.54", "0.56")
    }
    assert verdicts == {"0.51": "falsified", "0.54": "falsified", "0.56": "verified"}
    unattacked = ("--attack-steps", 0, "--threshold", "0.51")
    done = verify("confidence", path, "--eps", "0.4", *unattacked, "--json", "-")
    assert done.record["results"][0]["verdict"] == "unknown"


def test_every_figure_is_a_sandwich(verify: Run) -> None:
    """Clean within attacked within certified, of each input and of the data set."""
    done = verify(
        "confidence", DENSE, "--eps", "0.03", "--limit", 30, "--ood", "noise", *QUICK, "--json", "-"
    )
    assert done.code == 0
    record = done.record
    assert set(RESULT_FIELDS) <= set(record["results"][0])
    summary = record["summary"]
    spans = [row[name] for row in record["results"] for name in judged.SHOWN]
    spans += [summary[name] for name in ("ece", "accuracy", "mean_nll", "mean_brier")]
    spans += [
        summary["conformal"][k][v] for k in ("plain", "certified") for v in ("coverage", "size")
    ]
    spans += [summary["ood"][f"auroc_{k}"] for k in ("confidence", "entropy", "energy")]
    spans.append(summary["ood"]["rejected"])
    for span in spans:
        assert span["certified_low"] <= span["attacked_low"] + 1e-12, span
        assert span["attacked_low"] <= span["clean"] <= span["attacked_high"], span
        assert span["attacked_high"] <= span["certified_high"] + 1e-12, span
    assert summary["ece"]["clean"] < summary["ece"]["attacked_high"]
    assert (
        summary["ood"]["auroc_confidence"]["attacked_low"]
        < (summary["ood"]["auroc_confidence"]["clean"])
    )
    for words in ("ECE", "AUROC by confidence", "coverage, robust", "never confidently wrong"):
        assert words in done.err


def test_certify_has_it_too(tmp_path: Path, verify: Run) -> None:
    """The name that the issue gave it; an attack on the label is no attack here."""
    options = (DENSE, "--eps", "0.02", "--limit", 2, "--method", "crown")
    done = verify("certify", *options, "--confidence", "--attack-steps", 2, "--json", "-")
    other = verify("confidence", *options, "--attack-steps", 2, "--json", "-")
    assert done.code == other.code == 0
    for one, two in zip(done.record["results"], other.record["results"], strict=True):
        assert one["confidence"] == two["confidence"]
    refused = verify("certify", *options, "--confidence", "--attack", "square")
    assert refused.code == 2
    assert "--attack is square" in refused.err
    none = verify("certify", *options, "--confidence", "--attack", "none", "--json", "-").record
    assert none["settings"]["attack"] == "none"


def test_an_ensemble_of_a_model_with_itself_is_the_model(verify: Run) -> None:
    """Up to the bounds that need logits; and mutual information is refused in words."""
    options = ("confidence", DENSE, "--eps", "0.02", "--limit", 3, *QUICK, "--json", "-")
    alone, both = verify(*options), verify(*options, "--member", DENSE)
    assert "mutual information: no certificate" in both.err
    for one, two in zip(alone.record["results"], both.record["results"], strict=True):
        for end in ("certified_low", "certified_high"):
            assert one["entropy"][end] == pytest.approx(two["entropy"][end], abs=1e-9)
        assert two["energy"]["certified_high"] is None


def test_splits_tighten(verify: Run) -> None:
    """What is certified with splits lies within what is certified without."""
    options = ("confidence", DENSE, "--eps", "0.08", "--limit", 2, *QUICK, "--json", "-")
    plain, split = verify(*options), verify(*options, "--splits", 2)
    assert split.record["settings"]["splits"] == 2
    gains = []
    for one, two in zip(plain.record["results"], split.record["results"], strict=True):
        loose, tight = one["confidence"], two["confidence"]
        gains.append(tight["certified_low"] - loose["certified_low"])
        assert gains[-1] >= 0
        assert tight["certified_high"] <= loose["certified_high"]
    assert max(gains) > 0.01


def test_results_do_not_depend_on_the_batch(verify: Run) -> None:
    """One at a time or all at once, up to rounding of matrix products."""
    options = ("confidence", DENSE, "--eps", "0.03", "--limit", 4, *QUICK, "--json", "-")
    together, alone = verify(*options), verify(*options, "--batch", 1)
    for one, other in zip(together.record["results"], alone.record["results"], strict=True):
        for end, value in one["confidence"].items():
            assert other["confidence"][end] == pytest.approx(value, abs=1e-5)


def test_pictures_and_tables(tmp_path: Path, verify: Run) -> None:
    """A picture with content, a CSV line per input, and one summary where it is to be quiet."""
    picture, table = tmp_path / "bands.png", tmp_path / "bands.csv"
    options = ("confidence", DENSE, "--eps", "0.02", "--limit", 6, *QUICK)
    done = verify(*options, "--plot", picture, "--csv", table, "--quiet")
    assert done.code == 0
    assert picture.stat().st_size > 10_000
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert len(rows) == 6
    assert float(rows[0]["confidence.certified_low"]) <= float(rows[0]["confidence.clean"])
    assert "ECE" not in done.out


def test_certified_ends_are_printed_outward(tmp_path: Path, verify: Run) -> None:
    """What is read is proved: .59868 from below is .5986, .68997 from above .6900."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    done = verify("confidence", path, "--eps", "0.1", *QUICK)
    assert "0.5986 .. 0.6900" in done.out


def test_an_attack_beyond_the_bounds_stops_loudly(
    tmp_path: Path, verify: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds that are too narrow are found out by what was attained; nothing is printed of them."""
    from verify.cli import judging
    from verify.values.bounds import Bounds

    everything = judging.certify_scores

    def narrow(*arguments: object, **settings: object) -> object:
        found = everything(*arguments, **settings)
        bounds = found.scores.confidence
        object.__setattr__(found.scores, "confidence", Bounds(bounds.upper, bounds.upper))
        return found

    monkeypatch.setattr(judging, "certify_scores", narrow)
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    done = verify("confidence", path, "--eps", "0.1", *QUICK)
    assert done.code == 70
    assert "please report" in done.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--temperature", "0"), "temperature is"),
        (("--temperature", "-1"), "temperature is"),
        (("--temperature", "warm"), "--temperature is"),
        (("--threshold", "0"), "--threshold is"),
        (("--threshold", "1.5"), "--threshold is"),
        (("--eps", "-0.1"), "--eps is"),
        (("--eps", "nan"), "--eps is"),
        (("--splits", "-1"), "--splits is"),
        (("--bins", "0"), "bins is"),
        (("--bins", "40"), "bins is"),
        (("--alpha", "1"), "alpha is"),
        (("--attack-steps", "-1"), "--attack-steps is"),
        (("--restarts", "0"), "restarts"),
        (("--ood", "nowhere.npz"), "nowhere.npz"),
        (("--member", "nowhere.onnx"), "nowhere.onnx"),
        (("--plot", "bands.gif"), "gif"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, verify: Run, options: tuple[str, ...], words: str
) -> None:
    """And exit code 2, before any work is done."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    eps = () if "--eps" in options else ("--eps", "0.1")
    done = verify("confidence", path, *eps, "--method", "crown", *options)
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1
    assert "Traceback" not in done.err


def test_a_member_that_does_not_fit_is_refused(tmp_path: Path, verify: Run) -> None:
    """Two inputs and two classes beside 64 and ten."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    done = verify("confidence", path, "--eps", "0.1", "--member", DENSE)
    assert done.code == 2
    assert "give members that fit" in done.err


def test_a_share_that_is_exact_is_printed_exact() -> None:
    """19 of 20 is 95 %, though the float 0.95 is less; 2 of 3 is rounded down and up."""
    assert _percent(19 / 20, ROUND_FLOOR) == "95.00%"
    assert _percent(1 - 1e-12, ROUND_FLOOR) == "99.99%"
    assert _percent(2 / 3, ROUND_FLOOR) == "66.66%"
    assert _percent(2 / 3, ROUND_CEILING) == "66.67%"
    assert _shown(0.95, ROUND_FLOOR, counted=True) == "0.9500"
    assert _shown(0.95, ROUND_FLOOR) == "0.9499"
