"""Properties: what counts as unsafe, and what a spec makes of clauses."""

import pytest
import torch

from verify.errors import ShapeError
from verify.values.property import Case, Halfspaces
from verify.values.spec import Spec


def halfspaces(rows: list[list[float]], const: list[float], strict: bool = False) -> Halfspaces:
    return Halfspaces(
        torch.tensor(rows, dtype=torch.float64),
        torch.tensor(const, dtype=torch.float64),
        torch.full((len(rows),), strict),
    )


def test_the_border_belongs_to_a_halfspace_unless_it_is_strict() -> None:
    """x - 1 <= 0 holds at 1; x - 1 < 0 does not, and neither holds of NaN."""
    points = torch.tensor([[1.0], [0.5], [1.5], [float("nan")]])
    loose = halfspaces([[1.0]], [-1.0])
    strict = halfspaces([[1.0]], [-1.0], strict=True)
    assert loose.contain(points).tolist() == [True, True, False, False]
    assert strict.contain(points).tolist() == [False, True, False, False]


def test_a_clause_is_worth_its_best_row_and_a_spec_its_worst_clause() -> None:
    """min over clauses of max over rows; without clauses every row counts; NaN proves nothing."""
    clauses = (halfspaces([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), halfspaces([[1.0, 1.0]], [-4.0]))
    none = halfspaces([], [])
    case = Case(torch.zeros(2), torch.ones(2), none, clauses)
    margins = torch.tensor([[-3.0, 2.0, 1.0], [5.0, -1.0, -2.0], [float("nan"), 1.0, 3.0]])
    assert case.spec().least(margins).tolist() == [1.0, -2.0, 1.0]
    every = Spec(torch.zeros(3, 3, 2), torch.zeros(3, 3))
    assert every.least(margins).tolist() == [-3.0, -2.0, -torch.inf]


def test_an_output_is_unsafe_exactly_where_the_spec_of_its_case_is_not_positive() -> None:
    """The two readings of a clause agree at random outputs."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    const = torch.randn(5, generator=generator, dtype=torch.float64)
    clauses = tuple(
        Halfspaces(rows[part], const[part], torch.zeros(len(rows[part]), dtype=torch.bool))
        for part in (slice(0, 2), slice(2, 5))
    )
    case = Case(torch.zeros(1), torch.ones(1), halfspaces([], []), clauses)
    points = torch.randn(500, 3, generator=generator, dtype=torch.float64)
    unsafe = torch.stack([clause.contain(points) for clause in clauses]).any(dim=0)
    spec = case.spec()
    whole = Spec(spec.coeff.expand(500, -1, -1), spec.const.expand(500, -1), clause=spec.clause)
    assert torch.equal(unsafe, ~(whole.least(whole.margins(points)) > 0))
    assert 0 < int(unsafe.sum()) < 500


def test_rows_of_different_lengths_are_refused() -> None:
    """A constant too few is a mistake of the reader, not a shorter constraint."""
    with pytest.raises(ShapeError, match="one each a row"):
        Halfspaces(torch.zeros(2, 1), torch.zeros(1), torch.zeros(2, dtype=torch.bool))
