"""The tree of splits: it must be whole, and every leaf must be proved for every unsafe clause.

A whole binary tree covers its root by construction: an input below or above a value, a Relu's input
<= 0 or >= 0 in every execution (NaN is excluded, as all bounds are finite).
"""

from dataclasses import dataclass

import numpy as np

from verify.check.bounds import Bounds, Hints, Pass, crown
from verify.check.certificate import Certificate
from verify.check.hints import Names, Slopes, names_of, read_slopes
from verify.check.leaf import Goal, goal_of, rows_over, settled
from verify.check.linear import Array
from verify.check.network import Network
from verify.check.refusal import Refusal
from verify.check.vnnlib import Case, hull

LEAF, INPUT, RELU = 0, 1, 2
AT_ONCE = 2**22
"""Coefficients of one row of one value over the boxes that are bounded together."""


@dataclass
class Tree:
    """One part's tree and proofs, as the certificate gives them, after a check of their form."""

    slopes: Slopes
    clauses: np.ndarray
    kind: np.ndarray
    place: np.ndarray
    relu: np.ndarray
    value: np.ndarray
    proof: np.ndarray
    proof_alpha: Array
    beta: Array
    parent: np.ndarray
    side: np.ndarray
    depth: np.ndarray

    @property
    def names(self) -> Names:
        """Of the certificate."""
        return self.slopes.names

    def path(self, node: int) -> list[tuple[int, int]]:
        """The Relu splits above a node, from the top: the split's node and the side taken."""
        found = []
        while self.parent[node] >= 0:
            above = int(self.parent[node])
            if self.kind[above] == RELU:
                found.append((above, int(self.side[node])))
            node = above
        return found[::-1]


def read_tree(certificate: Certificate, prefix: str, slopes: Slopes) -> Tree:
    """The tree of one part; refused unless every index in it points at something."""
    cert, c, names = certificate, prefix, slopes.names
    kind = cert.array(c + "kind", ("uint8",), (-1,))
    nodes = len(kind)
    place = cert.array(c + "place", ("int32",), (nodes,))
    relu = cert.array(c + "relu", ("int16",), (nodes,))
    value = cert.array(c + "value", ("float64",), (nodes,))
    parent, side, depth = shape_of(kind)
    names.refuse(relu[kind == RELU], place[kind == RELU], "a split", pools=False)
    inputs = place[kind == INPUT]
    if ((inputs < 0) | (inputs >= names.network.size(names.network.input_name))).any():
        raise Refusal("a split points at an input that is not there")
    proof = cert.array(c + "proof", ("int32",), (-1, 3))
    if ((proof[:, 0] < 0) | (proof[:, 0] >= nodes)).any():
        raise Refusal("a proof belongs to no node")
    return Tree(
        slopes,
        cert.array(c + "clauses", ("int32",), (-1,)),
        kind,
        place,
        relu,
        value,
        proof,
        cert.slopes(c + "proof_alpha", (len(proof), len(slopes.columns))),
        np.nan_to_num(cert.array(c + "beta", ("float32",), (-1,)).astype(np.float64)),
        parent,
        side,
        depth,
    )


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
            if kind[parent[node]] == RELU and kind[node] == INPUT:
                raise Refusal("an input is split below a Relu")
        if kind[node] in (INPUT, RELU):
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
        axis, value = int(tree.place[node]), float(tree.value[node])
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
    slopes: Slopes
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
                self.network,
                low[None],
                high[None],
                real=self.real,
                tightened=self.slopes.tightened(),
            )
        return self.root


def check_case(certificate: Certificate, number: int, network: Network, case: Case) -> int:
    """Prove one case with its trees, or raise Refusal; returns how many leaves there were."""
    if not all(low <= high for low, high in zip(case.lower, case.upper, strict=True)):
        return 1  # no input at all
    slopes = read_slopes(certificate, number, names_of(certificate, network))
    goal = goal_of(case, network.size(network.output_name))
    lower, upper = hull(case.lower, -1), hull(case.upper, 1)
    inquiry = Inquiry(network, slopes, goal, lower, upper, certificate.real)
    proved = np.zeros(goal.count, dtype=bool)
    leaves = part = 0
    while f"{number}.{part}/kind" in certificate.arrays:
        tree = read_tree(certificate, f"{number}.{part}/", slopes)
        if ((tree.clauses < 0) | (tree.clauses >= goal.count)).any():
            raise Refusal("a part proves a clause that the property does not have")
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
    hinted = set(tree.proof[:, 0].tolist())
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
    left = set(plain)
    for node in boxes:
        if node not in left:
            check_subtree(tree, goal, node, inquiry.over(node, *boxes[node]))


