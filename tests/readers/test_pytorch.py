"""read_module: small modules of every supported kind, against the module's own outputs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import verify
from verify.readers.pytorch import read_module, with_tail
from verify.traverse import run

ROUNDING = 1e-4  # float32 outputs of size ~1 to ~10, summed in two orders


class Forward(nn.Module):
    """A module whose forward is a function of the input and a few layers."""

    def __init__(self, forward: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, **self.layers)


class Block(nn.Module):
    """A residual block with batch normalisation and a strided shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.norm1(self.first(x)), inplace=True)
        out = self.norm2(self.second(out))
        out += self.shortcut(x)
        return functional.relu(out)


def head(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 4))


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 1, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        Block(4, 4, 1),
        Block(4, 6, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(6, 4),
    )


VECTOR, LINE, IMAGE, VOLUME = (6,), (2, 8), (2, 6, 6), (1, 4, 4, 4)

# name -> (input shape, how to build it)
MODULES: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module]]] = {
    "linear": (VECTOR, lambda: nn.Linear(6, 4)),
    "linear without bias": (VECTOR, lambda: nn.Linear(6, 4, bias=False)),
    "linear on the last axis": (LINE, lambda: nn.Sequential(nn.Linear(8, 3), head(6))),
    "conv1d": (LINE, lambda: nn.Sequential(nn.Conv1d(2, 4, 3, 2, 2, 2, groups=2), head(16))),
    "conv2d": (IMAGE, lambda: nn.Sequential(nn.Conv2d(2, 3, (3, 2), 2, 1), head(36))),
    "conv2d, same": (IMAGE, lambda: nn.Sequential(nn.Conv2d(2, 3, 4, padding="same"), head(108))),
    "conv3d": (VOLUME, lambda: nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), head(128))),
    "batch norm of vectors": (VECTOR, lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4))),
    "batch norm without weights": (
        IMAGE,
        lambda: nn.Sequential(nn.BatchNorm2d(2, affine=False), head(72)),
    ),
    **{
        f"{activation}": (VECTOR, lambda a=activation: nn.Sequential(nn.Linear(6, 9), a, head(9)))
        for activation in (
            nn.ReLU(inplace=True),
            nn.LeakyReLU(0.2),
            nn.PReLU(),
            nn.PReLU(9, init=0.3),
            nn.Sigmoid(),
            nn.Tanh(),
            nn.Hardtanh(-0.3, 0.7),
            nn.ReLU6(),
            nn.Hardsigmoid(),
            nn.Identity(),
        )
    },
    "prelu of channels": (IMAGE, lambda: nn.Sequential(nn.PReLU(2, init=-0.3), head(72))),
    "abs": (VECTOR, lambda: Forward(lambda x, a: a(x).abs(), a=nn.Linear(6, 4))),
    "clamp": (VECTOR, lambda: Forward(lambda x, a: a(x).clamp(max=0.1), a=nn.Linear(6, 4))),
    "clamp below": (VECTOR, lambda: Forward(lambda x, a: a(x).clamp(min=-0.1), a=nn.Linear(6, 4))),
    "max pool": (IMAGE, lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1), head(18))),
    "max pool, ceil": (
        IMAGE,
        lambda: nn.Sequential(nn.MaxPool2d(3, 2, dilation=1, ceil_mode=True), head(18)),
    ),
    "max pool, ceil and padded": (
        LINE,
        lambda: nn.Sequential(nn.MaxPool1d(2, 3, padding=1, ceil_mode=True), head(6)),
    ),
    "max pool of volumes": (VOLUME, lambda: nn.Sequential(nn.MaxPool3d(2), head(8))),
    "avg pool": (IMAGE, lambda: nn.Sequential(nn.AvgPool2d(2), head(18))),
    "avg pool, padded": (IMAGE, lambda: nn.Sequential(nn.AvgPool2d(3, 2, 1), head(18))),
    "avg pool, padding not counted": (
        IMAGE,
        lambda: nn.Sequential(nn.AvgPool2d(3, 2, 1, count_include_pad=False), head(18)),
    ),
    "avg pool, ceil": (
        LINE,
        lambda: nn.Sequential(nn.AvgPool1d(3, 2, 1, ceil_mode=True), head(10)),
    ),
    "avg pool with a divisor": (
        IMAGE,
        lambda: nn.Sequential(nn.AvgPool2d(2, divisor_override=3), head(18)),
    ),
    "adaptive avg pool": (IMAGE, lambda: nn.Sequential(nn.AdaptiveAvgPool2d((2, 3)), head(12))),
    "adaptive avg pool to one": (IMAGE, lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), head(2))),
    "adaptive avg pool of lines": (LINE, lambda: nn.Sequential(nn.AdaptiveAvgPool1d(4), head(8))),
    "view": (IMAGE, lambda: Forward(lambda x, a: a(x.view(x.size(0), -1)), a=nn.Linear(72, 4))),
    "squeeze and unsqueeze": (
        VECTOR,
        lambda: Forward(lambda x, a: a(x.unsqueeze(1)).squeeze(1), a=nn.Linear(6, 4)),
    ),
    "permute": (
        IMAGE,
        lambda: Forward(lambda x, a: a(x.permute(0, 2, 3, 1).flatten(1)), a=nn.Linear(72, 4)),
    ),
    "transpose": (LINE, lambda: Forward(lambda x, a: a(x.transpose(1, 2)), a=head(16))),
    "slices": (
        IMAGE,
        lambda: Forward(lambda x, a: a(x[:, 1:, ::2, :-1] - x[:, :1, 1::2, 1:]), a=head(15)),
    ),
    "select": (IMAGE, lambda: Forward(lambda x, a: a(x[:, -1, :, 2]), a=nn.Linear(6, 4))),
    "flip": (LINE, lambda: Forward(lambda x, a: a(x.flip(-1)), a=head(16))),
    "chunks": (
        VECTOR,
        lambda: Forward(lambda x, a: a(torch.cat(x.chunk(2, 1)[::-1], 1)), a=nn.Linear(6, 4)),
    ),
    "split": (
        VECTOR,
        lambda: Forward(lambda x, a: a(torch.cat([p * 2 for p in x.split(4, 1)], 1)), a=head(6)),
    ),
    "stack and unbind": (
        LINE,
        lambda: Forward(lambda x, a: a(torch.stack(x.unbind(1)[::-1], 2)), a=head(16)),
    ),
    "pad": (
        LINE,
        lambda: Forward(lambda x, a: a(functional.pad(x, (1, 2), value=0.5)), a=head(22)),
    ),
    "zero pad": (IMAGE, lambda: nn.Sequential(nn.ZeroPad2d((1, 0, 2, 1)), head(126))),
    "arithmetic with constants": (
        VECTOR,
        lambda: Forward(
            lambda x, a: (1 - (a(x) + 0.1) / 3) * torch.tensor([1.0, -2.0, 3.0, 0.5]) - 1,
            a=nn.Linear(6, 4),
        ),
    ),
    "weighted sum": (
        VECTOR,
        lambda: Forward(
            lambda x, a, b: torch.sub(a(x), b(x), alpha=2), a=nn.Linear(6, 4), b=nn.Linear(6, 4)
        ),
    ),
    "broadcast sum": (
        LINE,
        lambda: Forward(lambda x, a: a(x - x.mean(2, keepdim=True)), a=head(16)),
    ),
    "ones like": (VECTOR, lambda: Forward(lambda x, a: a(x + torch.ones_like(x)), a=head(6))),
    "sum": (LINE, lambda: Forward(lambda x, a: a(x.sum(1)), a=nn.Linear(8, 4))),
    "mean over two axes": (
        IMAGE,
        lambda: Forward(lambda x, a: a(x.mean((2, 3))), a=nn.Linear(2, 4)),
    ),
    "matmul": (VECTOR, lambda: Forward(lambda x: x @ torch.linspace(-1, 1, 24).view(6, 4))),
    "matmul from the left": (
        LINE,
        lambda: Forward(lambda x, a: a(torch.linspace(-1, 1, 6).view(3, 2) @ x), a=head(24)),
    ),
    "addmm": (
        VECTOR,
        lambda: Forward(lambda x: torch.addmm(torch.arange(4.0), x, torch.ones(6, 4), alpha=0.5)),
    ),
    "softmax": (VECTOR, lambda: nn.Sequential(nn.Linear(6, 4), nn.Softmax(dim=1))),
    "log softmax": (VECTOR, lambda: nn.Sequential(nn.Linear(6, 4), nn.LogSoftmax(dim=-1))),
    "resnet": (IMAGE, resnet),
}


