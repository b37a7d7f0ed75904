"""What of Quark's has no counterpart: refused by its name with a way out, and its default taken."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from quark_onnx import ConfigError, quark
from quark_onnx.quark import PowerOfTwoMethod, QuantizationConfig
from quark_onnx.quark.lowered_config import lowered
from quark_onnx.quark.without_counterpart import FIELDS, ON_NPU, OPTIONS, TYPES

OTHER = object()
"""Nobody's default."""


def config(**options: Any) -> QuantizationConfig:
    return QuantizationConfig(extra_options=options)


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_refused_with_a_way_out(name: str) -> None:
    changed = QuantizationConfig()
    setattr(changed, name, ["a"] if isinstance(getattr(changed, name), list) else True)
    with pytest.raises(ConfigError, match=rf"{name}=.* is not supported: \w+"):
        lowered(changed)


def test_every_field_is_carried_or_known() -> None:
    """A default of each field says nothing: all together are the native default, without smoothing being asked for."""
    assert lowered(QuantizationConfig()) == lowered(replace(QuantizationConfig(), **vars(QuantizationConfig())))
    assert set(FIELDS) <= {entry.name for entry in fields(QuantizationConfig)}


@pytest.mark.parametrize("key", [key for key, (_, reason) in OPTIONS.items() if reason])
def test_an_option_is_refused_with_a_way_out(key: str) -> None:
    taken, _ = OPTIONS[key]
    assert lowered(config(**{key: taken[0]})) == lowered(config())
    with pytest.raises(ConfigError, match=rf"{key}=.* is not supported: \w+"):
        lowered(config(**{key: OTHER}))


@pytest.mark.parametrize("key", [key for key, (_, reason) in OPTIONS.items() if not reason])
def test_a_switch_that_decides_nothing_is_taken_either_way(key: str) -> None:
    assert lowered(config(**{key: True})) == lowered(config(**{key: False})) == lowered(config())


@pytest.mark.parametrize("key", ON_NPU)
def test_a_switch_of_the_npu_is_on_there_and_off_elsewhere(key: str) -> None:
    npu = QuantizationConfig(enable_npu_cnn=True, calibrate_method=PowerOfTwoMethod.MinMSE)
    assert lowered(replace(npu, extra_options={key: True})) == lowered(npu)
    assert lowered(config(**{key: False})) == lowered(config())
    with pytest.raises(ConfigError, match=rf"{key}=True is not supported"):
        lowered(config(**{key: True}))


def test_positions_of_scales_are_adjusted_on_the_npu_in_any_case() -> None:
    npu = QuantizationConfig(enable_npu_cnn=True, calibrate_method=PowerOfTwoMethod.MinMSE)
    with pytest.raises(ConfigError, match="AdjustShiftCut=False is not supported"):
        lowered(replace(npu, extra_options={"AdjustShiftCut": False}))


