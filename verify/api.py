"""The front doors: certify(model, x, eps=...) and radius(model, x)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from verify.brackets import Watch, bracket
from verify.errors import PropertyError, SettingError
from verify.memory import keep_freed_memory
from verify.network import Network, load
from verify.protocols import Falsifier
from verify.readers.vnnlib import StatedProperty, read_vnnlib
from verify.recipes import recipe
from verify.runtime import Runtime
from verify.search.complete import Decision, decide_property
from verify.search.narrowing import closed
from verify.search.outcome import Diary, Refuter, Watcher
from verify.search.questions import RefuterFor, completed
from verify.search.replaying import Replay
from verify.search.strategy import decide
from verify.values.budget import Budget, never
from verify.values.property import Case
from verify.values.question import Question, question
from verify.values.result import Bracket, Result
from verify.values.semantics import semantics_of
from verify.values.spec import classified_as

DEFAULT_MEMORY = 2 * 2**30
"""Bytes that a whole run may take, if nothing else is said."""
RUNTIME_SHARE = 700 * 2**20
"""Bytes that Python, torch and ONNX Runtime take before the first bound."""
WORTH_BATCHING = 400_000
"""Multiplications of one forward pass over a batch, beyond which a larger one gains nothing."""
STAGES_SHARE = 0.3
"""Of the time, for the stages before a complete search."""
MOST_AT_ONCE = 64
"""Largest batch of inputs; beyond it nothing gets faster on a CPU."""


def granted(memory: int) -> int:
    """Bytes for one chunk of rows, out of what the whole process may take.

    Raises:
        SettingError: if that is less than what torch alone needs.
    """
    if memory < RUNTIME_SHARE + 100 * 2**20:
        raise SettingError(
            f"memory limit is {memory / 2**30:.2f} GiB, but at least 0.8 GiB are needed "
            "(Python and torch alone take about 0.5); raise --memory"
        )
    keep_freed_memory()
    return min((memory - RUNTIME_SHARE) // 2, 512 * 2**20)


def batch_size(network: Network, memory: int) -> int:
    """How many inputs to bound at once.

    Many where a network is so small that the calls cost more than the arithmetic; one where the
    arithmetic costs more, because inputs that are bounded together share the rows of the least
    decided and the neurons of the least pruned among them (measured: benchmarks/README.md).
    """
    nodes = network.graph.nodes
    products = sum(
        node.tensors["weight"].numel() * max(1, node.size // node.tensors["weight"].shape[0])
        for node in nodes
        if "weight" in node.tensors
    )
    widest = max(node.size for node in nodes)
    per_input = 2 * 8 * widest * max(1, widest // 2) * 6
    worth = WORTH_BATCHING // max(1, products)
    return max(1, min(MOST_AT_ONCE, worth, memory // per_input))


def asked_of(
    network: Network,
    x: Tensor,
    labels: Tensor | None,
    eps: float | Tensor,
    norm: float,
    input_range: tuple[float, float] | None,
) -> Question:
    """The question for a whole data set; labels default to the model's own predictions."""
    answers = network.judge.predict(x) if labels is None else labels
    classified_as(answers[:0], network.classes)
    asked = question(x, answers, eps, norm, input_range=input_range)
    classified_as(asked.labels, network.classes)
    return asked


def certify_each(
    network: Network,
    asked: Question,
    *,
    method: str = "auto",
    falsifier: Falsifier | None = None,
    timeout: float | None = None,
    memory: int = DEFAULT_MEMORY,
    batch: int | None = None,
    iterations: int = 20,
    indices: Sequence[int] | None = None,
    complete: bool = False,
    refuters: RefuterFor | None = None,
    semantics: str = "float32",
    cancelled: Callable[[], bool] = never,
    diary: Diary | None = None,
) -> Iterator[list[Result]]:
    """Results batch by batch, as they come; arguments as for `certify`, `cancelled` as below.

    A diary, if given, keeps what proves them; see `verify.certificates`.
    """
    strategy = recipe(method, iterations=iterations, semantics=semantics)
    numbers = list(range(len(asked.x))) if indices is None else list(indices)
    chunk = granted(memory)
    size = batch_size(network, chunk) if batch is None else batch
    if size < 1:
        raise SettingError(f"batch is {size}, but at least 1 is needed")
    for start in range(0, len(asked.x), size):
        part = torch.arange(start, min(start + size, len(asked.x)))
        granted_time = None if timeout is None else timeout * len(part)
        budget = Budget(memory=chunk, cancelled=cancelled).within(granted_time)
        few = asked.take(part)
        results = decide(
            network.graph,
            network.judge,
            few,
            strategy,
            predicted=network.judge.predict(few.x),
            indices=[numbers[i] for i in part.tolist()],
            falsifier=falsifier,
            budget=budget.share(STAGES_SHARE) if complete else budget,
            diary=diary,
        )
        if complete:
            kind = semantics_of(semantics)
            known = (network.graph, network.judge, few, results, refuters, budget, kind)
            results = completed(*known, diary)
        yield results


