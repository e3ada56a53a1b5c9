"""Activation splitting: verdicts against exact MILP, cover, bounds of domains against samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds as Limits
from scipy.optimize import LinearConstraint, milp
from torch import Tensor

from tests.nets import FAMILIES, dense_net
from verify.bounders.beta_crown import Climb, climb
from verify.bounders.beta_proof import prove
from verify.bounders.domains import Domains, joined
from verify.bounders.refining import Refining, refine
from verify.bounders.slopes import Ascent
from verify.branchers.babsr import candidates
from verify.branchers.filtered import Filtered, children
from verify.graph.ir import Graph
from verify.search.activation_split import ActivationSplit
from verify.search.deepening import Deepening
from verify.search.root import Root, root_of
from verify.traverse import evaluate, run
from verify.values.budget import Budget
from verify.values.property import Case, Halfspaces
from verify.values.result import Verdict

PARTS = ("sigmoid", "relu", "residual", "conv", "branched_conv", "preactivation", "pooled", "gated")


@dataclass
class Judge:
    """A refuter that only judges, in float64."""

    graph: Graph
    case: Case

    def __call__(self, lower: Tensor, upper: Tensor, *, effort: float = 1.0) -> Tensor | None:
        return None

    def check(self, candidates: Tensor) -> Tensor | None:
        x = candidates.clamp(self.case.lower, self.case.upper)
        output = run(self.graph, x.view(-1, *self.graph.input.shape)).flatten(1)
        for clause in self.case.clauses:
            met = clause.contain(output).nonzero().flatten()
            if len(met):
                return x[met[0]]
        return None


def case_of(graph: Graph, seed: int, eps: float, *, rows: int = 1, shift: float = 0.0) -> Case:
    """A box around a random point; output 0 against the others, `rows` of them to a clause."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(graph.input.size, generator=generator, dtype=torch.float64)
    out = graph.output.size
    each = torch.eye(out, dtype=torch.float64)
    coeff = each[0] - each[1:]
    parts = [coeff[i : i + rows] for i in range(0, out - 1, rows)]
    clauses = tuple(
        Halfspaces(
            part,
            torch.full((len(part),), shift, dtype=torch.float64),
            torch.zeros(len(part), dtype=torch.bool),
        )
        for part in parts
    )
    none = Halfspaces(
        torch.zeros(0, graph.input.size, dtype=torch.float64),
        torch.zeros(0, dtype=torch.float64),
        torch.zeros(0, dtype=torch.bool),
    )
    return Case(centre - eps, centre + eps, none, clauses)


