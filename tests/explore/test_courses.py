"""Answers: intervals hold what inputs attain, verdicts and brackets are those of the library."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import verify
from tests.cli.commands import DENSE, write_identity
from tests.explore.subjects import answered, body, course_of, explored, last
from tests.readers.onnx_models import model
from verify.cli.explore import PageOptions
from verify.cli.exploring import opened_session, subject_of, tools_of
from verify.cli.falsifiers import AttackFalsifier
from verify.cli.options import DataOptions
from verify.errors import InternalError
from verify.explore.asking import read_ask
from verify.explore.ball import METHODS, BallCourse
from verify.explore.course import Stopped, refuse_outside
from verify.explore.desk import Worker
from verify.explore.ends import Ends, Memory
from verify.geometric.transforms import Step, Transform
from verify.traverse import run


def intervals(found: list) -> list[dict]:
    return [data for name, data in found if name == "intervals"]


@pytest.mark.parametrize(("norm", "size"), [("inf", 0.01), ("2", 0.05), ("1", 0.1)])
def test_certified_intervals_hold_every_sampled_output(norm: str, size: float) -> None:
    """In the ball of each norm, of logits and probabilities; they only ever tighten."""
    subject, tools = explored(DENSE, norm)
    events: list = []
    course = course_of(subject, tools, events, size=size, position=3)
    assert isinstance(course, BallCourse)
    for method in METHODS:
        course.intervals(method, 1.0)
    found = intervals(events)
    assert [data["method"] for data in found] == list(METHODS)
    x = subject.asked.x[3:4].double()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 64, generator=generator, dtype=torch.float64)
    noise = noise.sign() if norm == "inf" else noise
    noise *= size / torch.linalg.vector_norm(noise, float(norm), 1)[:, None] * (1 - 1e-6)
    # Where each logit rises and falls most: on so small a ball the tightest bounds are nearly met.
    slopes = torch.autograd.functional.jacobian(
        lambda z: run(subject.network.graph, z).flatten(), x
    ).flatten(1)
    steps = {"inf": slopes.sign(), "2": slopes}.get(norm)
    if steps is None:
        largest = slopes.abs().amax(dim=1, keepdim=True)
        steps = torch.where(slopes.abs() == largest, slopes.sign(), 0.0)
    steps = size * steps / torch.linalg.vector_norm(steps, float(norm), 1)[:, None] * (1 - 1e-6)
    noise = torch.cat((steps, -steps, noise[20:]))
    points = (x + noise).clamp(0, 1).to(torch.float32)
    asked = subject.question(subject.asked.x[3:4], 0, size)
    assert bool(asked.take(torch.zeros(400, dtype=torch.int64)).holds(points).all())
    check(found, run(subject.network.graph.to(torch.float32), points).double())
    for before, after in zip(found, found[1:], strict=False):
        for name in ("logits", "probabilities"):
            assert np.all(np.array(after[name][0]) >= np.array(before[name][0]))
            assert np.all(np.array(after[name][1]) <= np.array(before[name][1]))


def check(found: list[dict], logits: torch.Tensor) -> None:
    """Every interval holds what was attained."""
    for data in found:
        for name, values in (("logits", logits), ("probabilities", logits.softmax(1))):
            low, high = (torch.tensor(side, dtype=torch.float64) for side in data[name])
            assert bool((values >= low - 1e-12).all())
            assert bool((values <= high + 1e-12).all())
        assert set(logits.argmax(1).tolist()) <= set(data["possible"])


def test_certified_intervals_hold_every_rotation() -> None:
    """Of a fine grid of angles, ends included."""
    subject, tools = explored()
    found = answered(subject, tools, threat="angle", size=12)
    angles = torch.linspace(-12, 12, 481, dtype=torch.float64)[:, None]
    turned = Transform((Step("rotation", -12, 12),))(
        subject.asked.x[:1].expand(481, -1, -1, -1), angles
    )
    logits = run(subject.network.graph.to(torch.float32), turned).flatten(1).double()
    assert [data["method"] for data in intervals(found)] == ["crown-ibp", "crown"]
    check(intervals(found), logits)
    assert last(found, "verdict")["verdict"] == "verified"


@pytest.mark.parametrize(("position", "size"), [(0, 0.05), (4, 0.1), (15, 0.02), (0, 0.09)])
def test_verdicts_are_those_of_certify(position: int, size: float) -> None:
    """With the same attack, verified, falsified and unknown are the same."""
    subject, tools = explored(DENSE)
    found: list = []
    course = course_of(subject, tools, found, size=size, position=position, attack="pgd")
    assert isinstance(course, BallCourse)
    course.clean()
    course.attack()
    course.verdict()
    (known,) = verify.certify(
        DENSE,
        subject.asked.x[position : position + 1],
        subject.asked.labels[position : position + 1],
        eps=size,
        input_range=(0, 1),
        falsifier=AttackFalsifier(),
    )
    assert last(found, "verdict")["verdict"] == known.verdict.value


def test_the_bracket_is_that_of_radius_and_closes_step_by_step() -> None:
    """At least as narrow as `verify.radius`, every end only moves inward."""
    subject, tools = explored(DENSE)
    found = answered(subject, tools, size=0.01, position=4)
    steps = [data for name, data in found if name == "bracket"]
    lows = [step["certified"] for step in steps]
    highs = [math.inf if step["attacked"] is None else step["attacked"] for step in steps]
    assert len(steps) > 3
    assert lows == sorted(lows)
    assert highs == sorted(highs, reverse=True)
    (known,) = verify.radius(
        DENSE,
        subject.asked.x[4:5],
        subject.asked.labels[4:5],
        input_range=(0, 1),
        falsifier=AttackFalsifier(),
    )
    assert known.certified <= highs[-1]
    assert lows[-1] <= known.attacked
    assert highs[-1] - lows[-1] <= 0.011 * highs[-1]
    assert "closed" in steps[-1]["finished"]


def test_the_angle_is_that_of_geometric() -> None:
    """No angle below the certified one misleads ONNX Runtime, the attacked one does."""
    subject, tools = explored()
    found = answered(subject, tools, threat="angle", size=30)
    bracket = last(found, "bracket")
    assert last(found, "verdict")["verdict"] == "falsified"
    low, high = bracket["certified"], bracket["attacked"]
    assert 0 < low < high < low * 1.02
    angles = torch.linspace(-low, low, 301, dtype=torch.float64)[:, None]
    transform = Transform((Step("rotation", -45, 45),))
    images = transform(subject.asked.x[:1].expand(301, -1, -1, -1), angles)
    labels = subject.asked.labels[:1].expand(301)
    assert not bool(subject.network.judge.misclassified(images, labels).any())


def test_a_misclassified_input_has_radius_0() -> None:
    """It is falsified at once, by itself, and nothing is attacked."""
    subject, tools = explored()
    wrong = (subject.network.judge.predict(subject.asked.x) != subject.asked.labels).nonzero()
    found = answered(subject, tools, position=int(wrong[0]))
    assert last(found, "verdict")["method"] == "clean"
    assert last(found, "bracket")["attacked"] == 0
    assert "attack" not in {name for name, _ in found}
    held = answered(subject, tools, 1.0, position=int(wrong[0]), size=1e-4, held="predicted")
    assert last(held, "verdict")["verdict"] == "verified"


def test_a_size_of_0_claims_nothing() -> None:
    """Nothing but the input is asked about, so nothing is called certified around it."""
    subject, tools = explored(DENSE)
    found = answered(subject, tools, 3.0, size=0)
    assert last(found, "verdict")["verdict"] == "unknown"


def test_what_is_not_known_in_time_is_not_claimed() -> None:
    """A time limit of nothing leaves every claim open, and says why."""
    subject, tools = explored()
    found = answered(subject, tools, 1e-3, size=0.1)
    assert last(found, "verdict")["verdict"] in ("unknown", "falsified")
    assert last(found, "bracket")["certified"] <= 0.1


def test_uncertainty_of_input_and_attacked_input() -> None:
    """Total = data + model; a member for each file."""
    subject, tools = explored()
    found: list = []
    course = course_of(subject, tools, found, size=0.2)
    course.clean()
    course.attack()
    for name in ("clean", "attack"):
        doubt = last(found, name)["doubt"]
        assert len(doubt["members"]) == 2
        assert doubt["total"] == pytest.approx(doubt["aleatoric"] + doubt["epistemic"])
        assert sum(doubt["mean"]) == pytest.approx(1)


def test_dropout_nodes_are_members_too(tmp_path: Path) -> None:
    """Each pass is one; what is certified is the file as it runs, where nothing drops."""
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "w"], ["h"]),
        onnx.helper.make_node("Dropout", ["h", "rate"], ["y"]),
    ]
    arrays = {"w": np.eye(2, dtype=np.float32), "rate": np.array(0.5, dtype=np.float32)}
    path = tmp_path / "d.onnx"
    onnx.save(model(nodes, ["batch", 2], arrays), path)
    np.savez(path.with_suffix(".npz"), x=np.array([[0.8, 0.2]], np.float32), y=np.array([0]))
    session = opened_session(path, DataOptions())
    page = PageOptions(passes=40)
    subject, tools = subject_of(session, page), tools_of(path, session, page)
    found = answered(subject, tools, size=0.29)
    doubt = last(found, "clean")["doubt"]
    # Each value is dropped or doubled, so there are four members at most.
    assert len(doubt["members"]) == 40
    assert len({tuple(member) for member in doubt["members"]}) == 4
    assert doubt["epistemic"] > 0
    assert last(found, "verdict")["verdict"] == "verified"


def test_a_radius_known_by_formula(tmp_path: Path) -> None:
    """logits = x: the margin of class 0 is x0 - x1, so its radius is (x0 - x1) / 2."""
    path = Path(write_identity(tmp_path, np.array([[0.7, 0.3]]), np.array([0])))
    session = opened_session(path, DataOptions())
    page = PageOptions()
    subject, tools = subject_of(session, page), tools_of(path, session, page)
    assert subject.layout.kind == "values"
    found = answered(subject, tools, size=0.19)
    assert last(found, "verdict")["verdict"] == "verified"
    bracket = last(found, "bracket")
    assert bracket["certified"] <= 0.2 <= bracket["attacked"] + 1e-7
    assert bracket["attacked"] == pytest.approx(0.2, rel=0.011)
    assert last(answered(subject, tools, size=0.21), "verdict")["verdict"] == "falsified"


def test_a_model_without_data_starts_from_a_blank_input(tmp_path: Path) -> None:
    """So that one can draw."""
    path = Path(write_identity(tmp_path, np.array([[0.7, 0.3]])))
    path.with_suffix(".npz").unlink()
    session = opened_session(path, DataOptions(input_range="0.5 2"))
    assert session.data.x.tolist() == [[0.5, 0.5]]
    assert "draw" in session.notes[0]


def test_an_answer_ends_soon_after_nobody_waits() -> None:
    """Stopped while it searches, not when it is done."""
    subject, tools = explored()
    ask = read_ask(body(size=0.09), subject, tools.attacks)
    over = threading.Event()

    def emit(name: str, data: object) -> None:
        if name == "bracket" and len(seen) > 5:
            over.set()
        seen.append(name)

    seen: list[str] = []
    worker = Worker(subject, tools, 60.0)
    with pytest.raises(Stopped):
        worker(ask, emit, over.is_set)
    assert "done" not in seen


def test_complete_search_ends_soon_too() -> None:
    """In the middle of closing a bracket to the end."""
    subject, tools = explored()
    ask = read_ask(body(size=0.09), subject, tools.attacks)
    over = threading.Event()
    since: list[float] = []

    def cancel() -> None:
        since.append(time.monotonic())
        over.set()

    def emit(name: str, data: Mapping[str, object]) -> None:
        if name == "bracket" and data["method"] == "alpha-crown" and not timers:
            timers.append(threading.Timer(1.5, cancel))
            timers[0].start()

    timers: list[threading.Timer] = []
    with pytest.raises(Stopped):
        Worker(subject, tools, 120.0)(ask, emit, over.is_set)
    # Left to itself it would go on for a minute and a half.
    assert time.monotonic() - since[0] < 15


def test_a_radius_looked_at_again_starts_where_it_was() -> None:
    """The bracket of an input is remembered over sizes."""
    subject, tools = explored(DENSE)
    worker = Worker(subject, tools, 20.0)
    first, second = [], []
    for size, kept in ((0.05, first), (0.01, second)):
        ask = read_ask(body(size=size), subject, tools.attacks)
        worker(ask, lambda name, data, kept=kept: kept.append((name, data)), lambda: False)
    begun = next(data for name, data in second if name == "bracket")
    assert begun["certified"] == last(first, "bracket")["certified"]


def test_contradictions_stop_loudly() -> None:
    """Crossed ends, and attained values outside what is certified, are bugs, never results."""
    ends = Ends()
    assert ends.certify(0.1, "crown")
    assert not ends.certify(0.05, "ibp")
    with pytest.raises(InternalError, match="bug"):
        ends.refute(0.1, "pgd")
    subject, _ = explored()
    from verify.confidence import certify_scores
    from verify.recipes import recipe

    asked = subject.question(subject.asked.x[:1], 7, 0.01)
    bounder = recipe("crown").stages[-1].bounder
    found = certify_scores(subject.network.graph, asked, bounder)
    with pytest.raises(InternalError, match="certified"):
        refuse_outside(found.scores, found.differences, torch.full((1, 10), 9.0).double())


def test_memory_forgets_the_oldest() -> None:
    """It does not grow with a long session."""
    memory = Memory()
    first = memory.ends((0,))
    for i in range(100):
        memory.ends((i,))
    assert len(memory.kept) == 64
    assert memory.ends((0,)) is not first
