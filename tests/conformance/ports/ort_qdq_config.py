"""A configuration of all that the model has, changed by the script, and `quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quark_onnx import Config, ModelQuantizer, QuantizationConfig
from quark_onnx.ort import CalibrationDataReader, CalibrationMethod, QuantType, get_qdq_config, quantize


class Reader(CalibrationDataReader):
    def __init__(self, images: Any) -> None:
        self.feeds = iter([{"input": image[None]} for image in images])

    def get_next(self) -> Any:
        return next(self.feeds, None)


def ported(model: Path, samples: Any, folder: Path) -> list[Path]:
    output = str(folder / "int8.onnx")
    config = get_qdq_config(
        str(model),
        Reader(samples),
        calibrate_method=CalibrationMethod.MinMax,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QUInt8,
        per_channel=True,
        tensor_quant_overrides={"input": [{"quant_type": QuantType.QUInt8, "rmin": 0.0, "rmax": 1.0}]},
        nodes_to_exclude=lambda _, node: node.op_type == "GlobalAveragePool",
    )
    config.extra_options["MinimumRealRange"] = 0.0001
    quantize(str(model), output, config)
    return [Path(output)]


def native(model: Path, samples: Any, folder: Path) -> list[Path]:
    config = QuantizationConfig(
        activation_type="uint8",
        weight_type="uint8",
        per_channel=True,
        nodes_to_exclude=("*pool*",),
        include_cle=False,
        extra_options={
            "SmoothQuant": False,
            "MinimumRealRange": 0.0001,
            "TensorQuantOverrides": {"input": [{"quant_type": "uint8", "rmin": 0.0, "rmax": 1.0}]},
        },
    )
    output = folder / "int8.onnx"
    ModelQuantizer(Config(config)).quantize_model(model, output, samples)
    return [output]
