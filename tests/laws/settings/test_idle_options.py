"""No option is accepted and then ignored: each is refused where it has nothing to act on, and taken where it has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from quark_onnx import ConfigError, QuantizationConfig, get_default_config
from quark_onnx.core.settings.extra_options import OPTIONS
from quark_onnx.core.settings.idle_options import (
    CARRIED,
    CARRIED_VALUES,
    OF_DATA,
    OF_GRAPHS,
    OF_INTEGERS,
    OF_MODEL,
    OF_RANGES,
)
from quark_onnx.core.settings.presets import PRESETS
from quark_onnx.core.settings.protection import Protection
from quark_onnx.core.settings.targets import TARGETS

FLOATS = [{"activation_type": kind, "weight_type": kind} for kind in ("float16", "bfloat16")]
ENTROPY, LAYERWISE = {"calibrate_method": "Entropy"}, {"calibrate_method": "LayerwisePercentile"}
SAMPLE: dict[str, Any] = {  # a value that asks for something
    "CLESteps": 3,
    "CLEBalanceMethod": "max",
    "BlockSize": 16,
    "TableBits": 4,
    "NumBins": 512,
    "NumQuantizedBins": 64,
    "LWPMetric": "mse",
    "PercentileCandidates": [99.0],
    "CalibMovingAverageConstant": 0.5,
    "MinimumRealRange": 0.1,
    "WeightCalibrateMethod": "MinMSE",
    "TensorQuantOverrides": {"x": [{"symmetric": True}]},
    "OpTypeQuantOverrides": {"Conv": {"input": {"symmetric": True}}},
    "OpTypesToExcludeOutputQuantization": ["Conv"],
    "FastFinetune": {"NumIterations": 9},
    "AutoMixprecision": {"DataSize": 2},
    "Protect": ["head/*"],
    "LayerTypes": {"head/*": {"weight_type": "int8"}},
    "SmoothAlpha": 0.5,
}


def config(**fields: Any) -> QuantizationConfig:
    """A configuration; names that are no field are extra options."""
    known = QuantizationConfig.__dataclass_fields__
    options = {key: fields.pop(key) for key in list(fields) if key not in known}
    return QuantizationConfig(**fields, extra_options=options)


def value(key: str) -> Any:
    return SAMPLE.get(key, True)


CASES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {  # what is refused, why, and with what it is taken
    "bins": ({"NumBins": 512}, "NumBins is a setting of Entropy, which is chosen nowhere", ENTROPY),
    "levels": ({"NumQuantizedBins": 64}, "is a setting of Entropy", {"WeightCalibrateMethod": "Entropy"}),
    "bins of one tensor": (
        {"NumBins": 512},
        "is a setting of Entropy",
        {"TensorQuantOverrides": {"x": [{"calibrate_method": "Entropy"}]}},
    ),
    "metric": ({"LWPMetric": "mse"}, "is a setting of LayerwisePercentile", LAYERWISE),
    "candidates": ({"PercentileCandidates": [99.0]}, "is a setting of LayerwisePercentile", LAYERWISE),
    "constant": ({"CalibMovingAverageConstant": 0.5}, "set CalibMovingAverage=True", {"CalibMovingAverage": True}),
    "one-sided": ({"UseUnsignedReLU": True}, "set ActivationSymmetric=True", {"ActivationSymmetric": True}),
    "one-sided for one": (
        {"UseUnsignedReLU": True},
        "set ActivationSymmetric=True",
        {"TensorQuantOverrides": {"x": [{"symmetric": True}]}},
    ),
    "strict": ({"StrictSymmetric": True, "WeightSymmetric": False}, "there is none", {"ActivationSymmetric": True}),
    "strict for one": (
        {"StrictSymmetric": True, "WeightSymmetric": False},
        "there is none",
        {"LayerTypes": {"head": {"symmetric": True}}},
    ),
    "shape": ({"RandomDataReaderInputShape": {"x": [1]}}, "set UseRandomData=True", {"UseRandomData": True}),
    "span": ({"RandomDataReaderInputDataRange": {"x": [0, 1]}}, "set UseRandomData=True", {"UseRandomData": True}),
}


@pytest.mark.parametrize(("fields", "message", "needed"), CASES.values(), ids=CASES)
def test_an_option_that_needs_another(fields: dict[str, Any], message: str, needed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**fields)
    config(**fields, **needed)


EXCLUDE = {
    "per channel": ({"CLESteps": 3, "per_channel": True}, "with a scale per channel there is nothing to even out"),
    "absorption": ({"HighBiasAbsorption": True, "per_channel": True}, "HighBiasAbsorption is part of equalization"),
    "bias": ({"QuantizeBias": False, "Int16Bias": True}, "Int16Bias says how biases are quantized"),
    "wide bias": ({"QuantizeBias": False, "Int32Bias": True}, "Int32Bias says how biases are quantized"),
    "powers of two": ({"calibrate_method": "NonOverflow", "UsePowerOf2Scale": False}, "remove UsePowerOf2Scale=False"),
    "… of weights": ({"WeightCalibrateMethod": "NonOverflow", "UsePowerOf2Scale": False}, "NonOverflow chooses among"),
    "one side": (
        {"CalibTensorRangeSymmetric": True, "UseUnsignedReLU": True, "ActivationSymmetric": True},
        "CalibTensorRangeSymmetric gives every range two ends",
    ),
    "smoothing": ({"SmoothQuant": False, "SmoothAlpha": 0.5}, "SmoothAlpha says how much SmoothQuant moves"),
    "two alphas": ({"SmoothQuant": {"alpha": 0.3}, "SmoothAlpha": 0.5}, "SmoothAlpha says how much SmoothQuant moves"),
    "images": ({"CalibImages": {"size": [2, 2]}, "UseRandomData": True}, "CalibImages is about image files"),
    "run time": ({"use_dynamic_quant": True, "WeightsOnly": True}, "exclude each other"),
    "16 bits at run time": ({"use_dynamic_quant": True, "activation_type": "int16"}, "asymmetric uint8"),
}


@pytest.mark.parametrize(("fields", "message"), EXCLUDE.values(), ids=EXCLUDE)
def test_options_that_exclude_each_other(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**fields)
    for key in fields:
        others = {name: value for name, value in fields.items() if name != key}
        if "UseUnsignedReLU" not in others or key != "ActivationSymmetric":
            config(**others)


OF_TARGETS = {
    "bias": ("tensorrt", {"QuantizeBias": True}, "which target 'tensorrt' adds in float"),
    "wide bias": ("tensorrt", {"Int32Bias": True}, "which target 'tensorrt' adds in float"),
    "weights": ("tensorrt", {"WeightSymmetric": False}, "target 'tensorrt' needs symmetric weights"),
    "activations": ("vitisai", {"ActivationSymmetric": False}, "target 'vitisai' needs symmetric activations"),
    "scales": ("vitisai", {"UsePowerOf2Scale": False}, "target 'vitisai' needs scales that are powers of two"),
    "smoothing": ("vitisai", {"SmoothQuant": True}, "target 'vitisai' rounds to powers of two"),
    "blocks": ("vitisai", {"BlockSize": 16}, "target 'vitisai' does not run that"),
    "tables": ("vitisai", {"TableBits": 4}, "target 'vitisai' does not look up as integers"),
    "blocks of QNN": ("qnn", {"BlockSize": 16, "activation_type": "uint8"}, "target 'qnn' does not run that"),
    "run time": ("tensorrt", {"use_dynamic_quant": True}, "target 'tensorrt' needs scales beforehand"),
}


@pytest.mark.parametrize(("target", "fields", "message"), OF_TARGETS.values(), ids=OF_TARGETS)
def test_what_a_target_cannot_do(target: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(target=target, **fields)
    config(**fields)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_a_conversion_takes_no_option_of_integers(kind: str) -> None:
    types = {"activation_type": kind, "weight_type": kind}
    for key in OF_INTEGERS:
        with pytest.raises(ConfigError, match=f"{key} is for integers; a model that becomes {kind} has none"):
            config(**types, **{key: value(key)})
    for field in ("per_channel", "reduce_range", "include_fast_ft", "use_dynamic_quant"):
        with pytest.raises(ConfigError, match=f"{field} is for integers"):
            config(**types, **{field: True})
    config(**types, UseRandomData=True, CalibDataSize=3)


@pytest.mark.parametrize("kind", [{"WeightsOnly": True}, {"use_dynamic_quant": True}], ids=["weights", "run time"])
@pytest.mark.parametrize("key", OF_RANGES)
def test_without_ranges_no_option_about_them(key: str, kind: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{key} needs activations with ranges"):
        config(**kind, **{key: value(key)})


def test_every_option_is_of_one_kind() -> None:
    assert sorted((*OF_DATA, *OF_MODEL, *OF_GRAPHS, *CARRIED, *OF_INTEGERS)) == sorted(OPTIONS)
    assert set(OF_RANGES) < set(OF_INTEGERS)
    assert {key for preset in PRESETS.values() for key in preset.extra_options} <= {
        *CARRIED,
        *CARRIED_VALUES,
        "FastFinetune",
        "QAT",
        "WeightsOnly",
        "BlockSize",
        "WeightCalibrateMethod",
    }


@pytest.mark.parametrize("kind", [{"WeightsOnly": True}, {"use_dynamic_quant": True}, *FLOATS], ids=str)
def test_what_acts_where_it_can_is_without_effect_elsewhere(kind: dict[str, Any]) -> None:
    """Values that presets set: no error, no data, nothing walked; and the negative twin, where there are ranges."""
    for key, carried in CARRIED_VALUES.items():
        config(**kind, **{key: carried})
    found = config(**kind, **CARRIED_VALUES)
    assert (found.corrects, found.moves_biases, found.needs_data) == (False, False, False)
    assert found.protection == Protection(on=False)
    ranged = config(**CARRIED_VALUES)
    assert (ranged.corrects, ranged.moves_biases, ranged.protection.on) == (True, True, True)


@pytest.mark.parametrize("name", ["INT8_PROTECTED", "S8S8_AAWS", "A8W8", "INT8_TRANSFORMER_DEFAULT"])
def test_a_preset_can_be_changed_without_clearing_it_up(name: str) -> None:
    """Another method, weights alone, run time: what the preset set besides does no harm."""
    preset = get_default_config(name)
    if not preset.option("CalibMovingAverage"):
        replace(preset, calibrate_method="Entropy")
    replace(preset, extra_options={**preset.extra_options, "WeightsOnly": True})


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_takes_what_it_says(target: str) -> None:
    row = TARGETS[target]
    types = {"activation_type": (row.activation_types or ("uint8",))[0]}
    for weight in row.weight_types or ("int8", "uint8", "int4"):
        found = config(target=target, weight_type=weight, **types)
        if row.per_channel and weight != "uint8":
            replace(found, per_channel=True)
    for key, allowed in (("QuantizeBias", row.bias_bits is not None), ("BlockSize", row.blocks)):
        if allowed:
            config(target=target, **types, **{key: value(key)})
