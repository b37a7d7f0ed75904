"""The configurations of onnxruntime.quantization: plain, mutable, in its order and with its defaults.

No value is checked before `lowering` makes our frozen configuration of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quark_onnx.ort.calibrate import CalibrationMethod
from quark_onnx.ort.quant_utils import QuantFormat, QuantType
from quark_onnx.ort.strict_fields import StrictFields

Names = Sequence[str] | None

_NAMES = ("op_types_to_quantize", "nodes_to_quantize", "nodes_to_exclude")


class QuantConfig(StrictFields):
    """What both kinds of quantization have in common: names and options that nobody gave are empty, to be added to."""

    def __post_init__(self) -> None:
        for name, empty in (*((name, list) for name in _NAMES), ("extra_options", dict)):
            if getattr(self, name) is None:
                setattr(self, name, empty())


@dataclass
class StaticQuantConfig(QuantConfig):
    """Quantization of weights and activations, whose ranges come from `calibration_data_reader`."""

    calibration_data_reader: Any
    calibrate_method: Any = CalibrationMethod.MinMax
    quant_format: Any = QuantFormat.QDQ
    activation_type: Any = QuantType.QInt8
    weight_type: Any = QuantType.QInt8
    op_types_to_quantize: Names = None
    nodes_to_quantize: Names = None
    nodes_to_exclude: Names = None
    per_channel: bool = False
    reduce_range: bool = False
    use_external_data_format: bool = False
    calibration_providers: Names = None
    extra_options: Mapping[str, Any] | None = None


@dataclass
class DynamicQuantConfig(QuantConfig):
    """Quantization of weights; inputs of layers become integers while the model runs."""

    weight_type: Any = QuantType.QInt8
    op_types_to_quantize: Names = None
    nodes_to_quantize: Names = None
    nodes_to_exclude: Names = None
    per_channel: bool = False
    reduce_range: bool = False
    use_external_data_format: bool = False
    extra_options: Mapping[str, Any] | None = None
