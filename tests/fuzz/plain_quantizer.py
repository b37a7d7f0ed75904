"""What a plain quantizer makes of a model: onnxruntime's, or one that rounds every layer's weight and output."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from model_builder import Array, Arrays, run
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

FUSED = ("Attention", "FusedConv", "FusedGemm", "FusedMatMul")
"""Layers that onnxruntime's quantizer leaves in float."""

LAYERS = ("Conv", "Gemm", "MatMul", "ConvTranspose", *FUSED)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[Arrays]) -> None:
        self._feeds: Iterator[Arrays] = iter(feeds)

    def get_next(self) -> Any:
        return next(self._feeds, None)


def plain(model: onnx.ModelProto, feeds: Sequence[Arrays], per_channel: bool) -> onnx.ModelProto:
    """The model in 8 bits, with ranges from the extremes."""
    if any(node.op_type in FUSED for node in model.graph.node):
        return _rounded(model, feeds)
    with tempfile.TemporaryDirectory() as folder, _silence():
        source, output = Path(folder) / "float.onnx", Path(folder) / "plain.onnx"
        onnx.save(model, source)
        try:
            quantize_static(
                str(source),
                str(output),
                _Reader(feeds),
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=per_channel,
            )
            quantized = onnx.load(output)
            run(quantized, feeds[:1])
        except Exception:  # it cannot take every model; what it raises has no common base
            return _rounded(model, feeds)
    return quantized


@contextmanager
def _silence() -> Iterator[None]:
    """onnxruntime's quantizer gives advice by the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _rounded(model: onnx.ModelProto, feeds: Sequence[Arrays]) -> onnx.ModelProto:
    """QDQ pairs on constants and float outputs of layers."""
    model = copy.deepcopy(model)
    layers = [node for node in model.graph.node if node.op_type in LAYERS]
    outputs = [node.output[0] for node in layers]
    seen = _observed(model, outputs, feeds)
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    rounded: dict[str, str] = {}
    for node in model.graph.node:
        name = node.input[1] if node in layers else ""
        if name in weights and weights[name].dtype == np.float32:
            if name not in rounded:
                made, (_, rounded[name]) = _pair(model, name, weights[name], np.int8)
                nodes += made
            node.input[1] = rounded[name]
        nodes.append(node)
        if node.output[0] in outputs and seen[node.output[0]].dtype == np.float32:
            name = node.output[0]
            made, (node.output[0], _) = _pair(model, f"{name}_exact", seen[name], np.uint8)
            made[-1].output[0] = name
            nodes += made
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _observed(model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Arrays]) -> Arrays:
    probe = copy.deepcopy(model)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    answers = run(probe, feeds) if names else []
    return {name: np.concatenate([answer[name].ravel() for answer in answers]) for name in names}


def _pair(model: onnx.ModelProto, name: str, values: Array, dtype: Any) -> tuple[list[onnx.NodeProto], tuple[str, str]]:
    """QuantizeLinear and DequantizeLinear of a tensor, and the names in front of them and behind."""
    low, high = min(float(values.min(initial=0)), 0.0), max(float(values.max(initial=0)), 0.0)
    if dtype == np.int8:
        scale, zero = max(-low, high, 1e-8) / 127, 0
    else:
        scale = max(high - low, 1e-8) / 255
        zero = round(-low / scale)
    scale_name, zero_name, codes, behind = (f"{name}_plain_{part}" for part in ("scale", "zero", "codes", "out"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(scale), scale_name))
    model.graph.initializer.append(numpy_helper.from_array(np.array(zero, dtype), zero_name))
    nodes = [
        helper.make_node("QuantizeLinear", [name, scale_name, zero_name], [codes]),
        helper.make_node("DequantizeLinear", [codes, scale_name, zero_name], [behind]),
    ]
    return nodes, (name, behind)
