"""Quark's second API in terms of its first and of ours: specifications, layers, operator types, algorithms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quark_onnx import AdaQuant, AdaRound, ConfigError, quark
from quark_onnx import QuantizationConfig as Native
from quark_onnx.quark import (
    AdaQuantConfig,
    AdaRoundConfig,
    AutoMixprecisionConfig,
    BiasCorrectionConfig,
    CalibMethod,
    CLEConfig,
    GPTQConfig,
    Int8Spec,
    Int16Spec,
    Int32Spec,
    QConfig,
    QLayerConfig,
    QTensorConfig,
    QuantGranularity,
    QuarotConfig,
    ScaleType,
    SmoothQuantConfig,
    UInt8Spec,
    UInt16Spec,
    XInt8Spec,
)
from quark_onnx.quark.lowered_config import lowered
from quark_onnx.quark.lowered_qconfig import first_api

SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True}
WIDE = {"activation_type": "int16", "weight_type": "int16", "symmetric": True, "per_channel": False}
POW2 = {**SYMMETRIC, "UsePowerOf2Scale": True}


def layer(inputs: Any = Int8Spec, weight: Any = Int8Spec, **more: Any) -> QLayerConfig:
    return QLayerConfig(input_tensors=inputs, weight=weight, **more)


def low(common: QLayerConfig | None = None, **more: Any) -> Native:
    config = QConfig(common or layer(), **more)
    return lowered(first_api(config, (), lambda types: [f"all {name}" for name in types])).config


def native(options: dict[str, Any] | None = None, **fields: Any) -> Native:
    fields = {"calibrate_method": "Percentile", "include_cle": False, **fields}
    return Native(**fields, extra_options={**SYMMETRIC, **(options or {})})


@pytest.mark.parametrize(
    ("common", "expected"),
    [
        (layer(), native()),
        (layer(Int8Spec(), Int8Spec()), native()),
        (QLayerConfig(activation=Int8Spec, weight=Int8Spec), native()),
        (layer(UInt8Spec), native({"ActivationSymmetric": False}, activation_type="uint8")),
        (layer(UInt16Spec), native({"ActivationSymmetric": False}, activation_type="uint16")),
        (
            layer(Int16Spec(calibration_method=CalibMethod.Entropy)),
            native(activation_type="int16", calibrate_method="Entropy"),
        ),
        (
            layer(Int8Spec(calibration_method=CalibMethod.LayerwisePercentile)),
            native(calibrate_method="LayerwisePercentile"),
        ),
        (layer(Int8Spec(calibration_method=CalibMethod.MinMSE)), native(calibrate_method="MinMSE")),
        (layer(weight=Int8Spec(calibration_method=CalibMethod.MinMSE)), native({"WeightCalibrateMethod": "MinMSE"})),
        (layer(weight=Int8Spec(calibration_method=CalibMethod.Entropy)), native({"WeightCalibrateMethod": "Entropy"})),
        (layer(weight=Int8Spec(quant_granularity=QuantGranularity.Channel)), native(per_channel=True)),
        (
            layer(weight=Int8Spec(scale_type=ScaleType.PowerOf2, calibration_method=CalibMethod.MinMax)),
            native({"WeightCalibrateMethod": "NonOverflow"}),
        ),
        (layer(output_tensors=Int8Spec), native()),
        (layer(bias=Int16Spec), native({"Int16Bias": True})),
        (layer(bias=Int8Spec), native({"Int32Bias": False})),
        (layer(bias=Int32Spec), native({"Int32Bias": True})),
        (
            layer(XInt8Spec, XInt8Spec),
            native({**POW2, "WeightCalibrateMethod": "MinMSE"}, calibrate_method="MinMSE", target="vitisai"),
        ),
        (
            layer(quark.BFloat16Spec, quark.BFloat16Spec),
            native(activation_type="bfloat16", weight_type="bfloat16", calibrate_method="MinMax"),
        ),
        (
            layer(quark.Float16Spec, quark.Float16Spec),
            native(activation_type="float16", weight_type="float16", calibrate_method="MinMax"),
        ),
    ],
)
def test_the_whole_model(common: QLayerConfig, expected: Native) -> None:
    assert low(common) == expected


def test_setters_of_a_specification() -> None:
    spec = Int8Spec()
    spec.set_symmetric(False)
    spec.set_calibration_method(CalibMethod.MinMax)
    spec.set_data_type(quark.UInt8)
    spec.set_scale_type(ScaleType.Float32)
    spec.set_quant_granularity(QuantGranularity.Tensor)
    assert vars(spec) == vars(UInt8Spec(calibration_method=CalibMethod.MinMax))


@pytest.mark.parametrize(
    ("more", "options", "fields"),
    [
        (
            {"exclude": ["a", "^b", (["c"], ["d"])]},
            {},
            {"nodes_to_exclude": ["a", "^b"], "subgraphs_to_exclude": [(["c"], ["d"])]},
        ),
        (
            {"exclude": ["a", [(["c"], ["d"])]]},
            {},
            {"nodes_to_exclude": ["a"], "subgraphs_to_exclude": [(["c"], ["d"])]},
        ),
        ({"layer_type_config": {None: ["Gemm", "Add"]}}, {}, {"nodes_to_exclude": ["all Gemm", "all Add"]}),
        ({"use_external_data_format": True}, {}, {"use_external_data_format": True}),
        ({"Percentile": 99.9}, {"Percentile": 99.9}, {}),
        ({"extra_options": {"AlignConcat": True}, "FoldRelu": True}, {"AlignConcat": True}, {}),
        ({"OptimizeModel": False}, {}, {"optimize_model": False}),
        (
            {"specific_layer_config": {layer(Int16Spec, Int16Spec): ["a", "^b"]}},
            {"LayerTypes": {"a": WIDE, "^b": WIDE}},
            {},
        ),
        (
            {
                "specific_layer_config": {
                    QLayerConfig(weight=Int8Spec(quant_granularity=QuantGranularity.Channel)): ["a"]
                }
            },
            {"LayerTypes": {"a": {"weight_type": "int8", "symmetric": True, "per_channel": True}}},
            {},
        ),
        (
            {"specific_layer_config": {quark.Int16: ["a"]}},
            {"LayerTypes": {"a": WIDE}},
            {},
        ),
        (
            {"layer_type_config": {layer(Int16Spec, Int8Spec, output_tensors=UInt16Spec, bias=Int32Spec): ["MatMul"]}},
            {
                "OpTypeQuantOverrides": {
                    "MatMul": {
                        "input": {"quant_type": "int16", "symmetric": True},
                        "weight": {"quant_type": "int8", "symmetric": True, "per_channel": False},
                        "output": {"quant_type": "uint16", "symmetric": False},
                    }
                }
            },
            {},
        ),
        (
            {
                "layer_type_config": {
                    QLayerConfig(input_tensors=Int8Spec(calibration_method=CalibMethod.MinMSE)): ["Conv"]
                }
            },
            {
                "OpTypeQuantOverrides": {
                    "Conv": {"input": {"quant_type": "int8", "symmetric": True, "calibrate_method": "MinMSE"}}
                }
            },
            {},
        ),
    ],
)
def test_parts_of_a_model(more: dict[str, Any], options: dict[str, Any], fields: dict[str, Any]) -> None:
    assert low(**more) == native(options, **fields)


@pytest.mark.parametrize(
    ("algorithm", "options", "fields"),
    [
        (CLEConfig(), {}, {"include_cle": True}),
        (CLEConfig(cle_steps=1, cle_total_layer_diff_threshold=2e-7), {"CLESteps": 1}, {"include_cle": True}),
        (SmoothQuantConfig(alpha=0.7), {"SmoothQuant": {"alpha": 0.7}}, {}),
        (BiasCorrectionConfig(), {"BiasCorrection": True}, {}),
        (
            GPTQConfig(bits=4, group_size=32, mse=True),
            {
                "WeightsOnly": True,
                "BlockSize": 32,
                "FastFinetune": {"OptimAlgorithm": "gptq", "TargetOpType": ["MatMul", "Gemm"], "ScaleSearch": True},
            },
            {"weight_type": "int4", "include_fast_ft": True},
        ),
        (
            AutoMixprecisionConfig(QLayerConfig(Int16Spec), metric_default="l2", metric_threshold=0.5, data_size=0),
            {
                "AutoMixprecision": {
                    "TargetLayerConfig": {"activation_type": "int16", "weight_type": "int8"},
                    "MetricDefault": "l2",
                    "MetricThreshold": 0.5,
                    "DataSize": 2**31 - 1,
                }
            },
            {"include_auto_mp": True},
        ),
    ],
)
def test_an_algorithm(algorithm: quark.AlgoConfig, options: dict[str, Any], fields: dict[str, Any]) -> None:
    assert low(algo_config=[algorithm]) == native(options, **fields)


@pytest.mark.parametrize(
    ("algorithm", "tuning"),
    [
        (AdaRoundConfig(), AdaRound()),
        (AdaRoundConfig(optim_device="cpu", data_size=1_000_000_000, mem_opt_level=1, log_period=100), AdaRound()),
        (
            AdaRoundConfig(num_iterations=1000, learning_rate=0.1, batch_size=1),
            AdaRound(num_iterations=1000, batch_size=1),
        ),
        (AdaRoundConfig(early_stop=False, update_bias=False), AdaRound(early_stop=False, update_bias=False)),
        (AdaRoundConfig(beta_range=(10, 3), reg_param=0.02), AdaRound(beta_range=(10, 3), reg_param=0.02)),
        (AdaQuantConfig(), AdaQuant()),
        (AdaQuantConfig(learning_rate=1e-6), AdaQuant(learning_rate=1e-6, rate_unit="weight")),
    ],
)
def test_fine_tuning(algorithm: quark.AlgoConfig, tuning: AdaRound | AdaQuant) -> None:
    assert low(algo_config=[algorithm]).tuning == tuning


def test_options_of_fine_tuning_come_on_top() -> None:
    found = low(algo_config=[AdaRoundConfig(data_size=8)], extra_options={"FastFinetune": {"Positions": 500}})
    assert found.tuning == AdaRound(data_size=8, positions=500)


OWN = Int8Spec(symmetric=False)


@pytest.mark.parametrize(
    ("common", "more", "told"),
    [
        (layer(Int32Spec), {}, "input_tensors: Int32 is not supported: .* nearest is int16"),
        (layer(weight=quark.MX4Spec), {}, "weight: MX4 is not supported"),
        (QLayerConfig(weight=Int8Spec), {}, "global_config needs input_tensors"),
        (QLayerConfig(Int8Spec, Int8Spec, Int8Spec), {}, "input_tensors and activation are the same"),
        (QLayerConfig(3, weight=Int8Spec), {}, "must be a QTensorConfig such as Int8Spec"),
        (layer(output_tensors=Int16Spec), {}, "output_tensors differ from input_tensors"),
        (layer(Int8Spec(quant_granularity=QuantGranularity.Channel)), {}, "activations have one scale"),
        (layer(weight=Int8Spec(quant_granularity=QuantGranularity.Group)), {}, "BlockSize"),
        (layer(Int8Spec(scale_type=ScaleType.Int16)), {}, "scale_type Int16 is not supported"),
        (layer(XInt8Spec), {}, "give both the same"),
        (layer(Int8Spec(scale_type=ScaleType.PowerOf2), XInt8Spec), {}, "come from CalibMethod.MinMSE or MinMax"),
        (layer(Int8Spec(calibration_method="MinMax")), {}, "calibration_method must be a CalibMethod"),
        (layer(weight=Int8Spec(symmetric=1)), {}, "weight: symmetric must be a bool"),
        (layer(bias=UInt8Spec), {}, "bias: UInt8 is not supported"),
        (layer(), {"ActivationSymmetric": False}, "global_config says True"),
        (layer(), {"exclude": "node"}, "exclude must be a list"),
        (layer(), {"exclude": {"a"}}, "exclude must be a list"),
        (layer(), {"algo_config": CLEConfig()}, "algo_config must be a list"),
        (layer(), {"specific_layer_config": ["a"]}, "specific_layer_config must be a dictionary"),
        (layer(), {"layer_type_config": {layer(): "Conv"}}, "lists of names"),
        (layer(), {"layer_type_config": {None: "Conv"}}, "must be a list of names"),
        (layer(), {"exclude": [(["a"],)]}, "subgraphs_to_exclude must hold pairs"),
        (layer(), {"specific_layer_config": {layer(OWN): ["a"]}}, "symmetry and method are those of global_config"),
        (layer(), {"specific_layer_config": {layer(): "a"}}, "lists of names"),
        (layer(), {"specific_layer_config": {layer(): [(["a"], ["b"])]}}, "name the layers"),
        (layer(), {"specific_layer_config": {layer(bias=Int16Spec): ["a"]}}, "biases have one type in all layers"),
        (layer(), {"specific_layer_config": {layer(output_tensors=Int16Spec): ["a"]}}, "the type of what it reads"),
        (layer(), {"specific_layer_config": {QLayerConfig(): ["a"]}}, "says nothing"),
        (layer(), {"specific_layer_config": {quark.BFP16: ["a"]}}, "BFP16 is not supported"),
        (layer(), {"specific_layer_config": {quark.Float16: ["a"]}}, "name it in exclude instead"),
        (layer(), {"specific_layer_config": {"int8": ["a"]}}, "its keys must be QLayerConfig"),
        (layer(), {"layer_type_config": {layer(Int16Spec(scale_type=ScaleType.PowerOf2)): ["Conv"]}}, "scales are"),
        (layer(), {"algo_config": [AdaRoundConfig(), AdaQuantConfig()]}, "exclude each other"),
        (layer(), {"algo_config": [CLEConfig(), CLEConfig()]}, "is there twice"),
        (layer(), {"algo_config": [CLEConfig]}, "must hold algorithms such as"),
        (layer(), {"algo_config": [QuarotConfig()]}, "the nearest is SmoothQuant"),
        (layer(), {"algo_config": [CLEConfig(cle_weight_threshold=0.1)]}, "CLEWeightThreshold=0.1 is not supported"),
        (layer(), {"algo_config": [AdaRoundConfig(optim_device="cuda:0")]}, "OptimDevice = 'cuda:0' is not supported"),
        (layer(), {"algo_config": [AdaRoundConfig(mem_opt_level=2)]}, "MemOptLevel = 2 is not supported"),
        (layer(), {"algo_config": [AdaRoundConfig(output_qdq=True)]}, "OutputQDQ = True is not supported"),
        (layer(), {"algo_config": [AdaQuantConfig(warm_start=0.5)]}, "WarmStart belongs to AdaRound"),
        (layer(), {"algo_config": [AutoMixprecisionConfig(layer(OWN))]}, r"set_symmetric\(True\)"),
        (layer(), {"algo_config": [AutoMixprecisionConfig([layer()])]}, "give one QLayerConfig"),
        (
            layer(),
            {"algo_config": [AutoMixprecisionConfig(layer(Int16Spec), metric_evaluate_fn=max)]},
            "MetricEvaluateFn = .* is not supported",
        ),
    ],
)
def test_a_refusal(common: QLayerConfig, more: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        low(common, **more)


def test_a_layer_says_in_vain_only_what_its_specification_comes_with() -> None:
    """Int16Spec has Percentile and float scales by default; asked for, they would be another kind than the model's."""
    common = layer(XInt8Spec, XInt8Spec)
    assert "LayerTypes" in low(common, specific_layer_config={layer(Int16Spec, Int16Spec): ["a"]}).extra_options
    plain = QTensorConfig(True, ScaleType.Float32, CalibMethod.Percentile, QuantGranularity.Tensor, quark.Int16)
    with pytest.raises(ConfigError, match=r"scales are ScaleType\.PowerOf2 in all layers"):
        low(common, specific_layer_config={layer(plain, Int16Spec): ["a"]})


