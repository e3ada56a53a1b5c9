"""read_module refuses in words what it cannot read: which node, which operator, what to do."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import verify
from verify.errors import MismatchError, ModelError, SettingError, UnsupportedOperator
from verify.readers.pytorch import read_module


class Forward(nn.Module):
    """A module whose forward is a function of the input."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


# name -> (forward of inputs of shape (batch, 6), what the message must name)
UNSUPPORTED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "an operator without a rule": (torch.erfinv, "aten.erfinv"),
    "an odd power": (lambda x: x**1.5, "exponent 1.5"),
    "a sum over the batch": (lambda x: x - x.mean(0), "mixes samples"),
    "a sum over everything": (lambda x: x - x.sum(), "mixes samples"),
    "a transposed batch": (lambda x: x.t() @ torch.ones(3, 3), "moves the batch axis"),
    "samples joined": (lambda x: x.view(1, -1) + 0.0, "is not supported"),
    "a softmax in the middle": (lambda x: x.softmax(1) * 2, "only supported at the very end"),
    "a log-softmax over something else": (
        lambda x: x.view(-1, 2, 3).log_softmax(2),
        "only a softmax over the classes",
    ),
    "samples treated differently": (
        lambda x: x + torch.arange(3.0)[:, None],
        "treats samples of a batch differently",
    ),
    "random numbers": (lambda x: x + torch.rand(6), "draws random numbers"),
    "dropout that is always on": (lambda x: nn.functional.dropout(x, 0.5, True), "aten."),
    "another precision": (lambda x: x.double().relu().float(), "a cast to torch.float64"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_has_no_rule_is_refused_with_its_node(name: str) -> None:
    """The message names the node and the operator, and says what is wrong."""
    forward, words = UNSUPPORTED[name]
    with pytest.raises(UnsupportedOperator, match="node '.*' ") as caught:
        read_module(Forward(forward), (6,))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    """The message names the tensor and the entry."""
    module = nn.Sequential(nn.Linear(6, 4))
    module[0].weight.data[1, 2] = value
    with pytest.raises(ModelError, match=r"tensor '0.weight' of module Sequential .* \[1, 2\]"):
        read_module(module, (6,))


def test_weights_of_another_precision_are_refused() -> None:
    """The claim is about float32 executions, so the module must be one."""
    with pytest.raises(ModelError, match=r"holds torch.float64, expected torch.float32"):
        read_module(nn.Linear(6, 4).double(), (6,))


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_an_input_shape_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    """In the words of the export, with the shape that was tried."""
    with pytest.raises(ModelError, match=r"cannot be exported for inputs of shape \(3, "):
        read_module(nn.Linear(6, 4), shape)


def test_branches_on_values_are_refused() -> None:
    """Such a module has no fixed graph."""
    with pytest.raises(ModelError, match="cannot be exported"):
        read_module(Forward(lambda x: x if x.sum() > 0 else -x), (6,))


def test_several_outputs_are_refused() -> None:
    """One tensor of logits is what can be bounded."""
    with pytest.raises(ModelError, match="does not return one tensor"):
        read_module(Forward(lambda x: (x, x + 1)), (6,))  # type: ignore[arg-type, return-value]


def test_a_module_that_changes_from_call_to_call_is_a_mismatch() -> None:
    """What the export saw is not what the module computes."""

    class Drifting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 0 if torch.compiler.is_exporting() else 1
            return x * (1.0 + self.calls)

    with pytest.raises(MismatchError, match="Nothing is certified"):
        read_module(Drifting(), (6,))


def test_a_module_without_input_shape_is_refused() -> None:
    """A module does not state it."""
    with pytest.raises(SettingError, match="give input_shape"):
        verify.load(nn.Linear(6, 4))
    with pytest.raises(ModelError, match="expected the shape of one input"):
        verify.load(nn.Linear(6, 4), input_shape=())
