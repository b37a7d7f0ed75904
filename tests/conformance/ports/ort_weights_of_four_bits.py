"""Weights of 4 bits in blocks, of products and of the tables that are looked up, written beside the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quark_onnx import Config, ModelQuantizer, QuantizationConfig
from quark_onnx.ort.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

MODEL = "gpt.legacy.onnx"


def ported(model: Path, samples: Any, folder: Path) -> list[Path]:
    config = DefaultWeightOnlyQuantConfig(
        block_size=16,
        is_symmetric=True,
        op_types_to_quantize=("MatMul", "Gather"),
        quant_axes=(("MatMul", 0), ("Gather", 1)),
    )
    quantizer = MatMulNBitsQuantizer(str(model), nodes_to_exclude=None, nodes_to_include=None, algo_config=config)
    quantizer.process()
    quantizer.model.save_model_to_file(str(folder / "int4.onnx"), True)
    return sorted(folder.iterdir())


def native(model: Path, samples: Any, folder: Path) -> list[Path]:
    config = QuantizationConfig(
        weight_type="int4",
        op_types_to_quantize=("MatMul", "Gather"),
        include_cle=False,
        use_external_data_format=True,
        extra_options={"WeightsOnly": True, "BlockSize": 16},
    )
    ModelQuantizer(Config(config)).quantize_model(model, folder / "int4.onnx")
    return sorted(folder.iterdir())
