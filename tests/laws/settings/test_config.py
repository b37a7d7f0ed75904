"""The configuration: strict about every key and value, the same in Python and JSON."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from enum import Enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType

from quark_onnx import Config, ConfigError, QuantizationConfig, get_default_config
from quark_onnx.core.number_formats import TYPES, Format
from quark_onnx.core.settings.extra_options import OPTIONS, UNSUPPORTED
from quark_onnx.core.settings.fast_finetune import AdaQuant, AdaRound
from quark_onnx.core.settings.idle_options import OF_ENTROPY, OF_EQUALIZATION, OF_LAYERWISE, OF_RANDOM, OF_RANGES
from quark_onnx.core.settings.range_methods import METHODS, WEIGHT_ONLY

names = st.lists(st.text(min_size=1, max_size=8), max_size=3)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
values: dict[str, st.SearchStrategy[Any]] = {
    "Percentile": st.floats(50, 100, exclude_min=True) | st.integers(51, 100),
    "CalibDataSize": st.integers(1, 10**6),
    "SampleMask": st.sampled_from(["mask", False]),
    "CalibImages": st.dictionaries(st.sampled_from(["size", "mean"]), st.tuples(numbers, numbers) | numbers),
    "UserCustomOpLibPath": st.lists(st.text()),
    "RandomDataReaderInputShape": st.dictionaries(st.text(), st.lists(st.integers(1, 9)).map(tuple)),
    "RandomDataReaderInputDataRange": st.dictionaries(st.text(), st.tuples(numbers, numbers)),
    "BlockSize": st.integers(2, 999),
    "TableBits": st.sampled_from([4, 8]),
    "NumBins": st.integers(64, 9999),
    "NumQuantizedBins": st.integers(2, 999),
    "CalibMovingAverageConstant": st.floats(0.001, 1),
    "MinimumRealRange": st.floats(0, 1),
    "PercentileCandidates": st.lists(st.floats(51, 100), min_size=1),
    "LWPMetric": st.sampled_from(["mae", "mse"]),
    "WeightCalibrateMethod": st.sampled_from([*METHODS, *WEIGHT_ONLY]),
    "OpTypesToExcludeOutputQuantization": names,
    "TensorQuantOverrides": st.none(),
    "OpTypeQuantOverrides": st.none(),
    "LayerTypes": st.dictionaries(
        st.text(),
        st.fixed_dictionaries(
            {"activation_type": st.just("float")},
            optional={
                "weight_type": st.sampled_from(list(TYPES)),
                "symmetric": st.booleans(),
                "per_channel": st.booleans(),
                "BlockSize": st.integers(2, 999) | st.none(),
            },
        ),
    ),
    "AutoMixprecision": st.none(),
    "Int16Bias": st.none(),
    "CLESteps": st.just(-1) | st.integers(1, 99),
    "CLEBalanceMethod": st.just("max"),
    "SmoothQuant": st.just("auto") | st.booleans() | st.just({"name": "smooth_quant", "alpha": 0.25}),
    "SmoothAlpha": st.floats(0, 1, exclude_min=True),
    "InlineIf": st.dictionaries(st.text(), st.sampled_from(["then", "else"])),
    "FastFinetune": st.sampled_from(
        [{}, {"OptimAlgorithm": "adaquant", "BatchSize": 2}, AdaRound(polish=1), AdaQuant(learning_rate=0.5)]
    ),
}
options = st.fixed_dictionaries({}, optional={k: values.get(k, st.booleans()) | st.none() for k in OPTIONS})


def idle(key: str, extra: dict[str, Any], method: str, per_channel: bool) -> bool:
    """Whether the option has nothing to act on beside the others."""
    weights, alone = extra.get("WeightCalibrateMethod") or "MinMax", extra.get("WeightsOnly")
    methods = {weights} if alone else {weights, method}
    if key in OF_ENTROPY or key in OF_LAYERWISE:
        return ("Entropy" if key in OF_ENTROPY else "LayerwisePercentile") not in methods
    unmet = {
        "UseUnsignedReLU": not extra.get("ActivationSymmetric") or extra.get("CalibTensorRangeSymmetric"),
        "StrictSymmetric": extra.get("WeightSymmetric") is not True,
        "CalibMovingAverageConstant": extra.get("CalibMovingAverage") is None,
        "UsePowerOf2Scale": "NonOverflow" in methods,
        "Int32Bias": extra.get("QuantizeBias") is False,
        "CalibImages": extra.get("UseRandomData"),
        "SmoothAlpha": extra.get("SmoothQuant") is False or isinstance(extra.get("SmoothQuant"), dict),
        "SampleMask": extra.get("UseRandomData"),
    }
    random = key in OF_RANDOM and extra.get("UseRandomData") is None
    equalization = key in OF_EQUALIZATION and per_channel
    return bool(unmet.get(key) or (alone and key in OF_RANGES) or random or equalization)


@st.composite
def configs(draw: st.DrawFn) -> QuantizationConfig:
    activation = draw(st.sampled_from([name for name, (bits, _) in TYPES.items() if bits > 4]))
    weight = draw(st.sampled_from([name for name in TYPES if (activation, name) != ("int8", "uint8")]))
    extra = draw(options)
    method = draw(st.sampled_from(list(METHODS)))
    if extra.get("CalibMovingAverage"):
        method = "MinMax"
    per_channel = draw(st.booleans())
    extra = {key: value for key, value in extra.items() if not idle(key, extra, method, per_channel)}
    equalized = any(extra.get(key) for key in OF_EQUALIZATION)
    return QuantizationConfig(
        calibrate_method=method,
        activation_type=activation,
        weight_type=weight,
        per_channel=per_channel,
        reduce_range=draw(st.booleans()) and TYPES[weight][0] == 8,
        op_types_to_quantize=tuple(draw(names)),
        nodes_to_quantize=tuple(draw(names)),
        nodes_to_exclude=tuple(draw(names)),
        subgraphs_to_exclude=tuple(draw(st.lists(st.tuples(names.map(tuple), names.map(tuple)), max_size=2))),
        optimize_model=draw(st.booleans()),
        include_cle=equalized or draw(st.booleans()),
        include_fast_ft=extra.get("FastFinetune") is not None or draw(st.booleans()),
        use_external_data_format=draw(st.booleans()),
        extra_options=extra,
    )


law = settings(deadline=None, max_examples=100)


@law
@given(configs())
def test_json_and_back_is_equal(config: QuantizationConfig) -> None:
    assert QuantizationConfig.from_json(config.to_json()) == config


@law
@given(configs())
def test_copies_are_equal(config: QuantizationConfig) -> None:
    assert dataclasses.replace(config) == config
    assert copy.deepcopy(config) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert QuantizationConfig.from_dict(dataclasses.asdict(config)) == config


def test_json_has_every_field_and_nothing_else() -> None:
    document = json.loads(QuantizationConfig().to_json())
    assert list(document) == [field.name for field in dataclasses.fields(QuantizationConfig)]


def test_arrays_in_options_become_lists() -> None:
    config = QuantizationConfig(extra_options={"CalibImages": {"mean": np.array([0.5, 0.25]), "scale": np.float64(2)}})
    assert config.extra_options["CalibImages"] == {"mean": [0.5, 0.25], "scale": 2.0}
    assert QuantizationConfig.from_json(config.to_json()) == config


def test_defaults() -> None:
    config = QuantizationConfig()
    assert (config.activation, config.weight) == (Format(8, True, False), Format(8, True, True))
    assert {key: config.option(key) for key in OPTIONS} == {key: option.default for key, option in OPTIONS.items()}


@pytest.mark.parametrize("key", OPTIONS)
def test_none_stands_for_the_default(key: str) -> None:
    assert QuantizationConfig(extra_options={key: None}).option(key) == OPTIONS[key].default


FIELDS = [field.name for field in dataclasses.fields(QuantizationConfig)]


@pytest.mark.parametrize("field", FIELDS)
def test_a_misspelled_field_names_the_nearest(field: str) -> None:
    wrong = field[:-2] + field[-1]
    for read in (QuantizationConfig.from_dict, lambda values: QuantizationConfig.from_json(json.dumps(values))):
        with pytest.raises(ConfigError, match=f"unknown field '{wrong}'; did you mean '{field}'"):
            read({wrong: True})


@pytest.mark.parametrize("key", OPTIONS)
def test_a_misspelled_option_names_the_nearest(key: str) -> None:
    wrong = key[:-2] + key[-1]
    with pytest.raises(ConfigError, match=f"unknown extra option '{wrong}'; did you mean '{key}'"):
        QuantizationConfig(extra_options={wrong: None})


def test_a_field_that_is_no_name_at_all() -> None:
    with pytest.raises(ConfigError, match="unknown field 3; known: activation_type"):
        QuantizationConfig.from_dict({3: "int8"})  # type: ignore[dict-item]


BAD_VALUES = [
    ("calibrate_method", "Entropie", "calibrate_method: unknown value 'Entropie'; did you mean 'Entropy'"),
    ("calibrate_method", "MinMx", "did you mean 'MinMax'"),
    ("calibrate_method", None, "calibrate_method: unknown value 'None'"),
    ("calibrate_method", "SeqMSE", "calibrate_method: unknown value 'SeqMSE'"),
    ("quant_format", "QOperator", "quant_format: unknown value 'QOperator'"),
    ("quant_format", QuantFormat.QOperator, "quant_format: unknown value 'QOperator'"),
    ("activation_type", "int17", "activation_type: unknown type 'int17'; did you mean"),
    ("activation_type", QuantType.QFLOAT8E4M3FN, "activation_type: unknown type"),
    ("activation_type", 8, "activation_type must be a type name"),
    ("activation_type", None, "activation_type must be a type name"),
    ("activation_type", "int1", "activation_type: unknown type 'int1'"),
    ("weight_type", "", "weight_type: unknown type ''"),
    ("weight_type", "uint8", "no kernel for int8 activations with uint8 weights"),
    ("per_channel", 1, "per_channel must be True or False, not 1"),
    ("per_channel", "yes", "per_channel must be True or False"),
    ("reduce_range", None, "reduce_range must be True or False"),
    ("optimize_model", np.bool_(True), "optimize_model must be True or False"),
    ("include_cle", 1, "include_cle must be True or False"),
    ("include_fast_ft", "yes", "include_fast_ft must be True or False"),
    ("use_external_data_format", "False", "use_external_data_format must be True or False"),
    ("op_types_to_quantize", "Conv", "op_types_to_quantize must be a list of names, not 'Conv'"),
    ("op_types_to_quantize", {"Conv"}, "op_types_to_quantize must be a list of names"),
    ("nodes_to_quantize", [1], "nodes_to_quantize must hold strings, not 1"),
    ("nodes_to_exclude", None, "nodes_to_exclude must be a list of names"),
    ("nodes_to_exclude", b"conv", "nodes_to_exclude must hold strings"),
    ("subgraphs_to_exclude", 5, "subgraphs_to_exclude must be a list of pairs"),
    ("subgraphs_to_exclude", None, "subgraphs_to_exclude must be a list of pairs"),
    ("subgraphs_to_exclude", "ab", "subgraphs_to_exclude must be a list of pairs"),
    ("subgraphs_to_exclude", ["ab"], "subgraphs_to_exclude must hold pairs"),
    ("subgraphs_to_exclude", [(["a"],)], "subgraphs_to_exclude must hold pairs"),
    ("subgraphs_to_exclude", [("a", "b")], "subgraphs_to_exclude must be a list of names, not 'a'"),
    ("extra_options", None, "extra_options must be a dictionary"),
    ("extra_options", [], "extra_options must be a dictionary"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_VALUES)
def test_a_bad_value_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        QuantizationConfig(**{field: value})


def test_unsigned_weights_beside_floats_need_no_kernel_of_integers() -> None:
    assert dataclasses.replace(get_default_config("MATMUL_NBITS"), weight_type="uint8").weight.dtype == "uint8"


BAD_OPTIONS = [
    *[(key, value) for key, option in OPTIONS.items() if option.type is bool for value in (1, "True", 0.0)],
    *[(key, "x") for key, option in OPTIONS.items() if option.type is not bool and key != "SampleMask"],
    ("SampleMask", True),
    ("SampleMask", ""),
    ("SampleMask", 1),
    *[("Percentile", value) for value in (50, 0.99, 100.1, float("nan"), -1, True)],
    *[("CalibDataSize", value) for value in (0, -1, 1.5, True)],
    *[("RandomDataReaderInputShape", value) for value in ([1, 3], True)],
    *[("CLESteps", value) for value in (0, -2, 1.5, True)],
    *[("CLEBalanceMethod", value) for value in ("sum", 3)],
    *[("FastFinetune", value) for value in ([], True, AdaRound)],
]


@pytest.mark.parametrize(("key", "value"), BAD_OPTIONS)
def test_a_bad_option_value_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"extra option {key}\b"):
        QuantizationConfig(extra_options={key: value})


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_an_option_of_quark_that_is_refused_says_why(key: str) -> None:
    with pytest.raises(ConfigError, match=f"extra option {key} is not supported: {UNSUPPORTED[key]}"):
        QuantizationConfig(extra_options={key: True})


@pytest.mark.parametrize(("key", "value"), [("CLESteps", 2), ("CLEBalanceMethod", "max"), ("HighBiasAbsorption", True)])
def test_options_of_equalization_need_it(key: str, value: object) -> None:
    assert QuantizationConfig(extra_options={key: value}).option(key) == value
    with pytest.raises(ConfigError, match=f"{key} is part of equalization; set include_cle=True"):
        QuantizationConfig(include_cle=False, extra_options={key: value})


def test_fine_tuning_is_asked_for_by_its_field() -> None:
    assert QuantizationConfig().finetune is None
    assert QuantizationConfig(include_fast_ft=True).finetune == AdaRound()
    config = QuantizationConfig(include_fast_ft=True, extra_options={"FastFinetune": AdaQuant(polish=2)})
    assert config.finetune == AdaQuant(polish=2)
    assert config.extra_options["FastFinetune"] == {"OptimAlgorithm": "adaquant", "Polish": 2}
    with pytest.raises(ConfigError, match="set include_fast_ft=True"):
        dataclasses.replace(config, include_fast_ft=False)


def test_settings_of_fine_tuning_are_checked_at_once() -> None:
    for values, message in (({"NumIteration": 5}, "did you mean 'NumIterations'"), ({"BatchSize": 0}, "batch_size")):
        with pytest.raises(ConfigError, match=message):
            QuantizationConfig(include_fast_ft=True, extra_options={"FastFinetune": values})


def test_a_dictionary_among_the_options_cannot_be_changed() -> None:
    config = QuantizationConfig(include_fast_ft=True, extra_options={"FastFinetune": {"BatchSize": 4}})
    with pytest.raises(TypeError, match="read-only"):
        config.extra_options["FastFinetune"]["BatchSize"] = 5


class Kind(Enum):
    """As Quark's ExtendedQuantType."""

    QInt16 = 3


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        (QuantType.QInt8, "int8"),
        (QuantType.QUInt8, "uint8"),
        (QuantType.QInt16, "int16"),
        (QuantType.QUInt16, "uint16"),
        (Kind.QInt16, "int16"),
        ("QInt8", "int8"),
        ("QuantType.QUInt8", "uint8"),
        ("S8", "int8"),
        ("U8", "uint8"),
        ("s16", "int16"),
        ("u16", "uint16"),
        ("INT8", "int8"),
        ("UInt16", "uint16"),
    ],
)
def test_spellings_of_types(spelling: object, name: str) -> None:
    config = QuantizationConfig(activation_type=spelling, weight_type="int8")  # type: ignore[arg-type]
    assert config.activation_type == name
    assert config == QuantizationConfig(activation_type=name)


