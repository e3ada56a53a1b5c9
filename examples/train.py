"""Train the embedded example: two small classifiers of scikit-learn's digits, written as ONNX.

Run from anywhere: `python examples/train.py`. It rewrites digits.npz (the held-out split),
digits_train.npz (the rest), digits_dense.onnx and digits_conv.onnx beside this file. Seeded and on
one thread, so that a second run on the same machine with the same libraries writes the same bytes.

Training mixes clean images with images moved by a few gradient-sign steps. Without that, certified
radii would be close to zero; with much more of it, the gap between certified and attacked radius,
which the example is there to show, would nearly close.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
SEED = 0
HELD_OUT = 360  # of 1797 images, stratified by class
OPSET = 17  # ONNX Runtime reads it since 1.12 (2022)
IR_VERSION = 8  # what opset 17 came with


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images and labels of one part of the data.

    Attributes:
        x: float32 in [0, 1], shape (n, 8, 8); 0 is background, 1 is ink.
        y: int64, shape (n,).
    """

    x: np.ndarray
    y: np.ndarray


def load_splits() -> tuple[Split, Split]:
    """Training and held-out split of the digits, pixels divided by their largest value, 16."""
    digits = load_digits()
    x, y = (digits.images / 16.0).astype(np.float32), digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=HELD_OUT, stratify=y, random_state=SEED
    )
    return Split(x_train, y_train), Split(x_test, y_test)


def dense_net() -> nn.Sequential:
    """64-64-32-10 with ReLU; input shape (batch, 64)."""
    return nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )


def conv_net() -> nn.Sequential:
    """Two convolutions with BatchNorm, max-pooling, one dense layer; input (batch, 1, 8, 8)."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def moved(net: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int = 3) -> Tensor:
    """Images within `eps` (L-inf, pixel units) of `x`, inside [0, 1], with a raised loss."""
    start = x.detach()
    x = (start + eps * (2 * torch.rand_like(start) - 1)).clamp(0, 1)
    for _ in range(steps):
        x.requires_grad_(True)
        (slope,) = torch.autograd.grad(F.cross_entropy(net(x), y), x)
        x = x.detach() + 0.75 * eps * slope.sign()
        x = torch.minimum(torch.maximum(x, start - eps), start + eps).clamp(0, 1)
    return x.detach()


def train(net: nn.Module, split: Split, shape: tuple[int, ...], eps: float, epochs: int) -> None:
    """Fit `net` in place on clean and moved images, half the loss each."""
    x, y = torch.from_numpy(split.x).reshape(-1, *shape), torch.from_numpy(split.y)
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        net.train()
        for rows in torch.randperm(len(x)).split(64):
            if len(rows) < 2:  # BatchNorm cannot normalise a batch of one
                continue
            near = moved(net, x[rows], y[rows], eps)
            loss = F.cross_entropy(net(x[rows]), y[rows]) + F.cross_entropy(net(near), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    net.eval()


def accuracy(net: nn.Module, split: Split, shape: tuple[int, ...]) -> float:
    """Share of `split` that `net` classifies correctly."""
    x, y = torch.from_numpy(split.x).reshape(-1, *shape), torch.from_numpy(split.y)
    with torch.no_grad():
        return float((net(x).argmax(dim=1) == y).double().mean())


def onnx_model(net: nn.Sequential, shape: tuple[int, ...], name: str) -> onnx.ModelProto:
    """The ONNX form of a trained `net`, one node a layer, with a symbolic batch axis.

    Written by hand rather than with torch.onnx, whose exporter needs further packages.

    Raises:
        TypeError: if a layer is of a type that the example nets do not use.
    """
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    value = "input"

    def keep(label: str, tensor: Tensor) -> str:
        weights.append(numpy_helper.from_array(tensor.detach().numpy().copy(), label))
        return label

    for i, layer in enumerate(net):
        out = "logits" if i == len(net) - 1 else f"v{i}"
        attributes: dict[str, object] = {}
        inputs = [value]
        if isinstance(layer, nn.Linear):
            op, attributes = "Gemm", {"transB": 1}
            inputs += [keep(f"w{i}", layer.weight), keep(f"b{i}", layer.bias)]
        elif isinstance(layer, nn.Conv2d):
            op, attributes = "Conv", _window(layer.kernel_size, layer.stride, layer.padding)
            inputs += [keep(f"w{i}", layer.weight), keep(f"b{i}", layer.bias)]
        elif isinstance(layer, nn.BatchNorm2d):
            op, attributes = "BatchNormalization", {"epsilon": layer.eps}
            inputs += [
                keep(f"scale{i}", layer.weight),
                keep(f"shift{i}", layer.bias),
                keep(f"mean{i}", layer.running_mean),
                keep(f"var{i}", layer.running_var),
            ]
        elif isinstance(layer, nn.MaxPool2d):
            window, stride = (int(layer.kernel_size),) * 2, (int(layer.stride),) * 2
            op, attributes = "MaxPool", _window(window, stride, (int(layer.padding),) * 2)
        elif isinstance(layer, nn.ReLU):
            op = "Relu"
        elif isinstance(layer, nn.Flatten):
            op = "Flatten"
        else:
            raise TypeError(f"onnx_model has no ONNX form for layer {i}, a {type(layer).__name__}.")
        nodes.append(helper.make_node(op, inputs, [out], name=f"{op.lower()}{i}", **attributes))
        value = out

    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        weights,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    model.producer_name = "tashika examples/train.py"
    onnx.checker.check_model(model, full_check=True)
    return model


def _window(
    kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> dict[str, object]:
    return {
        "kernel_shape": list(kernel),
        "strides": list(stride),
        "pads": [*padding, *padding],
    }


def main() -> None:
    """Train both nets, write the four files, print the accuracies."""
    torch.set_num_threads(1)
    train_split, test_split = load_splits()
    np.savez_compressed(HERE / "digits_train.npz", x=train_split.x, y=train_split.y)
    np.savez_compressed(HERE / "digits.npz", x=test_split.x, y=test_split.y)
    plan = [
        ("digits_dense", dense_net, (64,), 0.08, 60),
        ("digits_conv", conv_net, (1, 8, 8), 0.08, 40),
    ]
    for name, build, shape, eps, epochs in plan:
        torch.manual_seed(SEED)
        net = build()
        train(net, train_split, shape, eps, epochs)
        path = HERE / f"{name}.onnx"
        onnx.save(onnx_model(net, shape, name), path)
        print(
            f"{path.name}: accuracy {accuracy(net, train_split, shape):.4f} on the training split, "
            f"{accuracy(net, test_split, shape):.4f} on the held-out split, "
            f"{path.stat().st_size} bytes"
        )


if __name__ == "__main__":
    main()
