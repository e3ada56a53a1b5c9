"""The rigorous value of a domain: what the search found, evaluated once in float64.

A split is on the executed pre-activation z: any float32 execution has z >= 0 or z <= 0, so two
children cover their parent. The term -beta·s·z is over the executed z too; what its rounding costs
is charged below, where the form passes the node that computes z.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from verify.bounders.backward import BackwardPass
from verify.bounders.beta_crown import Clauses, start_of
from verify.bounders.cuts import through_step
from verify.bounders.domains import Domains, Frame, Layer, bounds_under
from verify.ops.registry import lookup
from verify.traverse import pull_back
from verify.values.linear_form import LinearForm
from verify.values.relaxation import Relaxation
from verify.values.rounding import gamma, unit


def prove(
    proof: BackwardPass,
    frame: Frame,
    clauses: Clauses,
    domains: Domains,
    others: dict[str, Relaxation],
) -> Tensor:
    """Lower bounds of the domains' weighted rows that hold for every float32 execution; (batch,).

    Where one is > 0, no execution inside the domain meets its clause: all its rows <= 0 would make
    their sum with weights >= 0 no more than 0.

    Args:
        proof: a rigorous pass that has visited every node of the frame's network.
        frame: the columns of the domains.
        clauses: float64.
        domains: what the search proposes.
        others: lines of nonlinear nodes that are no Relu, rigorous.
    """
    return proof.region.minimise(planes(proof, frame, clauses, domains, others))[:, 0]


def planes(
    proof: BackwardPass,
    frame: Frame,
    clauses: Clauses,
    domains: Domains,
    others: dict[str, Relaxation],
) -> LinearForm:
    """The linear functions of the input behind `prove`, (batch, 1, *input).

    Each lies below its weighted rows for every execution inside its domain, all over the region of
    the pass, and so over any part of it.
    """
    lines = dict(others)
    added: dict[str, LinearForm] = {}
    for layer in frame.layers:
        lines[layer.name] = lines_of(proof, layer, domains)
        pushed = multipliers(layer, domains)
        if pushed is not None:
            zero = pushed.new_zeros(len(domains), 1)
            error = zero
            if bool(((domains.slots == domains.target[:, None]) & (domains.sign != 0)).any()):
                # A target that is split, too: its coefficient is a sum of two, rounded once.
                size = proof.bounds[layer.source].magnitude().flatten(1)
                error = (pushed.flatten(1).abs() * size).sum(dim=1, keepdim=True)
                error = error * (4 * unit(torch.float64))
            added[layer.source] = LinearForm(pushed[:, None], zero, error)
    output = proof.graph.output
    start = start_of(frame, domains).name
    form = weighted_rows(proof, clauses, domains)
    if start != output.name:
        zero = torch.zeros_like(form.const)
        shape = (len(domains), 1, *proof.graph.node(start).shape)
        form = LinearForm(form.coeff.new_zeros(shape), zero, zero)
    instead: dict[str, Callable[[LinearForm], LinearForm]] = {}
    if frame.cuts is not None and start == output.name and bool(domains.cut.any()):
        form, instead = with_cuts(proof, frame, domains, form)
    sizes = {**proof.sizes, output.name: proof.bounds[output.name].magnitude()}
    return pull_back(
        proof.graph,
        start,
        form,
        lines,
        noise=proof.noise,
        sizes=sizes,
        added=added,
        instead=instead,
    )


def lines_of(proof: BackwardPass, layer: Layer, domains: Domains) -> Relaxation:
    """The relu's lines under each domain's splits, with its slopes."""
    node = proof.graph.node(layer.name)
    relax = lookup(node).relax
    assert relax is not None
    bounds = bounds_under(proof.bounds[layer.source], layer, domains)
    alpha = layer.laid(layer.of(domains.alpha.to(torch.float64)))
    return relax(node, bounds, alpha.view(1, len(domains), 1, *layer.shape))


def multipliers(layer: Layer, domains: Domains) -> Tensor | None:
    """-beta·s, and push at targets, over the layer's pre-activations; None where all are 0."""
    here = (domains.slots >= layer.first) & (domains.slots < layer.last)
    push = torch.where(here, -domains.beta * domains.sign, 0.0).to(torch.float64)
    aimed = (domains.target >= layer.first) & (domains.target < layer.last)
    aim = torch.where(aimed, domains.push, 0.0).to(torch.float64)
    if not bool(push.any()) and not bool(aim.any()):
        return None
    wide = push.new_zeros(len(domains), layer.last - layer.first)
    column = (domains.slots - layer.first).clamp(0, layer.last - layer.first - 1)
    # Slots of other layers add an exact 0 and a neuron is split once: only a target that is split
    # as well, in a tree below it, has a sum that is rounded, for which `prove` pays.
    wide.scatter_add_(1, column, push)
    target = (domains.target - layer.first).clamp(0, layer.last - layer.first - 1)
    wide.scatter_add_(1, target[:, None], aim[:, None])
    return layer.laid(wide).view(len(domains), *layer.shape)


def with_cuts(
    proof: BackwardPass, frame: Frame, domains: Domains, form: LinearForm
) -> tuple[LinearForm, dict[str, Callable[[LinearForm], LinearForm]]]:
    """The rows with the constants of the domains' cuts, and each relu's rule with its steps.

    A cut is used for executions that meet its own clause only, in the frame whose bounds and splits
    proved it. Its neurons' coefficients are sums of float32 numbers in float64; what that rounds is
    charged with the constant, since no v is more than 1.
    """
    cuts = frame.cuts
    assert cuts is not None
    count = domains.cut.shape[1]
    used = (domains.cut * cuts.about(domains.clause)[:, :count]).clamp(min=0).to(torch.float64)
    step = used @ cuts.sign[:count].to(torch.float64)
    room = used @ cuts.room[:count].to(torch.float64)
    literals = cuts.literals[:count].to(torch.float64)
    charge = 2 * gamma(count + 4, unit(torch.float64)) * (used @ (literals + 1))
    assert form.error is not None
    form = LinearForm(form.coeff, form.const + room[:, None], form.error + charge[:, None])
    instead: dict[str, Callable[[LinearForm], LinearForm]] = {}
    for layer in frame.layers:
        instead[layer.name] = partial(
            through_step,
            step=layer.laid(layer.of(step)).view(len(domains), *layer.shape),
            alpha=layer.laid(layer.of(domains.alpha.to(torch.float64))).view(-1, *layer.shape),
            bounds=bounds_under(proof.bounds[layer.source], layer, domains),
            node=proof.graph.node(layer.name),
        )
    return form, instead


def weighted_rows(proof: BackwardPass, clauses: Clauses, domains: Domains) -> LinearForm:
    """sum weight·row, with what the sum's rounding may cost; (batch, 1, *output)."""
    output = proof.graph.output
    weight = domains.weight.to(torch.float64)[:, None]
    coeff, const = clauses.coeff[domains.clause], clauses.const[domains.clause][:, :, None]
    rows = torch.bmm(weight, coeff)
    total = torch.bmm(weight, const)[:, :, 0]
    error = torch.zeros_like(total)
    if coeff.shape[1] > 1 or bool((weight != 1).any()):
        size = proof.bounds[output.name].magnitude().flatten(1)[:, :, None]
        terms = torch.bmm(weight, coeff.abs()) @ size
        terms = terms[:, :, 0] + torch.bmm(weight, const.abs())[:, :, 0]
        error = terms * (2 * (coeff.shape[1] + 2) * unit(torch.float64))
    return LinearForm(rows.view(len(domains), 1, *output.shape), total, error)
