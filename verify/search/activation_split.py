"""ActivationSplit: branch and bound over the signs of pre-activations, batched.

Two levels. Below a *base*, thousands of domains are split and bounded by one backward walk each,
with the base's bounds inherited. A base that takes long is divided: into its clauses, later by a
split; each part's neurons are bounded anew, at the cost of thousands of domains.
"""

from __future__ import annotations

from dataclasses import dataclass

from verify.bounders.beta_crown import Climb
from verify.bounders.memo import Memo
from verify.bounders.refining import Refining
from verify.bounders.slopes import Ascent
from verify.branchers.filtered import Filtered
from verify.graph.ir import Graph
from verify.search.cutting import Cutting
from verify.search.outcome import Outcome, Refuter, Watcher
from verify.search.recorder import Recorder
from verify.search.sign_tree import SignTree
from verify.values.budget import Budget, OutOfTime
from verify.values.property import Case
from verify.values.result import Verdict
from verify.values.rounding import FLOAT32, Rounding


@dataclass(frozen=True, slots=True)
class ActivationSplit:
    """Split neurons until every part is proved or a counterexample is met.

    Attributes:
        ascent: how slopes are optimised at the root.
        climb: how each batch of domains is.
        filtered: how the neuron to split is chosen.
        refining: how a base's neurons are bounded anew; None never to do so.
        cutting: how closed domains become cuts for the others; None never to do so.
        batch: domains split at once; None to choose by the network's size.
        recorder: is told what proves what.
        memo: given the slopes that bounded the root's neurons; for certificates.
        rounding: which executions a proof is to hold for.
    """

    ascent: Ascent = Ascent()
    climb: Climb = Climb(iterations=5)
    filtered: Filtered = Filtered()
    refining: Refining | None = Refining()
    cutting: Cutting | None = None
    batch: int | None = None
    recorder: Recorder | None = None
    memo: Memo | None = None
    rounding: Rounding = FLOAT32

    def __call__(
        self,
        graph: Graph,
        case: Case,
        refute: Refuter | None,
        budget: Budget,
        watch: Watcher | None = None,
    ) -> Outcome:
        """The verdict within the budget."""
        tree = SignTree(self, graph, case, refute, budget, watch)
        try:
            return tree.run()
        except OutOfTime as error:
            return tree.outcome(Verdict.UNKNOWN, reason=str(error))