def check_subtree(tree: Tree, goal: Goal, anchor: int, done: Pass) -> None:
    """Prove the part of the tree below a box, where only Relus are split."""
    # By node: which clauses are proved for all below it.
    proved = {anchor: goal.proved(rows_over(done, goal).least)[0]}
    below = descendants(tree, anchor)
    entries = [i for i, node in enumerate(tree.proof[:, 0]) if node in below]
    lengths = [len(tree.path(int(node))) for node in tree.proof[:, 0]]
    starts = np.concatenate(([0], np.cumsum(lengths)))
    if starts[-1] != len(tree.beta):
        raise Refusal("there is not one multiplier for each split above each proof")
    for first in range(0, len(entries), 64):
        part = entries[first : first + 64]
        for entry, worth in zip(part, bounded(tree, goal, done, part, starts), strict=True):
            node, clause = int(tree.proof[entry, 0]), int(tree.proof[entry, 1])
            known = proved.setdefault(node, np.zeros(goal.count, dtype=bool))
            known[clause] |= bool(worth > 0)
    for node in sorted(below):
        if node != anchor:
            above = proved[int(tree.parent[node])]
            proved[node] = proved.get(node, np.zeros(goal.count, dtype=bool)) | above
        empty = impossible(tree, done, node)
        if tree.kind[node] == LEAF and not empty and not proved[node][tree.clauses].all():
            raise Refusal(f"leaf {node} is not proved")


def descendants(tree: Tree, anchor: int) -> set[int]:
    """The node and all below it: in preorder, those that follow until the depth is left."""
    found = {anchor}
    for node in range(anchor + 1, len(tree.kind)):
        if tree.depth[node] <= tree.depth[anchor]:
            break
        found.add(node)
    return found


def impossible(tree: Tree, done: Pass, node: int) -> bool:
    """Whether the bounds at the box exclude a split above the node, so that nothing is there."""
    for split, side in tree.path(node):
        x = done.values[tree.names.source(int(tree.relu[split]))]
        place = int(tree.place[split])
        if (x.upper[0, place] < 0) if side else (x.lower[0, place] > 0):
            return True
    return False


def bounded(tree: Tree, goal: Goal, done: Pass, entries: list[int], starts: np.ndarray) -> Array:
    """What each proof's row is at least, below its node; shape (entry,)."""
    values = dict(done.values)
    hints = Hints()
    count = len(entries)
    for name, rows in tree.slopes.alpha(tree.proof_alpha[entries]).items():
        x = done.values[tree.names.source(tree.names.relus.index(name))]
        plain = (x.upper > -x.lower).astype(np.float64)
        hints.alpha[name] = np.where(np.isnan(rows), plain, rows)[:, None]
    for i, entry in enumerate(entries):
        node = int(tree.proof[entry, 0])
        for (split, side), beta in zip(
            tree.path(node), tree.beta[starts[entry] : starts[entry + 1]], strict=True
        ):
            name = tree.names.relus[int(tree.relu[split])]
            source = tree.names.source(int(tree.relu[split]))
            place = int(tree.place[split])
            if values[source] is done.values[source]:
                held = done.values[source]
                values[source] = Bounds(
                    np.repeat(held.lower, count, axis=0), np.repeat(held.upper, count, axis=0)
                )
                size = held.lower.shape[1]
                hints.beta[name] = np.zeros((count, 1, size))
            own = values[source]
            if side:
                own.lower[i, place] = max(own.lower[i, place], 0.0)
            else:
                own.upper[i, place] = min(own.upper[i, place], 0.0)
            hints.beta[name][i, 0, place] += (1.0 if side else -1.0) * max(float(beta), 0.0)
    rows = clause_rows(goal, tree.proof[entries])
    below = Pass(done.network, done.real, values, done.noise)
    return rows_over(below, goal, rows, hints).least[:, 0]


def clause_rows(goal: Goal, proofs: np.ndarray) -> np.ndarray:
    """The goal's row that each proof is about."""
    found = []
    for _, clause, row in proofs.tolist():
        mine = (goal.clause == clause).nonzero()[0]
        if not 0 <= row < len(mine):
            raise Refusal("a proof is about a row that the property does not have")
        found.append(int(mine[row]))
    return np.array(found, dtype=np.int64)
