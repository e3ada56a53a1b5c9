"""The work of `verify coverage`: measure, bound, search, generate, and tell."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from verify.cli import parsing
from verify.cli.coverage import BeyondOptions, CoverageOptions
from verify.cli.coverage_beyond import Beyond, add_beyond, look_beyond
from verify.cli.coverage_tables import FINDING, Row, draw, publish, told
from verify.cli.gathering import Gathered, digest, gather_job, joined
from verify.cli.options import DataOptions, RunOptions
from verify.cli.presenting import Presenter
from verify.cli.running import Running
from verify.cli.session import Session, open_session
from verify.coverage import MaskRecord, Measured, layers_of
from verify.coverage.generating import Generated, Mutations, generate
from verify.coverage.records import CoverageRecord
from verify.coverage.reference import Reference
from verify.coverage.registry import CoverageSettings, Criterion, criterion_named
from verify.errors import SettingError
from verify.network import NormalisedJudge
from verify.report.plots import FORMATS
from verify.report.writers import write_whole
from verify.runtime import Runtime

MISCLASSIFIED = 1


def cover(
    model: Path,
    data: DataOptions,
    count: CoverageOptions,
    beyond: BeyondOptions,
    runs: RunOptions,
    show: Presenter,
) -> int:
    """Do what `verify coverage` says; the exit code.

    Raises:
        InputError: if anything given cannot be used.
    """
    criteria = [criterion_named(name) for name in count.criteria.lower().split(",")]
    settings = CoverageSettings(
        count.threshold,
        count.scaled,
        count.sections,
        count.top,
        count.deviations,
        count.ratio,
        count.buckets,
        count.important,
    )
    mutations = Mutations(beyond.noise, beyond.brightness, beyond.shift, beyond.rotation)
    check_places(beyond)
    session = open_session(model, data, 0.0)
    show.say(session.notes)
    graph = session.network.graph.to(torch.float32)
    names = None if count.layers is None else outputs_of(session, count.layers)
    layers = layers_of(graph, names, channels=not count.positions)
    training, tested, note = split(session, data, count, criteria)
    reference = Reference(graph, training, layers)
    watched = layers
    if any(entry.needs_output for entry in criteria) and reference.output not in layers:
        watched = (*layers, reference.output)
    show.say([note] if note else [])

    def empty() -> dict[str, CoverageRecord]:
        return {entry.name: entry.make(reference, settings) for entry in criteria}

    records = empty()
    sets = {"tested": tested.x}
    if count.against is not None:
        sets["against"] = other_inputs(session, data, count.against)
    options = settings_of(session, (count, beyond), training)
    job = gather_job(session, options, graph, watched, records, sets)
    with Running(runs, job, show) as running:
        done = running.collect()
        found = joined(done.results, records, "tested")
        second = joined(done.results, empty(), "against") if count.against is not None else {}
        rows, summary = told_of(found, done.results)
        learnt = made_up = None
        if not done.interrupted and not running.lost:
            if beyond.reachable is not None:
                learnt = look_beyond(session, layers, records, tested.x, beyond.reachable)
                add_beyond(rows, learnt, summary)
            if second:
                summary["against"] = compared(records, {k: m.record for k, m in second.items()})
            made_up = generated(session, records, tested, beyond, mutations, summary)
        summary |= {"interrupted": done.interrupted, **running.summary()}
        indexed = [{"index": i, **row} for i, row in enumerate(rows)]
        record = show.record("coverage", job.stamp, options, indexed, summary)
        running.conclude(record, rows=True)
    if beyond.save is not None:
        save(beyond.save, learnt, made_up, tested, graph.input.shape)
    publish(show, record, rows, summary, found)
    if beyond.plot is not None and done.results:
        draw(beyond.plot, rows, found, model)
        show.say([f"drawn: {beyond.plot}"])
    wrong = made_up is not None and bool(made_up.wrong.any())
    return running.exit_code(done, MISCLASSIFIED if wrong else 0)


def told_of(
    found: Mapping[str, Measured], parts: Sequence[Gathered]
) -> tuple[list[Row], dict[str, object]]:
    """Rows by criterion and layer, and the summary, of what came."""
    rows: list[Row] = [
        {"criterion": name, "layer": part.layer, **dataclasses.asdict(part), "share": part.share}
        for name, measured in found.items()
        for part in measured.layers
    ]
    summary: dict[str, object] = {
        "inputs": sum(part.batch.count for part in parts if part.batch.set == "tested"),
        "criteria": {name: told(measured) for name, measured in found.items()},
        "curves": {name: measured.curve for name, measured in found.items()},
        "finding": FINDING,
    }
    return rows, summary


def settings_of(
    session: Session, options: tuple[CoverageOptions, BeyondOptions], training: Tensor
) -> dict[str, object]:
    """For the record: all that decides the outcome, the profile by its content."""
    given = {
        key: str(value) if isinstance(value, Path) else value
        for part in options
        for key, value in dataclasses.asdict(part).items()
    }
    return {**session.settings, **given, "profile_sha256": digest(training)}


def outputs_of(session: Session, listed: str) -> list[str]:
    """The tensors that are named, by their own names or by those of the ONNX nodes they leave."""
    import onnx

    names = [name.strip() for name in listed.split(",")]
    judge = session.network.judge
    inner = judge.judge if isinstance(judge, NormalisedJudge) else judge
    if not isinstance(inner, Runtime):
        return names
    nodes = onnx.load_from_string(inner.model.data).graph.node
    tensors = {output for node in nodes for output in node.output}
    leaves = {node.name: node.output[0] for node in nodes if node.name and node.output}
    return [name if name in tensors else leaves.get(name, name) for name in names]


@dataclass(frozen=True, slots=True, eq=False)
class Tested:
    """The inputs that are counted, with their labels and rows of the source."""

    x: Tensor
    labels: Tensor
    indices: tuple[int, ...]


def check_places(beyond: BeyondOptions) -> None:
    """Refuse files that cannot be written, before the work."""
    for path, endings, option in (
        (beyond.plot, FORMATS, "--plot"),
        (beyond.save, ("npz",), "--save"),
    ):
        if path is not None and (
            path.suffix.lower().removeprefix(".") not in endings or not path.parent.is_dir()
        ):
            raise SettingError(
                f"{option} is {path}, expected a file ending in {', '.join(endings)} in a folder "
                "that is there; name another"
            )
    if beyond.generate < 0:
        raise SettingError(f"--generate is {beyond.generate}, expected 0 or more; correct it")
    if beyond.reachable not in (None, "range"):
        parsing.radius(str(beyond.reachable))


def split(
    session: Session,
    data: DataOptions,
    count: CoverageOptions,
    criteria: list[Criterion],
) -> tuple[Tensor, Tested, str]:
    """The training inputs, the inputs to count, and what was assumed."""
    asked = session.asked
    tested = Tested(asked.x, asked.labels, tuple(session.data.indices))
    if not any(entry.needs_profile for entry in criteria):
        return asked.x[:0], tested, ""
    if count.profile is not None:
        training = other_inputs(session, data, count.profile)
        return training, tested, f"profile: {count.profile}; {len(training)} inputs"
    if len(asked.x) < 2:
        raise SettingError(
            "these criteria need training data, and one input cannot be split; give --profile"
        )
    rest = Tested(asked.x[1::2], asked.labels[1::2], tuple(session.data.indices[1::2]))
    note = (
        f"profile: every other row of the data ({len(asked.x[::2])} inputs), as no --profile was "
        f"given; {len(rest.x)} inputs are counted"
    )
    return asked.x[::2], rest, note


def other_inputs(session: Session, data: DataOptions, source: str) -> Tensor:
    """All inputs of another source, read with the same scale and layout."""
    from verify.readers.datasets import load_dataset

    return load_dataset(
        source,
        input_shape=session.network.input_shape,
        channels_last=data.channels_last,
        scale=parsing.positive(data.scale, "--scale"),
        input_range=None,
        limit=None,
        indices=None,
        classes=None,
    ).x.to(torch.float32)


def compared(
    one: Mapping[str, CoverageRecord], other: Mapping[str, CoverageRecord]
) -> dict[str, object]:
    """What a second test set adds, for criteria that tick off sections."""
    found: dict[str, object] = {}
    for name, first in one.items():
        second = other[name]
        if isinstance(first, MaskRecord) and isinstance(second, MaskRecord):
            found[name] = {
                "both": sum(int(m.sum()) for m in first.union(second).covered.values()),
                "only_first": sum(int(m.sum()) for m in first.difference(second).covered.values()),
                "only_second": sum(int(m.sum()) for m in second.difference(first).covered.values()),
            }
    return found


def generated(
    session: Session,
    records: Mapping[str, CoverageRecord],
    tested: Tested,
    beyond: BeyondOptions,
    mutations: Mutations,
    summary: dict[str, object],
) -> Generated | None:
    """New inputs under the first criterion that ticks off sections."""
    if not beyond.generate:
        return None
    masks = {name: r for name, r in records.items() if isinstance(r, MaskRecord)}
    if not masks:
        raise SettingError("--generate needs a criterion that ticks off sections, such as nc")
    name, record = next(iter(masks.items()))
    low, high = session.input_range or (-torch.inf, torch.inf)
    right = ~session.network.judge.misclassified(tested.x, tested.labels)
    made = generate(
        session.network.graph.to(torch.float32),
        record,
        tested.x[right],
        tested.labels[right],
        session.network.judge,
        mutations=mutations,
        tries=beyond.generate,
        lower=low,
        upper=high,
        seed=beyond.seed,
    )
    rows = right.nonzero().flatten()
    made = dataclasses.replace(made, parent=rows[made.parent])
    summary["generated"] = {
        "criterion": name,
        "tried": made.tried,
        "kept": len(made.x),
        "gained": int(made.gained.sum()),
        "misclassified": int(made.wrong.sum()),
    }
    return made


def save(
    path: Path,
    learnt: Beyond | None,
    made: Generated | None,
    tested: Tested,
    shape: tuple[int, ...],
) -> None:
    """Write what was found: searched inputs (label and index -1), then generated ones."""
    hits = [hit.x for found in learnt.reached.values() for hit in found] if learnt else []
    parents = made.parent.tolist() if made is not None else []
    x = [*hits, *(made.x if made is not None else ())]
    labels = [-1] * len(hits) + [int(tested.labels[i]) for i in parents]
    index = [-1] * len(hits) + [tested.indices[i] for i in parents]
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        x=(torch.stack(x) if x else torch.zeros(0, *shape)).numpy(),
        label=np.array(labels, dtype=np.int64),
        index=np.array(index, dtype=np.int64),
    )
    write_whole(path, stream.getvalue())
