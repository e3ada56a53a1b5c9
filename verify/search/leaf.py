"""Leaves where every neuron is split: one linear program decides them, so the search is complete.

Under its splits the network of such a leaf is affine. The program finds the best multipliers for
the splits and weights for the clause's rows, which the rigorous evaluation then takes as a
proposal; or an input that meets the clause, for the runtime to judge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verify.bounders.beta_proof import lines_of
from verify.bounders.domains import Domains, Layer, bounds_under
from verify.search.root import Root
from verify.traverse import pull_back
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """Rows coeff·x + const over the flat input of the search."""

    coeff: Array
    const: Array


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """What a leaf's program says.

    Attributes:
        domain: a batch of one, with multipliers and weights to prove it by; None if there are none.
        point: an input, (1, inputs) in the search's space, where the leaf may be met; or None.
    """

    domain: Domains | None
    point: Tensor | None


def spelled_out(root: Root, base: Root, leaf: Domains) -> Domains | None:
    """A leaf of a base as a domain of the root, with every sign that it implies as a split.

    What the base's bounds decide holds for executions that meet the clause, and only those matter;
    but the root's program must be told, or its points may read a neuron on the wrong side.

    Returns:
        None if some neuron's sign is open: this is no leaf.
    """
    signs = torch.zeros(1, root.frame.columns)
    for layer, own in zip(root.frame.layers, base.frame.layers, strict=True):
        bounds = bounds_under(base.proof.bounds[own.source], own, leaf)
        positive = layer.pick(bounds.lower) >= 0
        negative = layer.pick(bounds.upper) <= 0
        layer.of(signs).copy_(positive.to(signs.dtype) - (negative & ~positive).to(signs.dtype))
    open_ = root.frame.open()
    if bool((signs[0, open_] == 0).any()):
        return None
    slots = open_.nonzero().flatten()[None]
    sign = signs[:, slots[0]]
    alpha = torch.zeros(1, root.frame.columns)
    return replace(
        leaf,
        slots=slots,
        sign=sign,
        beta=torch.zeros_like(sign),
        scale=torch.ones_like(sign),
        alpha=alpha,
        target=torch.full_like(leaf.target, root.frame.columns),
        cut=leaf.cut[:, :0],
    )


def settle_leaf(root: Root, leaf: Domains) -> Settled:
    """Decide one leaf, a batch of one, as far as floating point lets a program."""
    from scipy.optimize import linprog  # half a second of imports that most searches do not need

    lines = dict(root.others)
    for layer in root.frame.layers:
        lines[layer.name] = lines_of(root.proof, layer, leaf)
    clause = int(leaf.clause[0])
    count = int(root.clauses.real[clause].sum())
    graph = root.proof.graph
    rows = root.clauses.coeff[clause, :count].view(1, count, *graph.output.shape)
    form = LinearForm(rows, root.clauses.const[clause, :count][None])
    unsafe = affine(pull_back(graph, graph.output.name, form, lines))
    splits, order = split_rows(root, leaf, lines)
    box = root.proof.region.bounds()
    lower, upper = (side.flatten().numpy() for side in (box.lower, box.upper))
    if not all(
        np.isfinite(part.coeff).all() and np.isfinite(part.const).all() for part in (unsafe, splits)
    ):
        return Settled(None, None)  # float32 may overflow there: no program decides that
    # least t with  row(x) <= t  and  -s·z(x) <= 0
    program = linprog(
        np.append(np.zeros(len(lower)), 1.0),
        A_ub=np.block(
            [
                [unsafe.coeff, -np.ones((count, 1))],
                [splits.coeff, np.zeros((len(splits.const), 1))],
            ]
        ),
        b_ub=np.append(-unsafe.const, -splits.const),
        bounds=[*zip(lower, upper, strict=True), (None, None)],
        method="highs",
    )
    if program.status == 0:
        duals = -program.ineqlin.marginals
        if program.fun > 0:
            return Settled(with_duals(leaf, duals[:count], duals[count:], order, 1.0), None)
        return Settled(None, torch.from_numpy(program.x[None, :-1]))
    if program.status != 2:
        return Settled(None, None)
    # No x keeps all splits: least v with -s·z(x) <= v is > 0, and multiplied enough it proves all.
    program = linprog(
        np.append(np.zeros(len(lower)), 1.0),
        A_ub=np.hstack([splits.coeff, -np.ones((len(splits.const), 1))]),
        b_ub=-splits.const,
        bounds=[*zip(lower, upper, strict=True), (None, None)],
        method="highs",
    )
    if program.status != 0 or not program.fun > 0:
        return Settled(None, None)
    span = np.abs(unsafe.coeff[0]) @ np.maximum(np.abs(lower), np.abs(upper))
    needed = 2 * float(span + abs(unsafe.const[0]) + 1.0) / program.fun
    weight = np.zeros(count)
    weight[0] = 1.0
    return Settled(with_duals(leaf, weight, -program.ineqlin.marginals, order, needed), None)


def affine(form: LinearForm) -> Affine:
    """A form of one batch entry as arrays."""
    return Affine(form.coeff[0].flatten(1).numpy(), form.const[0].numpy())


def split_rows(root: Root, leaf: Domains, lines: dict[str, Relaxation]) -> tuple[Affine, list[int]]:
    """-s·z(x) of every split, and which slot of the domain each is."""
    coeffs, consts, order = [], [], []
    for layer in root.frame.layers:
        slots, form = rows_at(layer, leaf)
        if slots:
            found = affine(pull_back(root.proof.graph, layer.source, form, lines))
            coeffs.append(found.coeff)
            consts.append(found.const)
            order += slots
    if not order:
        return Affine(np.zeros((0, root.proof.graph.input.size)), np.zeros(0)), order
    return Affine(np.concatenate(coeffs), np.concatenate(consts)), order


def rows_at(layer: Layer, leaf: Domains) -> tuple[list[int], LinearForm]:
    """The splits of one layer as rows -s·z, and their slots."""
    here = (leaf.slots[0] >= layer.first) & (leaf.slots[0] < layer.last) & (leaf.sign[0] != 0)
    slots = here.nonzero().flatten()
    columns = torch.zeros(len(slots), layer.last - layer.first, dtype=torch.float64)
    place = (leaf.slots[0, slots] - layer.first)[:, None]
    columns.scatter_(1, place, -leaf.sign[0, slots].to(torch.float64)[:, None])
    coeff = layer.laid(columns).view(1, len(slots), *layer.shape)
    return slots.tolist(), LinearForm(coeff, coeff.new_zeros(1, len(slots)))


def with_duals(
    leaf: Domains, weight: Array, beta: Array, order: list[int], factor: float
) -> Domains:
    """The leaf with a program's multipliers, which are >= 0 up to the solver's rounding."""
    wide = torch.zeros_like(leaf.weight)
    wide[0, : len(weight)] = torch.from_numpy(weight.clip(0)).to(wide.dtype)
    if len(weight) == 1:
        wide[0, 0] = 1.0
    betas = torch.zeros_like(leaf.beta)
    betas[0, order] = torch.from_numpy(beta.clip(0) * factor).to(betas.dtype)
    return replace(leaf, weight=wide, beta=betas)
