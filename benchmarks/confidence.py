"""Certified confidence: how much wider than what attacks reach, and whether anything lies outside.

    python -m benchmarks.confidence --limit 100 --samples 1000000
    python -m benchmarks.confidence --nets digits_dense,digits_conv --splits 4
    python -m benchmarks.confidence --nets trial --limit 400 --eps 0.02,0.04,0.06

`trial` is the research page's own setting: a 64-64 MLP trained in the usual way on half of the
digits; its figures there, at 0.04: attacked .212, differences .251, independent .392.

For each network and radius: the mean width of the range of every score as attained by attacks, as
certified (differences and joint rows), by differences alone, and by independent bounds of single
logits, all from the same bounder. `ratio` is (certified - attained) / (independent - attained): the
bar is 1/4 for the confidence. Then a million points of the balls, random and at corners, are
judged under every score; one value outside its certified range ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from attacks import Ball
from attacks.confidence import QUANTITIES, Attained, ConfidenceAttack
from benchmarks.machine import describe
from benchmarks.uncertainty_models import mlp
from uncertainty.models import DeepEnsemble, Training
from verify.confidence import (
    BY_PART,
    Scores,
    certify_scores,
    independent_scores,
    split_scores,
    splittable,
)
from verify.confidence.scores import of_parts
from verify.network import Network, load
from verify.readers.datasets import Dataset, load_dataset
from verify.readers.examples import example_path
from verify.recipes import recipe
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.question import Question, question

BAR = 0.25
AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Widths:
    """Mean widths over the inputs of one score at one radius."""

    network: str
    method: str
    eps: float
    temperature: float
    score: str
    attained: float
    certified: float
    plain: float
    independent: float
    seconds_per_input: float

    @property
    def ratio(self) -> float:
        """Excess over what is attained, relative to that of independent bounds."""
        return (self.certified - self.attained) / max(1e-12, self.independent - self.attained)

    @property
    def plain_ratio(self) -> float:
        """The same of differences without joint rows."""
        return (self.plain - self.attained) / max(1e-12, self.independent - self.attained)


def main() -> int:
    """Measure, print a table, and JSON lines where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=100, help="inputs")
    parser.add_argument("--method", default="alpha-crown")
    parser.add_argument("--eps", default="0.02,0.04,0.08")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--splits", type=int, default=0, help="rounds per input")
    parser.add_argument("--samples", type=int, default=1_000_000, help="per network, over all eps")
    parser.add_argument("--nets", default="digits_dense,digits_conv")
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    radii = [float(part) for part in options.eps.split(",")]
    rows: list[Widths] = []
    outside = 0
    for name in options.nets.split(","):
        network, data = trial(options.limit) if name == "trial" else embedded(name, options.limit)
        assert data.labels is not None
        for eps in radii:
            asked = question(data.x, data.labels, eps, input_range=(0, 1))
            found, measured = compared(
                network, name, asked, options.method, options.temperature, options.splits
            )
            rows += measured
            for row in measured:
                print(
                    f"{name} eps {eps:g} {row.score:17} attained {row.attained:.4f} certified "
                    f"{row.certified:.4f} differences {row.plain:.4f} independent "
                    f"{row.independent:.4f} ratio {row.ratio:.3f} ({row.plain_ratio:.3f})",
                    flush=True,
                )
            count = options.samples // len(radii) // len(data.x)
            escaped = escapes(network, asked, found, count, options.temperature)
            print(f"{name} eps {eps:g}: {count * len(data.x)} points, {escaped} values outside")
            outside += escaped
    if options.json:
        with open(options.json, "w", encoding="utf-8") as stream:
            stream.write(json.dumps({"machine": describe(1), "outside": outside}) + "\n")
            for row in rows:
                both = {"ratio": row.ratio, "plain_ratio": row.plain_ratio}
                stream.write(json.dumps({**asdict(row), **both}) + "\n")
    held = sum(row.ratio <= BAR for row in rows if row.score == "confidence")
    total = sum(row.score == "confidence" for row in rows)
    print(f"confidence: ratio at most {BAR} in {held} of {total} settings; {outside} outside")
    return int(outside > 0)


def embedded(name: str, limit: int) -> tuple[Network, Dataset]:
    """An example network and held-out digits."""
    network = load(example_path(f"{name}.onnx"))
    return network, load_dataset("digits", input_shape=network.input_shape, limit=limit, classes=10)


