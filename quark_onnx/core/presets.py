"""Presets: configurations by name.

A name such as `S8S8_AAWS` is read as: activation type, weight type, _A(symmetric or Symmetric) activation,
W(eight) likewise. The other names are those of AMD Quark. Each of them also exists with `_ADAROUND` and `_ADAQUANT`
at its end: the same, and its weights are fine-tuned afterwards.
"""

from __future__ import annotations

from dataclasses import replace

from quark_onnx.core.config import QuantizationConfig
from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.finetune import METHODS

_TYPE = {"S8": "int8", "U8": "uint8"}


def _named(name: str, method: str = "Percentile", **extra: object) -> QuantizationConfig:
    """The configuration that a name of the form `S8S8_AAWS` spells."""
    types, symmetry = name.split("_")
    options = {
        "ActivationSymmetric": symmetry[1] == "S",
        "WeightSymmetric": symmetry[3] == "S",
        "ForceQuantizeNoInputCheck": True,
        **extra,
    }
    return QuantizationConfig(
        calibrate_method=method,
        activation_type=_TYPE[types[:2]],
        weight_type=_TYPE[types[2:]],
        extra_options=options,
    )


_STATIC: dict[str, QuantizationConfig] = {
    "S8S8_AAWS": _named("S8S8_AAWS", Percentile=99.9999),
    "U8S8_AAWS": _named("U8S8_AAWS"),
    "U8U8_AAWA": _named("U8U8_AAWA"),
    "A8W8": _named("S8S8_ASWS", method="MinMax", AlignConcat=True),
    "INT8_CNN_DEFAULT": _named("U8S8_AAWS", method="MinMax"),
}


def _tuned(config: QuantizationConfig, algorithm: str) -> QuantizationConfig:
    """The same with fast fine-tuning, at this package's settings for it."""
    options = {**config.extra_options, "FastFinetune": {"OptimAlgorithm": algorithm}}
    return replace(config, include_fast_ft=True, extra_options=options)


PRESETS = {
    f"{name}{suffix}": _tuned(config, suffix[1:].lower()) if suffix else config
    for name, config in _STATIC.items()
    for suffix in ("", *(f"_{algorithm.upper()}" for algorithm in METHODS))
}
"""All presets by name."""


def get_default_config(name: str) -> QuantizationConfig:
    """The preset of that name.

    Raises:
        ConfigError: there is no such preset; the message names the nearest.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}{nearest(str(name), PRESETS)}")
    return PRESETS[name]
