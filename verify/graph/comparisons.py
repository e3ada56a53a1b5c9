"""Which of two is larger, as the sign of their difference: its rows are bounded, not both of them.

A segmentation network ends in an argmax over two classes. Bounds of each class say less than bounds
of the difference, in which what moves both cancels.
"""

from __future__ import annotations

import torch

from verify.graph.ir import Node
from verify.values.rounding import FOLDED_STRETCH, SMALLEST_FLOAT32
from verify.values.spec import SOFTMAX_GAP

FLUSHED = SMALLEST_FLOAT32 * FOLDED_STRETCH
"""Numbers this near may compare as equal where denormals are flushed."""


def compare_two(nodes: list[Node]) -> list[Node]:
    """Argmax over two entries as a comparison of their difference with 0; others are left.

    A softmax below it is passed over: it keeps the order of what is `SOFTMAX_GAP` apart.
    """
    known = {node.name: node for node in nodes}
    found: list[Node] = []
    for node in nodes:
        if node.op != "ArgMax" or node.input_shapes[0][node.scalar("axis")] != 2:
            found.append(node)
            continue
        source, axis, order, gap = compared(known, node)
        found += difference(source, axis, order, gap, node)
    return found


def compared(known: dict[str, Node], node: Node) -> tuple[Node, int, tuple[int, ...], float]:
    """What an argmax compares: the node below softmax and transpositions that holds both, and along
    which of its axes; how its axes are laid for the argmax; how far apart the two must be.
    """
    axis, gap = node.scalar("axis"), FLUSHED
    order = tuple(range(len(node.input_shapes[0])))
    source = known[node.inputs[0]]
    while True:
        if source.op == "Transpose":
            perm = source.settings["perm"]
            order, axis = tuple(perm[i] for i in order), perm[axis]
        elif source.op == "Softmax" and axis == len(source.shape) - 1 and gap == FLUSHED:
            gap = SOFTMAX_GAP
        else:
            return source, axis, order, gap
        source = known[source.inputs[0]]


def difference(
    source: Node, axis: int, order: tuple[int, ...], gap: float, node: Node
) -> list[Node]:
    """The second entry less the first, compared with 0, in the shape of the argmax."""
    shape = tuple(1 if i == axis else n for i, n in enumerate(source.shape))
    name = f"{node.name}/difference"
    if axis == 0 and len(shape) == 3:
        # As a convolution, whose rows stay patches.
        tensors = {
            "weight": torch.tensor([-1.0, 1.0], dtype=torch.float64).view(1, 2, 1, 1),
            "bias": torch.zeros(1, dtype=torch.float64),
        }
        settings = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": (1,)}
        made = [Node(name, "Conv", (source.name,), shape, (source.shape,), tensors, settings)]
    else:
        parts = [
            Node(
                f"{name}{i}",
                "Select",
                (source.name,),
                shape,
                (source.shape,),
                {"index": torch.tensor([i])},
                {"axis": (axis,)},
            )
            for i in (1, 0)
        ]
        both = tuple(part.name for part in parts)
        made = [*parts, Node(name, "Add", both, shape, (shape, shape), {}, {"signs": (1, -1)})]
    level = {"gap": torch.tensor(gap, dtype=torch.float64)}
    made.append(Node(f"{name}/exceeds", "Exceeds", (name,), shape, (shape,), level))
    laid = tuple(shape[i] for i in order)
    moved = Node(f"{name}/laid", "Transpose", (made[-1].name,), laid, (shape,), {}, {"perm": order})
    last = Node(node.name, "Reshape", (moved.name,), node.shape, (laid,))
    return [*made, moved, last]
