"""Our calibration, conformal and regression figures beside other libraries', and at what speed.

    python -m benchmarks.uncertainty agreement
    python -m benchmarks.uncertainty speed --rows 1000000 --classes 1000 --peer-rows 100000

Peers that are not installed are left out and said so: netcal, torchmetrics, MAPIE, relplot,
uncertainty-toolbox, properscoring, scikit-learn. `agreement` gives each the same arrays; `speed`
makes logits a chunk at a time, so that no library needs them all at once, and times the library
alone. A peer that is given fewer rows is told with its own count.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe
from benchmarks.uncertainty_agreement import agreement
from uncertainty import (
    Scored,
    bootstrap_calibration_error,
    brier_decomposition,
    calibration_error,
    calibration_floor,
    classwise_calibration_error,
    joined,
    score_logits,
    smooth_calibration_error,
)

Array = NDArray[np.float64]
Row = tuple[str, str, Callable[[], float], Callable[[], float]]


def chunks(rows: int, classes: int, size: int = 20_000) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """float32 logits and labels, a chunk at a time."""
    rng = np.random.default_rng(0)
    for start in range(0, rows, size):
        count = min(size, rows - start)
        z = 2 * rng.standard_normal((count, classes), dtype=np.float32)
        y = rng.integers(0, classes, count)
        z[np.arange(count), y] += 6
        yield z, y


def timed(name: str, rows: int, work: Callable[[], float]) -> None:
    started = time.process_time()
    value = work()
    print(
        f"{name:<52}{rows:>9} rows {time.process_time() - started:>8.2f} CPU s   value {value:.8f}"
    )


def speed(rows: int, classes: int, peer_rows: int) -> None:
    """Processor seconds of each library alone, the making of logits not counted.

    Not those of the clock: a machine that is busy with other work would be measured with them.
    """
    parts: list[Scored] = []
    spent = 0.0
    for z, y in chunks(rows, classes):
        started = time.process_time()
        parts.append(score_logits(z, y))
        spent += time.process_time() - started
    started = time.process_time()
    scored = joined(parts)
    spent += time.process_time() - started
    print(f"{'ours: one pass over the logits':<52}{rows:>9} rows {spent:>8.2f} CPU s")
    for name, work in (
        ("ours: ECE", lambda: calibration_error(scored).value),
        ("ours: ECE, equal mass", lambda: calibration_error(scored, binning="mass").value),
        ("ours: MCE", lambda: calibration_error(scored, norm="max").value),
        ("ours: classwise ECE", lambda: classwise_calibration_error(scored)),
        ("ours: NLL", lambda: scored.nll),
        ("ours: Brier, in its parts", lambda: brier_decomposition(scored).brier),
        ("ours: smooth ECE", lambda: smooth_calibration_error(scored)),
        ("ours: floor, 1000 simulations", lambda: calibration_floor(scored).mean),
        ("ours: interval, 1000 resamplings", lambda: bootstrap_calibration_error(scored).low),
    ):
        timed(name, rows, work)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"peak memory so far {peak:.0f} MB (logits would take {rows * classes * 4 / 2**20:.0f} MB)"
    )
    peer_speed(peer_rows, classes)


def peer_speed(rows: int, classes: int) -> None:
    """The peers' ECE of the same first rows, each as it is meant to be called."""
    given = list(chunks(rows, classes))
    part = joined(score_logits(z, y) for z, y in given)
    timed(
        "ours: all of one pass, then ECE",
        rows,
        lambda: calibration_error(joined(score_logits(z, y) for z, y in given)).value,
    )

    def torchmetrics() -> float:
        from torchmetrics.classification import MulticlassCalibrationError

        metric = MulticlassCalibrationError(classes, n_bins=15, validate_args=False)
        for z, y in given:
            metric.update(torch.from_numpy(z), torch.from_numpy(y))
        return float(metric.compute())

    def netcal() -> float:
        from netcal.metrics import ECE

        p = np.concatenate([torch.from_numpy(z).softmax(dim=1).numpy() for z, _ in given])
        return float(ECE(15).measure(p, np.concatenate([y for _, y in given])))

    for name, work in (("torchmetrics: ECE", torchmetrics), ("netcal: ECE", netcal)):
        try:
            timed(name, rows, work)
        except Exception as error:  # whatever a peer raises is its own answer
            print(f"{name:<52}{type(error).__name__}: {error}")
    print(f"(of the same rows ours says {calibration_error(part).value:.8f})")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("agreement", "speed"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--peer-rows", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(describe(given.threads))
    if given.what == "agreement":
        agreement()
    else:
        speed(given.rows, given.classes, given.peer_rows)


if __name__ == "__main__":
    main()
