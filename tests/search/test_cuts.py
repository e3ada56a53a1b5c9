"""Cuts from closed domains: bounds hold wherever the cuts do, and verdicts stay exact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.nets import FAMILIES, dense_net
from tests.search.test_activation_split import Judge, case_of, inside, least_worst, part_way
from verify.bounders.beta_crown import walk_of
from verify.bounders.beta_proof import prove
from verify.bounders.cuts import Cuts
from verify.bounders.domain_walk import settled
from verify.bounders.domains import Domains
from verify.bounders.slopes import Ascent
from verify.graph.ir import Graph
from verify.search.activation_split import ActivationSplit
from verify.search.cutting import Cutting, grown
from verify.search.root import Root
from verify.traverse import evaluate, pull_back, run
from verify.values.budget import Budget
from verify.values.linear_form import LinearForm
from verify.values.result import Verdict


def columns_at(root: Root, graph: Graph, x: Tensor) -> Tensor:
    """Pre-activations of the columns at points, (point, columns)."""
    values = evaluate(graph, x)
    parts = []
    for layer in root.frame.layers:
        whole = values[layer.source].flatten(1)
        alive = root.proof.kept.get(layer.name)
        parts.append(layer.pick(whole if alive is None else whole[:, alive]))
    return torch.cat(parts, dim=1)


def with_cuts(kind: str, seed: int) -> tuple[Root, Domains, Tensor, Tensor, Tensor]:
    """Domains of a net with random cuts and multipliers; samples, where they are, which keep cuts.

    Returns:
        the root, the domains, row values (domain, point), whether a point is in the domain, and
        whether it keeps all cuts that are about the domain's clause.
    """
    graph = FAMILIES[kind](seed)
    case = case_of(graph, seed, 0.3, shift=-100.0)
    root, domains = part_way(graph, case, 2)
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4000, graph.input.size, generator=generator, dtype=torch.float64)
    x = (case.lower + (case.upper - case.lower) * x).view(-1, *graph.input.shape)
    z = columns_at(root, graph, x)
    open_ = root.frame.open().nonzero().flatten()
    count = 6
    sign = torch.zeros(count, root.frame.columns)
    for i in range(count):
        some = open_[torch.randperm(len(open_), generator=generator)[: 2 + i % 3]]
        sign[i, some] = torch.randint(0, 2, (len(some),), generator=generator) * 2.0 - 1.0
    clause = torch.arange(count) % len(case.clauses)
    cuts = Cuts(sign, clause, torch.ones(count, dtype=torch.float64))
    frame = replace(root.frame, cuts=cuts)
    size = float(domains.value.abs().mean())
    cut = size * torch.rand(len(domains), count, generator=generator)
    domains = replace(domains, cut=cut * cuts.about(domains.clause))
    root = replace(root, frame=frame)
    # A cut is broken where all of its signs occur.
    broken = torch.stack([(z[:, s != 0] * s[s != 0] >= 0).all(dim=1) for s in sign])
    keeps = ~(broken[None] & (cuts.about(domains.clause) > 0)[:, :, None]).any(dim=1)
    rows = torch.stack([c.values(run(graph, x))[:, 0] for c in case.clauses])[domains.clause]
    return root, domains, rows, inside(root, graph, domains, x), keeps


@pytest.mark.parametrize("kind", ["relu", "residual", "conv"])
@pytest.mark.parametrize("seed", [1, 2])
def test_bounds_hold_wherever_the_cuts_do(kind: str, seed: int) -> None:
    """With random multipliers of random cuts: no point that keeps the cuts is below the bound."""
    root, domains, rows, held, keeps = with_cuts(kind, seed)
    margin = prove(root.proof, root.frame, root.clauses, domains, root.others)
    least = torch.where(held & keeps, rows, torch.inf).amin(dim=1)
    assert bool((margin <= least + 1e-9).all())
    assert bool(torch.isfinite(margin).all())
    plain = replace(domains, cut=domains.cut[:, :0])
    assert not torch.equal(margin, prove(root.proof, root.frame, root.clauses, plain, root.others))


def test_what_lines_under_cuts_round_is_charged() -> None:
    """The rule that takes a row past a relu charges itself; the walk keeps that."""
    graph = dense_net(1, (3, 4, 2))
    relu = next(node for node in graph.nodes if node.op == "Relu")

    def rule(form: LinearForm) -> LinearForm:
        assert form.error is not None
        return LinearForm(form.coeff, form.const, form.error + 0.5)

    zero = torch.zeros(1, 1, dtype=torch.float64)
    start = LinearForm(torch.ones(1, 1, 2, dtype=torch.float64), zero, zero)
    noise = {node.name: torch.zeros(1, *node.shape).double() for node in graph.nodes}
    sizes = {node.name: torch.ones(1, *node.shape).double() for node in graph.nodes}
    pulled = pull_back(
        graph, graph.output.name, start, {}, noise=noise, sizes=sizes, instead={relu.name: rule}
    )
    assert pulled.error is not None
    assert 0.5 <= float(pulled.error) < 0.5 + 1e-12


def test_a_wrong_cut_is_caught() -> None:
    """What the test above compares with does catch a cut that executions break.

    The cut says that two signs never occur together which every point of the domain has.
    """
    root, domains, rows, held, _ = with_cuts("relu", 1)
    which = int(held.sum(dim=1).argmax())
    one = domains.take(torch.tensor([which]))
    wrong = Cuts(torch.zeros(1, root.frame.columns), one.clause, torch.ones(1))
    wrong.sign.scatter_(1, one.slots.clamp(max=root.frame.columns - 1), one.sign)
    frame = replace(root.frame, cuts=wrong)
    lied = replace(one, cut=torch.full((1, 1), 1e4))
    margin = prove(root.proof, frame, root.clauses, lied, root.others)
    assert bool(held[which].any())
    assert float(margin) > float(rows[which][held[which]].min())


@pytest.mark.parametrize("kind", ["relu", "residual", "conv"])
def test_the_search_and_the_proof_agree_and_gradients_are_differences(kind: str) -> None:
    """The float32 walk has the proof's value, and its slopes those of finite differences."""
    root, domains, *_ = with_cuts(kind, 2)
    frame, single = root.frame, root.clauses.to(torch.float32)
    domains, chords = settled(frame, domains)
    margin = prove(root.proof, frame, root.clauses, domains, root.others)
    walk = walk_of(frame, single, domains, chords)
    size = 1 + margin.abs()
    assert bool(((walk.value.double() - margin).abs() <= 1e-4 * size).all())
    reached, _ = walk.forward()
    cuts = frame.cuts
    assert cuts is not None
    signs = torch.cat([walk.seen[la.name][0] for la in frame.layers], dim=1)
    per_z = torch.cat([walk.seen[la.name][1] for la in frame.layers], dim=1)
    gradient = (signs + per_z * reached) @ cuts.sign.T + cuts.room
    lift = torch.cat([walk.lift[la.name] for la in frame.layers], dim=1) * reached

    def value(moved: Domains) -> Tensor:
        return prove(root.proof, frame, root.clauses, moved, root.others)

    step, good, total = 1e-3 * float(domains.cut.max()), 0, 0
    for k in range(len(cuts)):
        mine = (cuts.clause[k] == domains.clause) & (domains.cut[:, k] > 2 * step)
        shift = torch.zeros_like(domains.cut)
        shift[:, k] = step
        up = value(replace(domains, cut=domains.cut + shift))
        down = value(replace(domains, cut=domains.cut - shift))
        found = (up - down) / (2 * step)
        close = (found - gradient[:, k]).abs() <= 1e-2 * (1 + found.abs())
        good += int((close & mine).sum())
        total += int(mine.sum())
    assert good >= 0.9 * total > 0  # a kink within the step gives another slope
    steep = lift.abs().argmax(dim=1)
    alpha = domains.alpha.clone()
    at = alpha.gather(1, steep[:, None]).clamp(2e-2, 1 - 2e-2)
    ends = [
        value(replace(domains, alpha=alpha.scatter(1, steep[:, None], at + d)))
        for d in (-1e-2, 1e-2)
    ]
    middle = replace(domains, alpha=alpha.scatter(1, steep[:, None], at))
    walk = walk_of(frame, single, *settled(frame, middle))
    reached, _ = walk.forward()
    lift = torch.cat([walk.lift[la.name] for la in frame.layers], dim=1) * reached
    wanted = lift.gather(1, steep[:, None])[:, 0].double()
    close = ((ends[1] - ends[0]) / 2e-2 - wanted).abs() <= 5e-2 * (0.01 + wanted.abs())
    assert int(close.sum()) >= 0.8 * len(close)


