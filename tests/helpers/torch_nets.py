"""A model of a few operators run by torch, for its gradients: an interpreter, a line for each operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


def torch_gradients(
    proto: onnx.ModelProto, feed: Mapping[str, np.ndarray], by: Sequence[str], dtype: Any
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The first output, and the gradients by initializers of its sum, weighted with cosines of 0, 1, …; computed in
    float32 or float64."""
    import torch

    forward, tensors = torch_net(proto, dtype)
    leaves = [tensors[name].requires_grad_() for name in by]
    y = forward({name: torch.from_numpy(typed(array, dtype)) for name, array in feed.items()})
    weight = torch.cos(torch.arange(y.numel(), dtype=torch.float32)).reshape(y.shape)
    found = torch.autograd.grad((y * weight).sum(), leaves)
    return y.detach().numpy(), [gradient.numpy() for gradient in found]


def typed(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Floats in this type."""
    return array.astype(dtype) if array.dtype == np.float32 else array.copy()


def torch_net(
    proto: onnx.ModelProto, dtype: Any, read_as: Callable[[str, Any], Any] = lambda name, value: value
) -> tuple[Callable[[Mapping[str, Any]], Any], dict[str, Any]]:
    """The first output as a function of the inputs, and the constants, of which it is one too.

    Args:
        read_as: what a tensor of this name and value is read as, a quantizer say.
    """
    import torch

    arrays = {one.name: numpy_helper.to_array(one) for one in proto.graph.initializer}
    tensors = {name: torch.from_numpy(typed(array, dtype)) for name, array in arrays.items()}
    operators = _operators(dtype)

    def forward(feed: Mapping[str, Any]) -> Any:
        values = {"": None} | {name: read_as(name, value) for name, value in {**tensors, **feed}.items()}
        for node in proto.graph.node:
            attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            value = operators[node.op_type](attributes, *(values[name] for name in node.input))
            values[node.output[0]] = read_as(node.output[0], value)
        return values[proto.graph.output[0].name]

    return forward, tensors


def _operators(dtype: Any) -> dict[str, Callable[..., Any]]:
    import torch
    from torch.nn import functional

    def conv(a: Any, x: Any, w: Any, b: Any = None) -> Any:
        top, left, bottom, right = a.get("pads", [0] * 4)
        x = functional.pad(x, [left, right, top, bottom])
        stride, spread = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
        return functional.conv2d(x, w, b, stride=stride, dilation=spread, groups=a.get("group", 1))

    def gemm(a: Any, x: Any, w: Any, b: Any) -> Any:
        return x @ (w.T if a.get("transB", 0) else w) + b

    def batch_norm(a: Any, x: Any, *rows: Any) -> Any:  # torch's has no gradient by the moments
        w, b, mean, variance = (row.reshape(-1, 1, 1) for row in rows)
        return (x - mean) / torch.sqrt(variance + a.get("epsilon", 1e-5)) * w + b

    def layer_norm(a: Any, x: Any, w: Any, b: Any) -> Any:
        return functional.layer_norm(x, w.shape, w, b, a["epsilon"])

    def slice_(a: Any, x: Any, starts: Any, ends: Any, axes: Any, steps: Any = None) -> Any:
        steps = torch.ones_like(starts) if steps is None else steps
        for start, end, axis, step in zip(*(v.tolist() for v in (starts, ends, axes, steps)), strict=True):
            kept = range(x.shape[axis])[start:end:step]  # torch has no steps below 0
            x = x.index_select(axis, torch.tensor(kept, dtype=torch.int64))
        return x

    def pad(a: Any, x: Any, pads: Any, *_: Any) -> Any:
        half = pads.tolist()
        ends = zip(half[: x.ndim][::-1], half[x.ndim :][::-1], strict=True)
        return functional.pad(x, [number for end in ends for number in end])

    def reshape(a: Any, x: Any, shape: Any) -> Any:
        return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape.tolist())])

    def unsqueeze(a: Any, x: Any, axes: Any) -> Any:
        for axis in sorted(axes.tolist()):
            x = x.unsqueeze(axis)
        return x

    def gather(a: Any, x: Any, indices: Any) -> Any:
        rows = x.index_select(a.get("axis", 0), indices.reshape(-1))
        axis = a.get("axis", 0)
        return rows.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])

    kinds = {
        1: torch.float32 if dtype == np.float32 else torch.float64,
        7: torch.int64,
        9: torch.bool,
        11: torch.float64,
    }

    def constant(a: Any) -> Any:
        return torch.from_numpy(typed(numpy_helper.to_array(a["value"]), dtype))

    return {
        "Add": lambda a, x, y: x + y,
        "And": lambda a, x, y: x & y,
        "AveragePool": lambda a, x: functional.avg_pool2d(x, a["kernel_shape"], a["strides"]),
        "BatchNormalization": batch_norm,
        "Cast": lambda a, x: x.to(kinds[a["to"]]),
        "Clip": lambda a, x, lo, hi=None: torch.clamp(x, lo, hi),
        "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
        "Constant": constant,
        "ConstantOfShape": lambda a, shape: torch.full(shape.tolist(), constant(a).item()),
        "Conv": conv,
        "Div": lambda a, x, y: x / y,
        "Equal": lambda a, x, y: x == y,
        "Erf": lambda a, x: torch.erf(x),
        "Expand": lambda a, x, shape: x.expand(torch.broadcast_shapes(x.shape, shape.tolist())),
        "Flatten": lambda a, x: x.reshape(int(np.prod(x.shape[: a.get("axis", 1)])), -1),
        "Gather": gather,
        "Gemm": gemm,
        "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdim=True),
        "GreaterOrEqual": lambda a, x, y: x >= y,
        "LayerNormalization": layer_norm,
        "MatMul": lambda a, x, y: x @ y,
        "Mul": lambda a, x, y: x * y,
        "Pad": pad,
        "Range": lambda a, first, end, step: torch.arange(first.item(), end.item(), step.item()),
        "ReduceL2": lambda a, x, *axes: x.norm(dim=tuple(a.get("axes") or axes[0].tolist()), keepdim=True),
        "ReduceSum": lambda a, x, axes: x.sum(tuple(axes.tolist()), keepdim=bool(a.get("keepdims", 1))),
        "Relu": lambda a, x: torch.relu(x),
        "Reshape": reshape,
        "Shape": lambda a, x: torch.tensor(x.shape[a.get("start", 0) :]),
        "Slice": slice_,
        "Softmax": lambda a, x: torch.softmax(x, a.get("axis", -1)),
        "Sub": lambda a, x, y: x - y,
        "Transpose": lambda a, x: x.permute(a["perm"]),
        "Unsqueeze": unsqueeze,
        "Where": lambda a, truth, x, y: torch.where(truth, x, y),
    }
