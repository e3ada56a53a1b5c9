"""Complete searches on tiny provocative nets, judged by exact minima in rational numbers.

    python -m benchmarks.exact_fuzz --nets 1500 --out exact.jsonl

A problem is a net, a box, a row and a threshold next to the row's exact minimum over the box (from
one rounding to a hundredth away, on either side). "Proved" is wrong if the minimum reaches the
threshold, or an execution does; "refuted" is wrong if the witness does not. Each net is searched
as it is and changed in a way that leaves its function alone (neurons in another order, layers
scaled by powers of two, dead neurons, the box in two parts); the judge is that of the first net.
Nets with curved functions are judged by what they attain, to 500 binary digits. `prop` goes from a
file and a property to an answer, nets that cut an input to a whole number among them, and every
unsat to a certificate that the checker is asked about. Counted is in how many answers, and in how
many proofs, the rarer paths of the searches were really reached. Resumes; exit code 1 if anything
was wrong.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from benchmarks.curved_problems import curved_problems
from benchmarks.exact_files import model_of, property_of
from benchmarks.exact_problems import (
    CHANGES,
    Problem,
    halves,
    problems,
    value_of,
    whole_problems,
)
from benchmarks.exact_searches import CURVED, SEARCHES, answered, judgement, paid_time
from benchmarks.fuzzing import asked_of, held
from benchmarks.reached import PIECES, counting
from verify.api import prove_property
from verify.certificates.properties import certify_property
from verify.certificates.proving import NoCertificate
from verify.check.__main__ import check
from verify.check.refusal import Refusal
from verify.errors import MismatchError
from verify.network import load
from verify.readers.vnnlib import read_vnnlib
from verify.search.questions import RefuterFor
from verify.search.replaying import Replaying
from verify.values.budget import Budget
from verify.values.result import Verdict
from verify.values.semantics import SEMANTICS

PROP_SECONDS = 1.0
WIDTHS = (9, 8, 8, 7, 7)


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


def searched(seed: int) -> Iterator[dict[str, object]]:
    """All answers about one piecewise linear net, a record each."""
    generator = np.random.default_rng([seed, 12])
    names, meanings = list(SEARCHES), list(SEMANTICS)
    kind = ("tiny", "branchy", "pools", "branchy")[seed % 4]
    pools = kind == "pools"
    for k, asked in enumerate(problems(seed, kind=kind)):
        name, meaning = names[(seed + k) % len(names)], meanings[(seed + k // 2) % len(meanings)]
        if pools and name == "lp tree":
            name = "point split"
        variants = [("plain", asked)]
        change = list(CHANGES)[int(generator.integers(len(CHANGES)))]
        if k % 2 == 0:
            variants += [("half", part) for part in halves(asked)]
        elif not pools and (net := CHANGES[change](asked.net, generator)) is not None:
            variants.append((change, replace(asked, net=net)))
        said = []
        for variant, problem in variants:
            made = record(problem, name, meaning, generator)
            said.append(made["said"])
            yield {"seed": seed, "k": k, "variant": variant, **made}
        if k % 2 and {"proved", "refuted"} <= set(said):
            yield {"seed": seed, "k": k, "variant": change, "said": "flipped", "wrong": "wrong"}


def curved(seed: int) -> Iterator[dict[str, object]]:
    """All answers about one curved net."""
    generator = np.random.default_rng([seed, 17])
    meanings = list(SEMANTICS)
    for k, asked in enumerate(curved_problems(seed)):
        name, meaning = CURVED[(seed + k) % len(CURVED)], meanings[(seed + k // 2) % len(meanings)]
        made = record(asked, name, meaning, generator)
        yield {"seed": seed, "k": k, "variant": "curved", **made}


def record(
    asked: Problem, name: str, meaning: str, generator: np.random.Generator
) -> dict[str, object]:
    """One answer, judged."""
    word, seconds, reached = answered(asked, name, meaning, count=True)
    return {
        "search": name, "semantics": meaning, "truth": asked.truth, "said": word,
        "seconds": seconds, "reached": reached,
        "wrong": judgement(asked, word, meaning, generator),
    }  # fmt: skip


def through_prop(seed: int, folder: Path, kind: str) -> Iterator[dict[str, object]]:
    """`verify prop` on one net's problems, and the checker on its certificates."""
    generator, meanings = np.random.default_rng([seed, 13]), list(SEMANTICS)
    # Nets that cancel are refused: what the runtime gives there is no rounding of our reading.
    if kind == "curved":
        made = curved_problems(seed, mild=True)
    else:
        made = whole_problems(seed) if kind == "whole" else problems(seed, kind="mild")
    for k, asked in enumerate(made):
        data, text = model_of(asked), property_of(asked)
        model, spec, meaning = folder / "net.onnx", folder / "unsafe.vnnlib", meanings[k // 2 % 2]
        model.write_bytes(data)
        spec.write_text(text)
        try:
            network, stated, began = load(model), read_vnnlib(spec), time.process_time()
        except MismatchError:
            return
        with paid_time(), counting() as reached:
            done = prove_property(
                network, stated, refuters=probing(asked), timeout=PROP_SECONDS, semantics=meaning
            )
        said = done.answer.split(" ")[0]
        record: dict[str, object] = {
            "seed": seed, "k": k, "variant": kind, "search": f"prop, {kind}",
            "semantics": meaning, "truth": asked.truth, "said": said,
            "seconds": time.process_time() - began,
            "reached": {name: n for name, n in reached.items() if n},
        }  # fmt: skip
        wrong = ""
        if done.verdict.proved:
            right = done.verdict is SEMANTICS[meaning].proof
            wrong = judgement(asked, "proved" if right else "false claim", meaning, generator)
            if done.verdict is Verdict.VERIFIED:
                record["certificate"] = certificate_of(network.graph, stated, data, text.encode())
        elif done.witness is not None:
            wrong = "" if met(asked, data, done.witness) else "wrong"
        yield {**record, "wrong": wrong}


def certificate_of(graph, stated, model: bytes, prop: bytes) -> str:  # type: ignore[no-untyped-def]
    """What the checker says of our own certificate."""
    try:
        budget = Budget().within(10 * PROP_SECONDS)  # of wall time
        made = certify_property(graph, stated.property, model, prop, budget)
    except NoCertificate as reason:
        return f"none: {reason}"
    try:
        check(made, model, prop)
    except Refusal as reason:
        return f"refused: {reason}"
    return "accepted"


def met(asked: Problem, data: bytes, witness: Tensor) -> bool:
    """Whether a runtime of our own puts the witness, which is in the box, at the threshold."""
    x = witness.numpy().reshape(1, -1)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    y = [Fraction(float(v)) for v in session.run(None, {"x": x})[0].ravel()]
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
    for whose, count in sorted(groups.items()):
        every = sum(v for word, v in count.items() if word != "wrong")
        cells = [every, count["proved"], count["refuted"], count["open"], count["wrong"]]
        name = ", ".join(whose)
        lines.append(
            f"{name:44}" + "".join(f"{c:>{w}}" for c, w in zip(cells, WIDTHS, strict=True))
        )
    variants = Counter(str(one["variant"]) for one in records)
    lines.append("variants: " + ", ".join(f"{n} {name}" for name, n in variants.items()))
    lines.append(reaches(records))
    certificates = Counter(
        str(one["certificate"]).split(":")[0] for one in records if "certificate" in one
    )
    lines.append("certificates: " + ", ".join(f"{n} {name}" for name, n in certificates.items()))
    seconds = [float(str(one.get("seconds", 0.0))) for one in records]
    wrong = sum(bool(one["wrong"]) for one in records)
    lines.append(f"{len(records)} answers, {wrong} wrong, {sum(seconds):.0f} s of CPU")
    return "\n".join(lines), wrong


def reaches(records: list[dict[str, object]]) -> str:
    """In how many answers each path was reached, and in how many proofs."""
    answers: Counter[str] = Counter()
    proofs: Counter[str] = Counter()
    for one in records:
        found = one.get("reached")
        names = list(found) if isinstance(found, dict) else []
        answers.update(names)
        proofs.update(names if one["said"] in ("proved", "unsat") else [])
    return "reached (answers / proofs): " + ", ".join(
        f"{name} {answers[name]} / {proofs[name]}" for name in PIECES
    )


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
            fresh = [*searched(seed), *curved(seed)]
            if seed % asked.every == 0:
                for kind in ("plain", "curved", "whole"):
                    fresh += through_prop(seed, Path(folder), kind)
            records += fresh
            if asked.out:
                with asked.out.open("a") as file:
                    file.writelines(json.dumps(record) + "\n" for record in fresh)
    text, wrong = table(records)
    print(text)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