@pytest.mark.parametrize("seed", range(4))
def test_verdicts_with_cuts_are_those_of_exact_programs(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near the threshold on both sides, with cuts from the first batch on; some cut is made."""
    graph = dense_net(seed, (4, 12, 12, 3))
    plain = case_of(graph, seed, 0.5)
    least = min(least_worst(graph, plain, clause) for clause in plain.clauses)
    made: list[Cuts] = []

    def watched(base: Root, *rest: Any) -> Root:
        found = grown(base, *rest)
        made.extend([] if found.frame.cuts is None else [found.frame.cuts])
        return found

    monkeypatch.setattr("verify.search.sign_tree.grown", watched)
    for shift, wanted in ((1e-3, Verdict.VERIFIED), (-1e-3, Verdict.FALSIFIED)):
        case = case_of(graph, seed, 0.5, shift=shift - least)
        search = ActivationSplit(
            batch=2, ascent=Ascent(iterations=2), refining=None, cutting=Cutting(first=1)
        )
        outcome = search(graph, case, Judge(graph, case), Budget())
        assert outcome.verdict is wanted
        if wanted is Verdict.VERIFIED:
            assert 0 < outcome.bound <= 1e-3 + 1e-6
    assert made or seed == 3  # its tree is too small for any


def test_cuts_are_kept_by_all_points_that_meet_the_clause() -> None:
    """Cuts of closed domains: no sampled point that meets the clause has all signs of one."""
    graph = FAMILIES["relu"](1)
    case = case_of(graph, 1, 0.3)
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(4000, graph.input.size, generator=generator, dtype=torch.float64)
    x = (case.lower + (case.upper - case.lower) * x).view(-1, *graph.input.shape)
    values = case.clauses[0].values(run(graph, x))[:, 0]
    # The least tenth of the values meets the clause, so that some domains close and some do not.
    case = case_of(graph, 1, 0.3, shift=-float(values.quantile(0.1)))
    root, domains = part_way(graph, case, 5)
    closed = domains.take((domains.value > 1e-3) & (domains.clause == 0))
    assert len(closed)
    cuts = Cutting(shorter=1.0, most=1000, at_once=1000)(root, closed, 1e-4)
    assert cuts is not None
    met = x[case.clauses[0].values(run(graph, x))[:, 0] <= 0]
    z = columns_at(root, graph, met)
    broken = torch.stack([(z[:, s != 0] * s[s != 0] >= 0).all(dim=1) for s in cuts.sign])
    assert not bool(broken.any())
    assert bool((cuts.margin > 0).all())
    # A domain with the signs turned is no cut: the same points break some of them.
    turned = torch.stack([(z[:, s != 0] * -s[s != 0] >= 0).all(dim=1) for s in cuts.sign])
    assert bool(turned.any())
