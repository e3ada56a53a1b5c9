"""A question about a label as a VNN-LIB property, with every number written exactly.

A certificate is about two files, so the neighbourhood of an input has to be one of them.
"""

from __future__ import annotations

from decimal import Decimal

from torch import Tensor


def exact(value: float) -> str:
    """The decimal expansion of a float64, which is finite."""
    return f"{Decimal(value):f}"


def label_property(lower: Tensor, upper: Tensor, label: int, classes: int, about: str) -> str:
    """No input of the box gives another output at least as large as the label's.

    Args:
        lower, upper: of the box, flat, float64.
        label: the class that must hold.
        classes: how many outputs there are.
        about: one line for people.
    """
    low, high = lower.flatten().tolist(), upper.flatten().tolist()
    lines = [f"; {line}" for line in about.splitlines()]
    lines += [f"(declare-const X_{i} Real)" for i in range(len(low))]
    lines += [f"(declare-const Y_{j} Real)" for j in range(classes)]
    for i, (least, most) in enumerate(zip(low, high, strict=True)):
        lines.append(f"(assert (>= X_{i} {exact(least)}))")
        lines.append(f"(assert (<= X_{i} {exact(most)}))")
    others = [j for j in range(classes) if j != label]
    terms = "".join(f"\n  (and (>= Y_{j} Y_{label}))" for j in others)
    lines.append(f"(assert (or{terms}\n))")
    return "\n".join(lines) + "\n"
