"""The shapes that values have in one run."""

from __future__ import annotations

from quark_onnx.engine.calibration_data import Feed
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import Model
from quark_onnx.graph.channel_probe import with_shapes
from quark_onnx.graph.view import constant_tensor, is_float


def value_shapes(model: Model, feed: Feed) -> dict[str, tuple[int, ...]]:
    """Of all tensors of floats that the main graph computes, its inputs, and its constants."""
    computed = [value.name or "" for node in model.graph for value in node.outputs if is_float(value) and value.name]
    probed, names = with_shapes(model, computed)
    runner = Runner(probed, list(names.values()), lean=True)
    found = {name: tuple(map(int, shape)) for name, shape in zip(names, runner(feed), strict=True)}
    found |= {name: array.shape for name, array in feed.items()}
    tensors = {name: constant_tensor(value) for name, value in model.graph.initializers.items()}
    return found | {name: tuple(t.shape.numpy()) for name, t in tensors.items() if t is not None}
