"""Each parameter of each entry point arrives where it has its effect, whatever its place in the call."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from text_models import normal, text_model

import quark_onnx.ort  # noqa: F401  `quark_onnx.ort.quantize` is a function, as with onnxruntime
from quark_onnx.ort import get_qdq_config, quantize, quantize_dynamic, quantize_static
from quark_onnx.ort.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

ENTRY = sys.modules["quark_onnx.ort.quantize"]
MODEL = text_model("g (float[4,32] x) => (float[4,16] y) { y = MatMul(x, w) }", w=normal(32, 16))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is lowered, and what our quantizer is called with."""
    found: dict[str, Any] = {}

    def lowered(config: Any, present: Any) -> Any:
        found.update({entry.name: getattr(config, entry.name) for entry in fields(config)})
        return config

    def quantized(source: Any, output: Any, config: Any, data: Any = None, cache: Any = None) -> None:
        found.update(model_input=source, model_output=output)
        found.update({"calibration_data_reader": data, "calibration_cache_path": cache} if data else {})

    monkeypatch.setattr(ENTRY, "static", lowered)
    monkeypatch.setattr(ENTRY, "dynamic", lowered)
    monkeypatch.setattr(ENTRY, "_quantized", quantized)
    return found


def marked(function: Callable[..., Any]) -> dict[str, Any]:
    """A value of its own for each parameter."""
    return {name: MODEL if name == "model_input" else [name] for name in inspect.signature(function).parameters}


@pytest.mark.parametrize("function", [quantize_static, quantize_dynamic])
def test_calls(function: Callable[..., Any], seen: dict[str, Any]) -> None:
    given = marked(function)
    function(*given.values())
    assert seen == given


def test_configurations(seen: dict[str, Any]) -> None:
    given = marked(get_qdq_config)
    given["calibrate_args"] = {"percentile": ["percentile"]}
    given["extra_options"] = {"QuantizeBias": ["bias"]}
    config = get_qdq_config(*given.values())
    quantize(MODEL, "out.onnx", config)
    options = seen.pop("extra_options")
    alike = {name: value for name, value in given.items() if name in seen}
    assert {name: seen[name] for name in alike} == alike
    assert seen.keys() - alike.keys() == {
        *("model_output", "calibration_cache_path", "quant_format", "nodes_to_quantize", "use_external_data_format")
    }
    assert options == {
        "MinimumRealRange": ["min_real_range"],
        "QDQKeepRemovableActivations": ["keep_removable_activations"],
        "ActivationSymmetric": ["activation_symmetric"],
        "WeightSymmetric": ["weight_symmetric"],
        "TensorQuantOverrides": ["tensor_quant_overrides"],
        "CalibPercentile": ["percentile"],
        "QuantizeBias": ["bias"],
    }


def test_weights_of_few_bits() -> None:
    given = {"block_size": 64, "is_symmetric": True, "accuracy_level": None, "quant_format": "QDQ"}
    given |= {"op_types_to_quantize": ("MatMul",), "quant_axes": {"MatMul": 0}, "bits": 8}
    for channels in (False, True):
        told = {**given, "channel_wised_quantize": channels}
        assert MatMulNBitsQuantizer(MODEL, **told).algo_config == DefaultWeightOnlyQuantConfig(**told)


def test_weights_go_beside_the_model_with_quantize(tmp_path: Path) -> None:
    quantize(MODEL, tmp_path / "q.onnx", DefaultWeightOnlyQuantConfig(16))
    assert len([*tmp_path.iterdir()]) == 2