def least_worst(graph: Graph, case: Case, clause: Halfspaces) -> float:
    """min over the box of max over the clause's rows, of a dense relu net, by MILP."""
    low, high = case.lower.numpy(), case.upper.numpy()
    rows: list[tuple[np.ndarray, float, float]] = []
    lower, upper = list(low), list(high)
    integer = [0] * len(low)
    last = list(range(len(low)))
    layers = [
        (node.tensors["weight"].numpy(), node.tensors["bias"].numpy())
        for node in graph.nodes
        if node.op == "Gemm"
    ]
    total = len(low) + 2 * sum(len(b) for _, b in layers[:-1]) + 1
    x_low, x_high = low, high
    for weight, bias in layers[:-1]:
        centre, radius = (x_low + x_high) / 2, (x_high - x_low) / 2
        z_low = weight @ centre + bias - np.abs(weight) @ radius - 1e-6
        z_high = weight @ centre + bias + np.abs(weight) @ radius + 1e-6
        fresh = []
        for j in range(len(bias)):
            a, d = len(lower), len(lower) + 1
            lower += [0.0, 0.0]
            upper += [max(0.0, z_high[j]), 1.0]
            integer += [0, 1]
            z = np.zeros(total)
            z[last] = weight[j]
            over, under, off = -z, z.copy(), np.zeros(total)
            over[a] += 1  # a - z >= b
            under[a] -= 1  # z - a >= -b + l (1 - d)  <=>  z - a + l d >= l - b
            under[d] += z_low[j]
            off[a], off[d] = -1, z_high[j]  # a <= u d
            rows += [
                (over, bias[j], np.inf),
                (under, z_low[j] - bias[j], np.inf),
                (off, 0.0, np.inf),
            ]
            fresh.append(a)
        last = fresh
        x_low, x_high = z_low.clip(0), z_high.clip(0)
    weight, bias = layers[-1]
    t = total - 1
    lower.append(-1e6)
    upper.append(1e6)
    integer.append(0)
    for c, d in zip(clause.coeff.numpy(), clause.const.numpy(), strict=True):
        row = np.zeros(total)
        row[last] = -(c @ weight)
        row[t] = 1  # t - c·y >= d
        rows.append((row, float(c @ bias + d), np.inf))
    objective = np.zeros(total)
    objective[t] = 1
    found = milp(
        objective,
        constraints=LinearConstraint(
            np.array([r[0] for r in rows]), [r[1] for r in rows], [r[2] for r in rows]
        ),
        integrality=np.array(integer),
        bounds=Limits(np.array(lower), np.array(upper)),
    )
    assert found.status == 0
    return float(found.fun)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_verdicts_are_those_of_exact_programs(seed: int, rows: int) -> None:
    """Near the threshold on both sides, verified exactly where the MILP's least value is > 0."""
    graph = dense_net(seed, (4, 10, 10, 3))
    plain = case_of(graph, seed, 0.4, rows=rows)
    least = min(least_worst(graph, plain, clause) for clause in plain.clauses)
    for shift, wanted in ((1e-3, Verdict.VERIFIED), (-1e-3, Verdict.FALSIFIED)):
        case = case_of(graph, seed, 0.4, rows=rows, shift=shift - least)
        search = ActivationSplit(batch=8, ascent=Ascent(iterations=3))
        outcome = search(graph, case, Judge(graph, case), Budget())
        assert outcome.verdict is wanted
        if wanted is Verdict.VERIFIED:
            assert 0 < outcome.bound <= 1e-3 + 1e-6


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_outcome_contradicts_samples(kind: str, seed: int) -> None:
    """On every kind of net, 2,000 points of the box hold what the outcome says of them."""
    graph = FAMILIES[kind](seed)
    case = case_of(graph, seed, 0.05)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2000, graph.input.size, generator=generator, dtype=torch.float64)
    x = case.lower + (case.upper - case.lower) * x
    output = run(graph, x.view(-1, *graph.input.shape)).flatten(1)
    margin = torch.stack([clause.values(output).amax(dim=1) for clause in case.clauses])
    least = float(margin.min())
    shift = 0.02 * float(margin.abs().mean()) - least
    case = case_of(graph, seed, 0.05, shift=shift)
    found = ActivationSplit(batch=8)(graph, case, Judge(graph, case), Budget().within(4.0))
    if found.verdict is Verdict.FALSIFIED:
        assert found.witness is not None
    else:
        assert found.bound <= least + shift + 1e-9


def part_way(graph: Graph, case: Case, levels: int) -> tuple[Root, Domains]:
    """The root and the domains some splits below it."""
    root = root_of(graph, case, Ascent(iterations=3), Budget())
    clauses = root.clauses.to(torch.float32)
    domains = root.domains
    for _ in range(levels):
        found = climb(root.frame, clauses, domains, 1e9, Climb(iterations=4))
        picks, pulls = candidates(root.frame, found, 3)
        parents = replace(found.domains, picks=picks, pulls=pulls)
        open_ = (picks[:, 0] < root.frame.columns).nonzero().flatten()
        domains = Filtered()(root.frame, clauses, parents.take(open_), 1e9)
    return root, climb(root.frame, clauses, domains, 1e9, Climb(iterations=8)).domains


def inside(root: Root, graph: Graph, domains: Domains, x: Tensor) -> Tensor:
    """Which points keep which domain's splits; bool, (domain, point)."""
    values = evaluate(graph, x)
    columns = []
    for layer in root.frame.layers:
        whole = values[layer.source].flatten(1)
        kept = root.proof.kept.get(layer.name)
        columns.append(layer.pick(whole if kept is None else whole[:, kept]))
    z = torch.cat([*columns, torch.zeros(len(x), 1, dtype=x.dtype)], dim=1)
    at = z[:, domains.slots]  # (point, domain, depth)
    return (at * domains.sign >= 0).all(dim=2).T


@pytest.mark.parametrize("kind", ["relu", "residual", "conv"])
def test_bounds_of_domains_hold_at_their_points_and_children_cover(kind: str) -> None:
    """Every point of the box is in some domain of its clause, and no bound exceeds its value."""
    graph = FAMILIES[kind](1)
    case = case_of(graph, 1, 0.3, shift=-100.0)
    root, domains = part_way(graph, case, 3)
    margin = prove(root.proof, root.frame, root.clauses, domains, root.others)
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(3000, graph.input.size, generator=generator, dtype=torch.float64)
    x = (case.lower + (case.upper - case.lower) * x).view(-1, *graph.input.shape)
    held = inside(root, graph, domains, x)
    rows = torch.stack([c.values(run(graph, x))[:, 0] for c in case.clauses])
    for clause in range(len(case.clauses)):
        assert bool(held[domains.clause == clause].any(dim=0).all())
    values = torch.where(held, rows[domains.clause], torch.inf).amin(dim=1)
    assert bool((margin <= values + 1e-9).all())
    if kind != "relu":
        return  # too loose for the next lines
    # With the multipliers' sign turned, or the splits', the same test must fail.
    turned = replace(domains, beta=-domains.beta)
    wrong = prove(root.proof, root.frame, root.clauses, turned, root.others)
    worse = int((wrong > values + 1e-9).sum())
    turned = replace(domains, sign=-domains.sign)
    wrong = prove(root.proof, root.frame, root.clauses, turned, root.others)
    assert worse + int((wrong > values + 1e-9).sum()) > 0


