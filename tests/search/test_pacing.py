"""Pacing: what is left of a search is told from what its open bounds lack; parts are shared out."""

from __future__ import annotations

import pytest
import torch

from verify.bounders.crew import ALONE, Crew
from verify.search.pacing import remaining


@pytest.mark.parametrize("rate", [3.0, 8.0])
def test_what_is_left_of_an_exponential_tree_is_found(rate: float) -> None:
    """Where subtrees have exp(rate · gap) domains, the estimate is their sum over what was done."""
    top, waiting = torch.tensor([1.0, 0.8]), torch.tensor([0.7, 0.5, 0.1, 0.0])
    left = float(torch.exp(rate * waiting.double()).sum())
    done = float(torch.exp(rate * top.double()).sum()) - left
    assert remaining(top, waiting, round(done)) == pytest.approx(left / done, rel=0.05)
    assert remaining(top * 7, waiting * 7, round(done)) == pytest.approx(left / done, rel=0.05)


def test_nothing_waits_and_nothing_gained() -> None:
    """An empty pool leaves nothing; a pool as bad as the start promises no end."""
    none = torch.zeros(0)
    assert remaining(torch.tensor([1.0]), none, 10) == 0.0
    assert remaining(torch.tensor([1.0]), torch.ones(4), 10) > 1e6
    assert remaining(torch.tensor([0.0]), torch.ones(4), 10) == float("inf")


def test_a_crew_keeps_the_order_the_threads_and_the_errors() -> None:
    """Results come in the order of the parts, torch has its threads back, an error is met."""
    threads = torch.get_num_threads()
    with Crew(2) as crew:
        shares = crew.shares(torch.arange(9))
        assert [len(part) for part in shares] == [5, 4]
        assert crew.each(lambda part: int(part.sum()), shares) == [10, 26]
        with pytest.raises(ZeroDivisionError):
            crew.each(lambda part: 1 // part, [1, 0, 2])
    assert torch.get_num_threads() == threads
    assert [len(part) for part in ALONE.shares(torch.arange(9))] == [9]
    assert crew.shares(torch.arange(0)) == []
