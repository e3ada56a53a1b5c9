"""`verify coverage`: figures, pictures, files and complaints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.cli.commands import CONV, DENSE, Run
from verify.cli.coverage import CRITERION_NAMES
from verify.coverage.registry import CRITERIA
from verify.network import load
from verify.runtime import Runtime, Tap
from verify.traverse import evaluate


def test_the_help_names_every_criterion() -> None:
    assert CRITERION_NAMES.split(", ") == list(CRITERIA)


@pytest.mark.parametrize(
    ("layers", "left_out"), [("v3,logits", {"lsc"}), ("logits", {"ssc", "vsc"})]
)
def test_every_criterion_in_one_run(
    tmp_path: Path, verify: Run, layers: str, left_out: set[str]
) -> None:
    """But for densities of many neurons, and for pairs of layers where there is one."""
    picture, chosen = tmp_path / "c.png", [name for name in CRITERIA if name not in left_out]
    done = verify(
        *("coverage", DENSE, "--criteria", ",".join(chosen), "--layers", layers),
        *("--json", "-", "--plot", picture),
    )
    assert done.code == 0, done.err
    assert picture.read_bytes().startswith(b"\x89PNG")
    summary = done.record["summary"]
    assert set(summary["criteria"]) == set(chosen)
    assert summary["inputs"] == 180  # the other half made the profile
    assert "says nothing of correctness" in summary["finding"]
    assert "says nothing of correctness" in done.err
    for row in done.record["results"]:
        if row["total"] is not None:
            assert row["share"] == pytest.approx(row["covered"] / row["total"])


def test_reachable_names_dead_neurons_and_inputs_that_reach_the_rest(
    tmp_path: Path, verify: Run
) -> None:
    """What the search saved is asked of ONNX Runtime again, here."""
    saved = tmp_path / "reached.npz"
    done = verify(
        *("coverage", DENSE, "--limit", 30, "--criteria", "tknc", "--reachable", "range"),
        *("--save", saved, "--json", "-"),
    )
    assert done.code == 0
    summary = done.record["summary"]
    dead = {kind["layer"]: kind["dead"] for kind in summary["neurons"]}
    assert sum(map(len, dead.values())) > 0
    hits = summary["uncovered_but_reachable"]["tknc"]
    with np.load(saved) as arrays:
        x = arrays["x"]
    assert len(x) == len(hits) > 0
    network = load(DENSE)
    assert isinstance(network.judge, Runtime)
    values = Tap(network.judge.model, ["v1", "v3"])(torch.from_numpy(x))
    for row, hit in enumerate(hits):
        layer = values[hit["layer"]][row]
        assert hit["neuron"] not in dead[hit["layer"]]
        assert int((layer >= layer[hit["neuron"]]).sum()) <= 3
    for row in done.record["results"]:
        assert row["covered"] + row["reached"] <= row["possible"] <= row["total"]


def test_a_smaller_domain_rules_out_more(verify: Run) -> None:
    possible = []
    for reach in ("0.001", "0.1", "range"):
        done = verify(
            *("coverage", DENSE, "--limit", 6, "--criteria", "nc", "--reachable", reach),
            *("--json", "-"),
        )
        possible.append(sum(row["possible"] for row in done.record["results"]))
    assert possible[0] < possible[1] < possible[2]


def test_generated_inputs_and_a_second_test_set(tmp_path: Path, verify: Run) -> None:
    saved = tmp_path / "made.npz"
    done = verify(
        *("coverage", CONV, "--limit", 30, "--criteria", "kmnc", "--generate", 200),
        *("--noise", 0.3, "--against", "digits", "--save", saved, "--json", "-"),
    )
    made = done.record["summary"]["generated"]
    assert done.code == (1 if made["misclassified"] else 0)
    assert made["kept"] > 0
    with np.load(saved) as arrays:
        x, label = arrays["x"], arrays["label"]
    assert len(x) == made["kept"]
    session = onnxruntime.InferenceSession(CONV, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": x})
    assert int((logits.argmax(axis=1) != label).sum()) == made["misclassified"]
    against = done.record["summary"]["against"]["kmnc"]
    assert against["only_second"] > 0
    assert against["both"] >= against["only_first"] + against["only_second"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--criteria", "magic"), "no coverage criterion 'magic'"),
        (("--layers", "v99"), "no layer 'v99'"),
        (("--reachable", "-1"), "radius is >= 0"),
        (("--reachable", "range", "--input-range", "none"), "needs an input range"),
        (("--generate", "-1"), "--generate is -1"),
        (("--generate", "5", "--criteria", "tknp"), "ticks off sections"),
        (("--sections", "0"), "at least 1 section"),
        (("--top", "0"), "at least 1 neuron"),
        (("--threshold", "nan"), "finite"),
        (("--noise", "-1"), "noise is -1"),
        (("--limit", "1"), "give --profile"),
        (("--plot", "x.txt"), "--plot is x.txt"),
        (("--save", "x.txt"), "--save is x.txt"),
        (("--layers", "v1", "--criteria", "ssc"), "two layers"),
        (("--ratio", "0.5", "--criteria", "vsc"), "at least 1"),
        (("--buckets", "0", "--criteria", "dsc"), "at least 1"),
        (("--important", "0", "--criteria", "idc"), "at least 1"),
    ],
)
def test_bad_input_is_one_line(verify: Run, options: tuple[str, ...], said: str) -> None:
    done = verify("coverage", DENSE, "--limit", 4, "--quiet", *options)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_nodes_go_by_their_onnx_names(verify: Run) -> None:
    """A node's own name, or its output's, for activations and for what is not one."""
    rows = []
    for layers in ("relu5,gemm8", "v5,logits"):
        done = verify(
            *(
                "coverage",
                CONV,
                "--limit",
                20,
                "--criteria",
                "nc",
                "--layers",
                layers,
                "--json",
                "-",
            )
        )
        assert done.code == 0, done.err
        rows.append([(row["layer"], row["covered"]) for row in done.record["results"]])
    assert rows[0] == rows[1]
    assert [layer for layer, _ in rows[0]] == ["v5", "logits"]


def test_a_tap_reads_what_the_graph_computes() -> None:
    network = load(CONV)
    assert isinstance(network.judge, Runtime)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mine = evaluate(network.graph.to(torch.float32), x)
    theirs = Tap(network.judge.model, ["v2", "v5"])(x)
    for name, value in theirs.items():
        torch.testing.assert_close(value, mine[name], atol=1e-5, rtol=1e-4)
