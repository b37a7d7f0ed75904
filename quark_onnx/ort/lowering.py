"""From onnxruntime's parameters to our configuration: a table of what each becomes."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.operators import CPU
from quark_onnx.core.settings.checked_fields import names
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.graph.opset import operator_types
from quark_onnx.ort.extra_options import AT_RUN_TIME, FIXED, SWITCHES, lowered_options, says
from quark_onnx.ort.quant_config import DynamicQuantConfig, Names, StaticQuantConfig
from quark_onnx.ort.quant_utils import word

_FUSED = ("Attention", "EmbedLayerNormalization")
"""Operators of onnxruntime's own that its quantizer knows: lists that scripts share name them."""

_PATTERN = re.compile(r"[*?\[]|^\^")


def static(config: StaticQuantConfig, present: Collection[str]) -> QuantizationConfig:
    """Our configuration of a static quantization.

    Args:
        present: operator types of the model.

    Raises:
        ConfigError: a parameter or an option that has no counterpart.
    """
    refuse_operators(config.quant_format)
    _refuse_providers(config.calibration_providers)
    _refuse_bytes_of_floats(config.activation_type, "activation_type")
    options = {"SmoothQuant": False} | lowered_options(config.extra_options, config.activation_type)
    asked = {key for key, value in (config.extra_options or {}).items() if value is not None}
    if "CalibPercentile" in asked and word(config.calibrate_method) != "Percentile":
        raise ConfigError("extra option CalibPercentile is for calibrate_method=Percentile; set that, or leave it out")
    if "SmoothQuantAlpha" in asked and not options["SmoothQuant"]:
        raise ConfigError("extra option SmoothQuantAlpha is for SmoothQuant=True; set that, or leave it out")
    return QuantizationConfig(
        calibrate_method=config.calibrate_method,
        activation_type=config.activation_type,
        **_common(config, options, present),
    )


def dynamic(config: DynamicQuantConfig, present: Collection[str]) -> QuantizationConfig:
    """Our configuration of a dynamic quantization, arguments and errors as of `static`."""
    options = lowered_options(config.extra_options, "uint8", FIXED | AT_RUN_TIME)
    return QuantizationConfig(activation_type="uint8", use_dynamic_quant=True, **_common(config, options, present))


def _common(
    config: StaticQuantConfig | DynamicQuantConfig, options: dict[str, Any], present: Collection[str]
) -> dict[str, Any]:
    _refuse_bytes_of_floats(config.weight_type, "weight_type")
    switches = dict.fromkeys((SWITCHES[key] for key in options if key in SWITCHES), True)
    return {
        "weight_type": config.weight_type,
        "op_types_to_quantize": wanted_types(config.op_types_to_quantize, present),
        "nodes_to_quantize": exact("nodes_to_quantize", config.nodes_to_quantize),
        "nodes_to_exclude": exact("nodes_to_exclude", config.nodes_to_exclude),
        "per_channel": config.per_channel,
        "reduce_range": config.reduce_range,
        "use_external_data_format": config.use_external_data_format,
        "extra_options": options,
        "include_cle": False,
        **switches,
    }


def refuse_operators(quant_format: object) -> None:
    """Nothing, if the format is QDQ.

    Raises:
        ConfigError: it is not.
    """
    if word(quant_format) != "QDQ":
        raise ConfigError(
            f"quant_format: {word(quant_format)} is not written; take QuantFormat.QDQ, of which onnxruntime makes the "
            "same integer operators when it loads the model"
        )


def _refuse_providers(providers: object) -> None:
    if not says(providers, (None, ["CPUExecutionProvider"], ("CPUExecutionProvider",))):
        raise ConfigError(
            f"calibration_providers: calibration runs on the CPU, not on {providers!r}; give "
            "['CPUExecutionProvider'], or leave it out"
        )


def _refuse_bytes_of_floats(number_type: object, name: str) -> None:
    if word(number_type).startswith("QFLOAT8"):
        raise ConfigError(f"{name}: no CPU computes with {word(number_type)}; take QInt8 or QUInt8, as small")


def exact(field: str, given: Names) -> tuple[str, ...]:
    """Node names as patterns of ours that take exactly these: onnxruntime's are no globs or regular expressions.

    Raises:
        ConfigError: what is given is no list of names.
    """
    if callable(given):
        raise ConfigError(f"{field}: a function is for get_qdq_config, which asks it; give a list of names here")
    return tuple(_PATTERN.sub(r"[\g<0>]", name) for name in listed(field, given))


def listed(field: str, given: Names) -> tuple[str, ...]:
    """Names; those of a set in their order, none for None.

    Raises:
        ConfigError: what is given is no list of names.
    """
    ordered = sorted(given, key=str) if isinstance(given, set | frozenset) else given
    return names(field, () if ordered is None else ordered)


def wanted_types(given: Names, present: Collection[str]) -> tuple[str, ...]:
    """Operator types that may be quantized; none, which is all, if these are all that the model has.

    A type that no CPU runs on integers is left out: the report says so of its nodes, if there are any. One that nobody
    has is left for placement to refuse, as is a list of which nothing would be left.

    Raises:
        ConfigError: what is given is no list of names.
    """
    asked = listed("op_types_to_quantize", given)
    known = {*present, *_FUSED, *operator_types()}
    left = tuple(name for name in asked if name in CPU or name not in known)
    if set(present) <= set(asked) and set(left) <= CPU.keys():
        return ()  # preparing makes other types of them
    return left or asked
