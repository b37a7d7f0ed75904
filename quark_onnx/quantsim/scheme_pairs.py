"""Pairs of schemes, one for weights and one for activations, among which AutoQuant chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from quark_onnx.core.errors import ConfigError
from quark_onnx.quantsim.common.defs import QuantScheme, as_scheme

WIDE = 16
"""Bits from which a grid holds any range: only the scheme that clips nothing is tried."""


class SchemePair(NamedTuple):
    """Schemes of weights and of activations."""

    param_quant_scheme: QuantScheme
    output_quant_scheme: QuantScheme

    def __str__(self) -> str:
        return f"weights {self.param_quant_scheme.method}, activations {self.output_quant_scheme.method}"


_TF, _ENHANCED = QuantScheme.post_training_tf, QuantScheme.post_training_tf_enhanced
CANDIDATES = (SchemePair(_TF, _TF), SchemePair(_ENHANCED, _TF), SchemePair(_ENHANCED, _ENHANCED))
"""AIMET's, in its order."""


def without_training(value: Any) -> QuantScheme:
    """A scheme that needs no training.

    Raises:
        ConfigError: there is no such scheme, or it learns its ranges.
    """
    scheme = as_scheme(value)
    if scheme.learns:
        raise ConfigError(
            f"{scheme.name} learns ranges by training, which AutoQuant does not; give a post_training one"
        )
    return scheme


def as_pair(value: Any) -> SchemePair:
    """A pair from one of AIMET's, or from two schemes or their names: of weights, of activations.

    Raises:
        ConfigError: it is none.
    """
    if hasattr(value, "param_quant_scheme"):
        value = (value.param_quant_scheme, value.output_quant_scheme)
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ConfigError(f"a candidate is a pair of schemes (weights, activations), not {value!r}")
    return SchemePair(without_training(value[0]), without_training(value[1]))


def allowed(pairs: Sequence[SchemePair], param_bw: int, output_bw: int) -> list[SchemePair]:
    """The pairs, without those that may clip where the grid is so fine that it need not.

    Raises:
        ConfigError: none is left.
    """
    wide = (param_bw >= WIDE, output_bw >= WIDE)
    left = [pair for pair in pairs if all(s.method == "tf" or not w for s, w in zip(pair, wide, strict=True))]
    if not left:
        raise ConfigError(f"with {WIDE} bits only the scheme post_training_tf is tried, which no candidate has")
    return left
