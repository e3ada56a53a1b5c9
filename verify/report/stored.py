"""A stored run as a record: what `--json` of the command itself would have written."""

from __future__ import annotations

from dataclasses import replace

from verify.report.records import ModelStamp, Record, make_record
from verify.runs.store import Store


def record_of(store: Store) -> Record:
    """All results that a run holds so far.

    Commands that say something of all inputs together, such as coverage, have it as results once
    they are done; until then the results are those of single inputs or batches. The seconds are
    those that processes worked on it, together; `missing` counts instances without a result.

    Raises:
        RunError: if the run is damaged.
    """
    head, conclusion = store.head, store.conclusion()
    rows = conclusion.get("results")
    if not isinstance(rows, list):
        rows = [answer.record for answer in store.answers()]
    summary = conclusion.get("summary")
    record = make_record(
        head.command,
        rows,
        settings=head.settings,
        model=ModelStamp(head.model_path, head.model_sha256),
        seconds=sum(stretch.seconds for stretch in store.stretches()),
        summary={
            **(summary if isinstance(summary, dict) else {}),
            "run": store.name,
            "missing": store.count() - len(store.done()),
        },
    )
    return replace(record, version=head.version)
