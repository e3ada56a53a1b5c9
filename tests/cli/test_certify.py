"""`verify certify`: verdicts, exit codes, records, and what is assumed where nothing is said."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.cli.commands import CONV, DENSE, Run, write_identity
from verify.cli import session, working
from verify.cli.options import METHOD_NAMES
from verify.recipes import METHODS
from verify.report import RECORD_FIELDS, RESULT_FIELDS


def test_all_verified_is_exit_code_0(verify: Run) -> None:
    """A small radius on the embedded example; data, labels and range are said above the table."""
    done = verify("certify", DENSE, "--eps", "0.001", "--limit", 5)
    assert done.code == 0
    assert done.err == ""
    assert "data: digits" in done.out
    assert "as no --data was given; 5 inputs" in done.out
    assert "labels: of the data; input range: 0 to 1" in done.out
    assert "5 inputs, 5 verified, 0 falsified, 0 unknown" in done.out


def test_some_falsified_is_exit_code_1_even_beside_unknown(tmp_path: Path, verify: Run) -> None:
    """Without attacks one input is misclassified itself (falsified), another stays unknown."""
    path = write_identity(tmp_path, [[0.2, 0.8], [0.8, 0.2]], [0, 0])
    done = verify("certify", path, "--eps", "0.5", "--attack", "none", "--json", "-")
    assert [row["verdict"] for row in done.record["results"]] == ["falsified", "unknown"]
    assert done.code == 1


def test_some_unknown_is_exit_code_3(tmp_path: Path, verify: Run) -> None:
    """Neither proved nor, without attacks, refuted."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    assert verify("certify", path, "--eps", "0.5", "--attack", "none").code == 3


@pytest.mark.parametrize(
    ("norm", "radius"), [("inf", 0.3), ("2", 0.6 / 2**0.5), ("1", 0.6), ("linf", 0.3)]
)
def test_verdicts_agree_with_the_exact_radius(
    tmp_path: Path, verify: Run, norm: str, radius: float
) -> None:
    """The net of identity weights has the radius (x0 - x1) / |(1, -1)|_q."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    assert verify("certify", path, "--norm", norm, "--eps", 0.99 * radius).code == 0
    assert verify("certify", path, "--norm", norm, "--eps", 1.01 * radius).code == 1


def test_radii_are_in_units_before_mean_and_std(tmp_path: Path, verify: Run) -> None:
    """Logits are (x - mean) / std: with means 0.2 and 0, x0 - x1 loses 0.2, and std cancels."""
    path = write_identity(tmp_path, [[0.8, 0.2]], [0])
    options = ("--mean", "0.2,0", "--std", "0.5")
    assert verify("certify", path, *options, "--eps", "0.199").code == 0
    assert verify("certify", path, *options, "--eps", "0.201").code == 1


def test_an_input_range_limits_what_can_go_wrong(tmp_path: Path, verify: Run) -> None:
    """x0 can fall to 0.8 only and x1 rise to 0.7 only, whatever eps is."""
    path = write_identity(tmp_path, [[0.9, 0.7], [0.8, 0.7]], [0, 0])
    narrow = ("--input-range", "0.8 0.9", "--indices", "0", "--data", tmp_path / "model.npz")
    assert verify("certify", path, "--eps", "5", *narrow).code == 2  # 0.7 lies outside
    path = write_identity(tmp_path, [[2.0, 0.5]], [0])
    assert verify("certify", path, "--eps", "0.74", "--input-range", "none").code == 0
    assert verify("certify", path, "--eps", "0.76", "--input-range", "none").code == 1
    done = verify("certify", path, "--eps", "0.1")
    assert "input range: none (values reach from 0.5 to 2" in done.out


def test_eps_may_be_a_fraction(verify: Run) -> None:
    """8/255 is what the literature writes."""
    done = verify("certify", DENSE, "--eps", "8/255", "--limit", 2, "--json", "-")
    assert done.record["settings"]["eps"] == 8 / 255
    assert done.record["results"][0]["eps"] == 8 / 255


def test_without_labels_the_predictions_must_hold_and_the_output_says_so(
    tmp_path: Path, verify: Run
) -> None:
    """Of an input that the label says is wrong, the prediction is still robust."""
    path = write_identity(tmp_path, [[0.2, 0.8]])
    done = verify("certify", path, "--eps", "0.1")
    assert done.code == 0
    assert "labels: the model's own predictions, as the data have none" in done.out
    path = write_identity(tmp_path, [[0.2, 0.8]], [0])
    assert verify("certify", path, "--eps", "0.1").code == 1
    done = verify("certify", path, "--eps", "0.1", "--labels", "predicted", "--json", "-")
    assert done.code == 0
    assert done.record["results"][0]["label"] == 1
    assert done.record["settings"]["labels"] == "predicted"


def test_the_record_has_the_fields_of_the_schema(tmp_path: Path, verify: Run) -> None:
    """JSON on standard output is JSON alone; everything for people goes to standard error."""
    done = verify("certify", DENSE, "--eps", "0.03", "--indices", "5,1-2", "--json", "-")
    record = done.record
    assert list(record) == list(RECORD_FIELDS)
    assert (record["tool"], record["command"], record["schema"]) == ("tashika", "certify", 1)
    assert record["model"]["path"] == DENSE
    assert len(record["model"]["sha256"]) == 64
    assert record["summary"]["interrupted"] is False
    assert record["summary"]["count"] == len(record["results"]) == 3
    assert [row["index"] for row in record["results"]] == [5, 1, 2]
    assert all(set(RESULT_FIELDS) <= set(row) for row in record["results"])
    for setting in ("data", "eps", "norm", "method", "attack", "seed", "input_range", "labels"):
        assert setting in record["settings"]
    assert "3 inputs" in done.err


def test_csv_has_one_line_per_input(tmp_path: Path, verify: Run) -> None:
    """With the same fields as the record's results."""
    target = tmp_path / "r.csv"
    done = verify("certify", DENSE, "--eps", "0.001", "--limit", 4, "--csv", target, "--quiet")
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert [row["index"] for row in rows] == ["0", "1", "2", "3"]
    assert {row["verdict"] for row in rows} == {"verified"}
    assert done.out.count("\n") == 1  # --quiet leaves the summary line
    csv_alone = verify("certify", DENSE, "--eps", "0.001", "--limit", 1, "--csv", "-")
    assert csv_alone.out.startswith("index,label,verdict")