@pytest.mark.parametrize("spelling", [QuantType.QInt4, "QInt4", "S4", "int4"])
def test_spellings_of_four_bit_weights(spelling: object) -> None:
    assert QuantizationConfig(weight_type=spelling).weight_type == "int4"  # type: ignore[arg-type]


@pytest.mark.parametrize("spelling", [CalibrationMethod.Percentile, "percentile", "CalibrationMethod.Percentile"])
def test_spellings_of_methods(spelling: object) -> None:
    assert QuantizationConfig(calibrate_method=spelling).calibrate_method == "Percentile"  # type: ignore[arg-type]


def test_spelling_of_the_format() -> None:
    assert QuantizationConfig(quant_format=QuantFormat.QDQ).quant_format == "QDQ"  # type: ignore[arg-type]


def test_variants_by_replace_are_checked_again() -> None:
    base = get_default_config("S8S8_AAWS")
    variant = dataclasses.replace(base, per_channel=True, weight_type="S4")
    assert (variant.per_channel, variant.weight_type, variant.extra_options) == (True, "int4", base.extra_options)
    with pytest.raises(ConfigError, match="unknown type 'int25'"):
        dataclasses.replace(base, weight_type="int25")
    with pytest.raises(ConfigError, match="unknown extra option 'Percentil'"):
        dataclasses.replace(base, extra_options={**base.extra_options, "Percentil": 99})


