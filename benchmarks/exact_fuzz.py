"""Complete searches on tiny provocative nets, judged by exact minima in rational numbers.

    python -m benchmarks.exact_fuzz --nets 1500 --out exact.jsonl

A problem is a net, a box, a row and a threshold next to the row's exact minimum over the box (from
one rounding to a hundredth away, on either side). "Proved" is wrong if the minimum reaches the
threshold, or an execution does; "refuted" is wrong if the witness does not. Each net is searched
as it is and changed in a way that leaves its function alone (neurons in another order, layers
scaled by powers of two, dead neurons, the box in two parts); the judge is that of the first net.
`prop` goes from a file and a property to an answer, and every unsat to a certificate that the
checker is asked about. Resumes; exit code 1 if anything was wrong.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from benchmarks.exact_problems import (
    CHANGES,
    Problem,
    halves,
    model_of,
    problems,
    property_of,
    value_of,
)
from benchmarks.fuzzing import asked_of, held
from benchmarks.provocative import exactly, executed, graph_of
from verify.api import prove_property
from verify.certificates.properties import certify_property
from verify.certificates.proving import NoCertificate
from verify.check.__main__ import check
from verify.errors import MismatchError
from verify.network import load
from verify.readers.vnnlib import read_vnnlib
from verify.search.activation_split import ActivationSplit
from verify.search.input_split import InputSplit
from verify.search.milp import Milp
from verify.search.outcome import Search
from verify.search.questions import RefuterFor
from verify.search.replaying import Replaying
from verify.values.budget import Budget
from verify.values.property import Case, Halfspaces
from verify.values.result import Verdict
from verify.values.rounding import Rounding
from verify.values.semantics import SEMANTICS

SEARCHES: dict[str, Callable[[Rounding], Search]] = {
    "input split": lambda rounding: InputSplit(workers=1, rounding=rounding),
    "activation split": lambda rounding: ActivationSplit(rounding=rounding),
    "lp tree": lambda rounding: Milp(rounding=rounding),
}
SECONDS = 0.25
"""For one search."""
PROP_SECONDS = 1.0
WIDTHS = (9, 8, 8, 7, 7)


@dataclass(frozen=True, slots=True, eq=False)
class Exactly:
    """A refuter that decides in rational numbers.

    Attributes:
        asked: the problem.
    """

    asked: Problem

    def __call__(self, lower: Tensor, upper: Tensor, *, effort: float = 1.0) -> Tensor | None:
        """The middles of some boxes, and the exact minimiser."""
        del effort
        places = torch.from_numpy(self.asked.places)
        return self.check(torch.cat((places, ((lower + upper) / 2)[:4].to(torch.float32))))

    def check(self, candidates: Tensor) -> Tensor | None:
        """The first that meets the threshold."""
        x = candidates.detach().to(torch.float32).numpy()[:16]
        x = np.clip(x, self.asked.low, self.asked.high)
        for point, y in zip(x, exactly(self.asked.net, x), strict=True):
            if value_of(self.asked.row, y) <= Fraction(self.asked.threshold):
                return torch.from_numpy(point.copy())
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Probing:
    """A refuter of `verify prop`: the places of a problem, judged by the runtime.

    Attributes:
        asked: the problem.
        replay: what decides.
    """

    asked: Problem
    replay: Replaying

    def __call__(self, lower: Tensor, upper: Tensor, *, effort: float = 1.0) -> Tensor | None:
        """The exact minimiser and the middles of some boxes."""
        del effort
        places = torch.from_numpy(self.asked.places)
        return self.check(torch.cat((places, ((lower + upper) / 2)[:4].to(torch.float32))))

    def check(self, candidates: Tensor) -> Tensor | None:
        """As the runtime says."""
        return self.replay.check(candidates)


def probing(asked: Problem) -> RefuterFor:
    """See `Probing`."""
    return lambda graph, replay, case, budget: Probing(asked, replay)


def case_of(asked: Problem) -> Case:
    """The problem as a search takes it."""
    low, high = (torch.from_numpy(side).double() for side in (asked.low, asked.high))
    none = torch.zeros(0, dtype=torch.float64)
    free = Halfspaces(none.view(0, 1).expand(0, len(low)), none, none.bool())
    row = torch.tensor([asked.row], dtype=torch.float64)
    const = torch.tensor([-asked.threshold], dtype=torch.float64)
    return Case(low, high, free, (Halfspaces(row, const, torch.zeros(1).bool()),))


def runs_below(asked: Problem, generator: np.random.Generator) -> bool:
    """Whether a float32 execution reaches the threshold at one of the places."""
    for y in executed(asked.net, asked.places, generator):
        for one in y.tolist():
            if not np.isfinite(one).all():
                return True
            if value_of(asked.row, [Fraction(v) for v in one]) <= Fraction(asked.threshold):
                return True
    return False


def answered(asked: Problem, name: str, meaning: str) -> tuple[str, float]:
    """What one search says, in one semantics: proved, refuted or open; and its seconds."""
    search, began = SEARCHES[name](SEMANTICS[meaning].rounding), time.process_time()
    with_point = None if name == "lp tree" and meaning == "real" else Exactly(asked)
    done = search(graph_of(asked.net), case_of(asked), with_point, Budget().within(SECONDS))
    word = {Verdict.UNKNOWN: "open", Verdict.FALSIFIED: "refuted"}.get(done.verdict, "proved")
    if done.witness is not None and Exactly(asked).check(done.witness[None]) is None:
        word = "false witness"
    return word, time.process_time() - began


def judgement(asked: Problem, word: str, meaning: str, generator: np.random.Generator) -> str:
    """ "wrong", or empty."""
    if word == "false witness" or (word == "refuted" and not asked.truth):
        return "wrong"
    if word != "proved":
        return ""
    beaten = asked.truth or (meaning == "float32" and runs_below(asked, generator))
    return "wrong" if beaten else ""


def searched(seed: int) -> Iterator[dict[str, object]]:
    """All answers about one net, a record each."""
    generator = np.random.default_rng([seed, 12])
    names, meanings = list(SEARCHES), list(SEMANTICS)
    for k, asked in enumerate(problems(seed)):
        name, meaning = names[(seed + k) % len(names)], meanings[(seed + k // 2) % len(meanings)]
        variants = [("plain", asked)]
        change = list(CHANGES)[int(generator.integers(len(CHANGES)))]
        if k % 2 == 0:
            variants += [("half", part) for part in halves(asked)]
        elif (net := CHANGES[change](asked.net, generator)) is not None:
            variants.append((change, replace(asked, net=net)))
        said = []
        for variant, problem in variants:
            word, seconds = answered(problem, name, meaning)
            said.append(word)
            yield {
                "seed": seed, "k": k, "variant": variant, "search": name, "semantics": meaning,
                "truth": problem.truth, "said": word, "seconds": seconds,
                "wrong": judgement(problem, word, meaning, generator),
            }  # fmt: skip
        if k % 2 and {"proved", "refuted"} <= set(said):
            yield {"seed": seed, "k": k, "variant": change, "said": "flipped", "wrong": "wrong"}


def proved_whole(seed: int, folder: Path) -> Iterator[dict[str, object]]:
    """`verify prop` on one net's problems, and the checker on its certificates."""
    generator = np.random.default_rng([seed, 13])
    # Nets that cancel are refused: what the runtime gives there is no rounding of our reading.
    for k, asked in enumerate(problems(seed, mild=True)):
        data, text = model_of(asked.net), property_of(asked)
        model, spec = folder / "net.onnx", folder / "unsafe.vnnlib"
        model.write_bytes(data)
        spec.write_text(text)
        try:
            network, stated, began = load(model), read_vnnlib(spec), time.process_time()
        except MismatchError:
            return
        done = prove_property(network, stated, refuters=probing(asked), timeout=PROP_SECONDS)
        record: dict[str, object] = {
            "seed": seed, "k": k, "variant": "plain", "search": "prop", "semantics": "float32",
            "truth": asked.truth, "said": done.answer, "seconds": time.process_time() - began,
        }  # fmt: skip
        wrong = ""
        if done.verdict is Verdict.VERIFIED:
            wrong = judgement(asked, "proved", "float32", generator)
            record["certificate"] = certificate_of(network.graph, stated, data, text.encode())
        elif done.witness is not None:
            wrong = "" if met(asked, data, done.witness) else "wrong"
        yield {**record, "wrong": wrong}


