"""What tensors become, in Quark's second API: a type, its scales, and how ranges are chosen."""

from __future__ import annotations

from dataclasses import dataclass

from quark_onnx.core.errors import ConfigError
from quark_onnx.ort.strict_fields import StrictFields
from quark_onnx.quark import data_types
from quark_onnx.quark.data_types import DataType
from quark_onnx.quark.enums import CalibMethod, QuantGranularity, ScaleType


@dataclass(eq=False)
class QTensorConfig(StrictFields):
    """One kind of tensors."""

    symmetric: bool
    scale_type: ScaleType
    calibration_method: CalibMethod
    quant_granularity: QuantGranularity
    data_type: DataType

    def set_symmetric(self, symmetric: bool) -> None:
        """Set `symmetric`."""
        self.symmetric = symmetric

    def set_scale_type(self, scale_type: ScaleType) -> None:
        """Set `scale_type`."""
        self.scale_type = scale_type

    def set_calibration_method(self, calibration_method: CalibMethod) -> None:
        """Set `calibration_method`."""
        self.calibration_method = calibration_method

    def set_quant_granularity(self, quant_granularity: QuantGranularity) -> None:
        """Set `quant_granularity`."""
        self.quant_granularity = quant_granularity

    def set_data_type(self, data_type: DataType) -> None:
        """Set `data_type`."""
        self.data_type = data_type


@dataclass(eq=False)
class ReadySpec(QTensorConfig):
    """One with defaults, of which the rest are made."""

    symmetric: bool = True
    scale_type: ScaleType = ScaleType.Float32
    calibration_method: CalibMethod = CalibMethod.Percentile
    quant_granularity: QuantGranularity = QuantGranularity.Tensor
    data_type: DataType = data_types.Int8


@dataclass(eq=False)
class Int8Spec(ReadySpec):
    """int8, symmetric."""


@dataclass(eq=False)
class Int16Spec(ReadySpec):
    """int16, symmetric."""

    data_type: DataType = data_types.Int16


@dataclass(eq=False)
class Int32Spec(ReadySpec):
    """int32, symmetric: of biases."""

    data_type: DataType = data_types.Int32


@dataclass(eq=False)
class UInt8Spec(ReadySpec):
    """uint8, asymmetric."""

    symmetric: bool = False
    data_type: DataType = data_types.UInt8


@dataclass(eq=False)
class UInt16Spec(UInt8Spec):
    """uint16, asymmetric."""

    data_type: DataType = data_types.UInt16


@dataclass(eq=False)
class UInt32Spec(UInt8Spec):
    """uint32: refused."""

    data_type: DataType = data_types.UInt32


@dataclass(eq=False)
class XInt8Spec(ReadySpec):
    """int8, symmetric, scales are powers of two of least squared error: for AMD's NPUs."""

    scale_type: ScaleType = ScaleType.PowerOf2
    calibration_method: CalibMethod = CalibMethod.MinMSE


@dataclass(eq=False)
class _Floats(ReadySpec):
    calibration_method: CalibMethod = CalibMethod.MinMax


@dataclass(eq=False)
class Float16Spec(_Floats):
    """float16: the whole model is converted."""

    data_type: DataType = data_types.Float16


@dataclass(eq=False)
class BFloat16Spec(_Floats):
    """bfloat16: the whole model is converted."""

    data_type: DataType = data_types.BFloat16


@dataclass(eq=False)
class BFP16Spec(_Floats):
    """Block floating point: refused."""

    data_type: DataType = data_types.BFP16


@dataclass(eq=False)
class MX4Spec(_Floats):
    """Microscaling: refused, as all that follow."""

    data_type: DataType = data_types.MX4


@dataclass(eq=False)
class MX6Spec(_Floats):
    """Refused."""

    data_type: DataType = data_types.MX6


@dataclass(eq=False)
class MX9Spec(_Floats):
    """Refused."""

    data_type: DataType = data_types.MX9


@dataclass(eq=False)
class MXInt8Spec(_Floats):
    """Refused."""

    data_type: DataType = data_types.MXInt8


@dataclass(eq=False)
class MXFP4E2M1Spec(_Floats):
    """Refused."""

    data_type: DataType = data_types.MXFP4E2M1


@dataclass(eq=False)
class MXFP6E2M3Spec(_Floats):
    """Refused."""

    data_type: DataType = data_types.MXFP6E2M3


@dataclass(eq=False)
class MXFP6E3M2Spec(_Floats):
    """Refused."""

    data_type: DataType = data_types.MXFP6E3M2


@dataclass(eq=False)
class MXFP8E4M3Spec(_Floats):
    """Refused."""

    data_type: DataType = data_types.MXFP8E4M3


@dataclass(eq=False)
class MXFP8E5M2Spec(_Floats):
    """Refused."""

    data_type: DataType = data_types.MXFP8E5M2


_KINDS: dict[str, type] = {
    "symmetric": bool,
    "scale_type": ScaleType,
    "calibration_method": CalibMethod,
    "quant_granularity": QuantGranularity,
    "data_type": DataType,
}

Spec = QTensorConfig | type[ReadySpec] | None
"""A class stands for its defaults."""


@dataclass(eq=False)
class QLayerConfig(StrictFields):
    """What the tensors of a layer become; None: nothing is said of them. `activation` is an older `input_tensors`."""

    input_tensors: Spec = None
    activation: Spec = None
    weight: Spec = None
    bias: Spec = None
    output_tensors: Spec = None

    def spec(self, name: str) -> QTensorConfig | None:
        """What is said of the tensors of that name.

        Raises:
            ConfigError: `input_tensors` and `activation` are given, or it is no specification, or a wrong one.
        """
        if name == "input_tensors" and self.activation is not None:
            if self.input_tensors is not None:
                raise ConfigError("QLayerConfig: input_tensors and activation are the same; leave activation out")
            name = "activation"
        value = getattr(self, name)
        value = value() if isinstance(value, type) and issubclass(value, ReadySpec) else value
        if value is not None and not isinstance(value, QTensorConfig):
            raise ConfigError(f"QLayerConfig {name} must be a QTensorConfig such as Int8Spec(), not {value!r}")
        for part, kind in _KINDS.items() if value is not None else ():
            if not isinstance(getattr(value, part), kind):
                raise ConfigError(f"{name}: {part} must be a {kind.__name__}, not {getattr(value, part)!r}")
        return value
