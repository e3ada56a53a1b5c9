"""Timed calls of several tools on the same work, alternating, so that noise hits all alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping

from benchmarks.outcome import Outcome
from benchmarks.records import Measured

Call = Callable[[], Outcome]


def alternate(calls: Mapping[str, Call], repeats: int, patience: float) -> dict[str, Measured]:
    """Run every tool `repeats` times in turn; who goes first changes with each round.

    Args:
        calls: one call per tool, on a batch of one input.
        repeats: timed rounds, at least 1.
        patience: a tool whose call took longer than this many seconds is not run again.
    """
    outcomes: dict[str, list[Outcome]] = {name: [] for name in calls}
    for turn in range(repeats):
        order = list(calls) if turn % 2 == 0 else list(calls)[::-1]
        for name in order:
            if any(outcome.seconds > patience for outcome in outcomes[name]):
                continue
            gc.collect()  # else a tool pays for the other's garbage
            outcomes[name].append(calls[name]())
    return {
        name: Measured(
            margins=tuple(runs[-1].margins[0].tolist()),
            seconds=tuple(run.seconds for run in runs),
            build_seconds=runs[0].build_seconds,
        )
        for name, runs in outcomes.items()
    }