def certify(
    model: str | Path | nn.Module | Network,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    eps: float | Tensor,
    norm: float = math.inf,
    input_range: tuple[float, float] | None = None,
    method: str = "auto",
    falsifier: Falsifier | None = None,
    timeout: float | None = None,
    memory: int = DEFAULT_MEMORY,
    batch: int | None = None,
    iterations: int = 20,
    complete: bool = False,
    refuters: RefuterFor | None = None,
    semantics: str = "float32",
) -> list[Result]:
    """Decide for each input whether its label holds everywhere within eps.

    Args:
        model: an ONNX file, a `torch.nn.Module`, or what `verify.load` returned.
        x: inputs, shape (n, *input), in model input units.
        labels: the classes that must hold, shape (n,); by default the model's own predictions.
        eps: radius in model input units, >= 0; one for all, or shape (n,).
        norm: infinity, 2 or 1.
        input_range: (low, high) that inputs never leave, such as (0, 1) for pixels.
        method: one of `verify.METHODS`.
        falsifier: looks for counterexamples first; see `verify.protocols.Falsifier`.
        timeout: seconds per input; a batch shares the sum.
        memory: bytes that the whole process may take.
        batch: inputs bounded at once; by default as many as are worth it.
        iterations: of the slope optimisation.
        complete: whether what stays unknown is searched to the end, or to the timeout (norm inf).
        refuters: what looks for counterexamples in that search; see `prove_property`.
        semantics: "float32", or "real" for proofs of the real-valued network alone.

    Returns:
        One `Result` per input, in order. `VERIFIED` holds for every float32 execution of the file,
        `VERIFIED_REAL` in real arithmetic only. A witness is one of the file as it is executed.

    Raises:
        InputError: if anything given cannot be used; the message says what to do.
    """
    network = load(model, input_shape=tuple(x.shape[1:]))
    asked = asked_of(network, x, labels, eps, norm, input_range)
    parts = certify_each(
        network,
        asked,
        method=method,
        falsifier=falsifier,
        timeout=timeout,
        memory=memory,
        batch=batch,
        iterations=iterations,
        complete=complete,
        refuters=refuters,
        semantics=semantics,
    )
    return [result for part in parts for result in part]


