"""VNN-LIB: what is read, what it means at points, and where mistakes are reported."""

from __future__ import annotations

import csv
import gzip
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.errors import PropertyError
from verify.readers import vnnlib_file
from verify.readers.vnnlib import StatedProperty, read_vnnlib
from verify.values.property import Case, Property

DATA = Path("/work/shared/data/vnncomp")
if not DATA.is_dir():
    DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "vnncomp"

DECLARED = "".join(f"(declare-const X_{i} Real)\n" for i in range(3))
DECLARED += "".join(f"(declare-const Y_{i} Real)\n" for i in range(2))
BOX = "".join(f"(assert (>= X_{i} -1))(assert (<= X_{i} 1.0e0))\n" for i in range(3))


def read(folder: Path, text: str, name: str = "p.vnnlib") -> StatedProperty:
    path = folder / name
    path.write_text(text)
    return read_vnnlib(path)


def only(stated: StatedProperty) -> Case:
    (case,) = stated.property.cases
    return case


def unsafe(stated: Property, x: list[float], y: list[float]) -> bool:
    """Whether inputs and outputs meet the property, by its tensors."""
    given, out = torch.tensor([x], dtype=torch.float64), torch.tensor([y], dtype=torch.float64)
    seen = torch.cat((out, given), dim=1) if stated.mixed else out
    return any(
        bool(((case.lower <= given) & (given <= case.upper)).all())
        and bool(case.inputs.contain(given)[0])
        and any(bool(clause.contain(seen)[0]) for clause in case.clauses)
        for case in stated.cases
    )


def test_a_box_and_a_conjunction(tmp_path: Path) -> None:
    """Ends in any order and notation; the tightest counts; outputs are halfspaces."""
    more = "(assert (<= X_1 .5)) (assert (<= 0.25 X_1)) (assert (and (<= Y_0 Y_1) (>= Y_1 2e-1)))"
    case = only(read(tmp_path, DECLARED + "; a comment (\n" + BOX + more))
    assert case.lower.tolist() == [-1.0, 0.25, -1.0]
    assert case.upper.tolist() == [1.0, 0.5, 1.0]
    (clause,) = case.clauses
    assert clause.coeff.tolist() == [[1.0, -1.0], [0.0, -1.0]]
    # Down to the float64 below 0.2, so that what is proved covers a little more.
    assert clause.const.tolist() == [0.0, np.nextafter(0.2, 0)]
    assert clause.narrow is not None
    assert clause.narrow.tolist() == [0.0, 0.2]


def test_nested_and_or_over_inputs_and_outputs(tmp_path: Path) -> None:
    """Two boxes, each with its own clauses, and one clause for both."""
    text = """(assert (or (and (<= X_0 0) (or (<= Y_0 1) (and (>= Y_0 5) (<= Y_1 0))))
                      (and (>= X_0 0.5) (>= Y_0 2))))(assert (<= Y_1 9))"""
    stated = read(tmp_path, DECLARED + BOX + text).property
    assert [len(case.clauses) for case in stated.cases] == [2, 1]
    assert [case.upper[0].item() for case in stated.cases] == [0.0, 1.0]
    for x, y, expected in (
        ([-0.5, 0, 0], [1, 9], True),
        ([-0.5, 0, 0], [6, 0], True),
        ([-0.5, 0, 0], [6, 1], False),
        ([0.3, 0, 0], [1, 0], False),
        ([0.7, 0, 0], [1, 0], False),
        ([0.7, 0, 0], [2, 9], True),
        ([0.7, 0, 0], [2, 9.5], False),
    ):
        assert unsafe(stated, x, y) is expected, (x, y)


def test_equal_boxes_are_joined(tmp_path: Path) -> None:
    """An or over outputs within equal boxes becomes one case of several clauses."""
    text = "(assert (or (and (<= X_0 0.5) (<= Y_0 1)) (and (<= X_0 0.5) (>= Y_0 3))))"
    assert len(only(read(tmp_path, DECLARED + BOX + text)).clauses) == 2


def test_arithmetic_and_linear_input_constraints(tmp_path: Path) -> None:
    """(2·X_0 - X_1 / 4) + 0.5 <= X_2 becomes a row over inputs; -(Y_0) * 3 > 1 an end."""
    text = """(assert (<= (+ (- (* 2 X_0) (/ X_1 4)) 0.5) X_2))
              (assert (> (* (- Y_0) 3.0) 1)) (assert (not (< Y_1 (- 2))))"""
    case = only(read(tmp_path, DECLARED + BOX + text))
    assert case.inputs.coeff.tolist() == [[2.0, -0.25, -1.0]]
    assert case.inputs.const.tolist() == [0.5]
    (clause,) = case.clauses
    assert clause.coeff.tolist() == [[1.0, 0.0], [0.0, -1.0]]
    assert clause.strict.tolist() == [True, False]
    assert clause.surely_contain(torch.tensor([-0.34, -2.0]))
    assert not clause.surely_contain(torch.tensor([-0.3333, -2.0]))


