"""The work of `verify geometric --flow`: fields of displacements, attacked and certified."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from attacks.flows import FlowAttack
from verify.cli import parsing
from verify.cli.geometric import GeometricOptions
from verify.errors import SettingError
from verify.geometric.certify_flow import FlowClaim, certify_flow
from verify.geometric.flows import Flow
from verify.geometric.outcome import GeometricResult
from verify.graph.ir import Graph
from verify.protocols import Judge
from verify.values.budget import Budget
from verify.values.semantics import semantics_of

Given = tuple[Graph, Judge, Tensor, int]
"""A network, its judge, an image and its label."""


def flow_claim(options: GeometricOptions) -> FlowClaim | None:
    """What the command line asks about flows, if anything.

    Raises:
        SettingError: if it cannot be read.
    """
    if options.flow is None:
        if options.smooth is not None:
            raise SettingError("--smooth limits the fields of --flow; give --flow too")
        return None
    if options.attack not in ("auto", "none"):
        raise SettingError(f"--attack is {options.attack!r}; with --flow, expected auto or none")
    if parsing.radius(options.pixel_noise) > 0:
        raise SettingError("--pixel-noise goes with --transform, not with --flow; leave it out")
    delta = parsing.radius(options.flow)
    smooth = None if options.smooth is None else parsing.radius(options.smooth)
    kind = semantics_of(options.semantics)
    return FlowClaim(Flow(delta, smooth), options.method or "auto", options.split, kind)


def certified_flow(
    claim: FlowClaim,
    options: GeometricOptions,
    model: Callable[[Tensor], Tensor],
    given: Given,
    budget: Budget,
    index: int,
) -> GeometricResult:
    """Attack one image, then certify what is left."""
    graph, judge, image, label = given
    known = None
    if options.attack != "none":
        attack = FlowAttack(claim.flow.delta, claim.flow.smooth, seed=options.seed)
        known = attack(model, image, label)
    return certify_flow(
        graph, judge, image, label, claim, budget=budget, index=index, known=known, attack="flow"
    )