def test_every_method_runs(verify: Run) -> None:
    """Each name in the help is a method, and says in the record what decided."""
    assert ", ".join(list(METHODS)[:-1]) + " or " + list(METHODS)[-1] == METHOD_NAMES
    for method in METHODS:
        options = ("--method", method, "--attack", "none", "--iterations", 2)
        done = verify("certify", DENSE, "--eps", "0.002", "--limit", 2, *options, "--json", "-")
        assert done.code == 0, method
        if method != "auto":
            assert {row["method"] for row in done.record["results"]} == {method}


def test_results_do_not_depend_on_the_batch(verify: Run) -> None:
    """Random starts are keyed by input, so one at a time says the same as all at once."""
    options = ("certify", CONV, "--eps", "0.06", "--limit", 6, "--method", "crown", "--json", "-")
    together, alone = verify(*options), verify(*options, "--batch", 1)
    for one, other in zip(together.record["results"], alone.record["results"], strict=True):
        assert one["verdict"] == other["verdict"]
        assert one["distance"] == other["distance"]


def test_ctrl_c_keeps_what_is_done(
    tmp_path: Path, verify: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results of the batches before it are printed and written; the exit code is 130."""
    everything, calls = working.certify_each, []

    def cut_short(*arguments: object, **settings: object) -> object:
        calls.append(settings["indices"])
        if len(calls) > 1:
            raise KeyboardInterrupt
        return everything(*arguments, **settings)

    monkeypatch.setattr(working, "certify_each", cut_short)
    done = verify("certify", DENSE, "--eps", "0.01", "--limit", 6, "--batch", 2, "--json", "-")
    assert done.code == 130
    assert done.record["summary"]["interrupted"] is True
    assert [row["index"] for row in done.record["results"]] == [0, 1]
    assert "interrupted" in done.err


def test_ctrl_c_before_the_first_result_says_so(
    verify: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the model is being loaded, say: exit code 130, one line, no traceback."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "open_session", interrupted)
    done = verify("certify", DENSE, "--eps", "0.01")
    assert (done.code, done.out) == (130, "")
    assert done.err == "interrupted before there was a result\n"
