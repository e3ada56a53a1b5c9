"""Proofs as a certificate gives them: rows with slopes and multipliers, below a node of a tree.

A proof weighs the rows of a clause, and may add the input z of a neuron. Where all rows are <= 0,

    w·rows + s·z >= bound   gives   s·z >= bound,

which bounds z anew for the executions that meet the clause (w = 0: for all); without z, a bound > 0
says that there are none. Any w >= 0, slopes and multipliers will do, so only their form is checked.
A z may also be bounded over the leaves of a small tree of splits, by a row each.
"""

from dataclasses import dataclass

import numpy as np

from verify.check.bounds import Bounds, Hints, Pass, gamma, weighed
from verify.check.certificate import Certificate
from verify.check.curves import UNIT
from verify.check.leaf import Goal
from verify.check.network import Affine, Array, Index, Network
from verify.check.refusal import Refusal

Values = dict[str, Bounds]


@dataclass(frozen=True)
class Columns:
    """The neurons that a certificate speaks of: by column, what reads each, what is read, where."""

    readers: np.ndarray
    sources: np.ndarray
    neuron: Index


def indices(cert: Certificate, name: str, *limits: tuple[int, int]) -> Index:
    """An array of shape (-1, columns), refused unless each column is within its limits."""
    found = cert.array(name, ("int32",), (-1, len(limits))).astype(np.int64)
    for part, (least, end) in zip(found.T, limits, strict=True):
        if ((part < least) | (part >= end)).any():
            raise Refusal(f"array {name!r} points at something that is not there")
    return found


def read_columns(certificate: Certificate, number: int, network: Network) -> Columns:
    """The columns of one case; refused unless each is the input of a Relu or maximum."""
    relus = [network.steps.get(name) for name in certificate.relus]
    pairs = indices(certificate, f"{number}/columns", (0, len(relus)), (0, network.widest()))
    readers = np.array(certificate.relus, dtype=object)[pairs[:, 0]]
    sources = np.full(len(pairs), None, dtype=object)
    for i, (relu, neuron) in enumerate(pairs.tolist()):
        step = relus[relu]
        if step is None or isinstance(step, Affine) or neuron >= network.size(step.source):
            raise Refusal("a column is of something that is no Relu, or of a neuron not there")
        sources[i] = step.source
    return Columns(readers, sources, pairs[:, 1])


def runs(items: np.ndarray, begins: np.ndarray) -> list[np.ndarray]:
    """Items split before each, but for the first, that begins a new run."""
    return np.split(items, begins.nonzero()[0] + 1) if len(items) else []


def among(entries: Index, chosen: Index) -> tuple[Index, Index]:
    """Which entries are chosen, and where among the chosen each is."""
    place = np.full(max(entries.max(initial=-1), chosen.max(initial=-1)) + 1, -1)
    place[chosen] = np.arange(len(chosen))
    mine = (place[entries] >= 0).nonzero()[0]
    return mine, place[entries[mine]]


