"""What onnxruntime's parameters become, and what is refused by name, with what there is instead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime.quantization as theirs
import pytest
from text_models import normal, text_model

import quark_onnx.ort
from quark_onnx import ConfigError, DataError, QuantizationConfig
from quark_onnx.core.name_patterns import matching
from quark_onnx.core.settings.extra_options import OPTIONS
from quark_onnx.ort import (
    CalibrationDataReader,
    CalibrationMethod,
    DynamicQuantConfig,
    QuantFormat,
    QuantType,
    StaticQuantConfig,
    get_qdq_config,
    quantize,
    quantize_dynamic,
    quantize_static,
)
from quark_onnx.ort.extra_options import AT_RUN_TIME, FIXED, RENAMED
from quark_onnx.ort.lowering import dynamic, exact, static

TEXT = """g (float[1,4,6,6] x) => (float[1,2] y) {
    c = Conv(x, w)  r = Relu(c)  p = GlobalAveragePool(r)  f = Flatten(p)  y = Gemm(f, v)
}"""
TYPES = ("Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm")
SAMPLES = [{"x": normal(1, 4, 6, 6, seed=seed)} for seed in range(8)]


def model() -> onnx.ModelProto:
    return text_model(TEXT, w=normal(8, 4, 3, 3), v=normal(8, 2))


def lowered(extra_options: dict[str, Any] | None = None, **fields: Any) -> QuantizationConfig:
    return static(StaticQuantConfig(None, extra_options=extra_options, **fields), TYPES)


def lowered_dynamic(extra_options: dict[str, Any] | None = None, **fields: Any) -> QuantizationConfig:
    return dynamic(DynamicQuantConfig(extra_options=extra_options, **fields), TYPES)


def ours(extra_options: dict[str, Any] | None = None, **fields: Any) -> QuantizationConfig:
    return QuantizationConfig(
        include_cle=False, extra_options={"SmoothQuant": False, **(extra_options or {})}, **fields
    )


def test_nothing_asked_for_is_minmax_and_no_more() -> None:
    assert lowered() == ours()
    assert lowered().calibrate_method == "MinMax"
    assert not lowered().tunes
    assert lowered_dynamic() == QuantizationConfig(activation_type="uint8", use_dynamic_quant=True, include_cle=False)


@pytest.mark.parametrize("words", [theirs, quark_onnx.ort])
def test_parameters(words: Any) -> None:
    """With the enum members of either package."""
    kind, method = words.QuantType, words.CalibrationMethod
    fields = {"per_channel": True, "reduce_range": True, "use_external_data_format": True}
    found = lowered(calibrate_method=method.Percentile, activation_type=kind.QUInt8, weight_type=kind.QInt8, **fields)
    assert found == ours(calibrate_method="Percentile", activation_type="uint8", **fields)
    found = lowered(quant_format=words.QuantFormat.QDQ, op_types_to_quantize=["Conv"], calibration_providers=None)
    assert found == ours(op_types_to_quantize=("Conv",))
    assert lowered_dynamic(weight_type=kind.QUInt8, per_channel=True).weight_type == "uint8"


OF_WEIGHTS = {"Percentile": 99.9, "WeightCalibrateMethod": "Percentile"}
OPTION_TABLE = [
    ({"WeightSymmetric": None, "CalibPercentile": None, "SmoothQuantAlpha": None}, {}),
    (
        {"Percentile": 99.9, "WeightCalibrateMethod": "Percentile"},
        {"Percentile": 99.9, "WeightCalibrateMethod": "Percentile"},
    ),
    ({"CalibTensorRangeSymmetric": True}, {"CalibTensorRangeSymmetric": True}),
    ({"SmoothQuant": True, "SmoothQuantAlpha": 0.6}, {"SmoothQuant": True, "SmoothAlpha": 0.6}),
    ({"SmoothQuant": True, "SmoothQuantFolding": True}, {"SmoothQuant": True}),
    ({"BlockSize": 0}, {}),
    ({"BlockSize": 16}, {"BlockSize": 16}),
    ({"ForceQuantizeNoInputCheck": True}, {"ForceQuantizeNoInputCheck": True, "Protect": False}),
    ({"ForceQuantizeNoInputCheck": False}, {"ForceQuantizeNoInputCheck": False}),
    ({"QDQOpTypePerChannelSupportToAxis": {"MatMul": 1, "Conv": 0}}, {}),
    ({"QuantizeBias": False, "MinimumRealRange": 0.01}, {"QuantizeBias": False, "MinimumRealRange": 0.01}),
    ({"Protect": ["y"]}, {"Protect": ["y"]}),
]


@pytest.mark.parametrize(("given", "expected"), OPTION_TABLE)
def test_options(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert lowered(given) == ours(expected)


def test_options_of_one_method_and_type() -> None:
    found = lowered({"CalibPercentile": 99.9}, calibrate_method=CalibrationMethod.Percentile)
    assert found == ours({"Percentile": 99.9}, calibrate_method="Percentile")
    found = lowered({"ActivationRestrictedAsymmetric": True}, activation_type=QuantType.QUInt8)
    assert found == ours({"ActivationSymmetric": True, "UseUnsignedReLU": True}, activation_type="uint8")


def test_restricted_zero_points_are_at_the_low_end_or_in_the_middle(tmp_path: Path) -> None:
    options = {"ActivationRestrictedAsymmetric": True}
    plan = quantize_static(
        model(), tmp_path / "q.onnx", SAMPLES, activation_type=QuantType.QUInt8, extra_options=options
    ).plan
    points = {tensor: int(plan.qparams[plan.sites[tensor].group].zero_point) for tensor in ("x", "r")}
    assert points == {"x": 128, "r": 0}


def test_options_of_ours_ask_for_what_they_set() -> None:
    assert lowered({"FastFinetune": {"OptimAlgorithm": "gptq"}}).include_fast_ft
    assert lowered({"CLESteps": 2}).include_cle
    assert lowered(
        {"AutoMixprecision": {"MetricThreshold": 0.1}, "Protect": False}, activation_type="int16"
    ).include_auto_mp


REFUSED = [
    ({"quant_format": QuantFormat.QOperator}, "take QuantFormat.QDQ"),
    ({"activation_type": QuantType.QFLOAT8E4M3FN}, "activation_type: no CPU computes with QFLOAT8E4M3FN; take QInt8"),
    ({"weight_type": QuantType.QFLOAT8E4M3FN}, "weight_type: no CPU"),
    ({"weight_type": QuantType.QUInt8}, "use weight_type='int8'"),
    ({"calibrate_method": "MinMaxx"}, "did you mean 'MinMax'"),
    ({"calibration_providers": ["CUDAExecutionProvider"]}, "give ..CPUExecutionProvider"),
    ({"calibration_providers": 3}, "calibration_providers: calibration runs on the CPU"),
    ({"nodes_to_exclude": lambda *_: True}, "a function is for get_qdq_config"),
    ({"nodes_to_exclude": "conv"}, "nodes_to_exclude must be a list of names"),
    ({"op_types_to_quantize": "Conv"}, "op_types_to_quantize must be a list"),
    ({"per_channel": 1}, "per_channel must be True or False"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_parameters_that_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lowered(**fields)


@pytest.mark.parametrize("key", FIXED)
def test_options_that_choose_nothing(key: str) -> None:
    """They take the values that say what is done anyway, and no others."""
    taken, instead = FIXED[key]
    for value in (None, *taken):
        assert lowered({"SmoothQuant": True, key: value}) == ours({"SmoothQuant": True})
    other = next(value for value in (True, False, 7) if value not in taken)
    with pytest.raises(ConfigError, match=f"extra option {key} does not take {other!r} here: {instead[:20]}"):
        lowered({key: other})


@pytest.mark.parametrize("key", AT_RUN_TIME)
def test_options_that_choose_nothing_at_run_time(key: str) -> None:
    taken, instead = AT_RUN_TIME[key]
    for value in (None, *taken):
        assert lowered_dynamic({key: value}) == lowered_dynamic()
    other = next(value for value in (True, False, 99.0) if value not in taken)
    with pytest.raises(ConfigError, match=f"extra option {key} does not take {other!r} here: {instead[:20]}"):
        lowered_dynamic({key: other})
    assert key in {*OPTIONS, *RENAMED, "ActivationRestrictedAsymmetric"}  # with calibration it has an effect


REFUSED_OPTIONS = [
    ({"WeightSymetric": True}, "unknown extra option 'WeightSymetric'; did you mean 'WeightSymmetric'"),
    ({"CalibPercentil": 99}, "did you mean 'CalibPercentile'"),
    ({"CalibPercentile": 99.9}, "CalibPercentile is for calibrate_method=Percentile"),
    ({"CalibPercentile": 99.9, "Percentile": 99}, "say the same"),
    ({"SmoothQuantAlpha": 0.5}, "SmoothQuantAlpha is for SmoothQuant=True"),
    ({"ActivationRestrictedAsymmetric": True}, "is for activation_type=QUInt8"),
    ({"ForceQuantizeNoInputCheck": True, "Protect": True}, "quantizes what Protect spares"),
    ({"QDQOpTypePerChannelSupportToAxis": {"MatMul": 0}}, "'MatMul': 0: .* TensorQuantOverrides"),
    ({"QDQOpTypePerChannelSupportToAxis": 1}, "must be a dictionary"),
    ({"UseMatMulNBits": True}, "start from the preset MATMUL_NBITS"),
    ([1], "extra_options must be a dictionary"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED_OPTIONS)
def test_options_that_are_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lowered(given)


def test_every_documented_option_is_known() -> None:
    """The keys that onnxruntime names where it documents them."""
    documented = str(theirs.StaticQuantConfig.__init__.__doc__) + str(theirs.quantize_static.__doc__)
    keys = set(re.findall(r"^ +([A-Z]\w+|extra\.[\w.]+) ?= ", documented, re.MULTILINE))
    assert "CalibMovingAverage" in keys
    known = {*OPTIONS, *RENAMED, *FIXED, "QDQOpTypePerChannelSupportToAxis", "ActivationRestrictedAsymmetric"}
    assert keys - known == set()


def test_what_nobody_gave_can_be_added_to() -> None:
    config, other = StaticQuantConfig(None), DynamicQuantConfig()
    config.nodes_to_exclude.append("a")
    config.op_types_to_quantize += ["Conv", "MatMul"]
    config.extra_options["WeightSymmetric"] = False
    expected = {"nodes_to_exclude": ("a",), "op_types_to_quantize": ("Conv", "MatMul")}
    assert static(config, TYPES) == ours({"WeightSymmetric": False}, **expected)
    other.extra_options["WeightSymmetric"] = False
    assert dynamic(other, TYPES) != dynamic(DynamicQuantConfig(), TYPES)
    given: list[str] = []
    assert get_qdq_config(model(), None, nodes_to_exclude=given).nodes_to_exclude is not given


def test_a_misspelt_attribute_is_refused() -> None:
    config = StaticQuantConfig(None)
    config.per_channel = True
    assert static(config, TYPES).per_channel
    with pytest.raises(ConfigError, match="StaticQuantConfig has no 'per_chanel'; did you mean 'per_channel'"):
        config.per_chanel = True  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="DynamicQuantConfig has no 'per_chanel'; did you mean 'per_channel'"):
        DynamicQuantConfig(per_chanel=True)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="StaticQuantConfig: missing a required argument: 'calibration_data_reader'"):
        StaticQuantConfig()  # type: ignore[call-arg]


NAMES = ["conv_*", "conv_1", "conv_[1]", "^conv", "a?c", "abc", "x^", "[", "]", "*"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_exact(name: str) -> None:
    """Also where they look like a pattern, and the model has others that it would take."""
    [pattern] = exact("nodes_to_exclude", [name])
    assert matching([pattern], NAMES, "nodes_to_exclude") == {name}
    with pytest.raises(ConfigError, match="matches no node"):
        matching([pattern], [other for other in NAMES if other != name], "nodes_to_exclude")


def test_all_types_of_the_model_are_no_restriction() -> None:
    """Preparing makes other types of them."""
    assert lowered(op_types_to_quantize=[*TYPES]).op_types_to_quantize == ()
    assert lowered(op_types_to_quantize={*TYPES, "Concat"}).op_types_to_quantize == ()
    assert lowered(op_types_to_quantize=[*TYPES[1:]]).op_types_to_quantize == TYPES[1:]


def test_types_that_stay_float() -> None:
    """What no CPU runs on integers is left out of a list; what is no operator is left for placement."""

    def types(*asked: str) -> tuple[str, ...]:
        config = StaticQuantConfig(None, op_types_to_quantize=asked)
        return static(config, ("Conv", "HardSwish", "Add")).op_types_to_quantize

    assert types("Conv", "HardSwish") == ("Conv",)
    assert types("Conv", "HardSwish", "Add") == ()
    assert types("HardSwish") == ("HardSwish",)
    assert types("Conv", "Elu") == ("Conv",)
    assert types("Conv", "Eluu") == ("Conv", "Eluu")
    assert types("Conv", "HardSwish", "Add", "Convv") == ("Conv", "Add", "Convv")


def test_a_configuration_of_all_that_a_model_has(tmp_path: Path) -> None:
    proto = model()
    proto.graph.node[0].name = "stem[0]"
    asked: list[str] = []

    def heads(whole: onnx.ModelProto, node: onnx.NodeProto) -> bool:
        asked.append(node.op_type)
        return node.op_type == "Gemm" and len(whole.graph.node) == 5

    options = {"WeightSymmetric": False}
    config = get_qdq_config(
        proto,
        SAMPLES,
        calibrate_args={"moving_average": True, "averaging_constant": 0.1},
        min_real_range=0.001,
        weight_symmetric=True,
        nodes_to_exclude=heads,
        extra_options=options,
    )
    assert asked == [*TYPES]
    assert config.op_types_to_quantize == sorted(TYPES)
    assert config.nodes_to_exclude == ["Gemm_y"]
    assert static(config, TYPES) == ours(
        {
            "CalibMovingAverage": True,
            "CalibMovingAverageConstant": 0.1,
            "MinimumRealRange": 0.001,
            "ActivationSymmetric": False,
            "WeightSymmetric": False,
        },
        activation_type="uint8",
        nodes_to_exclude=("Gemm_y",),
    )
    config.nodes_to_exclude = ["stem[0]"]
    config.op_types_to_quantize = ["Conv", "Gemm"]
    plan = quantize(proto, tmp_path / "q.onnx", config).plan
    assert plan.notes["stem[0]"] == "named in nodes_to_exclude"
    assert {"Gemm_y"} <= plan.nodes.keys() <= {"Gemm_y", "stem[0]"}
    with pytest.raises(ConfigError, match="calibrate_args: unknown key 'percentil'; did you mean 'percentile'"):
        get_qdq_config(proto, SAMPLES, calibrate_args={"percentil": 99})


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.feeds = iter(SAMPLES)

    def get_next(self) -> Any:
        return next(self.feeds, None)


def test_readers(tmp_path: Path) -> None:
    assert [feed["x"].shape for feed in Reader()] == [(1, 4, 6, 6)] * len(SAMPLES)
    with pytest.raises(ConfigError, match="streams in bounded memory"):
        Reader().set_range(0, 4)
    result = quantize_static(model(), tmp_path / "q.onnx", Reader())
    assert result.report.samples + result.report.judged >= len(SAMPLES) // 2
    with pytest.raises(DataError, match="there is no calibration data"):
        quantize_static(model(), tmp_path / "q.onnx")


def test_a_cache_is_used_and_needs_data(tmp_path: Path) -> None:
    cache = tmp_path / "ranges.npz"
    quantize_static(model(), tmp_path / "q.onnx", SAMPLES, calibration_cache_path=cache)
    kept, files = cache.stat().st_mtime_ns, (tmp_path / "q.onnx").read_bytes()
    quantize_static(model(), tmp_path / "q.onnx", SAMPLES, calibration_cache_path=cache)
    assert cache.stat().st_mtime_ns == kept
    assert (tmp_path / "q.onnx").read_bytes() == files
    with pytest.raises(DataError):
        quantize_static(model(), tmp_path / "q.onnx", calibration_cache_path=cache)
    with pytest.raises(ConfigError, match=r"must be a file that ends with \.npz"):
        quantize_static(model(), tmp_path / "q.onnx", SAMPLES, calibration_cache_path=tmp_path / "ranges.json")


def test_the_result_is_ours(tmp_path: Path) -> None:
    result = quantize_dynamic(model(), tmp_path / "q.onnx")
    assert result.output == tmp_path / "q.onnx"
    assert result.report.fused["Gemm"] == (1, 1)
    with pytest.raises(ConfigError, match="a StaticQuantConfig, a DynamicQuantConfig or one of matmul_nbits"):
        quantize(model(), tmp_path / "q.onnx", QuantizationConfig())  # type: ignore[arg-type]
    assert np.all([output.name for output in result.model.graph.output] == ["y"])


def test_types_that_lists_of_others_name() -> None:
    """Optimum's, and that of onnxruntime's example of BERT: what the model does not have needs no quantizer."""
    asked = ["Conv", "Attention", "LSTM", "EmbedLayerNormalization", "ArgMax"]
    assert static(StaticQuantConfig(None, op_types_to_quantize=asked), TYPES) == static(
        StaticQuantConfig(None, op_types_to_quantize=["Conv"]), TYPES
    )
    wrong = static(StaticQuantConfig(None, op_types_to_quantize=["Conv", "Atention"]), TYPES)
    assert wrong.op_types_to_quantize == ("Conv", "Atention")
    with pytest.raises(ConfigError, match="'Attention' is not in the operator table"):
        quantize_static(model(), "q.onnx", SAMPLES, op_types_to_quantize=["Attention"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"op_types_to_quantize": {1, "Conv"}}, "op_types_to_quantize must hold strings, not 1"),
        ({"nodes_to_exclude": "conv"}, "nodes_to_exclude must be a list of names, not 'conv'"),
        ({"nodes_to_exclude": 0}, "nodes_to_exclude must be a list of names, not 0"),
        ({"calibration_providers": np.array(["a", "b"])}, "calibration runs on the CPU, not on array"),
        ({"extra_options": {"AddQDQPairToWeight": np.ones(2)}}, "AddQDQPairToWeight does not take array"),
        ({"extra_options": {"DedicatedQDQPair": 0}}, "DedicatedQDQPair does not take 0"),
        ({"extra_options": 1}, "extra_options must be a dictionary, not 1"),
    ],
)
def test_values_of_wrong_types(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        static(StaticQuantConfig(None, **given), TYPES)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"op_types_to_quantize": "Conv"}, "op_types_to_quantize must be a list of names, not 'Conv'"),
        ({"nodes_to_exclude": "conv"}, "nodes_to_exclude must be a list of names, not 'conv'"),
        ({"calibrate_args": ["symmetric"]}, "calibrate_args must be a dictionary"),
        ({"extra_options": ["WeightSymmetric"]}, "extra_options must be a dictionary"),
    ],
)
def test_values_of_wrong_types_in_get_qdq_config(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        get_qdq_config(model(), None, **given)


def test_a_configuration_of_onnxruntime_itself_is_told_apart() -> None:
    with pytest.raises(ConfigError, match=r"of quark_onnx.ort, not onnxruntime\.quantization\."):
        quantize(model(), "q.onnx", theirs.StaticQuantConfig(None))
