"""Presets: configurations by name.

`INT8_PROTECTED` is the default: the best of this package that needs no search, fitted to what runs the model.

A name such as `S8S8_AAWS` is read as: activation type, weight type, A(symmetric or Symmetric) activation, W(eight)
likewise; any name of that form is a preset, also `S16S4_ASWS`. The other names are those of AMD Quark. Static integer
presets and `MATMUL_NBITS` also exist with `_ADAROUND`, `_ADAQUANT` and `_GPTQ` at the end: the same, and weights are
fine-tuned afterwards; and with `_QAT`: as `_ADAROUND`, and the quantized model is trained after that.

`Config` is what `ModelQuantizer` takes: without a configuration, the preset that needs no choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from quark_onnx.core.errors import ConfigError, nearest
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.fast_finetune import METHODS
from quark_onnx.core.settings.targets import TARGETS

DEFAULT = "INT8_PROTECTED"
"""The preset where none is named."""

CONVERSIONS = {"float16": "FP16", "bfloat16": "BF16"}
"""The preset where none is named and both types are floats."""

TRAINED = "_QAT"
"""How presets end whose models are trained."""

_SPELLED = re.compile(r"([SU])(\d+)([SU])(\d+)_A([AS])W([AS])")
_SIGN = {"S": "int", "U": "uint"}


def _named(name: str, method: str = "Percentile", **extra: object) -> QuantizationConfig:
    """The configuration that a name of the form `S8S8_AAWS` spells.

    Raises:
        ConfigError: such types are not there, or do not go together.
    """
    found = _SPELLED.fullmatch(name)
    assert found is not None
    a_sign, a_bits, w_sign, w_bits, a, w = found.groups()
    options = {
        "ActivationSymmetric": a == "S",
        "WeightSymmetric": w == "S",
        "ForceQuantizeNoInputCheck": True,
        **extra,
    }
    return QuantizationConfig(
        calibrate_method=method,
        activation_type=_SIGN[a_sign] + a_bits,
        weight_type=_SIGN[w_sign] + w_bits,
        extra_options=options,
    )


def _npu(activation: str) -> QuantizationConfig:
    """Power-of-two scales chosen by squared error, for AMD's NPUs."""
    return QuantizationConfig(
        target="vitisai",
        calibrate_method="MinMSE",
        activation_type=activation,
        extra_options={"ForceQuantizeNoInputCheck": True},
    )


def _protected(target: str) -> QuantizationConfig:
    """The default for a target: a scale per channel where it has them, protection, biases that are judged."""
    row = TARGETS[target]
    types = row.activation_types
    start = _npu("int8") if row.pow2 else _named("S8S8_AAWS", Percentile=99.9999)
    options = {**start.extra_options, "BiasCorrection": "auto", "Protect": True}
    if row.symmetric:
        options.pop("ActivationSymmetric", None)  # the target's, and not to be had otherwise
    return replace(
        start,
        target=target,
        activation_type="int8" if not types or "int8" in types else types[0],
        per_channel=row.per_channel,
        extra_options=options,
    )


def _transformer(config: QuantizationConfig, **extra: object) -> QuantizationConfig:
    """Products of matrices only, the second one constant."""
    options = {**config.extra_options, "MatMulConstBOnly": True, **extra}
    return replace(config, op_types_to_quantize=("MatMul", "Gemm"), extra_options=options)


def _tuned(config: QuantizationConfig, ending: str) -> QuantizationConfig:
    """The same with fast fine-tuning, at this package's settings for it; biases are part of it. And with training."""
    trains = ending == TRAINED
    algorithm = "adaround" if trains else ending.removeprefix("_").lower()
    options = {
        **config.extra_options,
        "FastFinetune": {"OptimAlgorithm": algorithm},
        **({"QAT": True} if trains else {}),
    }
    options.pop("BiasCorrection", None)
    return replace(config, include_fast_ft=True, extra_options=options)


_INT8, _INT16 = _named("U8S8_AAWS", "MinMax"), _named("U16S16_AAWS", "MinMax")
_FINE8, _FINE16 = (_named(name, Percentile=99.9999) for name in ("U8S8_AAWS", "U16S16_AAWS"))

_NBITS = QuantizationConfig(
    weight_type="int4",
    op_types_to_quantize=("MatMul", "Gemm", "Gather"),  # preparing makes a Gemm of MatMul + Add
    include_cle=False,
    extra_options={"WeightsOnly": True, "BlockSize": 128},
)