def test_a_configuration_goes_through_json() -> None:
    config = QConfig(
        layer(XInt8Spec, XInt8Spec()),
        specific_layer_config={layer(Int16Spec, Int16Spec): ["a", "^b"]},
        layer_type_config={None: ["Gemm"], QLayerConfig(weight=Int8Spec): ["Conv"]},
        exclude=["c", (["d"], ["e"])],
        algo_config=[CLEConfig(cle_steps=2), AdaRoundConfig(num_iterations=5, beta_range=(10, 2))],
        extra_options={"SimplifyModel": False},
    )
    document = config.to_dict()
    assert document["global_config"]["weight"] == {
        "symmetric": True,
        "scale_type": "ScaleType.PowerOf2",
        "calibration_method": "CalibMethod.MinMSE",
        "quant_granularity": "QuantGranularity.Tensor",
        "data_type": "Int8",
    }
    assert document["algo_config"][0] == {"name": "cle", "cle_steps": 2}
    back = QConfig.from_dict(json.loads(json.dumps(document)))
    assert back.to_dict() == document
    assert lowered(first_api(back, (), list)) == lowered(first_api(config, (), list))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"algo_config": [{"name": "adaroud"}]}, "did you mean 'adaround'"),
        ({"algo_config": [{"name": "cle", "steps": 1}]}, "CLEConfig has no 'steps'"),
        ({"global_config": {"weight": {"data_type": "Int9"}}}, "unknown data_type 'Int9'; did you mean"),
        ({"global_config": {"weight": {"data_type": "Int8", "scale_type": "Float"}}}, "did you mean 'Float32'"),
        ({"global_config": 3}, "the dictionary is no QConfig"),
        ({"layer_type_config": [3]}, "the dictionary is no QConfig"),
        ({"global_config": {"wieght": {"data_type": "Int8"}}}, "did you mean 'weight'"),
    ],
)
def test_a_document_that_is_none(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        QConfig.from_dict({**QConfig(layer()).to_dict(), **change})