def built(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """The module with random weights and statistics, in training mode as a user may hold it."""
    torch.manual_seed(0)
    shape, build = MODULES[name]
    module = build()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module, shape


@pytest.mark.parametrize("name", MODULES)
def test_the_graph_computes_what_the_module_computes(name: str) -> None:
    """On random inputs, in float64, against the module itself in evaluation mode."""
    module, shape = built(name)
    graph = read_module(module, shape).graph
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = module.double().eval()(x.double()) if _takes_double(name) else module.eval()(x)
    found = with_tail(run(graph, x.double()).flatten(1), graph.tail)
    assert torch.allclose(found, expected.double().flatten(1), rtol=ROUNDING, atol=ROUNDING)


def _takes_double(name: str) -> bool:
    """Modules that make float32 constants in forward only run in float32."""
    return name not in {"matmul", "matmul from the left", "addmm"}


def test_an_operator_read_wrongly_is_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that takes Tanh for Sigmoid is caught by the comparison at load."""
    from verify.readers.pytorch_importer import READERS

    monkeypatch.setitem(
        READERS, "aten.tanh", lambda call: call.emit("Sigmoid", (call.variable("self"),))
    )
    with pytest.raises(verify.VerifyError, match="disagree: outputs differ by"):
        read_module(nn.Sequential(nn.Linear(6, 4), nn.Tanh()), VECTOR)


def test_the_users_module_is_left_as_it_was() -> None:
    """Training flags, gradients asked for, weights and statistics."""
    module, shape = built("resnet")
    module[0].eval()
    flags = [part.training for part in module.modules()]
    before = {key: value.clone() for key, value in module.state_dict().items()}
    read_module(module, shape)
    assert [part.training for part in module.modules()] == flags
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_changing_the_module_later_does_not_change_the_judge() -> None:
    """What was certified is what was read."""
    module = nn.Linear(6, 4)
    judge = read_module(module, VECTOR).judge
    x = torch.randn(3, 6)
    before = judge.run(x)
    module.weight.data.zero_()
    assert torch.equal(judge.run(x), before)


def test_the_judge_says_what_the_module_says() -> None:
    """Predictions are the largest output; misclassified means strictly above the label."""
    module = nn.Linear(2, 2)
    module.weight.data.copy_(torch.eye(2))
    module.bias.data.zero_()
    judge = read_module(module, (2,)).judge
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert judge.predict(x).tolist() == [0, 1, 0]
    assert judge.misclassified(x, torch.zeros(3, dtype=torch.int64)).tolist() == [
        False,
        True,
        False,
    ]
    assert judge.misclassified(x[:0], torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_a_module_can_be_certified_as_it_is() -> None:
    """The front door takes it, and a linear net's verdicts agree with its exact radius."""
    module = nn.Linear(2, 2)
    module.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    module.bias.data.zero_()
    x = torch.tensor([[1.0, 0.4]])
    # margin x0 - x1 = 0.6 falls by 2·eps in the infinity norm: the radius is 0.3
    inside = verify.certify(module, x, torch.tensor([0]), eps=0.29)
    outside = verify.certify(module, x, torch.tensor([0]), eps=0.31)
    assert [r.verdict.value for r in inside + outside] == ["verified", "unknown"]
