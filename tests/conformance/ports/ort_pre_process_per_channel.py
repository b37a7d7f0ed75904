"""Pre-processing, then a static quantization per channel with nodes left out and `extra_options`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quark_onnx import Config, ModelQuantizer, QuantizationConfig
from quark_onnx.ort import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
from quark_onnx.ort.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):
    def __init__(self, images: Any) -> None:
        self.feeds = iter([{"input": images[i : i + 1]} for i in range(len(images))])

    def get_next(self) -> Any:
        return next(self.feeds, None)


def ported(model: Path, samples: Any, folder: Path) -> list[Path]:
    prepared, output = folder.parent / "prepared.onnx", folder / "int8.onnx"
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        prepared,
        output,
        calibration_data_reader=Reader(samples),
        per_channel=True,
        reduce_range=False,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=["block1.dw.conv"],
        calibrate_method=CalibrationMethod.Percentile,
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False, "CalibPercentile": 99.9},
    )
    return [output]


def native(model: Path, samples: Any, folder: Path) -> list[Path]:
    config = QuantizationConfig(
        calibrate_method="Percentile",
        activation_type="uint8",
        per_channel=True,
        nodes_to_exclude=("block1.dw.conv",),
        include_cle=False,
        extra_options={"Percentile": 99.9, "SmoothQuant": False},
    )
    output = folder / "int8.onnx"
    ModelQuantizer(Config(config)).quantize_model(model, output, samples)
    return [output]
