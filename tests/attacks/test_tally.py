"""Query counts that are added up lazily."""

import torch

from attacks.tally import Tally


def test_counts_are_those_of_adding_up_at_once():
    """Repeats of one tensor, equal tensors, repeated rows and totals in between."""
    generator = torch.Generator().manual_seed(0)
    tally, expected = Tally(torch.ones(5, dtype=torch.int64)), [1] * 5
    for _ in range(20):
        rows = torch.randint(0, 5, (4,), generator=generator)
        for turn in range(3):
            tally.add(rows)
            for row in rows.tolist():
                expected[row] += 1
            if turn == 1:
                assert tally.total().tolist() == expected
    assert tally.total().tolist() == expected
