"""Fields and options of Quark's first API that have another name, or another place, here."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from onnxruntime.quantization import calibrate, quant_utils

from quark_onnx import QuantizationConfig as Native
from quark_onnx.quark import (
    CalibrationMethod,
    ExtendedCalibrationMethod,
    ExtendedQuantFormat,
    ExtendedQuantType,
    LayerWiseMethod,
    PowerOfTwoMethod,
    QuantizationConfig,
    QuantType,
)
from quark_onnx.quark.lowered_config import FIELDS, lowered


def low(**change: Any) -> Native:
    return lowered(QuantizationConfig(**change)).config


def of(**options: Any) -> Native:
    return low(extra_options=options)


def test_the_default_is_the_native_default() -> None:
    assert low() == Native()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"calibrate_method": CalibrationMethod.Percentile}, {"calibrate_method": "Percentile"}),
        ({"calibrate_method": LayerWiseMethod.LayerWisePercentile}, {"calibrate_method": "LayerwisePercentile"}),
        ({"quant_format": ExtendedQuantFormat.QDQ}, {}),
        ({"activation_type": QuantType.QUInt16}, {"activation_type": "uint16"}),
        ({"activation_type": ExtendedQuantType.QInt16}, {"activation_type": "int16"}),
        ({"op_types_to_quantize": ["Conv"]}, {"op_types_to_quantize": ["Conv"]}),
        ({"extra_op_types_to_quantize": ["Conv"]}, {}),
        (
            {"op_types_to_quantize": ["Conv"], "extra_op_types_to_quantize": ["Gemm"]},
            {"op_types_to_quantize": ["Conv", "Gemm"]},
        ),
        ({"nodes_to_exclude": ["^a"]}, {"nodes_to_exclude": ["^a"]}),
        ({"subgraphs_to_exclude": [(["a"], ["b"])]}, {"subgraphs_to_exclude": [(["a"], ["b"])]}),
        ({"per_channel": True, "include_cle": False}, {"per_channel": True, "include_cle": False}),
        ({"reduce_range": True}, {"reduce_range": True}),
        ({"use_external_data_format": True}, {"use_external_data_format": True}),
        (
            {"enable_npu_transformer": True},
            {"op_types_to_quantize": ["MatMul", "Gemm"], "extra_options": {"MatMulConstBOnly": True}},
        ),
        (
            {"enable_npu_cnn": True, "calibrate_method": PowerOfTwoMethod.NonOverflow},
            {"target": "vitisai", "calibrate_method": "NonOverflow"},
        ),
        (
            {"calibrate_method": PowerOfTwoMethod.MinMSE},
            {"calibrate_method": "MinMSE", "extra_options": {"UsePowerOf2Scale": True}},
        ),
        ({"include_sq": True}, {"extra_options": {"SmoothQuant": {"alpha": 0.5}}}),
        (
            {"include_sq": True, "extra_options": {"SmoothAlpha": 0.7}},
            {"extra_options": {"SmoothQuant": {"alpha": 0.7}}},
        ),
        ({"include_sq": False, "extra_options": {"SmoothAlpha": 0.5}}, {"extra_options": {"SmoothQuant": False}}),
        (
            {
                "specific_tensor_precision": True,
                "extra_options": {"MixedPrecisionTensor": {QuantType.QInt16: ["x", "y"]}},
            },
            {
                "extra_options": {
                    "TensorQuantOverrides": {"x": [{"quant_type": "int16"}], "y": [{"quant_type": "int16"}]},
                }
            },
        ),
        (
            {"specific_tensor_precision": True, "extra_options": {"MixedPrecisionTensor": {}}},
            {},
        ),
    ],
)
def test_a_field(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert low(**given) == Native(**expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"OptimizeModel": False}, {"optimize_model": False}),
        ({"SkipPreprocess": True}, {"optimize_model": False}),
        ({"SkipPreprocess": False}, {}),
        ({"ConvertFP16ToFP32": True}, {"convert_fp16_to_fp32": True}),
        ({"OpTypesToQuantize": ["Conv"]}, {"op_types_to_quantize": ["Conv"]}),
        ({"NodesToQuantize": ["n"]}, {"nodes_to_quantize": ["n"]}),
        ({"NumBins": 2048, "LWPMetric": "mae", "PercentileCandidates": [99.99, 99.999, 99.99999]}, {}),
        ({"CLESteps": 1}, {"extra_options": {"CLESteps": 1}}),
        ({"CLESteps": 2, "CLETotalLayerDiffThreshold": 2e-7}, {"extra_options": {"CLESteps": 2}}),
        (
            {"WeightCalibrateMethod": ExtendedCalibrationMethod.MinMSE},
            {"extra_options": {"WeightCalibrateMethod": "MinMSE"}},
        ),
        ({"UserCustomOpLibPath": "ops.so"}, {"extra_options": {"UserCustomOpLibPath": ["ops.so"]}}),
        (
            {"UseGPTQ": True, "GPTQParams": {"Bits": 4, "GroupSize": 32, "ActOrder": False, "PercDamp": 0.02}},
            {
                "weight_type": "int4",
                "include_fast_ft": True,
                "extra_options": {
                    "WeightsOnly": True,
                    "WeightSymmetric": True,
                    "BlockSize": 32,
                    "FastFinetune": {
                        "OptimAlgorithm": "gptq",
                        "TargetOpType": ["MatMul", "Gemm"],
                        "Ridge": 0.02,
                        "ActOrder": False,
                    },
                },
            },
        ),
    ],
)
def test_an_option(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert of(**given) == Native(**expected)


def test_every_option_that_is_a_field_names_one() -> None:
    assert set(FIELDS.values()) <= {entry.name for entry in dataclasses.fields(QuantizationConfig)}


def test_members_of_onnxruntime_are_read_as_ours() -> None:
    theirs = low(
        calibrate_method=calibrate.CalibrationMethod.Entropy,
        activation_type=quant_utils.QuantType.QUInt8,
        weight_type=quant_utils.QuantType.QInt8,
        quant_format=quant_utils.QuantFormat.QDQ,
    )
    assert theirs == Native(calibrate_method="Entropy", activation_type="uint8")


def test_a_configuration_is_left_as_it_was() -> None:
    config = QuantizationConfig(
        include_sq=True, extra_options={"SmoothAlpha": 0.7, "OptimizeModel": False, "UseMatMulNBits": False}
    )
    before = dataclasses.asdict(config)
    assert lowered(config) == lowered(config)
    assert dataclasses.asdict(config) == before
