"""Safe: dual values of a linear program as rigorous bounds, batches of domains at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from verify.bounders.lp import Program, Vector
from verify.bounders.multipliers import Ledger
from verify.bounders.simplex import Domain
from verify.values.bounds import Bounds
from verify.values.linear_form import LinearForm
from verify.values.region import Box
from verify.values.rounding import UNIT_FLOAT64, gamma


@dataclass(frozen=True, slots=True, eq=False)
class Prover:
    """Turns what HiGHS proposes into bounds that hold for every float32 execution.

    Attributes:
        ledger: of the program's graph.
        program: whose rows the dual values belong to.
        coeff, const: rows over the output, shapes (row, *out) and (row,).
        inputs: the linear input constraints g·x + h <= 0, as the program was given them.
    """

    ledger: Ledger
    program: Program
    coeff: Tensor
    const: Tensor
    inputs: tuple[Tensor, Tensor] | None = None

    def prove(
        self, domains: Sequence[Domain], duals: Sequence[Vector], weights: Tensor | None = None
    ) -> Tensor:
        """Lower bounds of weights·rows where every input constraint holds, shape (domain,).

        With weights >= 0 that sum to 1, a positive bound shows that the rows are never all <= 0;
        with any weights >= 0 it shows that too, and with none at all that the domain is empty.

        Args:
            domains: assumptions on open neurons.
            duals: of the program's rows, one vector per domain; any finite numbers are sound.
            weights: of the output rows, shape (domain, row), >= 0; by default those that the dual
                values give.
        """
        form = self.plane(domains, duals, weights)
        box = self.ledger.bounds[self.ledger.graph.input.name]
        return Box(box.lower, box.upper).minimise(form)[:, 0]

    def plane(
        self,
        domains: Sequence[Domain],
        duals: Sequence[Vector],
        weights: Tensor | None = None,
        arrived: dict[str, Tensor] | None = None,
    ) -> LinearForm:
        """The linear function of the input behind `prove`, (domain, 1, *input).

        `arrived`, if given, takes the coefficients over each kinked node's output.
        """
        values = torch.from_numpy(np.stack(duals))
        if weights is None:
            weights = self.weights(values)
        start = self.start(weights)
        nu, tighter = self.multipliers(values), self.tighter(domains)
        form = self.ledger.pull(self.ledger.graph.output.name, start, nu, tighter, arrived)
        return self.with_inputs(form, values)

    def weights(self, values: Tensor) -> Tensor:
        """What the dual values weigh the output rows with; 1 where there is only one."""
        first = self.program.first_unsafe
        if first is None:
            return torch.ones(len(values), 1, dtype=torch.float64)
        return (-values[:, first : first + len(self.coeff)]).clamp(min=0)

    def start(self, weights: Tensor) -> LinearForm:
        """The weighted rows over the output, with the rounding of the weighting."""
        shape = self.ledger.graph.output.shape
        flat = self.coeff.flatten(1)
        size = self.ledger.sizes[self.ledger.graph.output.name].flatten()
        moved = weights @ flat.abs() @ size + weights @ self.const.abs()
        charge = gamma(2 * len(flat) + 4, UNIT_FLOAT64) * moved
        coeff = (weights @ flat).view(len(weights), 1, *shape)
        return LinearForm(coeff, (weights @ self.const)[:, None], charge[:, None])

    def multipliers(self, values: Tensor) -> dict[str, Tensor]:
        """The dual values of the rows that define an open z, laid out as the nodes are."""
        found = {}
        for layer in self.program.layers:
            node = self.ledger.graph.node(layer.name)
            nu = torch.full((len(values), node.size), torch.nan, dtype=torch.float64)
            rows = torch.from_numpy(layer.first_row + layer.open_)
            nu[:, torch.from_numpy(layer.kept[layer.open_])] = values[:, rows]
            found[layer.name] = nu.view(len(values), 1, *node.shape)
        return found

    def tighter(self, domains: Sequence[Domain]) -> dict[str, Bounds]:
        """Bounds of z in each domain."""
        lower = torch.from_numpy(np.stack([domain.lower for domain in domains]))
        upper = torch.from_numpy(np.stack([domain.upper for domain in domains]))
        found, first = {}, 0
        for layer in self.program.layers:
            whole = self.ledger.bounds[layer.source]
            index = torch.from_numpy(layer.kept[layer.open_])
            last = first + len(index)
            low = whole.lower.flatten(1).repeat(len(domains), 1)
            high = whole.upper.flatten(1).repeat(len(domains), 1)
            low[:, index], high[:, index] = lower[:, first:last], upper[:, first:last]
            shape = (len(domains), *whole.lower.shape[1:])
            found[layer.source] = Bounds(low.view(shape), high.view(shape))
            first = last
        return found

    def with_inputs(self, form: LinearForm, values: Tensor) -> LinearForm:
        """The form plus multiples of the input constraints, which are <= 0 where they hold."""
        if self.inputs is None or not len(self.inputs[1]):
            return form
        rows, const = self.inputs
        first = self.program.first_input
        weights = (-values[:, first : first + len(const)]).clamp(min=0)
        size = self.ledger.sizes[self.ledger.graph.input.name].flatten()
        coeff = form.coeff + (weights @ rows).view(form.coeff.shape)
        shift = form.const + (weights @ const)[:, None]
        moved = weights @ rows.abs() @ size + weights @ const.abs()
        whole = form.coeff.flatten(1).abs() @ size + form.const.abs()[:, 0]
        charge = gamma(2 * len(const) + 8, UNIT_FLOAT64) * (moved + whole)
        assert form.error is not None
        return LinearForm(coeff, shift, form.error + charge[:, None])
