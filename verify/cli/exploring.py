"""The work of `verify explore`: the model and its inputs, and what attacks and uncertainty add."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attacks import ATTACKS, MINIMISERS, Budget, TransformBox, spending
from attacks.spatial import SpatialAttack
from uncertainty.errors import UncertaintyError
from uncertainty.models import OnnxDropout, OnnxEnsemble
from uncertainty.predictions import CategoricalMixture
from verify.cli import parsing
from verify.cli.explore import PageOptions
from verify.cli.failures import is_users, one_line
from verify.cli.falsifiers import falsifier_of
from verify.cli.moving import given_shape
from verify.cli.options import AttackOptions, DataOptions
from verify.cli.refuting import refuters
from verify.cli.session import Session, open_session
from verify.cli.sources import refuse_softmax
from verify.errors import DataError, SettingError
from verify.explore.layout import layout_of
from verify.explore.subject import Subject
from verify.explore.tools import Doubts, Tools
from verify.network import NormalisedJudge, load
from verify.protocols import Falsifier, Judge, Model, Proposal
from verify.readers.datasets import default_source
from verify.readers.examples import example_path
from verify.readers.onnx_file import read_model_file
from verify.values.question import Question

EXAMPLE = "digits_conv.onnx"
BLANK = "a blank input, as no data were given"
OFFERED = (
    *("pgd", "fgsm", "ifgsm", "mifgsm", "apgd-ce", "apgd-dlr", "fab", "square"),
    *("deepfool", "ddn", "cw", "fmn", "boundary"),
)
"""Attacks that a person can wait for; those that do not know the norm are left out."""


def open_page(model: Path | None, data: DataOptions, page: PageOptions) -> int:
    """Serve until Ctrl-C.

    Raises:
        InputError: if anything given cannot be used, or the extra is not installed.
    """
    if importlib.util.find_spec("werkzeug") is None:
        raise SettingError(
            "verify explore needs the extra 'explore', which is not installed; "
            "run pip install 'tashika[explore]'"
        )
    from verify.explore.desk import Desk, Worker
    from verify.explore.server import Site, serve

    seconds = parsing.positive(page.timeout, "--timeout")
    assert seconds is not None
    path = example_path(EXAMPLE) if model is None else model
    session = opened_session(path, data)
    subject = subject_of(session, page)
    tools = tools_of(path, session, page)
    logging.basicConfig(format="%(message)s")
    site = Site(subject, tools, Desk(Worker(subject, tools, seconds), explained), seconds)
    for line in (*session.notes, tools.doubt_about):
        if line:
            print(line)

    def opened(address: str) -> None:
        print(f"exploring {path.name}: {address}")
        print("Ctrl-C ends it", flush=True)
        if not page.no_browser:
            webbrowser.open(address)

    serve(site, page.port, opened)
    print("ended")
    return 0


def opened_session(path: Path, data: DataOptions) -> Session:
    """The model and its data; where there are none at all, one blank input to draw on."""
    if data.data is not None:
        return open_session(path, data, 0.0)
    shape = load(path).input_shape
    try:
        default_source(path, input_shape=shape)
    except DataError:
        ends = parsing.interval(data.input_range)
        value = 0.0 if ends is None else min(max(0.0, ends[0]), ends[1])
        with tempfile.TemporaryDirectory(prefix="tashika-") as folder:
            blank = Path(folder) / "blank.npy"
            np.save(blank, np.full((1, *shape), value, np.float32))
            found = open_session(path, replace(data, data=str(blank), scale="1"), 0.0)
        note = "data: none given, so there is one blank input; draw others"
        notes = tuple(note if line.startswith("data: ") else line for line in found.notes)
        source = replace(found.data, source=BLANK)
        return replace(found, data=source, notes=notes)
    return open_session(path, data, 0.0)


def explained(error: Exception) -> str | None:
    """What to tell of an exception that the user can mend; None for others."""
    return one_line(str(error)) if is_users(error) else None


def subject_of(session: Session, page: PageOptions) -> Subject:
    """What is explored."""
    shape = session.network.input_shape
    image = None if page.image_shape is None else given_shape(page.image_shape, shape)
    return Subject(
        network=session.network,
        asked=session.asked,
        indices=tuple(session.data.indices),
        source=session.data.source,
        input_range=session.input_range,
        layout=layout_of(shape, image),
        blank=session.data.source == BLANK,
        own_labels=session.settings["labels"] == "data",
        notes=session.notes,
    )


def tools_of(path: Path, session: Session, page: PageOptions) -> Tools:
    """What attacks and uncertainty can do for this model."""
    doubt, about = doubts_of(path, session, page)
    return Tools(
        attacks=offered(session.asked.p),
        falsifier=lambda name, judge, seconds: Limited.of(name, judge, seconds, page.seed),
        refuters=refuters(page.seed),
        turning=turned,
        doubt=doubt,
        doubt_about=about,
    )


def offered(p: float) -> dict[str, str]:
    """Names of attacks on this norm, with a line each."""
    return {
        name: ATTACKS[name].summary if name in ATTACKS else MINIMISERS[name].summary
        for name in OFFERED
        if name in ATTACKS or p in MINIMISERS[name].norms
    }


@dataclass(frozen=True, slots=True, eq=False)
class Limited:
    """A falsifier with a clock: when its time is over it keeps what it has."""

    falsifier: Falsifier
    seconds: float

    @classmethod
    def of(cls, name: str, judge: Judge, seconds: float, seed: int) -> Limited:
        """The one of that name."""
        found = falsifier_of(AttackOptions(attack=name, seed=seed), judge)
        assert found is not None
        return cls(found, seconds)

    def propose(self, model: Model, asked: Question) -> Proposal:
        """A candidate inside each neighbourhood."""
        with spending(Budget(seconds=self.seconds)):
            return self.falsifier.propose(model, asked)

    def nearest(self, model: Model, asked: Question) -> Proposal:
        """A misclassified candidate as near as possible."""
        with spending(Budget(seconds=self.seconds)):
            return self.falsifier.nearest(model, asked)


def turned(model: Model, x: Tensor, label: Tensor, degrees: float) -> float:
    """The worst angle that a grid and its refinement find."""
    box = TransformBox.parse(f"rotation({-degrees!r},{degrees!r})")
    with spending(Budget(seconds=5.0)):
        return float(SpatialAttack()(model, x, label, box).values[0, 0])


def doubts_of(
    path: Path, session: Session, page: PageOptions
) -> tuple[Callable[[Tensor], Doubts] | None, str]:
    """What several members say of one input, and who they are; None where there is but one.

    Raises:
        SettingError: if the members do not fit each other.
    """
    files = [read_model_file(one) for one in (path, *(page.ensemble or ()))]
    if len({file.sha256 for file in files}) < len(files):
        raise SettingError(
            "two members of the ensemble are the same file, which adds nothing; name each once"
        )
    posterior: OnnxEnsemble | OnnxDropout
    if page.ensemble:
        for file, name in zip(files, (path, *page.ensemble), strict=True):
            refuse_softmax(file.data, name)
        posterior = OnnxEnsemble([file.data for file in files])
        about = f"uncertainty: an ensemble of {len(files)} files"
    else:
        try:
            posterior = OnnxDropout(files[0].data, passes=page.passes, seed=page.seed)
            refuse_softmax(files[0].data, path)
        except (UncertaintyError, SettingError):
            return None, ""
        about = f"uncertainty: {page.passes} passes with dropout, seed {page.seed}"
    judge = session.network.judge

    def doubt(x: Tensor) -> Doubts:
        given = judge.normalise(x) if isinstance(judge, NormalisedJudge) else x
        found = posterior.predict_distribution(given)
        assert isinstance(found, CategoricalMixture)
        members = torch.from_numpy(found.log_probs[:, 0]).exp().tolist()
        values = (found.total, found.aleatoric, found.epistemic)
        return Doubts(members, found.probs[0].tolist(), *(float(value[0]) for value in values))

    first = session.asked.x[:1]
    classes = len(doubt(first).mean)
    if classes != session.network.classes:
        raise SettingError(
            f"the ensemble's members give {classes} classes, but the model {path} has "
            f"{session.network.classes}; name members that fit it"
        )
    return doubt, about