@dataclass(frozen=True)
class Proofs:
    """Proofs in the order in which they are to be tried."""

    columns: Columns
    goal: Goal
    node: Index
    clause: Index
    target: Index  # a column, -1 for none
    sign: Index
    weight: Array
    alpha: np.ndarray  # as it is in the file
    push: Index  # of which proof, at which column
    value: Array
    path: Index  # of which proof, at which column, which side

    def hints(self, chosen: Index, network: Network) -> Hints:
        """Slopes and multipliers of some proofs, one a box; NaN where there is no slope."""
        found, columns = Hints(kept=self.alpha.dtype == np.float32), self.columns
        pushed = np.zeros((len(chosen), len(columns.neuron)))
        mine, at = among(self.push[:, 0], chosen)
        np.add.at(pushed, (at, self.push[mine, 1]), self.value[mine])
        for reader in dict.fromkeys(columns.readers):
            own = (columns.readers == reader).nonzero()[0]
            shape = len(chosen), 1, network.size(columns.sources[own[0]])
            slopes = self.alpha[np.ix_(chosen, own)].astype(np.float64)
            found.alpha[reader] = np.full(shape, np.nan)
            found.alpha[reader][:, 0, columns.neuron[own]] = slopes / self.unit
            if pushed[:, own].any():
                found.push[reader] = np.zeros(shape)
                found.push[reader][:, 0, columns.neuron[own]] = pushed[:, own]
        return found

    @property
    def unit(self) -> float:
        """What a slope of 1 is stored as."""
        return 255.0 if self.alpha.dtype == np.uint8 else 1.0

    def least(self, done: Pass, values: Values, chosen: Index) -> Array:
        """The bounds of some proofs of one kind over values of one box each, or of one for all."""
        network, goal, targets = done.network, self.goal, self.target[chosen]
        starts: dict[str, Array] = {}
        const = error = np.zeros((len(chosen), 1))
        if self.weight[chosen].any() or targets[0] < 0:
            about = goal.clause == self.clause[chosen, None]
            weight = np.where(about, self.weight[chosen][:, goal.rank], 0.0)
            size = np.abs(goal.coeff) @ done.values[network.output_name].magnitude()[0]
            size = goal.slack + gamma(len(goal.const)) * (size + np.abs(goal.const))
            starts[network.output_name] = (weight @ goal.coeff)[:, None]
            const, error = (weight @ goal.const)[:, None], (weight @ size)[:, None]
        if targets[0] >= 0:
            source = self.columns.sources[targets[0]]
            row = np.zeros((len(chosen), 1, network.size(source)))
            row[np.arange(len(chosen)), 0, self.columns.neuron[targets]] = self.sign[chosen]
            if source in starts:
                row = starts[source] + row
                error = error + 2 * UNIT * weighed(row, done.values[source].magnitude())
            starts[source] = row
        below = Pass(network, done.real, values, done.noise)
        hints = self.hints(chosen, network)
        found = below.planes(starts, const, error, hints, interval=bool(targets[0] < 0))
        return found.least[:, 0]

    def tighten(self, done: Pass, values: Values, chosen: Index, most: int) -> bool:
        """Bound neurons anew, in `values`, at most so many at once; whether nothing is left."""
        names, signs = self.columns.sources[self.target[chosen]], self.sign[chosen]
        # One value at a time, from below and then from above.
        for run in runs(chosen, (names[1:] != names[:-1]) | (signs[1:] > signs[:-1])):
            name = self.columns.sources[self.target[run[0]]]
            sides = 3 * self.target[run] + self.sign[run]
            parts = [run[i : i + most] for i in range(0, len(run), most)]
            worth = np.concatenate([self.split(done, values, part) for part in parts])
            mine, at = among(self.path[:, 0], run)
            paths: list[list[tuple[int, int]]] = [[] for _ in run]
            for i, (column, side) in zip(at.tolist(), self.path[mine, 1:].tolist(), strict=True):
                paths[i].append((column, side))
            bounds = Bounds(values[name].lower.copy(), values[name].upper.copy())
            for tree in runs(np.arange(len(run)), sides[1:] != sides[:-1]):
                if not is_whole([paths[i] for i in tree]):
                    raise Refusal("a neuron is bounded over a tree that is not whole")
                first, least = run[tree[0]], worth[tree].min()
                neuron = self.columns.neuron[self.target[first]]
                if self.sign[first] > 0:
                    bounds.lower[0, neuron] = max(bounds.lower[0, neuron], least)
                else:
                    bounds.upper[0, neuron] = min(bounds.upper[0, neuron], -least)
            values[name] = bounds
            if (bounds.lower > bounds.upper).any():
                return True
        return False

    def split(self, done: Pass, values: Values, chosen: Index) -> Array:
        """The bounds of some proofs, each under the splits of its path; inf where that is empty."""
        mine, at = among(self.path[:, 0], chosen)
        column, above = self.path[mine, 1], self.path[mine, 2] == 1
        values, empty = dict(values), np.zeros(len(chosen), dtype=bool)
        for name in dict.fromkeys(self.columns.sources[column]):
            if name not in values:
                raise Refusal("a neuron is bounded under a split of one that comes after it")
            here = self.columns.sources[column] == name
            lower, upper = (
                np.repeat(end, len(chosen), axis=0)
                for end in (values[name].lower, values[name].upper)
            )
            where = at[here], self.columns.neuron[column[here]]
            np.maximum.at(lower, where, np.where(above[here], 0.0, -np.inf))
            np.minimum.at(upper, where, np.where(above[here], np.inf, 0.0))
            empty |= (lower > upper).any(axis=1)
            values[name] = Bounds(lower, upper)
        return np.where(empty, np.inf, self.least(done, values, chosen))


def is_whole(paths: list[list[tuple[int, int]]]) -> bool:
    """Whether the leaves at the ends of these paths, of columns and sides, cover all there is."""
    if not any(paths):
        return True
    if any(not path or path[0][0] != paths[0][0][0] for path in paths):
        return False
    halves = [[path[1:] for path in paths if path[0][1] == side] for side in (0, 1)]
    return all(half and is_whole(half) for half in halves)


def read_proofs(cert: Certificate, prefix: str, columns: Columns, goal: Goal, nodes: int) -> Proofs:
    """The proofs of a tree; refused unless every index in them points at something."""
    c, width = prefix, len(columns.neuron)
    proof = indices(cert, c + "proof", (0, nodes), (0, goal.count), (-1, width), (-1, 2))
    if (proof[:, 3] == 0).any():
        raise Refusal("a proof has no sign")
    weight = np.zeros((len(proof), goal.most))
    given = np.nan_to_num(cert.array(c + "weight", ("float32",), (len(proof), -1)), posinf=0.0)
    if given.shape[1] > goal.most:
        raise Refusal("a proof weighs more rows than a clause has")
    weight[:, : given.shape[1]] = np.maximum(given, 0.0)
    push = indices(cert, c + "push", (0, len(proof)), (0, width))
    value = cert.array(c + "value", ("float32",), (len(push),)).astype(np.float64)
    path = indices(cert, c + "path", (0, len(proof)), (0, width), (0, 2))
    if (proof[path[:, 0], 2] < 0).any():
        raise Refusal("a clause is proved under a split that is not one of the tree")
    alpha = cert.array(c + "alpha", ("uint8", "float16", "float32"), (len(proof), width))
    value = np.nan_to_num(value, posinf=0.0, neginf=0.0)
    node, clause, target, sign = proof.T
    return Proofs(columns, goal, node, clause, target, sign, weight, alpha, push, value, path)
