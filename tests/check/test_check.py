"""A certificate is accepted if and only if it proves its claim; hints are not believed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.check.models import box_property, dense_bytes, runs
from tests.readers.onnx_models import model
from verify.certificates.proving import NoCertificate, certificate, claim
from verify.certificates.tree import (
    Branch,
    CaseProof,
    Entries,
    InputSplit,
    Part,
    Proof,
    ReluSplit,
    of_row,
    tightening,
    whole,
)
from verify.certificates.writing import certificate_bytes
from verify.check.__main__ import check, main
from verify.check.certificate import MAGIC, read_certificate
from verify.check.leaf import goal_of
from verify.check.onnx_bytes import read_model
from verify.check.operators import read_network
from verify.check.proofs import is_whole, read_columns
from verify.check.refusal import Refusal
from verify.check.tree import read_tree
from verify.check.vnnlib import read_property
from verify.values.budget import Budget

MODEL = dense_bytes(5)
LOW, HIGH = np.array([-1.0, -1.0]), np.array([1.0, 1.0])


def lowest(data: bytes, rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """The least row value over a fine grid."""
    grid = np.stack(np.meshgrid(*(np.linspace(a, b, 40) for a, b in zip(low, high, strict=True))))
    run = runs(data)[0]
    return min(float((rows @ run(x)).min()) for x in grid.reshape(2, -1).T)


LEAST = lowest(MODEL, np.array([[1.0, 0.0, 0.0]]), LOW, HIGH)
TRUE = box_property(LOW, HIGH, [f"(<= Y_0 {LEAST - 0.05!r})"], 3).encode()
FALSE = box_property(LOW, HIGH, [f"(<= Y_0 {LEAST + 0.001!r})"], 3).encode()


@pytest.fixture(scope="module")
def proof() -> bytes:
    """Of the true property; it takes splits of the input."""
    return certificate(claim(MODEL, TRUE), Budget().within(30))


def test_a_true_property_gets_an_accepted_certificate(proof: bytes) -> None:
    """With a tree of more than one leaf, so that the tree is checked too."""
    assert "for every float32 execution" in check(proof, MODEL, TRUE)
    assert len(read_certificate(proof).arrays["0.0/kind"]) > 3


def test_a_false_property_gets_none() -> None:
    """However small the parts become."""
    with pytest.raises(NoCertificate):
        certificate(claim(MODEL, FALSE), Budget().within(2))


def test_a_certificate_is_about_its_own_files(proof: bytes) -> None:
    """Another model or property is refused, before anything is computed."""
    for net, prop in ((dense_bytes(6), TRUE), (MODEL, FALSE)):
        with pytest.raises(Refusal, match="about another"):
            check(proof, net, prop)


def sealed(data: bytes) -> bytes:
    """The bytes with their hash at the end, as if they had been written so."""
    return data + hashlib.sha256(data).digest()


def rebound(proof: bytes, prop: bytes) -> bytes:
    """The same certificate, claiming another property."""
    start = len(MAGIC) + 8
    length = int.from_bytes(proof[len(MAGIC) : start], "little")
    header = json.loads(proof[start : start + length])
    header["property"] = hashlib.sha256(prop).hexdigest()
    text = json.dumps(header).encode()
    return sealed(MAGIC + len(text).to_bytes(8, "little") + text + proof[start + length : -32])


def test_a_proof_of_one_property_is_none_of_a_false_one(proof: bytes) -> None:
    """The same tree does not prove what is not so."""
    with pytest.raises(Refusal, match="is not proved"):
        check(rebound(proof, FALSE), MODEL, FALSE)


def test_no_single_changed_byte_makes_a_false_claim_pass(proof: bytes) -> None:
    """Every byte of the certificate, claiming the false property, with every bit flipped."""
    claimed = rebound(proof, FALSE)[:-32]
    for place in range(len(claimed)):
        changed = bytearray(claimed)
        changed[place] ^= 0xFF
        with pytest.raises((Refusal, ValueError, IndexError, KeyError, OverflowError)):
            check(sealed(bytes(changed)), MODEL, FALSE)


def test_every_damaged_certificate_is_rejected(proof: bytes) -> None:
    """Any byte changed, cut off or added, even where the proof would still hold."""
    for place in range(len(proof)):
        changed = bytearray(proof)
        changed[place] ^= 1 << (place % 8)
        with pytest.raises(Refusal, match="damaged|does not start"):
            check(bytes(changed), MODEL, TRUE)
    for changed in (proof[:-1], proof + b"0", proof[:40]):
        with pytest.raises(Refusal, match="damaged|does not start"):
            check(bytes(changed), MODEL, TRUE)


def entries(rng: np.random.Generator, rows: int, *, splits: bool = False) -> Entries:
    """Values at random neurons of both Relus: huge, tiny, of either sign, NaN; or signs."""
    count = int(rng.integers(0, 6))
    value = np.array(rng.choice([1.0, -1.0, 1e-9, 1e30, np.nan, -3.0], count)) * rng.random(count)
    if splits:
        value = rng.choice([-1.0, 1.0], count)
    row = np.sort(rng.integers(0, rows, count))
    return Entries(("a0", "a1"), row, rng.integers(0, 2, count), rng.integers(0, 6, count), value)


def hinted(rng: np.random.Generator, branch: Branch, anchored: bool) -> None:
    """Proofs of all kinds at every node, also at those where none belong."""
    for _ in range(int(rng.integers(0, 3)) if anchored or rng.random() < 0.3 else 0):
        rows = int(rng.integers(1, 4))
        slopes = {f"a{i}": rng.normal(0.5, 1, (rows, 6)).astype(np.float32) for i in range(2)}
        weight = rng.choice([0.0, 0.1, 1.0, 50.0, -1.0, np.nan, np.inf], (rows, 1))
        which, sign = rng.integers(0, 6, rows), int(rng.choice([-1, 1]))
        path = entries(rng, rows, splits=True) if rng.random() < 0.2 else Entries.none()
        target = Proof(0, weight, slopes, entries(rng, rows), "a1", which, sign, path)
        clause = Proof(0, weight[:1], {n: a[:1] for n, a in slopes.items()}, entries(rng, 1))
        branch.proofs.append(target if rng.random() < 0.5 else clause)
    for child in (branch.first, branch.second):
        if child is not None:
            hinted(rng, child, anchored or not isinstance(branch.split, InputSplit))


@pytest.mark.parametrize("seed", range(12))
def test_random_trees_and_hints_never_prove_what_is_false(seed: int) -> None:
    """Splits of inputs and Relus, slopes, weights, multipliers, neurons bounded anew: made up."""
    rng = np.random.default_rng(seed)

    def grown(depth: int, relus: bool) -> Branch:
        branch = Branch()
        if depth and rng.random() < 0.8:
            pure = relus or rng.random() < 0.5
            relu = ReluSplit(f"a{rng.integers(2)}", int(rng.integers(6)))
            at = InputSplit(int(rng.integers(2)), float(rng.uniform(-1, 1)))
            branch.cut(relu if pure else at)
            branch.first, branch.second = grown(depth - 1, pure), grown(depth - 1, pure)
        return branch

    refused = set()
    for _ in range(25):
        tree = grown(3, False)
        hinted(rng, tree, not isinstance(tree.split, InputSplit))
        written = whole(1, tree)
        own = {"a0": rng.random((3, 6))}
        written.tightenings.append(tightening("a1", rng.integers(0, 6, 3), 1, own))
        with np.errstate(all="ignore"):
            data = certificate_bytes(MODEL, FALSE, [written])
        with pytest.raises(Refusal, match="not proved|outside its box|not whole") as refusal:
            check(data, MODEL, FALSE)
        refused.add(str(refusal.value).split()[0])
    assert "leaf" in refused  # so that some were of the right form


def test_what_a_part_cannot_rely_on_is_refused() -> None:
    """Clause-dependent bounds for several clauses, or for all parts; splits that no tree holds."""
    two = [f"(<= Y_0 {LEAST - 0.05!r})", f"(<= Y_1 {LEAST - 99!r})"]
    prop = box_property(LOW, HIGH, two, 3).encode()
    weighed = Proof(0, np.ones((1, 1)), {}, relu="a1", entries=np.zeros(1, np.int64))
    under = Entries(("a0",), np.zeros(1, int), np.zeros(1, int), np.zeros(1, int), np.ones(1))
    half = Proof(0, np.ones((1, 1)), {}, path=under)
    one = tightening("a1", np.zeros(1, np.int64), 1, {})
    neuron = Proof(0, one.weight, {}, relu="a1", entries=one.entries, path=under)
    for case, message in (
        (whole(2, Branch(proofs=[weighed])), "not about one clause"),
        (CaseProof([Part([0, 1], Branch())], [weighed]), "must not depend on a clause"),
        (CaseProof([Part([0, 1], Branch())], [of_row(0, 0, {})]), "must not depend on a clause"),
        (whole(2, Branch(proofs=[half])), "not one of the tree"),
        (CaseProof([Part([0, 1], Branch(proofs=[of_row(0, 0, {})]))], [neuron]), "not whole"),
        (CaseProof([Part([1], Branch(proofs=[of_row(0, 0, {})]))]), "its part does not prove"),
    ):
        with pytest.raises(Refusal, match=message):
            check(certificate_bytes(MODEL, prop, [case]), MODEL, prop)


def test_a_tree_of_paths_is_whole_or_refused() -> None:
    """Any set of paths covers everything if and only if every assignment of signs follows one."""
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(3000):
        paths = [
            [(int(c), int(rng.integers(2))) for c in rng.permutation(3)[: rng.integers(0, 4)]]
            for _ in range(rng.integers(1, 6))
        ]
        signs = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T
        covered = all(any(all(s[c] == side for c, side in p) for p in paths) for s in signs)
        found = is_whole(paths)
        assert covered or not found
        seen.add((found, covered))
    assert (True, True) in seen
    assert is_whole([[(0, 0)], [(0, 1), (1, 0)], [(0, 1), (1, 1)]])


def twin_bytes() -> bytes:
    """relu(x) - relu(x), which is 0, with the two Relus as neurons of their own."""
    make = onnx.helper.make_node
    nodes = [make("MatMul", ["x", "w"], ["z"]), make("Relu", ["z"], ["a"])]
    nodes.append(make("MatMul", ["a", "v"], ["y"]))
    constants = {"w": np.float32([[1, 1]]), "v": np.float32([[1], [-1]])}
    return model(nodes, [1, 1], constants).SerializeToString()


def twin_tree(beta: float) -> Branch:
    """Both neurons split; on the branches where they differ, f is x or -x and needs beta = 1."""
    tree = Branch()
    for first, child in enumerate(tree.cut(ReluSplit("a", 0))):
        for second, leaf in enumerate(child.cut(ReluSplit("a", 1))):
            value = (beta if first else -beta) if first != second else 0.0
            at = Entries(("a",), *np.zeros((3, 1), np.int64), np.array([value]))
            leaf.proofs.append(of_row(0, 0, {}, at))
    return tree


def test_splits_of_relus_with_multipliers_prove_what_no_slopes_prove() -> None:
    """No slopes bound relu(x) - relu(x) by more than -1/2; two splits with multipliers do.

    Nor does cutting the box where two planes of different slopes are > 0: that leaves .98 of it.
    """
    twin = twin_bytes()
    prop = box_property(np.array([-1.0]), np.array([1.0]), ["(<= Y_0 -0.01)"], 1).encode()
    with pytest.raises(Refusal, match="not proved"):
        check(certificate_bytes(twin, prop, [whole(1, Branch())]), twin, prop)
    for share in (0.0, 0.5, 1.0):
        root = Branch(proofs=[of_row(0, 0, {"a": np.full((1, 2), share)})])
        with pytest.raises(Refusal, match="not proved"):
            check(certificate_bytes(twin, prop, [whole(1, root)]), twin, prop)
    assert "4 leaves" in check(
        certificate_bytes(twin, prop, [whole(1, twin_tree(1.0))]), twin, prop
    )
    for wrong in (0.0, 2.5, -1.0, float("nan")):
        with pytest.raises(Refusal, match="not proved"):
            check(certificate_bytes(twin, prop, [whole(1, twin_tree(wrong))]), twin, prop)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(semantics="float16"), "semantics"),
        (lambda h: h.pop("relus"), "lacks one of"),
        (lambda h: h["arrays"].append(["0/x", "float64", [2**40 - 1]]), "bytes, at most"),
        (lambda h: h["arrays"].append(["0/x", "object", [1]]), "announced as"),
        (lambda h: h["arrays"].append(["0/x", "uint8", [-1]]), "has the shape"),
        (lambda h: h["arrays"].append(["0/x", "uint8", [5]]), "not of the announced length"),
        (lambda h: h["arrays"].pop(), "not of the announced length"),
    ],
)
def test_a_header_that_is_off_is_refused(proof: bytes, change, message: str) -> None:
    """With what is wrong with it."""
    start = len(MAGIC) + 8
    length = int.from_bytes(proof[len(MAGIC) : start], "little")
    header = json.loads(proof[start : start + length])
    change(header)
    text = json.dumps(header).encode()
    data = sealed(MAGIC + len(text).to_bytes(8, "little") + text + proof[start + length : -32])
    with pytest.raises(Refusal, match=message):
        check(data, MODEL, TRUE)


def test_every_clause_needs_a_part() -> None:
    """A part that leaves a clause out, or names one too many, proves nothing of the rest."""
    two = [f"(<= Y_0 {LEAST - 9!r})", f"(<= Y_1 {LEAST - 99!r})"]
    prop = box_property(LOW, HIGH, two, 3).encode()
    both = [Part([0], Branch()), Part([1], Branch())]
    assert "2 leaves" in check(certificate_bytes(MODEL, prop, [CaseProof(both)]), MODEL, prop)
    for parts, message in ((both[:1], "proves clause 1"), ([], "proves clause 0")):
        with pytest.raises(Refusal, match=message):
            check(certificate_bytes(MODEL, prop, [CaseProof(parts)]), MODEL, prop)
    for clause in (2, -1):
        wrong = [*both, Part([clause], Branch())]
        with pytest.raises(Refusal, match="does not have"):
            check(certificate_bytes(MODEL, prop, [CaseProof(wrong)]), MODEL, prop)


@pytest.mark.parametrize("kind", [[], [1, 0], [1, 0, 0, 0], [3], [2, 1, 0, 0, 0], [1] * 50])
def test_a_tree_that_is_not_whole_is_refused(kind: list[int]) -> None:
    """Children that are missing or too many, unknown kinds, an input split below a Relu."""
    data = certificate_bytes(MODEL, TRUE, [whole(1, Branch())])
    cert = read_certificate(data)
    arrays = {
        "0.0/kind": np.array(kind, np.uint8),
        "0.0/place": np.zeros(len(kind), np.int32),
        "0.0/cut": np.zeros(len(kind)),
        "0/columns": np.zeros((1, 2), np.int32),
    }
    changed = type(cert)(cert.model, cert.property, False, ["a0"], arrays)
    net = read_network(read_model(MODEL))
    goal = goal_of(read_property(TRUE.decode(), 2, 3)[0], 3)
    with pytest.raises(Refusal, match="whole|after its end|of kind|below a neuron"):
        read_tree(changed, "0.0/", read_columns(changed, 0, net), goal, net)


@pytest.mark.parametrize("column", [(0, 6), (0, -1), (1, 0), (-1, 0)])
def test_a_column_that_points_at_nothing_is_refused(column: tuple[int, int]) -> None:
    """A neuron too many, or a name too many; and names of what is no Relu."""
    cert = read_certificate(certificate_bytes(MODEL, TRUE, [whole(1, Branch())]))
    arrays = {"0/columns": np.array([column], np.int32)}
    net = read_network(read_model(MODEL))
    for names in (["a0"], ["z0"], ["nothing"]):
        changed = type(cert)(cert.model, cert.property, False, names, arrays)
        with pytest.raises(Refusal, match="not there|no Relu"):
            read_columns(changed, 0, net)


def test_the_command_line_says_what_came_of_it(
    proof: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0 and "accepted", or 1 and the reason; 2 for a missing file."""
    for name, data in (("c", proof), ("m.onnx", MODEL), ("t.vnnlib", TRUE), ("f.vnnlib", FALSE)):
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in ("c", "m.onnx", "t.vnnlib")]
    assert (main(paths), capsys.readouterr().out[:9]) == (0, "accepted:")
    assert main([*paths[:2], str(tmp_path / "f.vnnlib")]) == 1
    assert "about another property" in capsys.readouterr().out
    assert main([*paths[:2], str(tmp_path / "missing")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(paths[:2]) == 2


RELU_NAMED = [onnx.helper.make_node("Mul", ["x", "m"], ["l relu"])]
RELU_NAMED += [onnx.helper.make_node("LeakyRelu", ["x"], ["l"])]
RELU_NAMED += [onnx.helper.make_node("Identity", ["l relu"], ["y"])]
AGAIN = onnx.helper.make_node(
    "Constant", [], ["m"], value=onnx.numpy_helper.from_array(np.float32([[-1]]))
)
PRODUCT = onnx.helper.make_node("Mul", ["x", "m"], ["y"])
TRAINED = onnx.helper.make_node("Dropout", ["x", "r", "t"], ["y"])
FLUSHED = onnx.helper.make_node("BatchNormalization", ["x", "o", "o", "o", "d"], ["y"], epsilon=0.0)


@pytest.mark.parametrize(
    ("nodes", "message", "opset"),
    [
        (RELU_NAMED, "given twice", 17),
        ([PRODUCT, AGAIN], "given before", 17),
        ([TRAINED], "training mode", 17),
        ([FLUSHED], "nearly 0", 17),
        ([PRODUCT], "older than 7", 6),
    ],
)
def test_a_model_that_runtimes_read_otherwise_is_refused(
    nodes: list[onnx.NodeProto], message: str, opset: int
) -> None:
    """A file's name for a rule's own; a constant given anew; a random output; a flushed divisor."""
    constants = {"m": np.float32([[-1]]), "r": np.float32(0.5), "t": np.array(True)}
    constants |= {"o": np.float32([1e-21]), "d": np.float32([1e-42])}
    data = model(nodes, [1, 1], constants, opset=opset).SerializeToString()
    with pytest.raises(Refusal, match=message):
        read_network(read_model(data))


def test_an_operator_set_may_be_named_twice_but_not_in_two_versions() -> None:
    """As exporters leave it behind; nodes mean the same."""
    proto = onnx.load_from_string(dense_bytes(0))
    proto.opset_import.append(proto.opset_import[0])
    assert read_model(proto.SerializeToString()).opset == proto.opset_import[0].version
    proto.opset_import[-1].version += 1
    with pytest.raises(Refusal, match="one operator set"):
        read_model(proto.SerializeToString())
