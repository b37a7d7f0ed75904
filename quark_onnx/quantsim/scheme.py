"""AIMET's quantization schemes: how ranges are chosen, and whether fine-tuning learns them."""

from __future__ import annotations

from enum import Enum

from quark_onnx.core.errors import ConfigError, nearest


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
