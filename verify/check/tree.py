"""The tree of splits: it must be whole, and every leaf must be proved for every unsafe clause.

A whole binary tree covers its root by construction: an input below or above a value, a neuron's
input <= 0 or >= 0 in every execution (NaN is excluded, as all bounds are finite).
"""

from dataclasses import dataclass

import numpy as np

from verify.check.bounds import ROWS, Bounds, Pass
from verify.check.certificate import Certificate
from verify.check.crown import crown
from verify.check.leaf import Goal, goal_of, rows_over, settled
from verify.check.network import Array, Network
from verify.check.proofs import Columns, Proofs, Values, read_columns, read_proofs
from verify.check.refusal import Refusal
from verify.check.vnnlib import Case, hull

LEAF, INPUT, NEURON = 0, 1, 2
AT_ONCE = 2**22
"""Coefficients of one row of one value over the boxes that are bounded together."""


@dataclass
class Tree:
    """One part's tree and proofs, as the certificate gives them, after a check of their form."""

    proofs: Proofs
    clauses: np.ndarray
    kind: np.ndarray
    place: np.ndarray
    cut: np.ndarray
    parent: np.ndarray
    side: np.ndarray
    depth: np.ndarray


def read_tree(
    certificate: Certificate, prefix: str, columns: Columns, goal: Goal, network: Network
) -> Tree:
    """The tree of one part; refused unless every index in it points at something."""
    cert, c = certificate, prefix
    kind = cert.array(c + "kind", ("uint8",), (-1,))
    nodes = len(kind)
    place = cert.array(c + "place", ("int32",), (nodes,))
    parent, side, depth = shape_of(kind)
    for what, most in ((INPUT, network.size(network.input_name)), (NEURON, len(columns.readers))):
        mine = place[kind == what]
        if ((mine < 0) | (mine >= most)).any():
            raise Refusal("a split points at something that is not there")
    clauses = cert.array(c + "clauses", ("int32",), (-1,)).astype(np.int64)
    if ((clauses < 0) | (clauses >= goal.count)).any():
        raise Refusal("a part proves a clause that the property does not have")
    proofs = read_proofs(cert, c, columns, goal, nodes)
    if not np.isin(proofs.clause, clauses).all():
        raise Refusal("a proof is about a clause that its part does not prove")
    if len(clauses) != 1 and (proofs.target >= 0).any():
        raise Refusal("neurons are bounded anew in a part that is not about one clause")
    cut = cert.array(c + "cut", ("float64",), (nodes,))
    return Tree(proofs, clauses, kind, place, cut, parent, side, depth)