def certificate_of(graph, stated, model: bytes, prop: bytes) -> str:  # type: ignore[no-untyped-def]
    """What the checker says of our own certificate."""
    try:
        budget = Budget().within(10 * PROP_SECONDS)
        made = certify_property(graph, stated.property, model, prop, budget)
    except NoCertificate as reason:
        return f"none: {reason}"
    check(made, model, prop)
    return "accepted"


def met(asked: Problem, data: bytes, witness: Tensor) -> bool:
    """Whether a runtime of our own puts the witness, which is in the box, at the threshold."""
    x = witness.numpy().reshape(1, -1)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    y = [Fraction(float(v)) for v in session.run(None, {"x": x})[0][0]]
    inside = bool(((x >= asked.low) & (x <= asked.high)).all())
    return inside and value_of(asked.row, y) <= Fraction(asked.threshold)


def table(records: list[dict[str, object]]) -> tuple[str, int]:
    """Totals in words, and how many answers were wrong."""
    lines = [f"{'':44}{'problems':>9}{'proved':>8}{'refuted':>8}{'open':>7}{'wrong':>7}"]
    groups: dict[tuple[str, ...], Counter[str]] = {}
    for one in records:
        if one["said"] == "flipped":
            continue
        key = (str(one["search"]), str(one["semantics"]), "unsafe" if one["truth"] else "safe")
        word = {"unsat": "proved", "sat": "refuted"}.get(str(one["said"]), str(one["said"]))
        word = "open" if word in ("unknown", "timeout") else word
        groups.setdefault(key, Counter())[word] += 1
        groups[key]["wrong"] += bool(one["wrong"])
    for key, count in sorted(groups.items()):
        every = sum(v for word, v in count.items() if word != "wrong")
        cells = [every, count["proved"], count["refuted"], count["open"], count["wrong"]]
        name = f"{key[0]}, {key[1]}, {key[2]}"
        lines.append(
            f"{name:44}" + "".join(f"{c:>{w}}" for c, w in zip(cells, WIDTHS, strict=True))
        )
    variants = Counter(str(one["variant"]) for one in records)
    lines.append("variants: " + ", ".join(f"{n} {name}" for name, n in variants.items()))
    certificates = Counter(
        str(one["certificate"]).split(":")[0] for one in records if "certificate" in one
    )
    lines.append("certificates: " + ", ".join(f"{n} {name}" for name, n in certificates.items()))
    seconds = [float(str(one.get("seconds", 0.0))) for one in records]
    wrong = sum(bool(one["wrong"]) for one in records)
    lines.append(f"{len(records)} answers, {wrong} wrong, {sum(seconds):.0f} s of CPU")
    return "\n".join(lines), wrong


def main(arguments: list[str] | None = None) -> int:
    """Run what the file does not hold yet, then print the table."""
    asked = asked_of(
        arguments, __doc__, nets=100, every=10, which="every which net goes through prop"
    )
    torch.set_num_threads(1)
    records = held(asked.out)
    done = {one["seed"] for one in records}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(asked.first, asked.first + asked.nets):
            if time.monotonic() - started > asked.seconds:
                break
            if seed in done:
                continue
            fresh = list(searched(seed))
            if seed % asked.every == 0:
                fresh += proved_whole(seed, Path(folder))
            records += fresh
            if asked.out:
                with asked.out.open("a") as file:
                    file.writelines(json.dumps(record) + "\n" for record in fresh)
    text, wrong = table(records)
    print(text)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
