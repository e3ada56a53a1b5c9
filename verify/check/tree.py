"""The tree of splits: it must be whole, and every leaf must be proved for every unsafe clause.

A whole binary tree covers its root by construction: an input below or above a value, a neuron's
input <= 0 or >= 0 in every execution (NaN is excluded, as all bounds are finite).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from verify.check.bounds import ROWS, Bounds, Pass, crown
from verify.check.certificate import Certificate
from verify.check.leaf import Goal, goal_of, ordered, rows_over, settled
from verify.check.network import Array, Index, Network
from verify.check.proofs import Columns, Proofs, Values, read_columns, read_proofs
from verify.check.refusal import Refusal
from verify.check.vnnlib import Case, hull

LEAF, INPUT, NEURON = 0, 1, 2
AT_ONCE = 2**22
"""Coefficients of one row of one value over the boxes that are bounded together."""


@dataclass
class Tree:
    """One part's tree and proofs, as the certificate gives them, after a check of their form.

    A node's first child stands right after it, its second one at `second`.
    """

    proofs: Proofs
    clauses: Index
    kind: np.ndarray
    place: np.ndarray
    cut: Array
    second: Index


def read_tree(
    cert: Certificate, prefix: str, columns: Columns, goal: Goal, network: Network
) -> Tree:
    """The tree of one part; refused unless every index in it points at something."""
    kind = cert.array(prefix + "kind", ("uint8",), (-1,))
    place = cert.array(prefix + "place", ("int32",), (len(kind),))
    cut = cert.array(prefix + "cut", ("float64",), (len(kind),))
    for what, most in ((INPUT, network.size(network.input_name)), (NEURON, len(columns.neuron))):
        mine = place[kind == what]
        if ((mine < 0) | (mine >= most)).any():
            raise Refusal("a split points at something that is not there")
    clauses = cert.array(prefix + "clauses", ("int32",), (-1,)).astype(np.int64)
    if ((clauses < 0) | (clauses >= goal.count)).any():
        raise Refusal("a part proves a clause that the property does not have")
    proofs = read_proofs(cert, prefix, columns, goal, len(kind))
    if not np.isin(proofs.clause, clauses).all():
        raise Refusal("a proof is about a clause that its part does not prove")
    if len(clauses) != 1 and (proofs.target >= 0).any():
        raise Refusal("neurons are bounded anew in a part that is not about one clause")
    return Tree(proofs, clauses, kind, place, cut, second_children(kind.tolist()))


def second_children(kind: list[int]) -> Index:
    """Where the second child of each node of a tree in preorder stands; refused unless whole."""
    second = np.zeros(len(kind), np.int64)
    waiting = [(-1, False)]
    for node, what in enumerate(kind):
        if not waiting:
            raise Refusal("the tree has nodes after its end")
        parent, later = waiting.pop()
        if later:
            second[parent] = node
        if what == INPUT and parent >= 0 and kind[parent] == NEURON:
            raise Refusal("an input is split below a neuron")
        if what not in (LEAF, INPUT, NEURON):
            raise Refusal(f"the tree has a node of kind {what}")
        if what != LEAF:
            waiting += [(node, True), (node, False)]
    if waiting:
        raise Refusal("the tree is not whole: a part of the region is missing")
    return second


@dataclass
class Inquiry:
    """One case while it is checked."""

    network: Network
    shared: Proofs
    goal: Goal
    lower: Array
    upper: Array
    real: bool

    @cached_property
    def root(self) -> Pass:
        """Bounds over the whole box, with the proofs that all parts share."""
        low, high = self.lower[None], self.upper[None]
        return crown(self.network, low, high, real=self.real, more=self.tightened)

    def tightened(self, done: Pass, name: str) -> None:
        """Bound one value by the proofs that all parts share."""
        mine = (self.shared.columns.sources[self.shared.target] == name).nonzero()[0]
        self.shared.tighten(done, done.values, mine, at_once(self.network))

    def check(self, tree: Tree) -> None:
        """Prove the clauses of one part at every leaf of its tree."""
        hinted, plain = set(tree.proofs.node.tolist()), []
        waiting = [(0, self.lower, self.upper)]
        while waiting:
            node, low, high = waiting.pop()
            if tree.kind[node] == INPUT:
                axis, value = tree.place[node], tree.cut[node]
                if not low[axis] <= value <= high[axis]:
                    raise Refusal("an input is split outside its box")
                below, above = high.copy(), low.copy()
                below[axis] = above[axis] = value
                waiting += [(int(tree.second[node]), above, high), (node + 1, low, below)]
            elif tree.kind[node] == LEAF and node not in hinted:
                plain.append((node, low, high))
            else:
                box = low[None], high[None]
                done = crown(self.network, *box, real=self.real) if node else self.root
                Subtree(tree, done).check(node)
        widest = self.network.widest()
        count = max(1, min(512, AT_ONCE // (widest * max(1, widest // 4))))
        for first in range(0, len(plain), count):
            nodes, lower, upper = zip(*plain[first : first + count], strict=True)
            box = np.stack(lower), np.stack(upper)
            found = settled(self.network, *box, self.goal, tree.clauses, real=self.real).proved
            if not found.all():
                raise Refusal(f"leaf {nodes[found.all(axis=1).argmin()]} is not proved")


def at_once(network: Network) -> int:
    """How many proofs to evaluate together."""
    return max(1, min(256, ROWS // network.widest()))


def check_case(cert: Certificate, number: int, network: Network, case: Case) -> int:
    """Prove one case with its trees, or raise Refusal; returns how many leaves there were."""
    if not all(low <= high for low, high in zip(case.lower, case.upper, strict=True)):
        return 1  # no input at all
    goal = goal_of(case, network.size(network.output_name))
    ends = hull(case.lower, -1), hull(case.upper, 1)
    if network.ordered:
        whole = crown(network, ends[0][None], ends[1][None], real=cert.real, rows=False)
        goal = ordered(goal, whole.values[network.output_name])
    columns = read_columns(cert, number, network)
    shared = read_proofs(cert, f"{number}/", columns, goal, 1)
    if shared.weight.any() or (shared.target < 0).any():
        raise Refusal("what all parts share must not depend on a clause")
    inquiry = Inquiry(network, shared, goal, *ends, cert.real)
    proved = np.zeros(goal.count, dtype=bool)
    leaves = part = 0
    while f"{number}.{part}/kind" in cert.arrays:
        tree = read_tree(cert, f"{number}.{part}/", columns, goal, network)
        inquiry.check(tree)
        proved[tree.clauses] = True
        leaves, part = leaves + int((tree.kind == LEAF).sum()), part + 1
    if not proved.all():
        raise Refusal(f"no part of case {number} proves clause {proved.argmin()}")
    return leaves


class Subtree:
    """The part of a tree below a box, where only neurons are split."""

    def __init__(self, tree: Tree, done: Pass) -> None:
        """Nothing is proved but by the bounds of the box."""
        self.tree, self.done, self.goal = tree, done, tree.proofs.goal
        self.waiting: list[tuple[int, int, Values]] = []  # proof, place in `proved`, bounds there
        self.proved: list[np.ndarray] = []  # clauses, by node as it is met

    def check(self, anchor: int) -> None:
        """Walk down, bounding neurons anew on the way; refuse a leaf that is not proved."""
        tree, proofs, most = self.tree, self.tree.proofs, at_once(self.done.network)
        order = np.argsort(proofs.node, kind="stable")
        starts = np.searchsorted(proofs.node[order], np.arange(len(tree.kind) + 1))
        stack = [(anchor, -1, dict(self.done.values))]
        met = []
        while stack:
            node, above, values = stack.pop()
            mine = order[starts[node] : starts[node + 1]]
            met.append((node, above))
            anew = mine[proofs.target[mine] >= 0]
            empty = is_empty(values) or proofs.tighten(self.done, values, anew, most)
            self.proved.append(np.full(self.goal.count, empty))
            at = len(met) - 1
            if not empty:
                self.waiting += [(int(i), at, values) for i in mine[proofs.target[mine] < 0]]
            if len(self.waiting) >= most:
                self.settle()
            if tree.kind[node] == NEURON:
                first, second = (self.half(values, int(tree.place[node]), side) for side in (0, 1))
                stack += [(int(tree.second[node]), at, second), (node + 1, at, first)]
        self.settle()
        self.proved[0] |= self.goal.proved(rows_over(self.done, self.goal).least)[0]
        for own, (node, above) in zip(self.proved, met, strict=True):
            if above >= 0:
                own |= self.proved[above]
            if tree.kind[node] == LEAF and not own[tree.clauses].all():
                raise Refusal(f"leaf {node} is not proved")

    def half(self, values: Values, column: int, side: int) -> Values:
        """What is known where a neuron's input is <= 0 (side 0), or >= 0."""
        columns = self.tree.proofs.columns
        name, neuron = columns.sources[column], columns.neuron[column]
        lower, upper = values[name].lower.copy(), values[name].upper.copy()
        if side:
            lower[0, neuron] = max(lower[0, neuron], 0.0)
        else:
            upper[0, neuron] = min(upper[0, neuron], 0.0)
        return values | {name: Bounds(lower, upper)}

    def settle(self) -> None:
        """Evaluate the proofs that wait, each over the bounds of its node."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        values = dict(self.done.values)
        for name, whole in values.items():
            own = [known[name] for _, _, known in waiting]
            if any(bounds is not whole for bounds in own):
                lower = np.concatenate([bounds.lower for bounds in own])
                values[name] = Bounds(lower, np.concatenate([bounds.upper for bounds in own]))
        chosen = np.array([i for i, _, _ in waiting])
        least = self.tree.proofs.least(self.done, values, chosen)
        for (i, at, _), worth in zip(waiting, least.tolist(), strict=True):
            self.proved[at][self.tree.proofs.clause[i]] |= worth > 0


def is_empty(values: Values) -> bool:
    """Whether bounds exclude each other, so that no execution is there."""
    return any((bounds.lower > bounds.upper).any() for bounds in values.values())