def shape_of(kind: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parent, side (0 first, 1 second) and depth of each node of a tree in preorder."""
    nodes = len(kind)
    parent, side = np.full(nodes, -1, np.int64), np.zeros(nodes, np.int64)
    depth = np.zeros(nodes, np.int64)
    waiting = [(-1, 0)]
    for node in range(nodes):
        if not waiting:
            raise Refusal("the tree has nodes after its end")
        parent[node], side[node] = waiting.pop()
        if parent[node] >= 0:
            depth[node] = depth[parent[node]] + 1
            if kind[parent[node]] == NEURON and kind[node] == INPUT:
                raise Refusal("an input is split below a neuron")
        if kind[node] in (INPUT, NEURON):
            waiting += [(node, 1), (node, 0)]
        elif kind[node] != LEAF:
            raise Refusal(f"the tree has a node of kind {kind[node]}")
    if waiting:
        raise Refusal("the tree is not whole: a part of the region is missing")
    return parent, side, depth


def boxes_of(tree: Tree, lower: Array, upper: Array) -> dict[int, tuple[Array, Array]]:
    """The box of every node below which no input is split any more, given the root's."""
    open_ = {0: (lower, upper)}
    found = {}
    later = (tree.side == 1).nonzero()[0]
    second = dict(zip(tree.parent[later].tolist(), later.tolist(), strict=True))
    for node in range(len(tree.kind)):
        if node not in open_:
            continue
        low, high = open_.pop(node)
        if tree.kind[node] != INPUT:
            found[node] = (low, high)
            continue
        axis, value = int(tree.place[node]), float(tree.cut[node])
        if not low[axis] <= value <= high[axis]:
            raise Refusal("an input is split outside its box")
        below, above = high.copy(), low.copy()
        below[axis] = above[axis] = value
        open_[node + 1], open_[second[node]] = (low, below), (above, high)
    return found


@dataclass
class Inquiry:
    """One case while it is checked: `root` is made when it is first asked for."""

    network: Network
    shared: Proofs
    goal: Goal
    lower: Array
    upper: Array
    real: bool
    root: Pass | None = None

    def over(self, node: int, low: Array, high: Array) -> Pass:
        """Bounds over one node's box; over the whole box, with the rows that tighten them."""
        if node:
            return crown(self.network, low[None], high[None], real=self.real)
        if self.root is None:
            self.root = crown(
                self.network, low[None], high[None], real=self.real, more=self.tightened
            )
        return self.root

    def tightened(self, done: Pass, name: str) -> None:
        """Bound one value by the proofs that all parts share."""
        of = [t >= 0 and self.shared.columns.sources[t] == name for t in self.shared.target]
        for group in self.shared.groups(np.array(of, dtype=bool).nonzero()[0]):
            self.shared.tightened(done, done.values, group, at_once(done))


def at_once(done: Pass) -> int:
    """How many proofs to evaluate together."""
    return max(1, min(256, ROWS // done.widest()))


def check_case(certificate: Certificate, number: int, network: Network, case: Case) -> int:
    """Prove one case with its trees, or raise Refusal; returns how many leaves there were."""
    if not all(low <= high for low, high in zip(case.lower, case.upper, strict=True)):
        return 1  # no input at all
    goal = goal_of(case, network.size(network.output_name))
    columns = read_columns(certificate, number, network)
    shared = read_proofs(certificate, f"{number}/", columns, goal, 1)
    if shared.weight.any() or (shared.target < 0).any():
        raise Refusal("what all parts share must not depend on a clause")
    lower, upper = hull(case.lower, -1), hull(case.upper, 1)
    inquiry = Inquiry(network, shared, goal, lower, upper, certificate.real)
    proved = np.zeros(goal.count, dtype=bool)
    leaves = part = 0
    while f"{number}.{part}/kind" in certificate.arrays:
        tree = read_tree(certificate, f"{number}.{part}/", columns, goal, network)
        check_part(inquiry, tree)
        proved[tree.clauses] = True
        leaves, part = leaves + int((tree.kind == LEAF).sum()), part + 1
    if not proved.all():
        raise Refusal(f"no part of case {number} proves clause {int((~proved).nonzero()[0][0])}")
    return leaves


def check_part(inquiry: Inquiry, tree: Tree) -> None:
    """Prove the clauses of one part at every leaf of its tree."""
    goal, network = inquiry.goal, inquiry.network
    boxes = boxes_of(tree, inquiry.lower, inquiry.upper)
    hinted = set(tree.proofs.node.tolist())
    plain = [node for node in boxes if tree.kind[node] == LEAF and node not in hinted]
    widest = max(network.size(name) for name in network.shapes)
    count = max(1, min(256, AT_ONCE // (widest * max(1, widest // 4))))
    for first in range(0, len(plain), count):
        part = plain[first : first + count]
        low = np.stack([boxes[node][0] for node in part])
        high = np.stack([boxes[node][1] for node in part])
        found = settled(network, low, high, goal, tree.clauses, real=inquiry.real).proved
        if not found.all():
            worst = part[int((~found.all(axis=1)).nonzero()[0][0])]
            raise Refusal(f"leaf {worst} is not proved")
    for node in sorted(set(boxes) - set(plain)):
        Subtree(tree, inquiry.over(node, *boxes[node])).check(node)


@dataclass(frozen=True)
class State:
    """What is known of a node: bounds of values there, and whether nothing is left of it."""

    values: Values
    empty: bool


class Subtree:
    """The part of a tree below a box, where only neurons are split."""

    def __init__(self, tree: Tree, done: Pass) -> None:
        """Nothing is proved but by the bounds of the box."""
        self.tree, self.done, self.goal = tree, done, tree.proofs.goal
        self.waiting: list[tuple[int, State]] = []
        self.proved: dict[int, np.ndarray] = {}  # clauses, by node

    def check(self, anchor: int) -> None:
        """Walk down, bounding neurons anew on the way; refuse a leaf that is not proved."""
        tree, proofs = self.tree, self.tree.proofs
        states = {anchor: State(dict(self.done.values), False)}
        self.proved[anchor] = self.goal.proved(rows_over(self.done, self.goal).least)[0]
        nodes = [anchor]
        order = np.argsort(proofs.node, kind="stable")
        starts = np.searchsorted(proofs.node[order], np.arange(len(tree.kind) + 1))
        for node in range(anchor, len(tree.kind)):
            if node != anchor:
                if tree.depth[node] <= tree.depth[anchor]:
                    break
                nodes.append(node)
                states[node] = self.below(states, node)
                self.proved[node] = self.proved[int(tree.parent[node])].copy()
            mine = order[starts[node] : starts[node + 1]]
            states[node] = self.bounded(states[node], mine[proofs.target[mine] >= 0])
            self.proved[node] |= states[node].empty
            self.waiting += [(int(i), states[node]) for i in mine[proofs.target[mine] < 0]]
            if len(self.waiting) >= at_once(self.done):
                self.settle()
        self.settle()
        for node in nodes:
            if node != anchor:
                self.proved[node] |= self.proved[int(tree.parent[node])]
            if tree.kind[node] == LEAF and not self.proved[node][tree.clauses].all():
                raise Refusal(f"leaf {node} is not proved")

    def below(self, states: dict[int, State], node: int) -> State:
        """The state of a child, by its split; its parent's is forgotten after the second one."""
        tree, parent = self.tree, int(self.tree.parent[node])
        known = states.pop(parent) if tree.side[node] else states[parent]
        column = int(tree.place[parent])
        name, place = tree.proofs.columns.sources[column], int(tree.proofs.columns.neuron[column])
        lower, upper = known.values[name].lower.copy(), known.values[name].upper.copy()
        if tree.side[node]:
            lower[0, place] = max(lower[0, place], 0.0)
        else:
            upper[0, place] = min(upper[0, place], 0.0)
        empty = known.empty or bool(lower[0, place] > upper[0, place])
        return State(known.values | {name: Bounds(lower, upper)}, empty)

    def bounded(self, known: State, chosen: np.ndarray) -> State:
        """A state after the proofs that bound neurons at its node."""
        values, empty = dict(known.values), known.empty
        for group in self.tree.proofs.groups(chosen):
            if empty:
                break
            name = self.tree.proofs.tightened(self.done, values, group, at_once(self.done))
            empty = bool((values[name].lower > values[name].upper).any())
        return State(values, empty)

    def settle(self) -> None:
        """Evaluate the proofs that wait, each over the bounds of its node."""
        waiting, self.waiting = self.waiting, []
        waiting = [(i, state) for i, state in waiting if not state.empty]
        if not waiting:
            return
        values = dict(self.done.values)
        for name, whole in self.done.values.items():
            own = [state.values[name] for _, state in waiting]
            if any(bounds is not whole for bounds in own):
                lower = np.concatenate([bounds.lower for bounds in own])
                upper = np.concatenate([bounds.upper for bounds in own])
                values[name] = Bounds(lower, upper)
        chosen = np.array([i for i, _ in waiting])
        least = self.tree.proofs.least(self.done, values, chosen)
        for i, worth in zip(chosen.tolist(), least.tolist(), strict=True):
            node, clause = int(self.tree.proofs.node[i]), int(self.tree.proofs.clause[i])
            self.proved[node][clause] |= worth > 0
