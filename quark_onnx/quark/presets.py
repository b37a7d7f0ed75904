"""Quark's presets as mutable configurations, every time a new one.

They are those of `core.settings.presets` under the names of Quark's fields. Of fine-tuning they hold Quark's keys:
None where this package decides by itself (how many iterations, at which rate), and any value that is set counts.
"""

from __future__ import annotations

from typing import Any

from quark_onnx.core.settings import config as settings
from quark_onnx.core.settings import presets
from quark_onnx.quark.enums import CalibrationMethod, ExtendedQuantType, LayerWiseMethod, PowerOfTwoMethod, QuantType
from quark_onnx.quark.matmul_weights import NBITS, PRODUCTS
from quark_onnx.quark.quantization_config import QuantizationConfig

_TUNING = {
    "DataSize": None,
    "FixedSeed": 1705472343,
    "BatchSize": None,
    "NumIterations": None,
    "LearningRate": None,
    "OptimDevice": "cpu",
    "InferDevice": "cpu",
    "EarlyStop": True,
}
"""FastFinetune of a preset, but for OptimAlgorithm."""

_NBITS = "MATMUL_NBITS"


def get_default_config(config_name: str) -> QuantizationConfig:
    """A new configuration with the values of a preset.

    Raises:
        ConfigError: there is no such preset; the message names the nearest, or says why it is not offered.
    """
    preset = presets.get_default_config(config_name)
    if config_name.startswith(_NBITS):
        algorithm = config_name.removeprefix(_NBITS).strip("_")
        if algorithm in ("", "GPTQ", "HQQ"):
            return _of_products(algorithm or "DEFAULT")
    return _raised(preset)


def untouched(settings_of_tuning: Any) -> bool:
    """Whether these are settings as a preset has them."""
    if not isinstance(settings_of_tuning, dict):
        return False
    return {**settings_of_tuning, "OptimAlgorithm": ""} == {**_TUNING, "OptimAlgorithm": ""}


def _of_products(algorithm: str) -> QuantizationConfig:
    params = {**NBITS, "Algorithm": algorithm, "AccuracyLevel": 1}
    return QuantizationConfig(extra_options={"UseMatMulNBits": True, "MatMulNBitsParams": params})


def _raised(preset: settings.QuantizationConfig) -> QuantizationConfig:
    """The preset in Quark's terms."""
    options = {key: _plain(value) for key, value in preset.extra_options.items()}
    if preset.include_fast_ft:
        options["FastFinetune"] = {**_TUNING, **(options.get("FastFinetune") or {})}
    if preset.row.symmetric:
        options["ActivationSymmetric"] = True
    op_types = list(preset.op_types_to_quantize)
    transformer = op_types == PRODUCTS and options.get("MatMulConstBOnly", False)
    if transformer:
        op_types = []
        del options["MatMulConstBOnly"]
    return QuantizationConfig(
        calibrate_method=_method(preset),
        activation_type=_type(preset.activation_type),
        weight_type=_type(preset.weight_type),
        op_types_to_quantize=op_types,
        per_channel=preset.per_channel,
        use_dynamic_quant=preset.use_dynamic_quant,
        include_cle=preset.include_cle,
        include_auto_mp=preset.include_auto_mp,
        include_fast_ft=preset.include_fast_ft,
        enable_npu_cnn=preset.row.pow2,
        enable_npu_transformer=transformer,
        extra_options=options,
    )


def _method(preset: settings.QuantizationConfig) -> Any:
    if preset.row.pow2:
        return PowerOfTwoMethod[preset.calibrate_method]
    if preset.calibrate_method == "LayerwisePercentile":
        return LayerWiseMethod.LayerWisePercentile
    return CalibrationMethod[preset.calibrate_method]


def _type(name: str) -> Any:
    """The member of an enumeration; the name itself where they have none, as of 12 bits."""
    members = {member.name.lower(): member for kind in (ExtendedQuantType, QuantType) for member in kind}
    return members.get(f"q{name}", name)


def _plain(value: Any) -> Any:
    """Mutable copies of what a frozen configuration holds."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value
