"""BackwardPass: what CROWN and alpha-CROWN share; node bounds by pulling rows back to the input.

Only entries whose tightening can still help get rows, first on the side that is more likely to
decide them. Rows go in chunks that fit the memory that was granted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from verify.bounders.pruned import pruned
from verify.bounders.rows import Rows, start_form, widest_row
from verify.errors import InternalError
from verify.graph.ir import Graph, Node
from verify.graph.passes import in_single, single_node
from verify.ops.registry import lines_of, lookup, noise_of, undecided_of
from verify.traverse import interval_step, pull_back
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.linear_form import LinearForm
from verify.values.region import Box, Region
from verify.values.relaxation import Relaxation
from verify.values.rounding import Rounding, single_is_single

WORKING_COPIES = 6
"""Tensors of the size of a chunk's coefficients that live at once in a pull-back."""
BOX_TO_BOX = ("ScaleShift", "Reshape", "Transpose", "Pad")
"""Operators under which the image of a box is a box, every entry moving on its own."""
WORTH_SINGLE = 2_500_000
"""Multiplications of one row, from which on those of neurons pass convolutions in float32."""
CHUNK = 64 * 2**20
"""Bytes of one chunk's working set beyond which nothing gets faster: caches and the allocator
prefer small blocks."""


@dataclass(eq=False)
class BackwardPass:
    """Bounds found so far, and the lines and noise they lead to; filled in graph order.

    Attributes:
        graph: the network in the dtype to compute in; dead neurons leave it as they are found.
        region: the inputs, in the same dtype.
        rounding: which executions the bounds must hold for; None for plain arithmetic.
        budget: the deadline that every walk checks, and the memory for one chunk of rows.
        bounds, lines, noise, sizes: per node, as `verify.traverse.pull_back` takes them.
        whole: bounds of nodes before dead neurons left them.
        kept: per Relu that dead neurons left, the indices of the others.
        raw: per node, bounds by rows alone, not intersected with anything: they choose the slopes.
        exact: nodes whose interval bounds are attained, so that no row can tighten them.
        asked: per node, which entries smooth operators have asked rows for, (batch, entries).
        wanted: per node, which entries get rows at all, (entries,); of others, all of them.
        reach: per node that was asked rows, what `widest` found.
        single: whether rows of neurons pass convolutions in float32; the rows that are asked for
            themselves never do.
        dearer: per node, the noise that such rows pay in place of `noise`.
    """

    graph: Graph
    region: Region
    rounding: Rounding | None
    budget: Budget
    bounds: dict[str, Bounds] = field(default_factory=dict)
    lines: dict[str, Relaxation] = field(default_factory=dict)
    noise: dict[str, Tensor] = field(default_factory=dict)
    sizes: dict[str, Tensor] = field(default_factory=dict)
    whole: dict[str, Bounds] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    raw: dict[str, Bounds] = field(default_factory=dict)
    exact: dict[str, int] = field(default_factory=dict)
    asked: dict[str, Tensor] = field(default_factory=dict)
    wanted: dict[str, Tensor] = field(default_factory=dict)
    reach: dict[str, int] = field(default_factory=dict)
    single: bool = False
    dearer: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Enter the input's bounds; raises InternalError for a proof outside float64."""
        if self.rounding is not None:
            self.single = row_products(self.graph) > WORTH_SINGLE and single_is_single()
        if self.rounding is not None and self.graph.dtype != torch.float64:
            raise InternalError(
                f"a rigorous pass was asked for in {self.graph.dtype}; proofs are in float64"
            )
        start = self.graph.input.name
        self.bounds[start] = self.region.bounds()
        if self.region.is_box:
            self.exact[start] = 0
            self.enter()

    def enter(self) -> None:
        """Move the start past operators that map boxes to boxes, such as a normalisation.

        Their image is bounded exactly up to rounding, which it includes; so rows need not be pulled
        back through them.
        """
        while len(self.graph.nodes) > 2:
            first, following, *rest = self.graph.nodes
            alone = all(first.name not in node.inputs for node in rest)
            if not alone or following.op not in BOX_TO_BOX:
                return
            image = interval_step(following, self.rounding, (self.bounds[first.name],))
            self.bounds[following.name] = image
            self.exact[following.name] = 0
            entry = Node(following.name, "Input", (), following.shape)
            self.graph = replace(self.graph, nodes=(entry, *rest))
            self.region = Box(image.lower, image.upper)

    def names(self) -> list[str]:
        """The nodes still to visit, in order."""
        return [node.name for node in self.graph.nodes[1:]]

    def visit(self, name: str, *, lines: bool = True) -> None:
        """Interval bounds and noise of a node whose inputs are done, and its lines if wanted.

        Whatever tightens the inputs' bounds comes before this call.
        """
        node = self.graph.node(name)
        inputs = tuple(self.bounds[i] for i in node.inputs)
        if lines:
            self.choose(name)
        if self.rounding is not None:
            for source, bounds in zip(node.inputs, inputs, strict=True):
                self.sizes[source] = bounds.magnitude()
            noise = noise_of(node, self.rounding, self.graph.dtype, inputs)
            if noise is not None:
                self.noise[name] = noise
            quick = single_node(node) if self.single else node
            dearer = noise_of(quick, self.rounding, self.graph.dtype, inputs)
            if quick is not node and dearer is not None:
                self.dearer[name] = dearer
        self.bounds[name] = interval_step(node, self.rounding, inputs)
        self.mark_exact(node)

    def choose(self, name: str) -> None:
        """The lines of a node, if it is a nonlinear one; its bounds may be told by another pass."""
        node = self.graph.node(name)
        if lookup(node).relax is not None:
            self.choose_lines(node)

    def choose_lines(self, node: Node) -> None:
        """The lines of smallest area; of a two-piece function by what its rows alone showed.

        Slopes chosen by the rows' bounds keep the method comparable: intersecting bounds can then
        only help, while it could turn a slope the wrong way if it chose slopes too.
        """
        op, source = lookup(node), node.inputs[0]
        alpha = None
        if op.free == 1 and op.initial is not None and source in self.raw:
            alpha = op.initial(node, self.raw[source])
        self.lines[node.name] = lines_of(node, self.inputs_of(node), alpha)

    def inputs_of(self, node: Node) -> tuple[Bounds, ...]:
        """The bounds of a node's inputs."""
        return tuple(self.bounds[name] for name in node.inputs)

    def mark_exact(self, node: Node) -> None:
        """Interval bounds stay exact over a box through at most one mixing operator."""
        if len(node.inputs) != 1 or node.inputs[0] not in self.exact:
            return
        mixed = self.exact[node.inputs[0]] + int(lookup(node).mixes)
        # An elementwise function of one attained interval attains its image's ends.
        if mixed <= 1:
            self.exact[node.name] = mixed

    def dead(self, name: str) -> Tensor | None:
        """The neurons of a Relu that may be positive in some of the batch, if fewer than all."""
        node = self.graph.node(name)
        if node.op != "Relu" or len(node.shape) != 1:
            return None
        # NaN counts as alive: what is not known is kept.
        alive = ~(self.bounds[node.inputs[0]].upper <= 0).all(dim=0)
        return alive.nonzero().flatten()

    def prune(self, name: str, alive: Tensor | None) -> None:
        """Let the other neurons of a Relu leave the network, where its layers are dense."""
        if alive is None:
            return
        node = self.graph.node(name)
        smaller = pruned(self.graph, node, alive)
        if smaller is None:
            return
        self.graph = smaller
        self.kept[name] = alive
        for kept in (node.inputs[0], name):
            self.whole[kept] = self.bounds[kept]
            self.bounds[kept] = columns(self.bounds[kept], alive)
            for table in (self.noise, self.sizes, self.dearer):
                if kept in table:
                    table[kept] = table[kept][:, alive]
        if node.inputs[0] in self.raw:
            self.raw[node.inputs[0]] = columns(self.raw[node.inputs[0]], alive)
        if name in self.lines:
            self.choose_lines(self.graph.node(name))

    def undecided(self, name: str, position: int = 0) -> Tensor | None:
        """Mask (batch, entries) of a nonlinear node's input entries worth a row, or None.

        Args:
            name: of the node.
            position: which of its inputs.
        """
        node = self.graph.node(name)
        if node.inputs[position] in self.exact:
            return None
        found = undecided_of(node, self.inputs_of(node), position)
        if found is None:
            return None
        mask = found.flatten(1)
        if node.inputs[position] in self.wanted:
            mask = mask & self.wanted[node.inputs[position]]
        return mask if bool(mask.any()) else None

    def unasked(self, name: str, mask: Tensor) -> Tensor | None:
        """The masked entries of a node that no smooth reader has asked for yet, or None.

        Whoever else reads them would get the same rows, by the same lines.
        """
        before = self.asked.get(name)
        fresh = mask if before is None else mask & ~before
        self.asked[name] = mask if before is None else mask | before
        return fresh if bool(fresh.any()) else None

    def rows_of(self, name: str, mask: Tensor) -> Rows:
        """Rows for masked entries of a node, each on the side likelier to settle its sign."""
        count = int(mask.sum(dim=1).max())
        if len(mask) == 1:
            index = mask[0].nonzero().flatten()[None]
        else:
            # Entries with fewer of them are filled up with decided ones.
            order = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
            index = order[:, :count]
        bounds = self.bounds[name]
        middle = (bounds.lower + bounds.upper).flatten(1).gather(1, index)
        return Rows(index, torch.where(middle > 0, 1.0, -1.0).to(middle.dtype))

    def chunks(
        self, rows: Rows, copies: int = WORKING_COPIES, widest: int | None = None
    ) -> Iterator[Rows]:
        """The rows in pieces whose coefficients fit the memory; `widest` of them to a row."""
        if widest is None:
            widest = max(node.size for node in self.graph.nodes)
        width = torch.finfo(self.graph.dtype).bits // 8
        per_row = len(rows.index) * widest * width * copies
        count = max(1, min(self.budget.memory, CHUNK) // per_row)
        for part in range(0, rows.index.shape[1], count):
            yield rows.part(part, part + count)

    def widest(self, name: str) -> int:
        """The most coefficients that a row of a node has on its way: see `widest_row`."""
        if name not in self.reach:
            self.reach[name] = widest_row(self.graph, name)
        return self.reach[name]

    def pulled(
        self,
        start: str,
        form: LinearForm,
        lines: dict[str, Relaxation] | None = None,
        record: dict[str, Tensor] | None = None,
        graph: Graph | None = None,
        *,
        neurons: bool = False,
    ) -> LinearForm:
        """The form at the input, by this pass's lines or by others; raises OutOfTime.

        Args:
            start: the node that the form is over.
            form: the rows.
            lines: of each nonlinear node; by default this pass's.
            record: see `verify.traverse.pull_back`.
            graph: a part of the network to walk instead of all of it.
            neurons: whether the rows are of neurons, and may be pulled in float32: see `single`.
        """
        self.budget.check()
        walked = self.graph if graph is None else graph
        noise = None if self.rounding is None else self.noise
        if noise is not None and neurons and self.single:
            walked, noise = in_single(walked), {**noise, **self.dearer}
        return pull_back(
            walked,
            start,
            form,
            self.lines if lines is None else lines,
            noise=noise,
            sizes=self.sizes,
            record=record,
            check=self.budget.check,
            into_box=self.region.is_box
            and (graph is None or graph.input.name == self.graph.input.name),
        )

    def form_of(self, name: str, rows: Rows) -> tuple[str, LinearForm]:
        """The rows as a form, and the node it is over."""
        noise = None if self.rounding is None else self.noise.get(name)
        return start_form(self.graph, name, rows, noise, rigorous=self.rounding is not None)

    def least(self, name: str, rows: Rows, *, sign_decides: bool = False) -> Tensor:
        """Lower bounds of the rows, shape (batch, row), with the lines of this pass.

        Args:
            name: of the node that the rows are of.
            rows: which entries, on which side.
            sign_decides: whether a row that is known to be >= 0 needs no better bound. Then rows
                are first minimised over the box of the first layer's outputs, and only those that
                are still open go on through that layer, which is the dearest one.
        """
        start, form = self.form_of(name, rows)
        gate = self.gate(start) if sign_decides and len(rows.index) == 1 else None
        if gate is None:
            return self.region.minimise(self.pulled(start, form, neurons=True))
        place = self.names().index(gate) + 1
        nodes = self.graph.nodes
        entry = Node(gate, "Input", (), nodes[place].shape)
        above = replace(self.graph, nodes=(entry, *nodes[place + 1 :]))
        below = replace(self.graph, nodes=nodes[: place + 1])
        reached = self.pulled(start, form, graph=above, neurons=True)
        bounds = self.bounds[gate]
        least = Box(bounds.lower, bounds.upper).minimise(reached)
        # NaN stays open.
        open_ = (~(least[0] >= 0)).nonzero().flatten()
        if len(open_):
            further = self.pulled(gate, reached.take(open_), graph=below, neurons=True)
            rest = self.region.minimise(further)
            least[:, open_] = torch.maximum(least[:, open_], rest)
        return least

    def gate(self, start: str) -> str | None:
        """The first layer, if it is a convolution and all that reads the input; else None."""
        if len(self.graph.nodes) < 3 or not self.region.is_box:
            return None
        first, second, *rest = self.graph.nodes
        alone = all(first.name not in node.inputs for node in rest)
        if second.op != "Conv" or not alone or start in (first.name, second.name):
            return None
        return second.name

    def tighten(self, name: str, rows: Rows, least: Tensor) -> None:
        """Take over what was found for rows: sign · entry >= least."""
        if name not in self.raw:
            self.raw[name] = self.bounds[name]
        self.raw[name] = replaced(self.raw[name], rows, least, keep=False)
        self.bounds[name] = replaced(self.bounds[name], rows, least, keep=True)

    def all_bounds(self) -> dict[str, Bounds]:
        """The bounds of all nodes of the original network."""
        return {**self.bounds, **self.whole}

    def spec_form(self, coeff: Tensor, const: Tensor) -> tuple[str, LinearForm]:
        """The spec's rows as a form over the output node."""
        output = self.graph.output
        rows = coeff.view(*coeff.shape[:2], *output.shape)
        error = None if self.rounding is None else torch.zeros_like(const)
        return output.name, LinearForm(rows, const, error)


def row_products(graph: Graph) -> int:
    """Multiplications that a dense row takes through the convolutions of a network."""
    return sum(
        node.tensors["weight"].numel() * (node.size // node.tensors["weight"].shape[0])
        for node in graph.nodes
        if node.op == "Conv"
    )


def columns(bounds: Bounds, index: Tensor) -> Bounds:
    """Bounds of some entries of a flat node."""
    return Bounds(bounds.lower[:, index], bounds.upper[:, index])


def replaced(old: Bounds, rows: Rows, least: Tensor, *, keep: bool) -> Bounds:
    """Bounds with the rows' entries moved to what was found, or to the tighter of the two."""
    lower, upper = old.lower.flatten(1), old.upper.flatten(1)
    before_low, before_high = lower.gather(1, rows.index), upper.gather(1, rows.index)
    below = rows.sign > 0
    new_low = torch.maximum(before_low, least) if keep else least
    new_high = torch.minimum(before_high, -least) if keep else -least
    new_low = torch.where(below, new_low, before_low)
    new_high = torch.where(below, before_high, new_high)
    return Bounds(
        lower.scatter(1, rows.index, new_low).view_as(old.lower),
        upper.scatter(1, rows.index, new_high).view_as(old.upper),
    )