def test_formats_follow_the_options() -> None:
    config = QuantizationConfig(
        activation_type="uint8",
        weight_type="uint8",
        reduce_range=True,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    assert config.activation == Format(8, False, True)
    assert config.weight == Format(7, False, True)
    assert (config.weight.lo, config.weight.middle, config.weight.hi, config.weight.dtype) == (0, 64, 127, "uint8")


def test_weights_are_symmetric_where_signed() -> None:
    assert QuantizationConfig(weight_type="int8").weight.symmetric
    assert not QuantizationConfig(activation_type="uint8", weight_type="uint8").weight.symmetric
    assert not QuantizationConfig(extra_options={"WeightSymmetric": False}).weight.symmetric


@pytest.mark.parametrize("text", ["", "{", "[1]", '"S8S8_AAWS"', "nonsense"])
def test_text_that_is_no_configuration(text: str) -> None:
    with pytest.raises(ConfigError, match="JSON"):
        QuantizationConfig.from_json(text)


@pytest.mark.parametrize("wrong", ["S8S8_AAWS", None, {"per_channel": True}])
def test_config_holds_a_quantization_config(wrong: object) -> None:
    with pytest.raises(ConfigError, match="must be a QuantizationConfig"):
        Config(wrong)  # type: ignore[arg-type]