def test_equalities_and_inequations(tmp_path: Path) -> None:
    """= is two halfspaces, != two alternatives."""
    text = "(assert (= X_0 0.5)) (assert (= X_1 X_2)) (assert (!= Y_0 1))"
    case = only(read(tmp_path, DECLARED + BOX + text))
    assert case.lower[0] == case.upper[0] == 0.5
    assert case.inputs.coeff.tolist() == [[0.0, 1.0, -1.0], [0.0, -1.0, 1.0]]
    assert len(case.clauses) == 2
    assert all(bool(clause.strict.all()) for clause in case.clauses)


def test_coefficients_that_float64_cannot_hold_are_scaled_to_integers(tmp_path: Path) -> None:
    """0.1·Y_0 + 0.2·Y_1 <= 0.3 is Y_0 + 2·Y_1 <= 3."""
    text = "(assert (<= (+ (* 0.1 Y_0) (* 0.2 Y_1)) 0.3))"
    (clause,) = only(read(tmp_path, DECLARED + BOX + text)).clauses
    assert (clause.coeff * 0.2 / clause.coeff[0, 1]).tolist() == [[0.1, 0.2]]
    assert clause.surely_contain(torch.tensor([1.0, 1.0]))
    assert not clause.surely_contain(torch.tensor([1.0, 1.0000001]))


def test_atoms_that_mix_inputs_and_outputs(tmp_path: Path) -> None:
    """Y_0 <= X_1 + 1: clauses are then over the outputs followed by the inputs."""
    stated = read(tmp_path, DECLARED + BOX + "(assert (<= Y_0 (+ X_1 1)))").property
    assert stated.mixed
    assert stated.cases[0].clauses[0].coeff.tolist() == [[1.0, 0.0, 0.0, -1.0, 0.0]]
    assert unsafe(stated, [0, 0.5, 0], [1.5, 0])
    assert not unsafe(stated, [0, 0.5, 0], [1.6, 0])


def test_a_box_without_inputs_is_no_case(tmp_path: Path) -> None:
    """Contradicting ends leave nothing, by however little."""
    text = "(assert (<= X_0 0.1)) (assert (>= X_0 0.10000000000000000000001)) (assert (<= Y_0 0))"
    assert read(tmp_path, DECLARED + BOX + text).property.cases == ()
    strict = "(assert (<= X_0 0.25)) (assert (> X_0 0.25)) (assert (<= Y_0 0))"
    assert read(tmp_path, DECLARED + BOX + strict).property.cases == ()


def test_floats_that_count_are_those_inside_or_the_nearest(tmp_path: Path) -> None:
    """Ends are compared exactly; where no float32 lies inside, the nearest counts."""
    text = """(assert (= X_0 0.1)) (assert (>= X_1 0.1)) (assert (<= X_1 0.2)) (assert (> X_2 0.5))
              (assert (<= Y_0 0))"""
    case = only(read(tmp_path, DECLARED + BOX + text))
    low, high = case.witnesses().lower, case.witnesses().upper
    assert low.dtype == torch.float32
    assert low[0] == high[0] == np.float32(0.1)
    assert case.lower[0] <= np.float64(np.float32(0.1)) <= case.upper[0]
    # float32(0.1) lies above 0.1, float32(0.2) above 0.2: the first is inside, the second not.
    assert low[1] == np.float32(0.1)
    assert high[1] == np.nextafter(np.float32(0.2), np.float32(0))
    assert low[2] == np.nextafter(np.float32(0.5), np.float32(1))


