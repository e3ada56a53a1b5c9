"""How inputs are laid out: grey, colour, channels first or last, rows of numbers."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.explore.subjects import course_of, explored
from verify.cli.explore import PageOptions
from verify.cli.exploring import subject_of, tools_of
from verify.cli.options import DataOptions
from verify.cli.session import open_session
from verify.explore.ball import BallCourse
from verify.explore.layout import Layout, layout_of

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("shape", "image", "laid"),
    [
        ((1, 8, 8), None, Layout("image", 8, 8, 1, False, 64)),
        ((3, 32, 30), None, Layout("image", 32, 30, 3, False, 2880)),
        ((32, 30, 3), None, Layout("image", 32, 30, 3, True, 2880)),
        ((28, 28), None, Layout("image", 28, 28, 1, False, 784)),
        ((784,), None, Layout("image", 28, 28, 1, False, 784)),
        ((3072,), (3, 32, 32), Layout("image", 32, 32, 3, False, 3072)),
        ((4,), None, Layout("values", 1, 4, 1, False, 4)),
        ((1, 1, 5), None, Layout("values", 1, 5, 1, False, 5)),
        ((20,), None, Layout("values", 2, 16, 1, False, 20)),
        ((5, 4, 4), None, Layout("values", 5, 16, 1, False, 80)),
        ((), None, Layout("values", 1, 1, 1, False, 1)),
    ],
)
def test_shapes(shape: tuple[int, ...], image: tuple[int, int, int] | None, laid: Layout) -> None:
    """Images where they are some, else rows of numbers."""
    assert layout_of(shape, image) == laid


def test_thumbnails_are_the_inputs() -> None:
    """Byte by byte, scaled from the input range."""
    subject, _ = explored()
    found = subject.inputs(48)["inputs"]
    assert isinstance(found, list)
    assert [one["position"] for one in found] == list(range(48, 60))
    pixels = np.frombuffer(base64.b64decode(found[0]["pixels"]), np.uint8)
    expected = np.rint(255 * subject.asked.x[48].flatten().numpy())
    assert np.array_equal(pixels, expected.astype(np.uint8))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not on this machine")
def test_a_colour_image_is_attacked_and_certified() -> None:
    """A published network for CIFAR-10: red, green and blue side by side, all outputs inside."""
    model = SHARED / "geometric" / "cifar_r10.onnx"
    data = DataOptions(
        data=str(SHARED / "images" / "cifar10_test_100.csv"), channels_last=True, limit=6
    )
    session = open_session(model, data, 0.0)
    page = PageOptions()
    subject, tools = subject_of(session, page), tools_of(model, session, page)
    assert (subject.layout.channels, subject.turns, tools.doubt) == (3, True, None)
    (first, *_) = subject.inputs(0)["inputs"]  # type: ignore[misc]
    pixels = np.frombuffer(base64.b64decode(first["pixels"]), np.uint8).reshape(32, 32, 3)
    expected = torch.round(255 * subject.asked.x[0]).to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(pixels, expected)
    events: list = []
    course = course_of(subject, tools, events, position=5, size=0.0005)
    assert isinstance(course, BallCourse)
    course.clean()
    course.attack()  # what it attains is held against what is certified next
    course.intervals("crown-ibp", 1.0)
    assert [name for name, _ in events][-1] == "intervals"
