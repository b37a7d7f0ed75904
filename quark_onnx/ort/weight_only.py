"""The weight-only configurations of onnxruntime.quantization: plain, mutable, in its order.

Its defaults, but for `quant_format`: what is written is a DequantizeLinear in front of a MatMul, of which onnxruntime
makes its MatMulNBits when it loads the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from quark_onnx.ort.quant_config import Names
from quark_onnx.ort.quant_utils import QuantFormat
from quark_onnx.ort.strict_fields import StrictFields

Axes = Sequence[tuple[str, int]] | Mapping[str, int] | None


class WeightOnlyQuantConfig(StrictFields):
    """What all of them have in common: the algorithm, and calibration data where it needs any."""

    algorithm: ClassVar[str]

    @property
    def data(self) -> Any:
        """Calibration data; None: it needs none."""
        return None


@dataclass
class DefaultWeightOnlyQuantConfig(WeightOnlyQuantConfig):
    """Rounding to nearest, in blocks along the input axis or with a scale per output channel."""

    block_size: int = 128
    is_symmetric: bool = False
    accuracy_level: int | None = None
    quant_format: Any = QuantFormat.QDQ
    op_types_to_quantize: Names = None
    quant_axes: Axes = None
    bits: int = 4
    channel_wised_quantize: bool = False

    algorithm: ClassVar[str] = "DEFAULT"


@dataclass
class RTNWeightOnlyQuantConfig(WeightOnlyQuantConfig):
    """Rounding to nearest; blocks and symmetry are those of the `MatMulNBitsQuantizer`."""

    ratios: Mapping[str, float] | None = None
    quant_format: Any = QuantFormat.QDQ
    op_types_to_quantize: Names = None
    customized_weight_config: Mapping[str, Any] | None = None

    algorithm: ClassVar[str] = "RTN"


@dataclass
class GPTQWeightOnlyQuantConfig(WeightOnlyQuantConfig):
    """GPTQ on calibration data; blocks and symmetry are those of the `MatMulNBitsQuantizer`."""

    calibration_data_reader: Any = None
    percdamp: float = 0.01
    block_size: int = 128
    actorder: bool = False
    mse: bool = False
    perchannel: bool = True
    quant_format: Any = QuantFormat.QDQ
    op_types_to_quantize: Names = None

    algorithm: ClassVar[str] = "GPTQ"

    @property
    def data(self) -> Any:
        """The reader."""
        return self.calibration_data_reader


@dataclass
class HQQWeightOnlyQuantConfig(WeightOnlyQuantConfig):
    """Half-quadratic quantization, which needs no data."""

    block_size: int = 128
    bits: int = 4
    axis: int = 1
    quant_format: Any = QuantFormat.QDQ
    op_types_to_quantize: Names = None
    quant_axes: Axes = None

    algorithm: ClassVar[str] = "HQQ"


@dataclass
class KQuantWeightOnlyQuantConfig(WeightOnlyQuantConfig):
    """Refused by name when it is used."""

    ratios: Mapping[str, float] | None = None
    quant_format: Any = QuantFormat.QDQ
    op_types_to_quantize: Names = None
    customized_weight_config: Mapping[str, Any] | None = None

    algorithm: ClassVar[str] = "k_quant"
