"""Overrides of tensors and operator types: what is read, what is refused; given scales come back to the bit."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime.quantization import CalibrationMethod, QuantType

from quark_onnx import ConfigError, QuantizationConfig
from quark_onnx.core.number_formats import TYPES, Format
from quark_onnx.core.plan import QParams
from quark_onnx.core.settings.range_methods import METHODS
from quark_onnx.core.settings.tensor_overrides import Override, override_opset
from quark_onnx.numerics.quantizer import SMALLEST_SCALE, ends, qparams

law = settings(deadline=None, max_examples=100)
scales = st.floats(2.0**-100, 2.0**100, width=32)


def configured(tensors: Any = None, **types: Any) -> QuantizationConfig:
    options = {"TensorQuantOverrides": tensors, "OpTypeQuantOverrides": types or None}
    return QuantizationConfig(extra_options={key: value for key, value in options.items() if value is not None})


# What is read


scaled = st.fixed_dictionaries({"scale": scales, "zero_point": st.integers(-128, 255)})
ranged = st.fixed_dictionaries({"rmin": st.floats(-9, 0), "rmax": st.floats(0.5, 9)})
plain = st.fixed_dictionaries(
    {}, optional={"quant_type": st.sampled_from([*TYPES, *QuantType]).filter(lambda t: "FLOAT" not in str(t))}
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "symmetric": st.booleans(),
        "reduce_range": st.booleans(),
        "calibrate_method": st.sampled_from([*METHODS, CalibrationMethod.Entropy, "mse"]),
        "axis": st.none() | st.integers(-8, 7),
        "convert": st.fixed_dictionaries(
            {"quant_type": st.just(QuantType.QUInt8)}, optional={"symmetric": st.booleans()}
        ),
    },
)
tensors = st.one_of(
    st.builds(lambda a, b: [a | b], plain, choices),
    st.builds(lambda a, b: a | b, plain, scaled | ranged),
    st.lists(scaled, min_size=2, max_size=4).map(lambda channels: [{"axis": 0} | one for one in channels]),
)
parts = st.dictionaries(st.sampled_from(["input", "output"]), plain)


@law
@given(st.dictionaries(st.text(), tensors, max_size=3), st.dictionaries(st.sampled_from(["Conv", "Add"]), parts))
def test_json_and_back_is_equal(by_tensor: dict[str, Any], by_type: dict[str, Any]) -> None:
    config = configured(by_tensor, **by_type)
    assert QuantizationConfig.from_json(config.to_json()) == config
    assert dataclasses.replace(config, per_channel=True).tensor_overrides == config.tensor_overrides
    assert QuantizationConfig.from_json(config.to_json()).type_overrides == config.type_overrides
    assert list(config.tensor_overrides) == list(by_tensor)


def test_enums_arrays_and_sets_become_plain() -> None:
    convert = {"quant_type": QuantType.QUInt8, "recv_nodes": {"b", "a"}}
    by_tensor = {
        "x": {"quant_type": QuantType.QUInt16, "convert": convert},
        "w": [{"axis": np.int64(0), "scale": np.float32(0.5), "zero_point": np.array([0])}],
    }
    config = configured(by_tensor, Conv={"weight": {"quant_type": QuantType.QInt4, "calibrate_method": "mse"}})
    assert json.loads(config.to_json())["extra_options"] == {
        "TensorQuantOverrides": {
            "x": [{"quant_type": "uint16", "convert": {"quant_type": "uint8", "recv_nodes": ["a", "b"]}}],
            "w": [{"axis": 0, "scale": 0.5, "zero_point": 0}],
        },
        "OpTypeQuantOverrides": {"Conv": {"weight": {"quant_type": "int4", "calibrate_method": "MinMSE"}}},
    }
    assert config.tensor_overrides["x"].readers == ("a", "b")
    assert config.type_overrides == {"Conv": {"weight": Override("int4", method="MinMSE")}}


def test_a_dictionary_stands_for_a_list_of_one() -> None:
    entry = {"rmin": -1.0, "rmax": 2.0}
    assert configured({"x": entry}) == configured({"x": [entry]})


@pytest.mark.parametrize(
    ("entry", "per_channel"),
    [
        ({}, None),
        ({"symmetric": True}, None),
        ({"axis": 1}, True),
        ({"axis": None}, False),
        ({"scale": 1.0, "zero_point": 0}, False),
        ({"axis": 0, "scale": 1.0, "zero_point": 0}, True),
        ({"rmin": -1, "rmax": 1}, False),
    ],
)
def test_without_an_axis_only_numbers_ask_for_one_scale(entry: dict[str, Any], per_channel: bool | None) -> None:
    assert configured({"w": entry}).tensor_overrides["w"].per_channel is per_channel


def test_nothing_is_asked_by_default() -> None:
    config = QuantizationConfig()
    assert config.tensor_overrides == config.type_overrides == {}
    assert override_opset({}, {}) == 0


@pytest.mark.parametrize(
    ("by_tensor", "by_type", "opset"),
    [
        ({"x": {"quant_type": "int8"}}, {}, 13),
        ({"x": {"quant_type": "uint16"}}, {}, 21),
        ({"x": {"convert": {"quant_type": "int16"}}}, {}, 21),
        ({}, {"Conv": {"weight": {"quant_type": "int4"}}}, 21),
        ({}, {"Conv": {"weight": {"quant_type": "int2"}}}, 25),
        ({}, {"Conv": {"weight": {"symmetric": False}}}, 0),
    ],
)
def test_the_opset_has_all_types(by_tensor: dict[str, Any], by_type: dict[str, Any], opset: int) -> None:
    config = configured(by_tensor, **by_type)
    assert override_opset(config.tensor_overrides, config.type_overrides) == opset


def test_what_is_asked_goes_over_what_is_left_open() -> None:
    one, other = Override("int4", symmetric=False), Override("int8", method="MinMSE", axis=0)
    assert one.over(other) == Override("int4", symmetric=False, method="MinMSE", axis=0)


# What is refused

BAD: dict[str, tuple[Any, str]] = {
    "no dictionary": ({"x": 3}, r"\['x'\] must be a list of dictionaries"),
    "empty list": ({"x": []}, "must be a list of dictionaries"),
    "list of numbers": ({"x": [1]}, r"\['x'\]\[0\] must be a dictionary of quant_type"),
    "unknown key": ({"x": {"quant_typ": "int8"}}, "unknown key 'quant_typ'; did you mean 'quant_type'"),
    "unknown type": ({"x": {"quant_type": "int9x"}}, r"\['x'\]\[0\]\['quant_type'\]: unknown type 'int9x'"),
    "float type": ({"x": {"quant_type": "float16"}}, "takes an integer type"),
    "onnxruntime's float type": ({"x": {"quant_type": QuantType.QFLOAT8E4M3FN}}, "unknown type"),
    "symmetric is no flag": ({"x": {"symmetric": 1}}, "must be True or False"),
    "axis is no number": ({"x": {"axis": 0.5}}, "whole number"),
    "scale alone": ({"x": {"scale": 0.5}}, "'scale' only; give both 'scale' and 'zero_point'"),
    "zero point alone": ({"x": {"zero_point": 1}}, "give both 'scale' and 'zero_point'"),
    "rmax alone": ({"x": {"rmax": 1.0}}, "give both 'rmin' and 'rmax'"),
    "scale of zero": ({"x": {"scale": 0.0, "zero_point": 0}}, r"\['scale'\] must be a number above 0"),
    "scale is NaN": ({"x": {"scale": float("nan"), "zero_point": 0}}, "must be a number above 0"),
    "zero point is no code": ({"x": {"scale": 1.0, "zero_point": 0.5}}, "whole number"),
    "scale and range": ({"x": {"scale": 1.0, "zero_point": 0, "rmin": 0, "rmax": 1}}, "'rmin' has no meaning beside"),
    "scale and symmetric": ({"x": {"scale": 1.0, "zero_point": 0, "symmetric": True}}, "'symmetric' has no meaning"),
    "range and method": ({"x": {"rmin": 0, "rmax": 1, "calibrate_method": "MinMSE"}}, "no meaning beside 'rmin'"),
    "range upside down": ({"x": {"rmin": 1.0, "rmax": -1.0}}, "rmin 1.0 is not below rmax -1.0"),
    "unknown method": ({"x": {"calibrate_method": "Percentil"}}, "did you mean 'Percentile'"),
    "weight-only method": ({"x": {"calibrate_method": "SeqMSE"}}, "unknown value 'SeqMSE'"),
    "channels without axis": (
        {"w": [{"rmin": 0, "rmax": 1}] * 2},
        "has 2 dictionaries: the first one needs the 'axis'",
    ),
    "channels differ": ({"w": [{"axis": 0, "symmetric": True}, {"symmetric": False}]}, r"\[1\]: symmetric is False"),
    "channels of two axes": ({"w": [{"axis": 0}, {"axis": 1}]}, "axis is 1, but 0 in the first"),
    "channel without numbers": ({"w": [{"axis": 0, "rmin": 0, "rmax": 1}, {}]}, "must have rmax and rmin"),
    "convert to nothing": ({"x": {"convert": {}}}, "needs a quant_type"),
    "convert has no axis": ({"x": {"convert": {"quant_type": "int8", "axis": 0}}}, "unknown key 'axis'"),
    "convert, scale alone": ({"x": {"convert": {"quant_type": "int8", "scale": 1.0}}}, "give both"),
    "one receiver": ({"x": {"convert": {"quant_type": "int8", "recv_nodes": "n"}}}, "must be a list of node names"),
    "no receiver": ({"x": {"convert": {"quant_type": "int8", "recv_nodes": []}}}, "must be a list of node names"),
}


@pytest.mark.parametrize(("value", "message"), BAD.values(), ids=BAD)
def test_bad_tensor_overrides(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(value)


BAD_TYPES: dict[str, tuple[Any, str]] = {
    "no parts": (3, "must be a dictionary of input, weight, output"),
    "unknown part": ({"weights": {}}, "unknown key 'weights'; did you mean 'weight'"),
    "unknown key": ({"input": {"kind": "int8"}}, "unknown key 'kind'"),
    "scale": ({"input": {"scale": 1.0}}, "unknown key 'scale'"),
    "channels of activations": ({"output": {"per_channel": True}}, "unknown key 'per_channel'"),
    "reduced activations": ({"input": {"reduce_range": True}}, "unknown key 'reduce_range'"),
    "unknown method": ({"weight": {"calibrate_method": "minimum"}}, "unknown value 'minimum'"),
}


@pytest.mark.parametrize(("value", "message"), BAD_TYPES.values(), ids=BAD_TYPES)
def test_bad_overrides_of_operator_types(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(Conv=value)


@pytest.mark.parametrize("key", ["TensorQuantOverrides", "OpTypeQuantOverrides"])
def test_conversions_take_no_overrides(key: str) -> None:
    options = {key: {"Conv": {}}}
    with pytest.raises(ConfigError, match=f"{key} is for integers"):
        QuantizationConfig(activation_type="float16", weight_type="float16", extra_options=options)


# Scales and zero points come back


@law
@given(st.integers(2, 16), st.booleans(), scales, st.data())
def test_the_range_of_a_scale_and_zero_point_gives_both_back(
    bits: int, signed: bool, scale: float, data: st.DataObject
) -> None:
    symmetric = data.draw(st.booleans())
    format = Format(bits, signed, symmetric, strict=data.draw(st.sampled_from([None, True, False])))
    zero = format.middle if symmetric else data.draw(st.integers(format.lo, format.hi))
    given_one = QParams(np.float32([scale, 2 * SMALLEST_SCALE]), np.int32([zero, zero]))
    assert qparams(*ends(given_one, format), format).same(given_one)
