"""Networks: reading from files and modules, and a normalisation in front of both sides."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.nets import dense_net
from tests.readers.onnx_models import chain, random, saved
from tests.search.test_strategy import GraphJudge
from verify.bounders.crown import Crown
from verify.bounders.interval import Interval
from verify.bounders.zonotope import Zonotope
from verify.errors import SettingError
from verify.network import Network, NormalisedJudge, load, with_normalisation
from verify.problem import Problem
from verify.protocols import Bounder
from verify.traverse import run
from verify.values.budget import Budget
from verify.values.region import ball
from verify.values.spec import classified_as

MEAN, STD = torch.tensor([0.1, 0.5, -2.0]), torch.tensor([0.3, 2.0, 0.01])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A dense classifier of three inputs whose first tensor is called like a normalisation."""
    return saved(
        chain(
            ("n", 3),
            ("Gemm", ["x", "w1", "b1"], "x_normalised"),
            ("Relu", ["x_normalised"], "hidden"),
            ("Gemm", ["hidden", "w2", "b2"], "y"),
            w1=random(3, 8, seed=1),
            b1=random(8, seed=2),
            w2=random(8, 4, seed=3),
            b2=random(4, seed=4),
        ),
        tmp_path,
    )


def inputs(count: int = 40) -> Tensor:
    """Inputs before the normalisation."""
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(0))


def runtime_outputs(path: Path, x: Tensor) -> Tensor:
    """The file in ONNX Runtime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(np.asarray(session.run(None, {"x": x.numpy()})[0]))


def test_a_file_is_read_with_its_hash_and_judge(file: Path) -> None:
    """Shapes, classes and hash; the judge answers as ONNX Runtime does."""
    network = load(file)
    assert network.input_shape == (3,)
    assert network.classes == 4
    assert network.path == str(file)
    assert network.sha256 is not None
    assert len(network.sha256) == 64
    expected = runtime_outputs(file, inputs()).argmax(dim=1)
    assert network.judge.predict(inputs()).tolist() == expected.tolist()
    assert load(network) is network


def test_a_normalisation_is_in_front_of_graph_and_judge(file: Path) -> None:
    """Both compute what ONNX Runtime computes of (x - mean) / std."""
    network = load(file, mean=MEAN, std=STD)
    expected = runtime_outputs(file, (inputs() - MEAN) / STD)
    torch.testing.assert_close(run(network.graph, inputs()).float(), expected, rtol=1e-4, atol=1e-3)
    assert network.judge.predict(inputs()).tolist() == expected.argmax(dim=1).tolist()
    labels = expected.argmax(dim=1)
    assert not bool(network.judge.misclassified(inputs(), labels).any())
    assert bool(network.judge.misclassified(inputs(), (labels + 1) % 4).all())


def test_one_half_of_a_normalisation_is_enough(file: Path) -> None:
    """A mean alone has deviation 1, a deviation alone has mean 0."""
    for mean, std in ((MEAN, None), (None, STD)):
        network = load(file, mean=mean, std=std)
        moved = (inputs() - (0 if mean is None else mean)) / (1 if std is None else std)
        expected = runtime_outputs(file, moved)
        torch.testing.assert_close(
            run(network.graph, inputs()).float(), expected, rtol=1e-4, atol=1e-3
        )


@pytest.mark.parametrize("std", [[0.0, 1.0, 1.0], [-1.0, 1.0, 1.0], [math.nan, 1.0, 1.0]])
def test_deviations_that_are_not_positive_are_refused(file: Path, std: list[float]) -> None:
    """Zero, negative and NaN."""
    with pytest.raises(SettingError, match="std"):
        load(file, std=torch.tensor(std))


@pytest.mark.parametrize("bounder", [Interval(), Crown(), Zonotope()])
@pytest.mark.parametrize("p", [math.inf, 2.0, 1.0])
def test_bounds_hold_for_normalised_outputs_of_the_runtime(
    file: Path, bounder: Bounder, p: float
) -> None:
    """Normalised twice, over a file with a tensor of that name: sampled outputs are enclosed."""
    once = load(file, mean=MEAN, std=STD)
    network = with_normalisation(once, torch.tensor([0.5, 0.0, 0.0]), torch.tensor(2.0))
    names = [node.name for node in network.graph.nodes]
    assert len(set(names)) == len(names)
    x, labels = inputs(6), torch.tensor([0, 1, 2, 3, 0, 1])
    region = ball(x, 0.02, p)
    margin = bounder(Problem(network.graph, region, classified_as(labels, 4)), Budget()).margin
    generator = torch.Generator().manual_seed(1)
    points = region.minimiser(torch.randn(6, 200, 3, generator=generator).double()).float()
    inner = (points.flatten(0, 1) - torch.tensor([0.5, 0.0, 0.0])) / 2.0
    output = runtime_outputs(file, (inner - MEAN) / STD).unflatten(0, (6, 200)).double()
    rows = torch.einsum("bro,bno->bnr", classified_as(labels, 4).coeff, output)
    assert bool((rows >= margin[:, None] - 1e-9).all())


def test_the_judge_normalises_in_float32() -> None:
    """Each step is rounded as a user's own code would round it."""
    judge = NormalisedJudge(GraphJudge(dense_net(0, (3, 4, 3))), MEAN, STD)
    expected = (inputs().numpy() - MEAN.numpy()) / STD.numpy()
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(judge.normalise(inputs()).numpy(), expected)


def test_a_module_is_its_own_judge() -> None:
    """The graph computes what the module computes, and needs to be told the input's shape."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4)).eval()
    network = load(module, input_shape=(3,))
    assert network.path is None
    with torch.no_grad():
        expected = module(inputs())
    torch.testing.assert_close(run(network.graph, inputs()).float(), expected)
    assert network.judge.predict(inputs()).tolist() == expected.argmax(dim=1).tolist()
    with pytest.raises(SettingError, match="input_shape"):
        load(module)


def test_a_network_in_memory_may_be_normalised() -> None:
    """Without a file, graph and judge still agree."""
    graph = dense_net(4, (3, 6, 3))
    network = with_normalisation(Network(graph, GraphJudge(graph), None, None), MEAN, STD)
    found = run(network.graph, inputs()).argmax(dim=1)
    assert network.judge.predict(inputs()).tolist() == found.tolist()
