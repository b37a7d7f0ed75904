"""The words of onnxruntime.quantization: number types and file formats."""

from __future__ import annotations

from enum import Enum

from quark_onnx.core.settings.checked_fields import named


class Word(Enum):
    """A member is printed as its name, and read from it, so that argparse takes it."""

    def __str__(self) -> str:
        return self.name

    @classmethod
    def from_string(cls, name: str) -> Word:
        """The member of that name, in any case.

        Raises:
            ConfigError: there is none; the message names the nearest.
        """
        return cls[named(name, tuple(cls.__members__), cls.__name__)]


def word(value: object) -> str:
    """The name of a member, ours or onnxruntime's, or a string as it is."""
    return str(getattr(value, "name", value))


class QuantType(Word):
    """Number types. onnxruntime's float of 8 bits is there to be refused by name."""

    QInt8 = 0
    QUInt8 = 1
    QFLOAT8E4M3FN = 2
    QInt16 = 3
    QUInt16 = 4
    QInt4 = 5
    QUInt4 = 6


class QuantFormat(Word):
    """File formats; QOperator is there to be refused by name."""

    QOperator = 0
    QDQ = 1