_TUNABLE: dict[str, QuantizationConfig] = {
    DEFAULT: _protected("cpu"),
    "S8S8_AAWS": _named("S8S8_AAWS", Percentile=99.9999),
    "U8S8_AAWS": _named("U8S8_AAWS"),
    "U8U8_AAWA": _named("U8U8_AAWA"),
    "S16S8_ASWS": _named("S16S8_ASWS"),
    "U16S8_AAWS": _named("U16S8_AAWS"),
    "A8W8": _named("S8S8_ASWS", "MinMax", AlignConcat=True),
    "A16W8": _named("S16S8_ASWS", "MinMax", AlignConcat=True),
    "XINT8": _npu("uint8"),
    "VINT8": _npu("int8"),
    "INT8_CNN_DEFAULT": _INT8,
    "INT16_CNN_DEFAULT": _INT16,
    "INT8_TRANSFORMER_DEFAULT": _transformer(_INT8, CalibMovingAverage=True),
    "INT16_TRANSFORMER_DEFAULT": _transformer(_INT16, CalibMovingAverage=True),
    "MATMUL_NBITS": _NBITS,
}

_OTHERS: dict[str, QuantizationConfig] = {
    "INT8_CNN_ACCURATE": _tuned(_FINE8, "_ADAROUND"),
    "INT16_CNN_ACCURATE": _tuned(_FINE16, "_ADAROUND"),
    "INT8_TRANSFORMER_ACCURATE": _tuned(_transformer(_FINE8), "_ADAROUND"),
    "INT16_TRANSFORMER_ACCURATE": _tuned(_transformer(_FINE16), "_ADAROUND"),
    "S16S16_MIXED_S8S8": replace(_named("S16S16_AAWS", Percentile=99.9999), include_auto_mp=True),
    "UINT8_DYNAMIC_QUANT": QuantizationConfig(
        activation_type="uint8", weight_type="int8", per_channel=True, use_dynamic_quant=True, include_cle=False
    ),
    "MATMUL_NBITS_HQQ": replace(_NBITS, extra_options={**_NBITS.extra_options, "WeightCalibrateMethod": "HQQ"}),
    "FP16": QuantizationConfig(activation_type="float16", weight_type="float16", include_cle=False),
    "BF16": QuantizationConfig(activation_type="bfloat16", weight_type="bfloat16", include_cle=False),
}
"""Presets that come as they are, without the endings."""

_ENDINGS = (*(f"_{algorithm.upper()}" for algorithm in METHODS), TRAINED)
"""What a preset of integers takes behind its name."""

PRESETS = {
    f"{name}{suffix}": _tuned(config, suffix) if suffix else config
    for name, config in _TUNABLE.items()
    for suffix in ("", *_ENDINGS)
} | _OTHERS
"""All presets that have a place in the list, by name."""

_BLOCK_FLOAT = re.compile(r"(.*_)?(BFP|MX)\w*")
_BLOCK_FLOAT_REASON = (
    "block floating point and microscaling formats share an exponent among neighbours; ONNX has no such type, and a "
    "model would need operators of its own that onnxruntime does not have"
)


def get_default_config(name: str = DEFAULT) -> QuantizationConfig:
    """The preset of that name; without one, the default.

    Raises:
        ConfigError: there is no such preset; the message names the nearest, or says why it is not offered.
    """
    if name in PRESETS:
        return PRESETS[name]
    ending = next((ending for ending in _ENDINGS if str(name).endswith(ending)), "")
    base = str(name).removesuffix(ending)
    if _SPELLED.fullmatch(base):
        config = _named(base)
        return _tuned(config, ending) if ending else config
    if _BLOCK_FLOAT.fullmatch(base):
        raise ConfigError(
            f"preset {name!r} is not offered: {_BLOCK_FLOAT_REASON}; INT8, 16-bit and 4-bit integers, FP16 and BF16 are"
        )
    if ending and base in _OTHERS:
        raise ConfigError(
            f"preset {base!r} does not come with {ending}: use it as it is, or another preset of integers"
        )
    raise ConfigError(f"unknown preset {name!r}{nearest(str(name), PRESETS)}")


def beginning(name: str | None, changes: Mapping[str, Any]) -> tuple[str, QuantizationConfig]:
    """The preset that changes of fields begin with, and its name.

    A preset that is named is as it is, but for the default, which fits itself to the target that is asked for. Where
    none is named, it is the default, and where both types become floats, the preset of that conversion.

    Raises:
        ConfigError: there is no such preset.
    """
    if name is None:
        activation, weight = changes.get("activation_type"), changes.get("weight_type")
        name = CONVERSIONS.get(str(weight), DEFAULT) if activation == weight else DEFAULT
    target, ending = str(changes.get("target")), str(name).removeprefix(DEFAULT)
    if target not in TARGETS or name != DEFAULT + ending or ending not in ("", *_ENDINGS):
        return name, get_default_config(name)
    config = _protected(target)
    return name, _tuned(config, ending) if ending else config


@dataclass(frozen=True)
class Config:
    """The configuration that holds for the whole model; without one, `get_default_config()`."""

    global_quant_config: QuantizationConfig = field(default_factory=get_default_config)

    def __post_init__(self) -> None:
        if not isinstance(self.global_quant_config, QuantizationConfig):
            raise ConfigError(
                f"global_quant_config must be a QuantizationConfig, e.g. get_default_config('S8S8_AAWS'), "
                f"not {type(self.global_quant_config).__name__}"
            )
