"""Proofs as a certificate gives them: rows with slopes and multipliers, below a node of a tree.

A proof weighs the rows of a clause, and may add the input z of a neuron. Where all rows are <= 0,

    w·rows + s·z >= bound   gives   s·z >= bound,

which bounds z anew for the executions that meet the clause (w = 0: for all); without z, a bound > 0
says that there are none. Any w >= 0, slopes and multipliers will do, so only their form is checked.
A z may also be bounded over the leaves of a small tree of splits, by a row each.
"""

from dataclasses import dataclass

import numpy as np

from verify.check.bounds import FUSED, UNIT, Bounds, Hints, Pass, gamma, weighed
from verify.check.certificate import Certificate
from verify.check.leaf import Goal
from verify.check.network import Affine, Array, Network
from verify.check.refusal import Refusal

Values = dict[str, Bounds]
Path = list[tuple[int, int]]
"""Column and side of each split."""


@dataclass(frozen=True)
class Columns:
    """The neurons that a certificate speaks of: by column, what reads each, what is read, where."""

    readers: list[str]
    sources: list[str]
    neuron: np.ndarray

    def of(self, reader: str) -> np.ndarray:
        """The columns of one Relu or maximum."""
        return np.array([name == reader for name in self.readers], dtype=bool).nonzero()[0]


def read_columns(certificate: Certificate, number: int, network: Network) -> Columns:
    """The columns of one case; refused unless each is the input of a Relu or maximum."""
    pairs = certificate.array(f"{number}/columns", ("int32",), (-1, 2))
    readers, sources = [], []
    for relu, neuron in pairs.tolist():
        known = 0 <= relu < len(certificate.relus)
        step = network.steps.get(certificate.relus[relu]) if known else None
        if step is None or isinstance(step, Affine):
            raise Refusal("a column is of something that is no Relu and no maximum")
        if not 0 <= neuron < network.size(step.source):
            raise Refusal("a column points at a neuron that is not there")
        readers.append(certificate.relus[relu])
        sources.append(step.source)
    return Columns(readers, sources, pairs[:, 1].astype(np.int64))


@dataclass(frozen=True)
class Proofs:
    """Proofs in the order in which they are to be tried."""

    columns: Columns
    goal: Goal
    node: np.ndarray
    clause: np.ndarray
    target: np.ndarray  # a column, -1 for none
    sign: np.ndarray
    weight: Array
    alpha: np.ndarray  # as it is in the file
    push: np.ndarray  # of which proof, at which column
    value: Array
    path: np.ndarray  # of which proof, at which column, which side

    def groups(self, chosen: np.ndarray) -> list[np.ndarray]:
        """Proofs one after another that bound one value, from below and then from above."""
        names, signs = [self.columns.sources[t] for t in self.target[chosen]], self.sign[chosen]
        rise = [names[i] != names[i - 1] or signs[i] > signs[i - 1] for i in range(1, len(names))]
        starts = np.array(rise, dtype=bool).nonzero()[0] + 1
        return np.split(chosen, starts) if len(chosen) else []

    def hints(self, chosen: np.ndarray, network: Network) -> Hints:
        """Slopes and multipliers of some proofs, one a box; NaN where there is no slope."""
        found = Hints(kept=self.alpha.dtype == np.float32)
        place = np.full(len(self.node), -1)
        place[chosen] = np.arange(len(chosen))
        mine = (place[self.push[:, 0]] >= 0).nonzero()[0]
        for reader in dict.fromkeys(self.columns.readers):
            own = self.columns.of(reader)
            size = network.size(self.columns.sources[own[0]])
            alpha = np.full((len(chosen), 1, size), np.nan)
            alpha[:, 0, self.columns.neuron[own]] = slopes(self.alpha[np.ix_(chosen, own)])
            found.alpha[reader] = alpha
            here = mine[np.isin(self.push[mine, 1], own)]
            if len(here):
                push = np.zeros((len(chosen), 1, size))
                at = place[self.push[here, 0]], 0, self.columns.neuron[self.push[here, 1]]
                np.add.at(push, at, self.value[here])
                found.push[reader] = push
        return found

    def least(self, done: Pass, values: Values, chosen: np.ndarray) -> Array:
        """The bounds of some proofs of one kind over values of one box each, or of one for all."""
        network, goal, count = done.network, self.goal, len(chosen)
        weight = self.weight[chosen]
        starts: dict[str, Array] = {}
        const, error = np.zeros((count, 1)), np.zeros((count, 1))
        targets = self.target[chosen]
        if weight.any() or targets[0] < 0:
            rows = goal.rows(self.clause[chosen])
            coeff = np.where(rows[:, :, None] < 0, 0.0, goal.coeff[rows])
            size = np.abs(coeff) @ done.values[network.output_name].magnitude()[0]
            parts = [np.where(rows < 0, 0.0, part[rows]) for part in (goal.const, goal.slack)]
            size = size + np.abs(parts[0])
            starts[network.output_name] = np.matmul(weight[:, None], coeff)
            const = (weight * parts[0]).sum(axis=1, keepdims=True)
            error = (weight * (parts[1] + gamma(rows.shape[1] + FUSED, UNIT) * size)).sum(
                axis=1, keepdims=True
            )
        if targets[0] >= 0:
            source = self.columns.sources[targets[0]]
            row = np.zeros((count, 1, network.size(source)))
            row[np.arange(count), 0, self.columns.neuron[targets]] = self.sign[chosen]
            if source in starts:
                row = starts[source] + row
                error = error + 2 * UNIT * weighed(row, done.values[source].magnitude())
            starts[source] = row
        below = Pass(network, done.real, values, done.noise)
        hints = self.hints(chosen, network)
        found = below.planes(starts, const, error, hints, interval=bool(targets[0] < 0))
        return found.least[:, 0]

    def tightened(self, done: Pass, values: Values, chosen: np.ndarray, most: int) -> str:
        """Bound neurons anew, in `values`, by a group of proofs; returns the value's name."""
        parts = [chosen[i : i + most] for i in range(0, len(chosen), most)]
        least = np.concatenate([self.split(done, values, part) for part in parts])
        name = self.columns.sources[int(self.target[chosen[0]])]
        lower, upper = values[name].lower.copy(), values[name].upper.copy()
        targets, signs = self.target[chosen], self.sign[chosen]
        starts = trees_of(3 * targets + signs, self.paths(chosen))
        worth = np.minimum.reduceat(least, starts)
        neuron, below = self.columns.neuron[targets[starts]], signs[starts] > 0
        np.maximum.at(lower, (0, neuron[below]), worth[below])
        np.minimum.at(upper, (0, neuron[~below]), -worth[~below])
        values[name] = Bounds(lower, upper)
        return name

    def paths(self, chosen: np.ndarray) -> list[Path]:
        """The splits that each proof is under, in order."""
        found: dict[int, Path] = {i: [] for i in chosen.tolist()}
        for proof, column, side in self.path[np.isin(self.path[:, 0], chosen)].tolist():
            found[proof].append((column, side))
        return list(found.values())

    def split(self, done: Pass, values: Values, chosen: np.ndarray) -> Array:
        """The bounds of some proofs, each under the splits of its path; inf where that is empty."""
        place = np.full(len(self.node), -1)
        place[chosen] = np.arange(len(chosen))
        mine = self.path[place[self.path[:, 0]] >= 0]
        empty = np.zeros(len(chosen), dtype=bool)
        values = dict(values)
        for name in {self.columns.sources[column] for column in mine[:, 1].tolist()}:
            if name not in values:
                raise Refusal("a neuron is bounded under a split of one that comes after it")
            here = np.array([self.columns.sources[c] == name for c in mine[:, 1]], dtype=bool)
            lower = np.repeat(values[name].lower, len(chosen), axis=0)
            upper = np.repeat(values[name].upper, len(chosen), axis=0)
            at = place[mine[here, 0]], self.columns.neuron[mine[here, 1]]
            above = mine[here, 2] == 1
            np.maximum.at(lower, at, np.where(above, 0.0, -np.inf))
            np.minimum.at(upper, at, np.where(above, np.inf, 0.0))
            empty |= (lower > upper).any(axis=1)
            values[name] = Bounds(lower, upper)
        return np.where(empty, np.inf, self.least(done, values, chosen))


