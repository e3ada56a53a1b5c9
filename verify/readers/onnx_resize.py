"""ConvTranspose, and Resize and Upsample by repetition of the nearest entry."""

from __future__ import annotations

import math

import torch

from verify.readers.onnx_conv import Windows, refuse_many, spread
from verify.readers.onnx_importer import Importer, Value, Variable, reads
from verify.readers.onnx_node import OnnxNode


@reads("ConvTranspose")
def read_conv_transpose(importer: Importer, node: OnnxNode) -> list[Value]:
    """Transposed convolution in one, two or three dimensions with constant weights."""
    value = importer.batched(node, importer.variable(node, 0))
    weight = importer.weights(node, 1)
    if weight.ndim != len(value.shape) or weight.ndim not in (3, 4, 5):
        raise node.unsupported(
            f"weights of shape {tuple(weight.shape)} on an input of shape {value.shape}"
        )
    groups = node.integer("group", 1)
    inputs, per_group, *kernel = weight.shape
    if groups < 1 or inputs % groups or inputs != value.shape[1] or 0 in weight.shape:
        raise node.invalid(
            f"weights of shape {tuple(weight.shape)} in {groups} groups do not fit an input of "
            f"shape {value.shape}"
        )
    outputs = per_group * groups
    bias = importer.weights(node, 2) if node.has(2) else weight.new_zeros(outputs)
    if tuple(bias.shape) != (outputs,):
        raise node.invalid(f"its bias has shape {tuple(bias.shape)}, expected ({outputs},)")
    if node.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise node.unsupported("padding stated by auto_pad")
    if node.integers("output_shape") is not None:
        raise node.unsupported("padding stated by output_shape")
    rank = len(kernel)
    stride, dilation = spread(node, "strides", rank, 1, 1), spread(node, "dilations", rank, 1, 1)
    extra = spread(node, "output_padding", rank, 0, 0)
    pads = spread(node, "pads", 2 * rank, 0, 0)
    before, after = pads[:rank], pads[rank:]
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise node.invalid(f"its output_padding {extra} is not below its stride {stride}")
    count = tuple(
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, s, d, k, e in zip(value.shape[2:], stride, dilation, kernel, extra, strict=True)
    )
    importer.guard(node, (outputs, *count))
    refuse_many(
        node,
        Windows(tuple(kernel), stride, dilation, before, after, value.shape[2:], (0,) * rank),
        outputs,
    )
    even = before == after
    result = importer.emit(
        "ConvTranspose",
        (value,),
        node,
        batch=True,
        tensors={"weight": weight, "bias": bias},
        settings={
            "stride": stride,
            "padding": before if even else (0,) * rank,
            "dilation": dilation,
            "output_padding": extra,
            "groups": (groups,),
        },
        step="" if even else "whole",
    )
    if even:
        return [result]
    crop = (0, *(-b for b in before), 0, *(-a for a in after))
    if any(b + a >= n for b, a, n in zip(before, after, count, strict=True)):
        raise node.invalid(f"its pads {pads} leave nothing of {count}")
    tensors = {"value": torch.zeros((), dtype=torch.float64)}
    return [
        importer.emit("Pad", (result,), node, batch=True, tensors=tensors, settings={"pads": crop})
    ]


@reads("Upsample")
def read_upsample(importer: Importer, node: OnnxNode) -> list[Value]:
    """Nearest entries; scales are an attribute (opset 7) or an input (opset 9)."""
    value = importer.variable(node, 0)
    if node.text("mode", "nearest") != "nearest":
        raise node.unsupported(f"mode {node.text('mode', '')!r}; only nearest is")
    if node.has(1):
        scales = [float(s) for s in importer.constant(node, 1).reshape(-1)]
    else:
        attribute = node.attributes.get("scales")
        scales = [] if attribute is None else [float(s) for s in attribute.floats]
    return [nearest(importer, node, value, scales, None, "asymmetric", "floor")]


@reads("Resize")
def read_resize(importer: Importer, node: OnnxNode) -> list[Value]:
    """Nearest entries, by scales or sizes."""
    value = importer.variable(node, 0)
    if node.text("mode", "nearest") != "nearest":
        raise node.unsupported(f"mode {node.text('mode', '')!r}; only nearest is")
    if node.integers("axes") is not None:
        raise node.unsupported("sizes of some axes only")
    if node.opset < 11:
        scales = [float(s) for s in importer.constant(node, 1).reshape(-1)]
        return [nearest(importer, node, value, scales, None, "asymmetric", "floor")]
    rule = node.text("coordinate_transformation_mode", "half_pixel")
    rounding = node.text("nearest_mode", "round_prefer_floor")
    sizes = importer.integers(node, 3) if node.has(3) else None
    scales = []
    if sizes is None:
        if not node.has(2):
            raise node.invalid("neither scales nor sizes are given")
        scales = [float(s) for s in importer.constant(node, 2).reshape(-1)]
    elif node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.unsupported("a fixed aspect ratio")
    return [nearest(importer, node, value, scales, sizes, rule, rounding)]


def nearest(
    importer: Importer,
    node: OnnxNode,
    value: Variable,
    scales: list[float],
    sizes: tuple[int, ...] | None,
    rule: str,
    rounding: str,
) -> Variable:
    """The nearest input entry of every output entry, along one axis after the other."""
    rank = len(value.shape)
    lengths = list(sizes or ())
    if sizes is None:
        if any(not math.isfinite(s) or s <= 0 for s in scales):
            raise node.invalid(f"its scales are {scales}")
        lengths = [math.floor(n * s) for n, s in zip(value.shape, scales, strict=False)]
    if len(lengths) != rank or (sizes is None and len(scales) != rank):
        raise node.invalid(f"its scales or sizes are not one for each of {rank} axes")
    importer.guard(node, tuple(lengths))
    result = value
    for axis, length in enumerate(lengths):
        n = value.shape[axis]
        if length == n:
            continue
        scale = length / n if sizes is not None else scales[axis]
        if axis == 0:
            result = importer.whole(node, result, "a resizing of axis 0")
        index = [place(node, i, n, length, scale, rule, rounding) for i in range(length)]
        result = importer.select(node, result, axis, index, step=f"axis{axis}")
    return importer.reshape(node, result, result.shape, step="batched")


def place(
    node: OnnxNode, i: int, n: int, length: int, scale: float, rule: str, rounding: str
) -> int:
    """The input index of output index i."""
    if rule == "asymmetric":
        x = i / scale
    elif rule == "half_pixel" or (rule == "pytorch_half_pixel" and length > 1):
        x = (i + 0.5) / scale - 0.5
    elif rule == "pytorch_half_pixel":
        x = 0.0
    elif rule == "align_corners":
        x = i * (n - 1) / (length - 1) if length > 1 else 0.0
    else:
        raise node.unsupported(f"coordinate_transformation_mode {rule!r}")
    if rounding == "floor":
        near = math.floor(x)
    elif rounding == "ceil":
        near = math.ceil(x)
    elif rounding == "round_prefer_floor":
        near = math.ceil(x - 0.5)
    elif rounding == "round_prefer_ceil":
        near = math.floor(x + 0.5)
    else:
        raise node.unsupported(f"nearest_mode {rounding!r}")
    return min(max(near, 0), n - 1)
