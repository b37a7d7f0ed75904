"""AIMET's definitions: quantization schemes, and types of numbers.

A scheme says how ranges are chosen, and whether fine-tuning learns them. Types are integers of any width, and floats,
which here mean that a tensor is not quantized.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from enum import Enum

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.settings.checked_fields import whole

NARROWEST, WIDEST = 2, 31
"""Bits that can be simulated; the codes of the widest grid still fit an int32, unsigned as they may be."""

bits = whole(NARROWEST, WIDEST)
"""Checks a bit width, as `bits(name, value)`."""


class QuantScheme(Enum):
    """The members of AIMET's enumeration, with its numbers.

    post_training_tf                               from the smallest to the largest value (also `min_max`)
    post_training_tf_enhanced                      the range of least rounding and clipping noise
    training_range_learning_with_tf_init           as post_training_tf at first; `fine_tune` then learns ranges
    training_range_learning_with_tf_enhanced_init  the same from post_training_tf_enhanced
    post_training_percentile                       a percentage of the values seen
    """

    post_training_tf = 1
    min_max = 1  # noqa: PIE796 - another name of the first, as in AIMET
    post_training_tf_enhanced = 2
    training_range_learning_with_tf_init = 3
    training_range_learning_with_tf_enhanced_init = 4
    post_training_percentile = 6

    @property
    def method(self) -> str:
        """The range method that is used, or that learning begins with: a name of `range_methods.METHODS`."""
        return _METHODS[self]

    @property
    def learns(self) -> bool:
        """Whether fine-tuning learns the ranges."""
        return self.name.startswith("training_range_learning")


class QuantizationDataType(Enum):
    """Kinds of numbers, with AIMET's values."""

    undefined = 0
    int = 1
    float = 2


_METHODS = {
    QuantScheme.post_training_tf: "tf",
    QuantScheme.post_training_tf_enhanced: "tf_enhanced",
    QuantScheme.training_range_learning_with_tf_init: "tf",
    QuantScheme.training_range_learning_with_tf_enhanced_init: "tf_enhanced",
    QuantScheme.post_training_percentile: "tf_percentile",
}
_SHORT = {"tf": 1, "tf_enhanced": 2, "percentile": 6}


def as_scheme(value: object) -> QuantScheme:
    """A scheme from itself, AIMET's own member, its name, or one of "tf", "min_max", "tf_enhanced", "percentile".

    Raises:
        ConfigError: there is no such scheme.
    """
    name = getattr(value, "name", value)
    if isinstance(name, str) and name in QuantScheme.__members__:
        return QuantScheme[name]
    if isinstance(name, str) and name in _SHORT:
        return QuantScheme(_SHORT[name])
    known = (*QuantScheme.__members__, *_SHORT)
    raise ConfigError(f"unknown quant_scheme {value!r}{nearest(str(name), known)}")


@dataclass(frozen=True)
class qtype:
    """The type of the numbers of a tensor: `qtype.int(8)`, `qtype.float(5, 10)`.

    bits      width
    floating  not quantized: the simulation computes in float32, which holds every float16
    """

    bits: builtins.int
    floating: bool = False

    @staticmethod
    def int(bits: builtins.int) -> qtype:
        """Integers of 2 to 31 bits."""
        return qtype(whole(NARROWEST, WIDEST)("bits of qtype.int", bits))

    @staticmethod
    def float(exponent_bits: builtins.int, mantissa_bits: builtins.int) -> qtype:
        """float16 (5, 10) or float32 (8, 23).

        Raises:
            ConfigError: another type, which is not simulated.
        """
        for known in (float16, float32):
            if (exponent_bits, mantissa_bits) == _PARTS[known.bits]:
                return known
        raise ConfigError(
            f"qtype.float({exponent_bits}, {mantissa_bits}) is not simulated; take float16 (5, 10), float32 (8, 23) or "
            "an integer type"
        )


_PARTS = {16: (5, 10), 32: (8, 23)}
"""Bits of exponent and mantissa, by width."""

float16, float32 = qtype(16, floating=True), qtype(32, floating=True)
int2, int4, int8, int16 = (qtype(width) for width in (2, 4, 8, 16))

_NAMED = {f"int{width}": qtype(width) for width in range(NARROWEST, WIDEST + 1)}
_NAMED |= {"float16": float16, "float32": float32}


def as_qtype(field: str, value: object) -> qtype:
    """A type from itself, its name such as "int8", or a number of bits.

    Raises:
        ConfigError: there is no such type.
    """
    if isinstance(value, qtype):
        return value if value.floating else qtype(bits(field, value.bits))
    if isinstance(value, str):
        if value not in _NAMED:
            raise ConfigError(f"{field}: unknown type {value!r}{nearest(value, _NAMED)}")
        return _NAMED[value]
    return qtype(bits(field, value))
