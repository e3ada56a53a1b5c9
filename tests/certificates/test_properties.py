"""Certificates of properties: trees of boxes and optimised slopes that the checker accepts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.check.models import box_property, dense_bytes, runs
from tests.cli.commands import Run, verify  # noqa: F401  (a fixture)
from verify import load
from verify.certificates.diary import Diary
from verify.certificates.properties import certify_property, searched
from verify.certificates.proving import NoCertificate, claim, first_accepted
from verify.certificates.writing import certificate_bytes
from verify.check.__main__ import check, main
from verify.check.certificate import read_certificate
from verify.graph.ir import Graph
from verify.readers.vnnlib import read_vnnlib
from verify.values.budget import Budget


def files(folder: Path, model: bytes, prop: str) -> tuple[Path, Path]:
    """Both as files."""
    paths = folder / "net.onnx", folder / "prop.vnnlib"
    paths[0].write_bytes(model)
    paths[1].write_text(prop)
    return paths


def least_of_best(model: bytes, rows: np.ndarray, points: np.ndarray) -> float:
    """min over points of the largest row: what a clause with these rows cannot fall below."""
    run = runs(model)[0]
    return min(float((rows @ run(x)).max()) for x in points)


@pytest.mark.parametrize("seed", range(4))
def test_a_tree_of_boxes_proves_a_conjunction(seed: int, tmp_path: Path) -> None:
    """Unsafe only if two rows hold at once, where neither row alone is excluded everywhere."""
    model, rng = dense_bytes(seed, (2, 8, 8, 3)), np.random.default_rng(seed)
    rows = np.array([[1.0, -1.0, 0.0], [1.0, 0.0, -1.0]])
    points = rng.uniform(-1, 1, (2000, 2))
    level = least_of_best(model, rows, points) - 0.1
    run = runs(model)[0]
    alone = np.array([rows @ run(x) for x in points[:300]])
    clause = f"(<= Y_3 {level!r}) (<= Y_4 {level!r})"
    shifted = with_differences(model)
    low, high = -np.ones(2), np.ones(2)
    onnx_path, prop_path = files(tmp_path, shifted, box_property(low, high, [clause], 5))
    stated = read_vnnlib(prop_path).property
    found = certify_property(
        load(onnx_path).graph,
        stated,
        onnx_path.read_bytes(),
        prop_path.read_bytes(),
        Budget().within(60),
    )
    assert "for every float32" in check(found, onnx_path.read_bytes(), prop_path.read_bytes())
    if (alone.min(axis=0) < level).all():
        assert len(read_certificate(found).arrays["0.0/kind"]) > 1


def with_differences(model: bytes) -> bytes:
    """The same net with y0 - y1 and y0 - y2 as two more outputs."""
    proto = onnx.load_from_string(model)
    last = proto.graph.node[-1]
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    more = np.float32([[1, 0, 0, 1, 1], [0, 1, 0, -1, 0], [0, 0, 1, 0, -1]])
    new = {
        last.input[1]: (constants[last.input[1]].astype(np.float64) @ more).astype(np.float32),
        last.input[2]: (constants[last.input[2]].astype(np.float64) @ more).astype(np.float32),
    }
    for i, tensor in enumerate(proto.graph.initializer):
        if tensor.name in new:
            proto.graph.initializer[i].CopyFrom(
                numpy_helper.from_array(new[tensor.name], tensor.name)
            )
    return proto.SerializeToString()


def test_a_false_property_has_no_certificate(tmp_path: Path) -> None:
    """The repeated search finds that it does not hold, or its time is over."""
    model = dense_bytes(1)
    prop = box_property(-np.ones(2), np.ones(2), ["(<= Y_0 1000.0)"], 3)
    onnx_path, prop_path = files(tmp_path, model, prop)
    with pytest.raises(NoCertificate, match="could not be repeated"):
        certify_property(
            load(onnx_path).graph,
            read_vnnlib(prop_path).property,
            model,
            prop.encode(),
            Budget().within(1),
        )


def test_the_command_writes_what_the_checker_accepts(verify: Run, tmp_path: Path) -> None:  # noqa: F811
    """`prop --certificate` for unsat; nothing is written for sat."""
    model = dense_bytes(2)
    low, high = -np.ones(2), np.ones(2)
    grid = np.random.default_rng(0).uniform(-1, 1, (2000, 2))
    least = least_of_best(model, np.array([[1.0, 0.0, 0.0]]), grid)
    where = tmp_path / "proof.cert"
    for level, code, written in ((least - 0.2, 0, True), (least + 0.5, 1, False)):
        prop = box_property(low, high, [f"(<= Y_0 {level!r})"], 3)
        onnx_path, prop_path = files(tmp_path, model, prop)
        where.unlink(missing_ok=True)
        done = verify("prop", onnx_path, prop_path, "--certificate", where, "--timeout", "30")
        assert (done.code, where.exists()) == (code, written)
        if written:
            assert "accepted by verify.check" in done.err
            assert main([str(where), str(onnx_path), str(prop_path)]) == 0


def test_a_tree_of_relus_proves_what_slopes_do_not(tmp_path: Path) -> None:
    """More inputs than boxes suit, and a level that takes splits; each clause has its own tree."""
    inputs = 24
    model, rng = dense_bytes(4, (inputs, 10, 10, 2)), np.random.default_rng(4)
    low, high = np.full(inputs, -0.3), np.full(inputs, 0.3)
    run = runs(model)[0]
    values = np.array([run(x) for x in rng.uniform(-0.3, 0.3, (3000, inputs))])
    graph = load_bytes(tmp_path, model)
    spread = values.max(axis=0) - values.min(axis=0)
    levels = values.min(axis=0) - 0.9 * spread
    clauses = [f"(<= Y_{k} {float(level)!r})" for k, level in enumerate(levels)]
    _, prop_path = files(tmp_path, model, box_property(low, high, clauses, 2))
    (case,), prop = read_vnnlib(prop_path).property.cases, prop_path.read_bytes()
    known, budget = claim(model, prop), Budget().within(60)
    tried = searched(Diary(graph), known, 0, case, budget, "activation_split")
    found = first_accepted(known, 0, tried, budget, real=False)
    assert max(len(part.tree.preorder()) for part in found.parts) > 1
    data = certificate_bytes(model, prop, [found])
    assert "for every float32" in check(data, model, prop)


def load_bytes(folder: Path, model: bytes) -> Graph:
    """The graph of a file's bytes."""
    path = folder / "loaded.onnx"
    path.write_bytes(model)
    return load(path).graph


def test_a_label_behind_a_softmax_is_certified(tmp_path: Path) -> None:
    """The search takes the Softmax away, and the checker reads its order from its inputs."""
    net = onnx.load_from_string(dense_bytes(3, (4, 8, 3)))
    net.graph.node[-1].output[0] = "z"
    net.graph.node.append(onnx.helper.make_node("Softmax", ["z"], ["y"], axis=-1))
    data, x = net.SerializeToString(), np.zeros(4)
    label = int(runs(data)[0](x).argmax())
    clauses = [f"(<= Y_{label} Y_{j})" for j in range(3) if j != label]
    prop = box_property(x - 0.01, x + 0.01, clauses, 3)
    onnx_path, prop_path = files(tmp_path, data, prop)
    stated, graph = read_vnnlib(prop_path).property, load(onnx_path).graph
    found = certify_property(graph, stated, data, prop.encode(), Budget().within(60))
    assert "every float32 execution" in check(found, data, prop.encode())
