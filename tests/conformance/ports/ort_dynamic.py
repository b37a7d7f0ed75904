"""A transformer's products, quantized while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quark_onnx import Config, ModelQuantizer, QuantizationConfig
from quark_onnx.ort import QuantType, quantize_dynamic

MODEL = "bert.legacy.onnx"


def ported(model: Path, samples: Any, folder: Path) -> list[Path]:
    output = folder / "int8.onnx"
    quantize_dynamic(model, output, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, per_channel=True)
    return [output]


def native(model: Path, samples: Any, folder: Path) -> list[Path]:
    config = QuantizationConfig(
        activation_type="uint8",
        op_types_to_quantize=("MatMul",),
        per_channel=True,
        use_dynamic_quant=True,
        include_cle=False,
    )
    output = folder / "int8.onnx"
    ModelQuantizer(Config(config)).quantize_model(model, output)
    return [output]