def radius_each(
    network: Network,
    asked: Question,
    *,
    method: str = "auto",
    falsifier: Falsifier | None = None,
    timeout: float | None = None,
    memory: int = DEFAULT_MEMORY,
    batch: int | None = None,
    iterations: int = 20,
    tolerance: float = 0.01,
    indices: Sequence[int] | None = None,
    exact: bool = False,
    refuters: RefuterFor | None = None,
    semantics: str = "float32",
    watch: Watch | None = None,
    cancelled: Callable[[], bool] = never,
) -> Iterator[list[Bracket]]:
    """Brackets batch by batch, as they come; `asked.eps` caps the search.

    Args:
        network, asked: what is asked of which inputs; the others as for `radius`, but for
        watch: told what is known of the batch under way, each time that an end may have moved.
        cancelled: asked now and then; once it says yes, the search ends as when time is over.
    """
    numbers = list(range(len(asked.x))) if indices is None else list(indices)
    chunk = granted(memory)
    size = max(1, batch_size(network, chunk) // 4) if batch is None else batch
    if size < 1:
        raise SettingError(f"batch is {size}, but at least 1 is needed")
    for start in range(0, len(asked.x), size):
        part = torch.arange(start, min(start + size, len(asked.x)))
        few = asked.take(part)
        granted_time = None if timeout is None else timeout * len(part)
        budget = Budget(memory=chunk, cancelled=cancelled).within(granted_time)
        found = bracket(
            network.graph,
            network.judge,
            few,
            recipe(method, iterations=iterations, semantics=semantics),
            predicted=network.judge.predict(few.x),
            indices=[numbers[i] for i in part.tolist()],
            falsifier=falsifier,
            budget=budget.share(STAGES_SHARE) if exact else budget,
            tolerance=tolerance,
            at_once=max(1, batch_size(network, chunk) // len(part)),
            watch=watch,
        )
        if exact:
            graph, judge = network.graph, network.judge
            kind = semantics_of(semantics)
            found = closed(graph, judge, few, found, refuters, budget, tolerance, kind, watch)
        yield found


def radius(
    model: str | Path | nn.Module | Network,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    norm: float = math.inf,
    input_range: tuple[float, float] | None = None,
    method: str = "auto",
    falsifier: Falsifier | None = None,
    timeout: float | None = None,
    memory: int = DEFAULT_MEMORY,
    batch: int | None = None,
    iterations: int = 20,
    tolerance: float = 0.01,
    largest: float | None = None,
    exact: bool = False,
    refuters: RefuterFor | None = None,
    semantics: str = "float32",
) -> list[Bracket]:
    """Bracket each input's robustness radius between a certified and an attacked bound.

    Args:
        model, x, labels, norm, input_range, method, timeout, memory, batch, iterations: as for
            `certify`.
        falsifier: finds the upper ends; without one they are infinite.
        tolerance: relative width at which the search for the certified radius stops.
        largest: radius beyond which nothing is searched; by default the width of the input range,
            or of the data where there is none.
        exact: whether complete searches close the bracket to the tolerance (norm inf).
        refuters: what looks for counterexamples in them; see `prove_property`.
        semantics: as for `certify`.

    Returns:
        One `Bracket` per input, in order. Its `proof` says what the certified radius holds for.
    """
    network = load(model, input_shape=tuple(x.shape[1:]))
    cap = largest_radius(x, norm, input_range) if largest is None else largest
    asked = asked_of(network, x, labels, cap, norm, input_range)
    parts = radius_each(
        network,
        asked,
        method=method,
        falsifier=falsifier,
        timeout=timeout,
        memory=memory,
        batch=batch,
        iterations=iterations,
        tolerance=tolerance,
        exact=exact,
        refuters=refuters,
        semantics=semantics,
    )
    return [found for part in parts for found in part]


def largest_radius(x: Tensor, norm: float, input_range: tuple[float, float] | None) -> float:
    """A radius that no search needs to exceed: the diameter of the range, or of the data's."""
    low, high = (float(x.min()), float(x.max())) if input_range is None else input_range
    width = max(high - low, 1e-3)
    entries = x[0].numel() if len(x) else 1
    return width * (1.0 if math.isinf(norm) else entries ** (1 / norm))


def prove_property(
    model: str | Path | nn.Module | Network,
    spec: str | Path | StatedProperty,
    *,
    refuters: RefuterFor | None = None,
    timeout: float | None = None,
    memory: int = DEFAULT_MEMORY,
    watch: Watcher | None = None,
    semantics: str = "float32",
    diary: Diary | None = None,
) -> Decision:
    """Decide a VNN-LIB property: whether some input of it is unsafe.

    Args:
        model: an ONNX file, a `torch.nn.Module`, or what `verify.load` returned.
        spec: a .vnnlib or .vnnlib.gz file, or what `verify.readers.vnnlib.read_vnnlib` returned.
        refuters: makes what looks for counterexamples, of the network, of what replays them, of the
            case as the search has narrowed it, and of the time left; see `verify.cli.refuting`. By
            default only the middles of boxes are tried.
        timeout: seconds for all of it.
        memory: bytes that the whole process may take.
        watch: called now and then while a search runs.
        semantics: as for `certify`.
        diary: keeps what proves what; see `verify.certificates`.

    Returns:
        `VERIFIED` (unsat): no input is unsafe, in any float32 execution of the file;
        `VERIFIED_REAL`: in real arithmetic. `FALSIFIED` (sat): the witness is, replayed in the
        model's own runtime.

    Raises:
        InputError: if anything given cannot be used; the message says what to do.
    """
    budget = Budget(memory=granted(memory)).within(timeout)
    stated = spec if isinstance(spec, StatedProperty) else read_vnnlib(spec)
    network = load(model)
    runtime = network.judge
    if not isinstance(runtime, Runtime):
        raise PropertyError(
            "properties are decided of ONNX files without --mean and --std; write the file with "
            "verify.export, or state the property in units before the normalisation"
        )

    def refuter_for(number: int, case: Case) -> Refuter:
        replay = Replay(
            stated.property.cases[number],
            runtime.each_way,
            network.input_shape,
            stated.property.mixed,
        )
        return replay if refuters is None else refuters(network.graph, replay, case, budget)

    kind = semantics_of(semantics)
    return decide_property(network.graph, stated.property, refuter_for, budget, watch, kind, diary)
