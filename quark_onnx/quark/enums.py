"""Quark's enumerations, and those of onnxruntime that its tutorials import.

What reads a member reads its name, so that members of the packages themselves do as well.
"""

from __future__ import annotations

from enum import Enum


class CalibrationMethod(Enum):
    """onnxruntime's: how ranges of activations are chosen, with scales of any size."""

    MinMax = 0
    Entropy = 1
    Percentile = 2
    Distribution = 3


class PowerOfTwoMethod(Enum):
    """Scales are powers of two."""

    NonOverflow = 0
    MinMSE = 1


class LayerWiseMethod(Enum):
    """Every tensor has the best of several percentages."""

    LayerWisePercentile = 0


class Int16Method(Enum):
    """Scales are 16-bit integers over a power of two: refused."""

    MinMax = 0


class ExtendedCalibrationMethod(Enum):
    """For weights, see the option WeightCalibrateMethod."""

    MinMSE = 0


class QuantFormat(Enum):
    """onnxruntime's."""

    QOperator = 0
    QDQ = 1


class ExtendedQuantFormat(Enum):
    """QDQ is the same as `QuantFormat.QDQ` here: standard operators."""

    QOperator = 0
    QDQ = 1


class QuantType(Enum):
    """onnxruntime's."""

    QInt8 = 0
    QUInt8 = 1
    QFLOAT8E4M3FN = 2
    QInt16 = 3
    QUInt16 = 4
    QInt4 = 5
    QUInt4 = 6


class ExtendedQuantType(Enum):
    """onnxruntime's types and those of Quark."""

    QInt8 = 1
    QUInt8 = 2
    QInt16 = 3
    QUInt16 = 4
    QInt32 = 5
    QUInt32 = 6
    QFloat16 = 7
    QBFloat16 = 8
    QBFP = 9
    QMX = 10


VitisQuantFormat, VitisQuantType = ExtendedQuantFormat, ExtendedQuantType
"""Older names."""


class CalibMethod(Enum):
    """How ranges are chosen, in a `QTensorConfig`."""

    MinMax = 0
    MinMSE = 1
    Percentile = 2
    Entropy = 3
    LayerwisePercentile = 4
    Distribution = 5


class ScaleType(Enum):
    """Which numbers scales may be. Int16 is refused."""

    Float32 = 0
    PowerOf2 = 1
    Int16 = 2


class QuantGranularity(Enum):
    """How many scales a tensor has. Group is refused: the option BlockSize says how large a group is."""

    Tensor = 0
    Channel = 1
    Group = 2