@pytest.mark.parametrize("field", ["activation_type", "weight_type"])
@pytest.mark.parametrize("member", [m for m in quark.ExtendedQuantType if m.name in TYPES], ids=str)
def test_a_type_is_refused_with_the_nearest(field: str, member: quark.ExtendedQuantType) -> None:
    with pytest.raises(ConfigError, match=rf"{field}: {member.name} is not supported: .*nearest"):
        lowered(QuantizationConfig(**{field: member}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"quant_format": quark.QuantFormat.QOperator}, "QOperator is not supported: use QDQ"),
        ({"quant_format": quark.ExtendedQuantFormat.QOperator}, "QOperator is not supported: use QDQ"),
        ({"calibrate_method": quark.Int16Method.MinMax}, "Int16Method is not supported"),
        ({"enable_npu_cnn": True}, "enable_npu_cnn needs scales that are powers of two"),
        ({"enable_npu_cnn": "yes"}, "enable_npu_cnn must be True or False"),
        ({"extra_op_types_to_quantize": ["Convv"]}, "did you mean 'Conv'"),
        ({"specific_tensor_precision": True}, "needs the extra option MixedPrecisionTensor"),
        ({"log_severity_level": 7}, "log_severity_level must be a whole number from 0 to 4"),
        ({"extra_options": {"SmoothAlpha": 0.7}}, "SmoothAlpha needs include_sq=True"),
        ({"extra_options": {"SmoothQuant": True}, "include_sq": True}, "say the same"),
        ({"extra_options": {"MixedPrecisionTensor": {"QInt16": ["x"]}}}, "needs specific_tensor_precision=True"),
        (
            {"specific_tensor_precision": True, "extra_options": {"MixedPrecisionTensor": ["x"]}},
            "must be a dictionary",
        ),
        ({"extra_options": {"CalibWorkerNum": True}}, "CalibWorkerNum=True is not supported"),
        ({"extra_options": {"UseGPTQ": 1}}, "UseGPTQ must be True or False"),
        ({"extra_options": {"MatMulNBitsParams": {}}}, "needs UseMatMulNBits=True"),
        ({"extra_options": {"UseMatMulNBits": True, "MatMulNBitsParams": {"Bit": 4}}}, "did you mean 'Bits'"),
        ({"extra_options": {"UseMatMulNBits": True, "MatMulNBitsParams": {"AccuracyLevel": 4}}}, "AccuracyLevel=4"),
        ({"extra_options": {"UseGPTQ": True, "GPTQParams": {"BlockSize": 64}}}, "neighbours with one scale are Group"),
        ({"extra_options": {"UseGPTQ": True}, "include_fast_ft": True}, "exclude each other"),
        ({"extra_options": {"CLETotalLayerDiffThreshold": 1e-3}}, "limit their number with CLESteps"),
        ({"extra_options": {"FoldReluu": True}}, "did you mean 'FoldRelu'"),
        ({"extra_options": [1]}, "extra_options must be a dictionary"),
        ({"extra_options": {"SimplifyModel": "x"}}, "SimplifyModel must be True or False"),
        ({"include_sq": True, "extra_options": {"SmoothAlpha": 0}}, "alpha must be above 0"),
        ({"extra_options": {"SmoothAlpha": np.ones(2)}}, "SmoothAlpha needs include_sq=True"),
        ({"extra_options": {"CLESteps": np.ones(2)}}, "CLESteps does not take"),
        ({"op_types_to_quantize": "Conv", "extra_op_types_to_quantize": ["Gemm"]}, "must be a list of names, not 'C"),
        ({"op_types_to_quantize": 3, "extra_op_types_to_quantize": ["Gemm"]}, "must be a list of names, not 3"),
        ({"extra_options": {"UseGPTQ": True, "GPTQParams": {"Bits": "8"}}}, "Bits must be a whole number"),
        ({"extra_options": {"UseMatMulNBits": True, "MatMulNBitsParams": {"Bits": None}}}, "Bits must be a whole"),
        (
            {"specific_tensor_precision": True, "extra_options": {"MixedPrecisionTensor": {"QBFP": ["x"]}}},
            "QBFP is not supported: .*nearest",
        ),
        (
            {
                "specific_tensor_precision": True,
                "extra_options": {"MixedPrecisionTensor": {"QInt16": ["x"]}, "TensorQuantOverrides": [1]},
            },
            "TensorQuantOverrides must be a dictionary",
        ),
    ],
)
def test_a_refusal(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        lowered(QuantizationConfig(**change))


def test_names_that_there_are_not() -> None:
    changed = quark.get_default_config("XINT8")
    with pytest.raises(ConfigError, match="QuantizationConfig has no 'inclde_cle'; did you mean 'include_cle'"):
        changed.inclde_cle = False  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="did you mean 'activation_type'"):
        QuantizationConfig(activation_typ=quark.QuantType.QInt8)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="did you mean 'calibration_method'"):
        quark.Int8Spec().calibration_methd = quark.CalibMethod.MinMax  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="did you mean 'bias'"):
        quark.QLayerConfig(biast=quark.Int16Spec())  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="AutoMixprecisionConfig: missing a required argument: 'target_layer_config'"):
        quark.AutoMixprecisionConfig()  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="did you mean 'num_iterations'"):
        quark.AdaRoundConfig(num_iteration=5)  # type: ignore[call-arg]
    layer = quark.QLayerConfig(input_tensors=quark.Int8Spec(), weight=quark.Int8Spec())
    with pytest.raises(ConfigError, match="did you mean 'algo_config'"):
        quark.QConfig(layer, algo_confg=[])
    with pytest.raises(ConfigError, match="extra_options must be a dictionary"):
        quark.QConfig(layer, extra_options=[1])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="of quark_onnx"):
        quark.Config(object())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="config must be a QConfig or a Config"):
        quark.ModelQuantizer(changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["CalibDataSize", "Percentile"])
def test_numbers_of_numpy_are_numbers(key: str) -> None:
    values = {"CalibDataSize": np.int64(4), "Percentile": np.float64(99)}
    method = quark.CalibrationMethod.Percentile
    found = lowered(QuantizationConfig(calibrate_method=method, extra_options={key: values[key]})).config
    assert found.option(key) == values[key] and type(found.option(key)) in (int, float)
    with pytest.raises(ConfigError, match=f"{key} does not take array"):
        lowered(QuantizationConfig(calibrate_method=method, extra_options={key: np.ones(2)}))


def test_editors_show_what_a_constructor_takes() -> None:
    assert [*inspect.signature(quark.CLEConfig).parameters][:2] == ["cle_balance_method", "cle_steps"]
    assert "options" in inspect.signature(quark.QConfig).parameters
