"""Reading `extra_options`: names, types, limits, and dictionaries inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.frozen_dict import FrozenDict
from quark_onnx.core.settings.checked_fields import named
from quark_onnx.core.settings.extra_options import OPTIONS, UNSUPPORTED
from quark_onnx.core.settings.fast_finetune import FastFinetune, from_quark
from quark_onnx.core.settings.layer_types import BLOCKS, plain_layers
from quark_onnx.core.settings.mixed_precision import mixing_from_quark
from quark_onnx.core.settings.protection import Protection
from quark_onnx.core.settings.range_methods import ALIASES, METHODS, WEIGHT_ONLY
from quark_onnx.core.settings.smoothing import smooth_quant_option
from quark_onnx.core.settings.tensor_overrides import plain_tensors, plain_types
from quark_onnx.core.settings.training.qat import plain_qat

_ENDLESS = 2**31
_LIMITS: dict[str, tuple[float, float]] = {
    "CalibDataSize": (1, math.inf),
    "CLESteps": (-1, _ENDLESS),
    "NumBins": (64, 2**16),
    "NumQuantizedBins": (2, 2**12),
    "CalibMovingAverageConstant": (1e-9, 1),
    "BlockSize": BLOCKS,
    "MinimumRealRange": (0, 1e30),
}
_WORDS: dict[str, tuple[object, ...]] = {
    "CLEBalanceMethod": ("max",),
    "LWPMetric": ("mae", "mse"),
    "BiasCorrection": (True, False, "auto"),
    "SmoothQuant": (True, False, "auto"),
    "TableBits": (4, 8),
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "TensorQuantOverrides": plain_tensors,
    "OpTypeQuantOverrides": plain_types,
    "LayerTypes": plain_layers,
    "AutoMixprecision": lambda value: mixing_from_quark(value).to_dict(),
    "SmoothQuant": lambda value: smooth_quant_option(value) if isinstance(value, Mapping) else value,
    "InlineIf": lambda value: _branches(value),
    "QAT": plain_qat,
}
"""What makes plain values of dictionaries, and refuses what is wrong in them."""


def checked_options(values: object) -> Mapping[str, Any]:
    """The extra options as they are kept: read-only, of plain values, every name and value checked.

    Raises:
        ConfigError: an unknown key, one that is not supported, or a bad value.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"extra_options must be a dictionary, not {values!r}")
    values = {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}
    for key, value in values.items():
        if key in UNSUPPORTED:
            raise ConfigError(f"extra option {key} is not supported: {UNSUPPORTED[key]}")
        if key not in OPTIONS:
            raise ConfigError(f"unknown extra option {key!r}{nearest(str(key), OPTIONS)}")
        expected = OPTIONS[key].type
        wrong_bool = isinstance(value, bool) and bool not in (expected if isinstance(expected, tuple) else (expected,))
        if value is not None and (wrong_bool or not isinstance(value, expected)):
            raise ConfigError(f"extra option {key} does not take {value!r}: {OPTIONS[key].meaning}")
    _check_values(values)
    values = dict(values)
    if (method := values.get("WeightCalibrateMethod")) is not None:
        values["WeightCalibrateMethod"] = named(
            method, (*METHODS, *WEIGHT_ONLY), "extra option WeightCalibrateMethod", ALIASES
        )
    for key, read in _READERS.items():
        if values.get(key) is not None:
            values[key] = read(values[key])
    plain = FrozenDict({key: _plain(value) for key, value in values.items()})
    from_quark(plain.get("FastFinetune") or {})  # refused now rather than after calibration
    return plain


def _check_values(values: Mapping[str, Any]) -> None:
    """Numbers in their limits, words among those known."""
    for key, (low, high) in _LIMITS.items():
        value = values.get(key)
        if value is not None and not low <= value <= high:
            wanted = f"from {low} to {high}" if high < _ENDLESS else f"at least {low}"
            raise ConfigError(f"extra option {key} must be {wanted}, not {value}")
    alpha = values.get("SmoothAlpha")
    if alpha is not None and not 0 < alpha <= 1:
        raise ConfigError(f"extra option SmoothAlpha must be above 0 and at most 1, not {alpha}")
    percentile = values.get("Percentile")
    if percentile is not None and not 50 < percentile <= 100:
        raise ConfigError(f"extra option Percentile must be above 50 and at most 100, not {percentile}")
    Protection.of(True if values.get("Protect") is None else values["Protect"])
    if values.get("SampleMask") in (True, ""):
        raise ConfigError("extra option SampleMask must be a name, or False; leave it out for what the graph shows")
    for key, known in _WORDS.items():
        if not isinstance(values.get(key), Mapping) and values.get(key) not in (None, *known):
            raise ConfigError(f"extra option {key} must be {' or '.join(map(repr, known))}, not {values[key]!r}")
    if values.get("CLESteps") == 0:
        raise ConfigError("extra option CLESteps must be at least 1, or -1 for as many as it takes, not 0")
    candidates = values.get("PercentileCandidates")
    numbers = candidates is None or all(isinstance(p, (int, float)) and 50 < p <= 100 for p in candidates)
    if not numbers or candidates in ([], ()):
        raise ConfigError(
            f"extra option PercentileCandidates must hold numbers above 50 and up to 100, not {candidates!r}"
        )


def _branches(value: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, branch in value.items():
        if branch not in ("then", "else"):
            raise ConfigError(f"extra option InlineIf must say 'then' or 'else' of If {name!r}, not {branch!r}")
    return value


def _plain(value: Any) -> Any:
    """The value as JSON would give it back: lists for tuples and arrays."""
    if isinstance(value, FastFinetune):
        return _plain(value.to_dict())
    if isinstance(value, Mapping):
        return FrozenDict({str(key): _plain(entry) for key, entry in value.items()})
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value
