"""The work of `verify report`: find records, pictures and certificates, write them."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from verify.cli import parsing
from verify.errors import DataError, SettingError
from verify.report.page import (
    CertificateCheck,
    Shown,
    Source,
    Wishes,
    build_page,
    latex_tables,
    markdown_tables,
)
from verify.report.page.facts import worst as worst_of
from verify.report.page.sources import text
from verify.report.records import stamp_model
from verify.report.stored import record_of
from verify.report.writers import write_whole
from verify.runs import read_run, run_path, runs_folder

if TYPE_CHECKING:
    from verify.runs import Blob, Store

REJECTED = 1


@dataclass(frozen=True, slots=True)
class Targets:
    """Files to write; None: not wanted."""

    html: Path | None
    markdown: Path | None
    latex: Path | None


def write_report(
    names: Sequence[str],
    targets: Targets,
    *,
    title: str,
    eps: str | None,
    worst: int,
    certificates: Path | None,
    data: str | None,
    runs: Path | None,
) -> int:
    """Read, count, draw, write.

    Raises:
        InputError: if a record cannot be used or a file cannot be written.
    """
    if targets == Targets(None, None, None):
        raise SettingError("name at least one of -o, --markdown and --latex")
    radius = parsing.positive(eps, "--eps")
    sources = [source_of(name, runs_folder(runs), worst) for name in names]
    if data is not None:
        sources = [with_inputs(source, data, worst) for source in sources]
    checks = () if certificates is None else checked(certificates, sources[0])
    wishes = Wishes(title, radius, worst, checks)
    for path, make in (
        (targets.html, build_page),
        (targets.markdown, markdown_tables),
        (targets.latex, latex_tables),
    ):
        if path is not None:
            content = make(sources, wishes).encode("utf-8", "replace")
            write_whole(path, content)
            print(f"{path}: {len(content):,} bytes", file=sys.stderr)
    rejected = [check.name for check in checks if not check.accepted]
    if rejected:
        print(f"{len(rejected)} certificates rejected: {', '.join(rejected[:5])}", file=sys.stderr)
    return REJECTED if rejected else 0


def source_of(name: str, folder: Path, worst: int) -> Source:
    """A file of this name, else a run.

    Raises:
        DataError: if there is neither.
    """
    if Path(name).is_file():
        return Source.read(name)
    if Path(name).suffix or "/" in name or not run_path(folder, name).is_file():
        raise DataError(
            f"{name} is neither a record nor a run in {folder}; give a file that --json wrote, "
            "or the name of a run"
        )
    store = read_run(folder, name)
    try:
        head = store.head
        again = f"verify {shlex.join(head.argv)}" if head.argv else ""
        record = record_of(store)
        source = Source(name + record.remark, None, record, again=again)
        shown = judged(pictures(store, source, worst), source, Path(head.folder))
        return replace(source, pictures=shown)
    finally:
        store.close()


def pictures(store: Store, source: Source, most: int) -> dict[object, Shown]:
    """Inputs and counterexamples of the worst results."""
    wanted = {line.index for line in worst_of(source, most)}
    found: dict[object, Shown] = {}
    for answer in store.answers():
        index = text(answer.record.get("index"))
        if index not in wanted:
            continue
        before = store.input(answer.position)
        after = store.blobs(answer.position).get("witness")
        if before is None:
            continue
        clean, changed = array(before), None if after is None else array(after)
        if changed is None:
            found[index] = Shown(clean)
        elif clean.size == changed.size:
            found[index] = Shown(clean.reshape(changed.shape), changed)
    return found


def array(blob: Blob) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A stored array."""
    values = np.frombuffer(blob.data, dtype=blob.dtype or "<f4").astype(np.float32)
    return values.reshape(blob.shape or (-1,))


