"""Lengthening: without a neuron to split, slopes are optimised for longer and longer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verify.bounders.beta_crown import climb
from verify.search import pacing
from verify.search.outcome import Outcome
from verify.search.root import Root, root_of
from verify.values.result import Verdict

if TYPE_CHECKING:
    from verify.search.sign_tree import SignTree


def lengthened(tree: SignTree, root: Root) -> Outcome:
    """What longer optimisations of the root's slopes say; raises OutOfTime."""
    margin = root.margin
    for factor in pacing.LONGER:
        iterations = factor * tree.how.ascent.iterations
        ascent = replace(
            tree.how.ascent, iterations=iterations, decay=pacing.LAST_RATE ** (1 / iterations)
        )
        known = (tree.graph, tree.case, ascent, tree.budget, None, tree.how.rounding)
        tree.base = again = root_of(*known)
        tree.bounded += len(margin)
        margin = torch.maximum(margin, again.margin)
        tree.proved = float(margin.min())
        tree.witness = corners(tree, again)
        if tree.witness is not None:
            return tree.outcome(Verdict.FALSIFIED)
        if bool((margin > 0).all()):
            tree.cover.close(root, root.domains)
            return tree.outcome(again.worth)
    return tree.outcome(
        Verdict.UNKNOWN, reason="no neuron is left to split; the bounds are too loose"
    )


def corners(tree: SignTree, root: Root) -> Tensor | None:
    """Try the minimisers of the open clauses as inputs."""
    if not len(root.domains):
        return None
    once = replace(tree.how.climb, iterations=1)
    single = root.clauses.to(torch.float32)
    found = climb(root.frame, single, root.domains, tree.slack, once)
    return tree.glance(found, torch.arange(len(root.domains)))
