"""Forms hold for what float32 executes and for exact arithmetic, in whichever dtype they are."""

import pytest
import torch

from tests.geometric.test_certify import activation_net, grid, picture
from tests.nets import conv_net
from verify.geometric.forms import Forms, through_affine, through_relu, widened
from verify.geometric.forward import Forward, gates
from verify.geometric.linear_constraints import pixel_forms
from verify.geometric.region import Transformed
from verify.geometric.transforms import parse_transform
from verify.graph.ir import Node
from verify.ops.registry import lookup, noise_of
from verify.problem import Problem
from verify.traverse import evaluate
from verify.values.bounds import Bounds
from verify.values.budget import Budget
from verify.values.rounding import FLOAT32
from verify.values.spec import classified_as

DTYPES = [torch.float32, torch.float64]


def cancelling(terms: int = 200) -> tuple[Node, torch.Tensor]:
    """A dense layer whose large terms cancel, and a point whose image float32 gets wrong."""
    generator = torch.Generator().manual_seed(2)
    half = torch.rand(3, terms // 2, generator=generator) * 1000
    weight = torch.cat((half, -half), dim=1)
    weight = weight[:, torch.randperm(terms, generator=generator)]
    tensors = {"weight": weight.double(), "bias": torch.tensor([0.3, -0.2, 7.1]).double()}
    x = torch.rand(1, terms, generator=generator) + 0.5
    return Node("gemm", "Gemm", ("x",), (3,), tensors=tensors, input_shapes=((terms,),)), x


def cast(node: Node, dtype: torch.dtype) -> Node:
    tensors = {name: tensor.to(dtype) for name, tensor in node.tensors.items()}
    return Node(
        node.name, node.op, node.inputs, node.shape, tensors=tensors, input_shapes=node.input_shapes
    )


def still(x: torch.Tensor, dtype: torch.dtype) -> Forms:
    """Forms of one point, with two parameters that move nothing."""
    form = torch.cat((x[None], torch.zeros(2, *x.shape))).to(dtype)
    return Forms(form.clone(), form.clone())


def executions(node: Node, x: torch.Tensor) -> torch.Tensor:
    """One layer in float32, summed in several orders; shape (order, output)."""
    weight, bias = node.tensors["weight"].float(), node.tensors["bias"].float()
    found = []
    for seed in range(30):
        order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(seed))
        products = weight[:, order] * x[0, order]
        total = bias.clone() if seed % 2 else torch.zeros_like(bias)
        for column in products.T:
            total = total + column
        found.append(total if seed % 2 else total + bias)
    return torch.stack(found).double()


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_affine_step_encloses_every_execution(dtype: torch.dtype) -> None:
    """The noise is added: without it, forms in float64 are far narrower than float32's errors."""
    node, x = cancelling()
    bounds = Bounds(x.double(), x.double())
    noise = noise_of(node, FLOAT32, torch.float64, (bounds,))
    assert noise is not None
    seen = executions(node, x)
    found = through_affine(cast(node, dtype), [still(x, dtype)], noise.to(dtype)).bounds()
    assert bool((found.lower <= seen).all())
    assert bool((seen <= found.upper).all())
    plain = through_affine(node, [still(x, torch.float64)], None).bounds()
    assert bool(((seen < plain.lower) | (seen > plain.upper)).any()), "the test has no teeth"


def test_our_own_float32_is_charged() -> None:
    """The exact value lies in forms computed in float32, which by themselves miss it."""
    node, x = cancelling()
    exact = lookup(node).forward(node, x.double())
    single = cast(node, torch.float32)
    found = through_affine(single, [still(x, torch.float32)], torch.zeros(1, 3)).bounds()
    assert bool((found.lower <= exact).all())
    assert bool((exact <= found.upper).all())
    bare = through_affine(single, [still(x, torch.float32)], None)
    assert not bool((bare.lower[0].double() == exact).any()), "the test has no teeth"


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_lines_hold_at_every_parameter(dtype: torch.dtype) -> None:
    """Between the lower and the upper form of the input, and so for all neurons at once."""
    generator = torch.Generator().manual_seed(0)
    lower = torch.randn(3, 1, 400, generator=generator).to(dtype)
    upper = lower.clone()
    upper[0] += torch.rand(1, 400, generator=generator)
    z = Forms(lower, upper)
    found = through_relu(z, z.bounds())
    t = torch.rand(500, 2, generator=generator).double() * 2 - 1
    ones = torch.cat((torch.ones(500, 1).double(), t), dim=1)

    def at(form: torch.Tensor) -> torch.Tensor:
        return torch.einsum("sk,kn->sn", ones, form[:, 0].double())

    low, high = at(found.lower), at(found.upper)
    assert bool((low <= at(lower).clamp(min=0)).all())
    assert bool((at(upper).clamp(min=0) <= high).all())


def test_casting_to_float32_only_widens() -> None:
    """Numbers between two float32 would otherwise be lost."""
    generator = torch.Generator().manual_seed(1)
    form = torch.randn(3, 1, 300, generator=generator, dtype=torch.float64)
    cast_ = Forms(form, form).to(torch.float32)
    for t in ([1.0, 1.0], [-1.0, 1.0], [0.1, -0.7]):
        at = torch.tensor([1.0, *t], dtype=torch.float64) @ form[:, 0]
        low = torch.tensor([1.0, *t], dtype=torch.float64) @ cast_.lower[:, 0].double()
        high = torch.tensor([1.0, *t], dtype=torch.float64) @ cast_.upper[:, 0].double()
        assert bool((low <= at).all())
        assert bool((at <= high).all())
    wide = widened(Bounds(form[0], form[0]), torch.float32)
    assert bool((wide.lower <= form[0]).all())
    assert bool((form[0] <= wide.upper).all())


@pytest.mark.parametrize("net", ["conv", "Relu", "Sigmoid", "Clip"])
def test_every_node_of_every_execution_is_enclosed(net: str) -> None:
    """By its bounds and by its forms, at sampled parameters, in float32 and float64."""
    graph = conv_net(1) if net == "conv" else activation_net(net)
    transform, image = parse_transform("scale(.97,1.03) rotation(-2,2)"), picture(graph)
    low, high = transform.low, transform.high
    region = Transformed(pixel_forms(transform, image, low[None], high[None]))
    spec = classified_as(torch.zeros(1, dtype=torch.long), graph.output.size)
    found = Forward().carried(Problem(graph, region, spec), Budget())
    points = grid(low, high, 100)
    t = (points - (low + high) / 2) / ((high - low) / 2)
    ones = torch.cat((torch.ones(len(points), 1).double(), t), dim=1)
    images = transform(image.expand(len(points), -1, -1, -1), points)
    for dtype in DTYPES:
        for name, value in evaluate(graph.to(dtype), images.to(dtype)).items():
            bounds, forms = found.bounds[name], found.forms[name]
            assert bool((bounds.lower <= value).all())
            assert bool((value <= bounds.upper).all())
            seen = value.flatten(1).double()
            lower = torch.einsum("sk,kn->sn", ones, forms.lower[:, 0].flatten(1).double())
            upper = torch.einsum("sk,kn->sn", ones, forms.upper[:, 0].flatten(1).double())
            assert bool((lower <= seen).all())
            assert bool((seen <= upper).all())


def test_gates_are_nodes_that_all_paths_pass() -> None:
    """Rows stop there on their way back; the first layer's is not worth a stop."""
    graph = activation_net("Relu")
    relus = [node.name for node in graph.nodes if node.op == "Relu"]
    assert gates(graph, graph.output.name) == [*reversed(relus[1:]), graph.input.name]