def judged(found: dict[object, Shown], source: Source, folder: Path) -> dict[object, Shown]:
    """With the classes that ONNX Runtime gives; without them if the model's file is another now.

    Args:
        found: by index.
        source: whose counterexamples they are.
        folder: where the command was given, which the model's path may be relative to.
    """
    stamp, settings = source.record.model, source.record.settings
    path = None if stamp.path is None else folder / stamp.path
    changed = {index: one for index, one in found.items() if one.adversarial is not None}
    if not changed or path is None or not path.is_file():
        return found
    if stamp_model(path).sha256 != stamp.sha256:
        return found
    import torch

    from verify.network import load, with_normalisation
    from verify.readers.datasets import channel_values

    network = load(path)
    shape = network.input_shape
    mean, std = (listed(settings.get(key)) for key in ("mean", "std"))
    if mean or std:
        network = with_normalisation(
            network,
            channel_values(mean or (0.0,), shape, name="mean"),
            channel_values(std or (1.0,), shape, name="std", positive=True),
        )
    told = dict(found)
    for index, shown in changed.items():
        x = torch.from_numpy(shown.adversarial).reshape(1, *shape)
        told[index] = replace(shown, became=int(network.judge.predict(x)[0]))
    return told


def with_inputs(source: Source, data: str, most: int) -> Source:
    """The record with the inputs of its worst results as pictures.

    Raises:
        InputError: if the model or the data cannot be read, or do not fit.
    """
    from verify.network import load
    from verify.readers.datasets import load_dataset

    stamp, settings = source.record.model, source.record.settings
    lines = worst_of(source, most + len(source.pictures))
    wanted = [line.index for line in lines if line.index not in source.pictures]
    rows = sorted({int(index) for index in wanted if index.isdecimal()})
    if not rows:
        return source
    if stamp.path is None or not Path(stamp.path).is_file():
        raise SettingError(
            f"--data needs the model of {source.name} for the shape of its inputs, but there is no "
            f"{stamp.path}; call from the folder where it is"
        )
    channels_last, scale = settings.get("channels_last"), settings.get("scale")
    read = load_dataset(
        data,
        input_shape=load(stamp.path).input_shape,
        channels_last=channels_last if isinstance(channels_last, bool) else None,
        scale=parsing.positive(None if scale is None else str(scale), "scale of the record"),
        indices=tuple(rows),
    )
    more: dict[object, Shown] = {
        text(index): Shown(x.numpy()) for index, x in zip(read.indices, read.x, strict=True)
    }
    return replace(source, pictures={**more, **source.pictures})


def listed(value: object) -> tuple[float, ...]:
    """Numbers of a setting; none where it is not a list."""
    return tuple(float(item) for item in value) if isinstance(value, list | tuple) else ()


def checked(folder: Path, source: Source) -> tuple[CertificateCheck, ...]:
    """What the independent checker says of each certificate in a folder.

    Raises:
        SettingError: if there is none, or the record names no model file.
    """
    from verify.check.__main__ import check
    from verify.check.refusal import Refusal

    paths = sorted(folder.glob("*.cert"), key=lambda path: (len(path.name), path.name))
    model = source.record.model.path
    if not paths or model is None or not Path(model).is_file():
        lacks = "no certificate" if not paths else f"no model {model}"
        raise SettingError(f"--certificates {folder}: there is {lacks}; name another folder")
    content = Path(model).read_bytes()
    found = []
    for path in paths:
        started = time.monotonic()
        try:
            prop = path.with_suffix(".vnnlib").read_bytes()
            words, accepted = check(path.read_bytes(), content, prop), True
        except Refusal as refusal:
            words, accepted = str(refusal), False
        except OSError as error:
            words, accepted = f"{error.filename} cannot be read: {error.strerror}", False
        except Exception as error:  # whatever else is wrong with a file, it proves nothing
            words, accepted = f"{type(error).__name__}: {str(error)[:200]}", False
        found.append(CertificateCheck(path.name, accepted, words, time.monotonic() - started))
    return tuple(found)