def test_version_2_with_tensors(tmp_path: Path) -> None:
    """Entries count in row-major order; names are free; blanks within an index do not matter."""
    text = """(vnnlib-version <2.0>)
    (declare-network net (declare-input image float32 [1,2,2]) (declare-output logits Real [2] "o"))
    (assert (and (>= image[0,0,0] 0.0) (<= image[0,0,0] 1) (>= image[0,0,1] 0) (<= image[0,0,1] 2)
      (>= image [0, 1, 0] 0) (<= image [0,1,0] 3) (>= image[0,1,1] 0) (<= image[0,1,1] 4)))
    (assert (or (> logits[0] logits[1]) (== logits[1] 3)))"""
    stated = read(tmp_path, text)
    assert stated.version == "2.0"
    assert stated.names == (("image", (1, 2, 2)), ("logits", (2,)))
    case = only(stated)
    assert case.upper.tolist() == [1, 2, 3, 4]
    assert [len(clause) for clause in case.clauses] == [1, 2]


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("(assert (<= X_9 1))", 1, 9, "X_9 is not declared"),
        ("(assert\n  (<= X_0 (* X_0 X_1)))", 2, 11, "product of two variables"),
        ("(assert (foo X_0 1))", 1, 10, "unknown operator 'foo'"),
        ("(assert (<= X_0 1)", 1, 1, "never closed"),
        ("(assert (<= X_0 1)))", 1, 20, "no opening one"),
        ("\n\n   (asert (<= X_0 1))", 3, 4, "unknown statement 'asert'"),
        ("hello", 1, 1, "unexpected 'hello'"),
        ("(assert (<= X_0 1e999))", 1, 9, "beyond what float64 holds"),
        ("(assert (<= X_0 1e-999999999))", 1, 9, "beyond what float64 holds"),
        ("(assert (<= X_0 1) (<= X_0 2))", 1, 1, "takes 1 formula, got 2"),
        ("(assert (<= X_0 1 2))", 1, 9, "compares two expressions"),
        ("(<= X_0 1)", 1, 1, "outside of (assert"),
        ("(declare-const Z Real)", 1, 1, "neither X_i nor Y_i"),
        ("(declare-const X_0 Real)", 1, 1, "declared twice"),
        ("(declare-const X_7 Int)", 1, 20, "type Int is not read"),
        ("(assert (<= (/ 1 X_0) 1))", 1, 13, "only divide by constants"),
        ("(assert " + "(and " * 300 + ")" * 301, 1, 8 + 5 * 199 - 4, "within each other"),
    ],
)
def test_mistakes_are_named_with_line_and_column(
    tmp_path: Path, text: str, line: int, column: int, said: str
) -> None:
    """Lines and columns count from 1."""
    lines = DECLARED.count("\n")
    with pytest.raises(PropertyError) as caught:
        read(tmp_path, DECLARED + text)
    message = str(caught.value)
    assert said in message
    assert f"line {lines + line}, column {column}:" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "declares no inputs"),
        (DECLARED, "asserts nothing"),
        (DECLARED + "(assert (<= X_0 1))", "input 0 has no lower bound"),
        (
            "(declare-network a (declare-input X Real [1]) (declare-output Y Real [1]))"
            "(declare-network b (declare-input Z Real [1]) (declare-output W Real [1]))",
            "several networks",
        ),
        (
            '(declare-network a (declare-input X Real [1]) (declare-hidden H Real [1] "h")'
            "(declare-output Y Real [1]))",
            "declare-hidden is not supported",
        ),
        (
            "(declare-network a (declare-input X Real [2]) (declare-output Y Real [1]))"
            "(assert (<= X[2] 1))",
            "no entry of X, whose shape is [2]",
        ),
        (DECLARED + "(assert " + "(and " * 18 + "(or (<= Y_0 0) (<= Y_1 0))", "never closed"),
        (
            DECLARED + BOX + "(assert (and " + "(or (<= Y_0 0) (<= Y_1 0))" * 20 + "))",
            "alternatives once multiplied out",
        ),
        (DECLARED + BOX + "(assert (or (<= Y_0 0) (<= Y_1 0)))" * 20, "alternatives once"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    """Never a wrong reading, never a traceback of another kind."""
    with pytest.raises(PropertyError, match=".") as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_packed_files_and_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .gz beside the name is taken; what unpacks to too much, or is damaged, is refused."""
    text = (DECLARED + BOX + "(assert (<= Y_0 0))").encode()
    (tmp_path / "a.vnnlib.gz").write_bytes(gzip.compress(text))
    assert read_vnnlib(tmp_path / "a.vnnlib").path.name == "a.vnnlib.gz"
    (tmp_path / "cut.vnnlib.gz").write_bytes(gzip.compress(text)[:-20])
    with pytest.raises(PropertyError, match="damaged gzip"):
        read_vnnlib(tmp_path / "cut.vnnlib.gz")
    monkeypatch.setattr(vnnlib_file, "KIND", replace(vnnlib_file.KIND, most=2**20))
    (tmp_path / "bomb.vnnlib.gz").write_bytes(gzip.compress(bytes(2**24)))
    with pytest.raises(PropertyError, match="too large"):
        read_vnnlib(tmp_path / "bomb.vnnlib.gz")
    with pytest.raises(PropertyError, match="there is no file"):
        read_vnnlib(tmp_path / "none.vnnlib")
    with pytest.raises(PropertyError, match="is a folder"):
        read_vnnlib(tmp_path)
    (tmp_path / "bytes.vnnlib").write_bytes(b"\xff\xfe")
    with pytest.raises(PropertyError, match="no UTF-8"):
        read_vnnlib(tmp_path / "bytes.vnnlib")


atoms = st.tuples(
    st.sampled_from(["<=", ">=", "<", ">", "=", "!="]),
    st.sampled_from([("Y_0", "Y_1"), ("Y_0", None), ("X_0", None), ("X_1", "X_2"), ("Y_1", "X_2")]),
    st.integers(-2, 2),
    st.sampled_from([1, 2, -1]),
)
formulas = st.recursive(
    atoms,
    lambda inner: st.tuples(
        st.sampled_from(["and", "or", "not"]), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
)


def as_text(formula: tuple) -> str:
    head, *rest = formula
    if head == "not":
        return f"(not {as_text(rest[0][0])})"
    if head in ("and", "or"):
        return f"({head} {' '.join(as_text(f) for f in rest[0])})"
    (left, right), limit, factor = rest
    if right is None:
        return (
            f"({head} {left} {limit})" if factor == 1 else f"({head} (* {factor} {left}) {limit})"
        )
    return f"({head} (- (* {factor} {left}) {right}) {limit})"


def value(formula: tuple, at: dict[str, int]) -> bool:
    head, *rest = formula
    if head == "not":
        return not value(rest[0][0], at)
    if head in ("and", "or"):
        return (all if head == "and" else any)([value(f, at) for f in rest[0]])
    (left, right), limit, factor = rest
    gap = Fraction(factor * at[left] - (0 if right is None else at[right]) - limit)
    return {
        "<=": gap <= 0,
        ">=": gap >= 0,
        "<": gap < 0,
        ">": gap > 0,
        "=": gap == 0,
        "!=": gap != 0,
    }[head]


@settings(max_examples=150, deadline=None)
@given(formulas)
def test_a_formula_means_at_every_point_what_it_says(
    tmp_path_factory: pytest.TempPathFactory, formula: tuple
) -> None:
    """All grid points of inputs and outputs, against a direct evaluation of the formula."""
    folder = tmp_path_factory.mktemp("formula")
    stated = read(folder, DECLARED + BOX + f"(assert {as_text(formula)})").property
    rng = np.random.default_rng(0)
    for _ in range(60):
        x, y = rng.integers(-1, 2, 3).tolist(), rng.integers(-3, 4, 2).tolist()
        at = {f"X_{i}": v for i, v in enumerate(x)} | {f"Y_{i}": v for i, v in enumerate(y)}
        # Open ends of a box belong to the closed box that bounds are for.
        strict = any(
            bool(((c.lower == torch.tensor(x)) | (c.upper == torch.tensor(x))).any())
            for c in stated.cases
        )
        if value(formula, at):
            assert unsafe(stated, x, y)
        elif not strict:
            assert not unsafe(stated, x, y)


def test_large_files_are_fast(tmp_path: Path) -> None:
    """100,000 lines in about a second, here with room for a busy machine."""
    count = 30_000
    rng = np.random.default_rng(0)
    lows, highs = rng.random(count) - 1, rng.random(count)
    lines = [f"(declare-const X_{i} Real)" for i in range(count)] + ["(declare-const Y_0 Real)"]
    for i in range(count):
        lines += [
            f"(assert (>= X_{i} {lows[i]!r}))".replace("np.float64(", "").replace(")))", "))")
        ]
        lines += [f"(assert (<= X_{i} {highs[i]:.9f}))"]
    lines += ["(assert (<= Y_0 1))"] * 10
    started = time.process_time()
    stated = read(tmp_path, "\n".join(lines))
    assert time.process_time() - started < 3
    assert stated.property.inputs == count


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the competition's data")
def test_every_property_of_the_competition_is_read() -> None:
    """One of a kind per category and size; boxes are not empty, clauses hold rows."""
    for listed in sorted(DATA.glob("*/instances.csv")):
        with listed.open() as stream:
            rows = list(csv.reader(stream))
        for row in rows[:: max(1, len(rows) // 3)]:
            stated = read_vnnlib(listed.parent / row[1]).property
            assert stated.cases, row
            for case in stated.cases:
                assert bool((case.lower <= case.upper).all())
                floats = case.witnesses()
                assert bool((floats.lower <= floats.upper).all())
                assert bool((case.lower <= floats.lower.to(torch.float64)).all())
                assert bool((floats.upper.to(torch.float64) <= case.upper).all())
                assert case.clauses
                assert all(len(clause) for clause in case.clauses)