def trial(limit: int) -> tuple[Network, Dataset]:
    """The research page's network, trained with no thought of robustness, and digits it never saw.

    64-64 ReLU, Adam at 1e-3, batches of 64, 60 epochs, half of scikit-learn's digits.
    """
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.data))
    x, y = (data.data / 16).astype(np.float32), data.target
    train, test = order[:900], order[900 : 900 + limit]
    fitted = DeepEnsemble(mlp(64, 10, 64), members=1, training=Training(epochs=60)).fit(
        x[train], y[train]
    )
    assert fitted.networks_ is not None
    network = load(fitted.networks_[0], input_shape=(64,))
    rows = tuple(order[900 : 900 + limit].tolist())
    return network, Dataset(torch.from_numpy(x[test]), torch.from_numpy(y[test]), rows, "digits")


def compared(
    network: Network, name: str, asked: Question, method: str, temperature: float, splits: int
) -> tuple[Scores, list[Widths]]:
    """Certified scores, and the widths of all scores by each way of bounding."""
    bounder = recipe(method).stages[-1].bounder
    tight, plain, loose = [], [], []
    started = time.perf_counter()
    for rows in torch.arange(len(asked.x)).split(AT_ONCE):
        few = asked.take(rows)
        graph = splittable(network.graph) if splits else network.graph
        found = certify_scores(graph, few, bounder, temperature=temperature)
        tight.append(
            split_scores(
                graph,
                few,
                BY_PART,
                found.scores,
                temperature=temperature,
                rounds=splits,
                budget=Budget(),
                neurons=found.neurons,
            )
        )
    seconds = (time.perf_counter() - started) / len(asked.x)
    for rows in torch.arange(len(asked.x)).split(AT_ONCE):
        few = asked.take(rows)
        found = certify_scores(network.graph, few, bounder, temperature=temperature, joint=False)
        plain.append(found.scores)
        loose.append(independent_scores(found.differences, few.labels))
    certified, without, independent = of_parts(tight), of_parts(plain), of_parts(loose)
    attained = attacked(network, asked, temperature)
    measured = [
        Widths(
            name,
            method,
            float(asked.eps[0]),
            temperature,
            score,
            float((attained.high[score] - attained.low[score]).mean()),
            width(certified, score),
            width(without, score),
            width(independent, score),
            seconds,
        )
        for score in QUANTITIES
    ]
    for score, bounds in certified.named().items():
        inside = (bounds.lower <= attained.low[score]) & (attained.high[score] <= bounds.upper)
        assert bool(inside.all()), f"an attacked {score} lies outside its certified range"
    return certified, measured


def width(found: Scores, score: str) -> float:
    """Mean over the inputs."""
    bounds = found.named()[score]
    return float((bounds.upper - bounds.lower).mean())


def attacked(network: Network, asked: Question, temperature: float) -> Attained:
    """The ends that a long attack attains."""
    single = network.graph.to(torch.float32)
    attack = ConfidenceAttack(steps=80, restarts=4, temperature=temperature)
    ball = Ball(asked.eps, asked.p, asked.lower, asked.upper)
    return attack(lambda x: run(single, x).flatten(1), asked.x, asked.labels, ball)


def escapes(
    network: Network, asked: Question, found: Scores, count: int, temperature: float
) -> int:
    """How many values at `count` points of each ball lie outside their certified range."""
    single = network.graph.to(torch.float32)
    region = Ball(asked.eps, asked.p, asked.lower, asked.upper).around(asked.x)
    generator = torch.Generator().manual_seed(0)
    outside = 0
    for i in range(count):
        share = torch.rand(asked.x.shape, generator=generator)
        if i % 2:
            share = share.round()
        points = region.low + share * (region.high - region.low)
        points = torch.maximum(torch.minimum(points, region.high), region.low)
        outside += beyond(run(single, points).flatten(1).double() / temperature, found)
    return outside


def beyond(logits: Tensor, found: Scores) -> int:
    """Values of any score outside their range; NaN counts."""
    total = 0
    for score, bounds in found.named().items():
        value = QUANTITIES[score](logits, found.labels)
        total += int((~((bounds.lower <= value) & (value <= bounds.upper))).sum())
    p = logits.softmax(dim=1)
    inside = (found.probability.lower <= p) & (p <= found.probability.upper)
    return total + int((~inside).sum())


if __name__ == "__main__":
    raise SystemExit(main())