def trees_of(targets: np.ndarray, paths: list[Path]) -> list[int]:
    """Where each tree begins, of leaves that stand together; refused unless all are whole."""
    starts, first, share = [], 0, 0.0
    for i, path in enumerate(paths):
        share += 2.0 ** -len(path)
        if share >= 1 or i + 1 == len(paths) or targets[i + 1] != targets[i]:
            if not is_whole(paths[first : i + 1]):
                raise Refusal("a neuron is bounded over a tree that is not whole")
            starts.append(first)
            first, share = i + 1, 0.0
    return starts


def is_whole(paths: list[Path]) -> bool:
    """Whether the leaves at the ends of these paths cover all there is."""
    if not any(paths):
        return True
    halves: tuple[list[Path], list[Path]] = ([], [])
    for path in paths:
        if not path or path[0][0] != paths[0][0][0]:
            return False
        halves[path[0][1]].append(path[1:])
    return all(half and is_whole(half) for half in halves)


def slopes(stored: np.ndarray) -> Array:
    """Slopes as they are stored, as float64."""
    return stored.astype(np.float64) / (255.0 if stored.dtype == np.uint8 else 1.0)


def read_proofs(
    certificate: Certificate, prefix: str, columns: Columns, goal: Goal, nodes: int
) -> Proofs:
    """The proofs of a tree; refused unless every index in them points at something."""
    cert, c, width = certificate, prefix, len(columns.readers)
    proof = cert.array(c + "proof", ("int32",), (-1, 4)).astype(np.int64)
    limits = ((0, nodes), (0, goal.count), (-1, width), (-1, 2))
    for part, (least, most) in zip(proof.T, limits, strict=True):
        if ((part < least) | (part >= most)).any():
            raise Refusal("a proof belongs to no node, clause or column")
    if (proof[:, 3] == 0).any():
        raise Refusal("a proof has no sign")
    given = np.nan_to_num(cert.array(c + "weight", ("float32",), (len(proof), -1)), posinf=0.0)
    weight = np.zeros((len(proof), goal.most))
    if given.shape[1] > goal.most:
        raise Refusal("a proof weighs more rows than a clause has")
    weight[:, : given.shape[1]] = np.maximum(given, 0.0)
    push = cert.array(c + "push", ("int32",), (-1, 2))
    value = cert.array(c + "value", ("float32",), (len(push),)).astype(np.float64)
    if (push < 0).any() or (push >= (len(proof), width)).any():
        raise Refusal("a multiplier belongs to no proof or column")
    path = cert.array(c + "path", ("int32",), (-1, 3))
    if (path < 0).any() or (path >= (len(proof), width, 2)).any():
        raise Refusal("a split belongs to no proof, column or side")
    if (proof[path[:, 0], 2] < 0).any():
        raise Refusal("a clause is proved under a split that is not one of the tree")
    return Proofs(
        columns,
        goal,
        proof[:, 0],
        proof[:, 1],
        proof[:, 2],
        proof[:, 3],
        weight,
        cert.array(c + "alpha", ("uint8", "float16", "float32"), (len(proof), width)),
        push,
        np.nan_to_num(value, posinf=0.0, neginf=0.0),
        path,
    )