def test_multipliers_help() -> None:
    """With beta a domain's bound is above the bound without, and the proof follows the search."""
    graph = dense_net(3, (4, 12, 12, 3))
    root, domains = part_way(graph, case_of(graph, 3, 0.5, shift=-100.0), 4)
    without = replace(domains, beta=torch.zeros_like(domains.beta))
    with_beta = prove(root.proof, root.frame, root.clauses, domains, root.others)
    plain = prove(root.proof, root.frame, root.clauses, without, root.others)
    assert float((with_beta - plain).mean()) > 0.01
    assert bool((with_beta <= domains.value.double() + 1e-4).all())
    assert float((with_beta - domains.value.double()).abs().max()) < 1e-2


@pytest.mark.parametrize("first_weight", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["relu", "residual"])
def test_refined_bounds_hold_where_the_clause_is_met(kind: str, first_weight: float) -> None:
    """No sampled point that keeps the splits and meets the clause leaves the refined bounds."""
    graph = FAMILIES[kind](1)
    case = case_of(graph, 1, 0.3)
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(4000, graph.input.size, generator=generator, dtype=torch.float64)
    x = (case.lower + (case.upper - case.lower) * x).view(-1, *graph.input.shape)
    # The least tenth of the sampled values meets the clause.
    values = case.clauses[0].values(run(graph, x))[:, 0]
    case = case_of(graph, 1, 0.3, shift=-float(values.quantile(0.1)))
    root, domains = part_way(graph, case, 1)
    met = case.clauses[0].values(run(graph, x))[:, 0] <= 0
    held = inside(root, graph, domains, x[met]) & (domains.clause == 0)[:, None]
    most = held.sum(dim=1).argmax()
    domain, kept = domains.take(most[None]), x[met][held[most]]
    assert len(kept)
    how = Refining(first_weight=first_weight)
    deepen = Deepening(rounds=4) if first_weight == 0 else None
    found = refine(root.proof, root.frame, root.clauses, root.others, domain, how, deepen)
    values_at = evaluate(graph, kept)
    gained = 0
    for layer in root.frame.layers:
        z = values_at[layer.source].flatten(1)
        alive = root.proof.kept.get(layer.name)
        z = z if alive is None else z[:, alive]
        bounds = found.proof.bounds[layer.source]
        lower, upper = bounds.lower.flatten(), bounds.upper.flatten()
        assert bool(((z >= lower - 1e-9) & (z <= upper + 1e-9)).all())
        before = root.proof.bounds[layer.source]
        gained += int((lower > before.lower.flatten() + 1e-3).sum())
        gained += int((upper < before.upper.flatten() - 1e-3).sum())
    assert gained > 0
    assert not found.empty


def test_children_are_smaller_and_joined_keeps_them() -> None:
    """A split adds one sign; both children carry the parent's other splits."""
    graph = dense_net(2, (4, 8, 8, 3))
    root, domains = part_way(graph, case_of(graph, 2, 0.5, shift=-100.0), 2)
    picks = torch.zeros(len(domains), 1, dtype=torch.long)
    pulls = torch.ones(len(domains), 1)
    parents = replace(domains, picks=picks, pulls=pulls)
    both = children(root.frame, parents, torch.zeros(len(domains), dtype=torch.long))
    before = (domains.sign != 0).sum(dim=1)
    assert torch.equal((both.sign != 0).sum(dim=1), torch.cat((before, before)) + 1)
    again = joined([both.take(torch.arange(2)), both], root.frame.columns)
    assert torch.equal(again.sign[2:, : both.sign.shape[1]], both.sign)


def test_time_that_is_over_is_unknown() -> None:
    """A spent budget is an answer, not an exception."""
    graph = dense_net(0, (4, 10, 10, 3))
    case = case_of(graph, 0, 0.4)
    outcome = ActivationSplit()(graph, case, None, Budget(deadline=0.0))
    assert outcome.verdict is Verdict.UNKNOWN
    assert "time" in outcome.reason
