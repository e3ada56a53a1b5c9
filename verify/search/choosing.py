"""Which complete search a case gets, and why: one rule for all networks, nothing to configure."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from verify.bounders.staged import may_be_staged
from verify.graph.ir import Graph
from verify.ops.registry import lookup
from verify.search.outcome import Outcome, Refuter, Search, Watcher
from verify.values.budget import Budget
from verify.values.property import Case
from verify.values.rounding import FLOAT32, Rounding

FEW_INPUTS = 8
"""Up to so many inputs that vary, halving boxes wins: a dozen cuts per input reach anything."""
SOME_INPUTS = 32
"""Up to so many, halving boxes may win; it gets a share of the time."""
SPLITTABLE = ("Relu", "TwoPiece")
"""Operators whose neurons activation splitting can decide."""
MIXING = ("MatMul", "Mul", "Softmax")
"""Nonlinear operators of several inputs each; their lines differ from part to part."""
FLAT = ("Sign", "Floor", "Ceil", "ArgMax", "Trunc", "Level", "Exceeds", "Equal", "Program")
"""Nonlinear operators that gain nothing from points: only their bounds are known, or jump."""
MOST_PROGRAMMED = 300
"""Up to so many neurons, linear programs over their signs get a share of the time."""
NEURON_SHARE = 0.6
"""Of the time that is left, for activation splitting where programs or points follow."""
POINT_SHARE = 0.9
"""Of the time that is left, for point splitting: what it leaves open, boxes hardly close."""
PROGRAM_SHARE = 0.7
"""Of the time that is left, for linear programs: with so few inputs each takes a millisecond, and
clipping closes most of the tree."""
GLANCE_SHARE = 0.05
"""Of the time that is left, for boxes where they are quick or not the way."""
BOX_SHARE = 0.8
"""Of the time that is left, for boxes of a network that is small or multiplies what it computes."""
FIRST_SHARE = 0.3
"""Of the time that is left, for a search that only may win."""


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """One search of a plan.

    Attributes:
        search: to run.
        share: of the time that is then left.
        why: for people.
    """

    search: Search
    share: float
    why: str


def varying(case: Case) -> int:
    """How many inputs are more than a point in float32: decimals around one float are one."""
    return int((case.upper.float() > case.lower.float()).sum())


def neurons(graph: Graph) -> int:
    """How many neurons activation splitting can decide."""
    return sum(node.size for node in graph.nodes if node.op in SPLITTABLE)


def curves(graph: Graph) -> int:
    """How many entries of other nonlinear nodes there are, which point splitting can cut."""
    known = (*SPLITTABLE, *FLAT)
    return sum(n.size for n in graph.nodes if lookup(n).relax is not None and n.op not in known)


def is_few(case: Case) -> bool:
    """Whether so few inputs vary that halving their box is the best there is."""
    return varying(case) <= FEW_INPUTS


def splits_neurons(graph: Graph) -> bool:
    """Whether activation splitting has something to split."""
    return neurons(graph) > 0


def splits_first(graph: Graph, case: Case) -> bool:
    """Whether the first search of the plan splits neurons."""
    first = plan(graph, case)[0].search
    return isinstance(first, Later) and first.module == "activation_split"


def plan(graph: Graph, case: Case, rounding: Rounding = FLOAT32) -> list[Planned]:
    """The searches in order; each sees what the one before it left open."""
    inputs, count = varying(case), neurons(graph)
    boxes = made("input_split", "InputSplit", rounding)
    neuron = made("activation_split", "ActivationSplit", rounding)
    small = count <= MOST_PROGRAMMED
    programs = made("milp", "Milp", rounding) if small else None
    few, bent = f"{inputs} inputs vary", curves(graph)
    points = made("point_split", "PointSplit", rounding) if bent else None
    cut = (points, POINT_SHARE, f"{bent} entries of other nonlinear nodes are cut at points")
    if not count and inputs > SOME_INPUTS and neuron is not None:
        steps = [
            (neuron, NEURON_SHARE, f"{few}, and no Relu: slopes are optimised for long"),
            cut,
            (boxes, 1.0, "what slopes left open: the box is split"),
        ]
    elif is_few(case) or not count or neuron is None:
        why = f"{few}: their box is split" + ("" if count else "; there are no neurons to split")
        steps = [(boxes, 1.0, why)]
        if count and bent:
            halving = made("halving", "Halving", rounding)
            between = f"boxes whose {count} neurons are split: {bent} other nonlinear entries"
            # Signs leave products loose, while halving a box narrows both of their factors.
            first = may_be_staged(graph) or any(node.op in MIXING for node in graph.nodes)
            steps = [
                (boxes, BOX_SHARE if first else GLANCE_SHARE, why),
                (halving, NEURON_SHARE, between),
                (boxes, 1.0, why),
            ]
        elif count:
            steps = [(boxes, 0.8, why), (neuron, 1.0, f"boxes left it open: {count} neurons")]
    elif inputs <= SOME_INPUTS:
        steps = [
            (programs, PROGRAM_SHARE, f"{few}: linear programs over signs of {count} neurons"),
            (boxes, FIRST_SHARE, f"{few}: their box is split for a while"),
            (
                neuron,
                NEURON_SHARE if bent else 1.0,
                f"too many inputs for boxes alone: {count} neurons are split",
            ),
            cut,
        ]
    else:
        share = NEURON_SHARE if small or bent else 1.0
        neuron_step = (neuron, share, f"{few}, too many to split: {count} neurons are")
        steps = [
            *(
                (cut, neuron_step)
                # Signs say little where products and softmaxes lose as much as Relus do.
                if any(node.op in MIXING for node in graph.nodes)
                else (neuron_step, cut)
            ),
            (programs, 1.0, f"only {count} neurons: linear programs for what is left"),
            (boxes, 1.0, "what neurons left open: the box is split"),
        ]
    return [Planned(search, share, why) for search, share, why in steps if search is not None]


@dataclass(frozen=True, slots=True)
class Later:
    """A search with its own defaults, imported when it is run: most are never, and one takes SciPy,
    whose import is longer than many a verdict.

    Attributes:
        module: in `verify.search`.
        name: of the class in it.
        rounding: which executions a proof is to hold for.
    """

    module: str
    name: str
    rounding: Rounding = FLOAT32

    def __call__(
        self,
        graph: Graph,
        case: Case,
        refute: Refuter | None,
        budget: Budget,
        watch: Watcher | None = None,
    ) -> Outcome:
        """What the search says."""
        kind = getattr(import_module(f"verify.search.{self.module}"), self.name)
        search: Search = kind(rounding=self.rounding)
        return search(graph, case, refute, budget, watch)


def made(module: str, name: str, rounding: Rounding) -> Later | None:
    """A search, if this version has it."""
    return None if find_spec(f"verify.search.{module}") is None else Later(module, name, rounding)
