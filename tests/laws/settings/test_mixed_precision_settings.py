"""Settings of automatic mixed precision: names, directions, limits, and what is refused with a reason."""

from __future__ import annotations

import math
from dataclasses import replace
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.mixed_precision import GOALS, LAYERS, METRICS, UNSUPPORTED, Mixing, mixing_from_quark

Weight = Enum("Weight", "QInt4")
TYPES = st.sampled_from(["int4", "int8", "uint8", "int16", "uint16"])
NAMES = st.lists(st.text(max_size=5), max_size=2).map(tuple)


@st.composite
def mixings(draw: st.DrawFn) -> Mixing:
    metric = draw(st.sampled_from(list(METRICS)))
    given_limit = st.none() | st.floats(-1e6, 1e6)
    return Mixing(
        draw(st.none() | st.fixed_dictionaries({}, optional={"activation_type": TYPES, "weight_type": TYPES})),
        metric,
        draw(given_limit | st.just("auto") if metric in GOALS else given_limit),
        draw(st.none() | st.integers(0, 5)),
        draw(st.integers(1, 1000)),
        tuple(draw(st.lists(st.sampled_from(LAYERS), min_size=1))),
        draw(NAMES),
        draw(NAMES),
    )


def config(mixing: Any = None, **fields: Any) -> QuantizationConfig:
    """16 bits, with these settings of mixed precision."""
    options = {} if mixing is None else {"AutoMixprecision": mixing}
    known = {"activation_type": "int16", "weight_type": "int16", "include_auto_mp": True, "extra_options": options}
    return QuantizationConfig(**{**known, **fields})


@given(mixings())
def test_to_a_dictionary_and_back(mixing: Mixing) -> None:
    assert mixing_from_quark(mixing.to_dict()) == mixing


@given(mixings())
def test_a_configuration_survives_json(mixing: Mixing) -> None:
    try:
        made = config(mixing.to_dict(), activation_type="int12", weight_type="int12")
    except ConfigError:  # the types go different ways, or the target does not have them
        return
    again = QuantizationConfig.from_json(made.to_json())
    assert again == made
    assert again.mixing == mixing


def test_types_have_any_spelling() -> None:
    made = config({"TargetLayerConfig": {"activation_type": "QUInt8", "weight_type": Weight.QInt4}})
    assert made.mixing.types == ("uint8", "int4")
    assert made.mixing.target_layer_config == made.extra_options["AutoMixprecision"]["TargetLayerConfig"]


def test_the_defaults_move_layers_to_int8() -> None:
    made = config()
    assert made.mixing == Mixing()
    assert made.mixing.types == ("int8", "int8")
    assert (made.moved.activation_type, made.moved.weight_type) == ("int8", "int8")
    assert not made.moved.include_auto_mp
    assert made.needs_data


def test_all_else_of_the_configuration_stays() -> None:
    made = config({"DataSize": 3}, per_channel=True, calibrate_method="Percentile")
    options = {**made.extra_options, "AutoMixprecision": None}
    changed = replace(made, activation_type="int8", weight_type="int8", include_auto_mp=False, extra_options=options)
    assert made.moved == changed


@pytest.mark.parametrize(
    ("own", "there", "narrows"),
    [
        (("int16", "int16"), ("int8", "int8"), True),
        (("int16", "int8"), ("int8", "int8"), True),
        (("int8", "int8"), ("int8", "int4"), True),
        (("int8", "int8"), ("int16", "int16"), False),
        (("uint8", "int8"), ("uint16", "int8"), False),
    ],
)
def test_directions(own: tuple[str, str], there: tuple[str, str], *, narrows: bool) -> None:
    types = dict(zip(("activation_type", "weight_type"), there, strict=True))
    assert Mixing(types).narrows(*own) == narrows


@pytest.mark.parametrize(
    ("own", "there", "message"),
    [
        (("int8", "int8"), ("int8", "int8"), "give other types"),
        (("uint8", "int8"), ("int8", "int8"), "give other types"),
        (("int8", "int16"), ("int16", "int8"), "both types must get narrower, or both wider"),
    ],
)
def test_directions_that_are_none(own: tuple[str, str], there: tuple[str, str], message: str) -> None:
    types = dict(zip(("activation_type", "weight_type"), there, strict=True))
    with pytest.raises(ConfigError, match=message):
        config({"TargetLayerConfig": types}, activation_type=own[0], weight_type=own[1])


def test_limits() -> None:
    auto, fixed = Mixing(), Mixing(metric_threshold=20)
    assert [auto.limit(best) for best in (60.0, 28.0, 20.0, math.inf)] == [25.0, 25.0, 17.0, 25.0]
    assert [fixed.limit(best) for best in (60.0, 10.0)] == [20.0, 20.0]
    assert Mixing(metric_threshold=None).limit(60.0) is None
    assert Mixing(metric_default="psnr").limit(60.0) == 35.0


@given(st.floats(5, 80))
def test_the_limit_of_a_cosine_is_that_of_its_noise(best: float) -> None:
    """A small error e, as part of the signal's power and at right angles to it, has the cosine 1 − e / 2."""
    cosine = Mixing(metric_default="cosine").limit(1 - 10 ** (-best / 10) / 2)
    wanted = Mixing().limit(best)
    assert cosine is not None
    assert wanted is not None
    assert -10 * math.log10(2 * (1 - cosine)) == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize("metric", sorted(METRICS.keys() - GOALS.keys()))
def test_a_metric_without_a_natural_limit_needs_one(metric: str) -> None:
    with pytest.raises(ConfigError, match="give MetricThreshold"):
        Mixing(metric_default=metric)
    assert not Mixing(metric_default=metric, metric_threshold=0.1).more_is_better
    assert Mixing(metric_default=metric, metric_threshold=None).limit(0.0) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"MetricTreshold": 20}, "unknown AutoMixprecision key 'MetricTreshold'; did you mean 'MetricThreshold'"),
        ({"MetricDefault": "snr"}, "AutoMixprecision MetricDefault: unknown value 'snr'; did you mean 'sqnr'"),
        ({"MetricThreshold": "automatic"}, "did you mean 'auto'"),
        ({"MetricThreshold": True}, "MetricThreshold must be a number"),
        ({"MetricThreshold": math.nan}, "MetricThreshold must be a number"),
        ({"DataSize": 0}, "DataSize must be a whole number of at least 1"),
        ({"MetricOutputIndex": -1}, "MetricOutputIndex must be a whole number"),
        ({"TargetOpType": ["Add"]}, "TargetOpType: unknown value 'Add'"),
        ({"TargetOpType": []}, "TargetOpType must be a list of some of Conv"),
        ({"IncludeLayers": "conv"}, "IncludeLayers must be a list of node names"),
        ({"ExcludeLayers": [1]}, "ExcludeLayers must be a list of node names"),
        ({"TargetLayerConfig": "int8"}, "TargetLayerConfig must be a dictionary"),
        ({"TargetLayerConfig": {"weights_type": "int8"}}, "unknown key 'weights_type'; did you mean 'weight_type'"),
        ({"TargetLayerConfig": {"weight_type": "int18"}}, "unknown type 'int18'; did you mean"),
        ({"TargetLayerConfig": {"weight_type": "float16"}}, "layers move to integer types"),
    ],
)
def test_what_is_wrong_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(values)


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_keys_of_quark_that_choose_nothing(key: str) -> None:
    accepted, reason = UNSUPPORTED[key]
    with pytest.raises(ConfigError, match=f"AutoMixprecision {key} = 'x' is not supported: {reason[:20]}"):
        config({key: "x"})
    for value in (None, *accepted):
        assert config({key: value}).mixing == Mixing()


def test_none_is_the_default_but_for_the_threshold() -> None:
    assert config({"DataSize": None, "IncludeLayers": None}).mixing == Mixing()
    assert config({"MetricThreshold": None}).mixing == Mixing(metric_threshold=None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"include_auto_mp": False, "extra_options": {"AutoMixprecision": {}}}, "needs include_auto_mp=True"),
        ({"use_dynamic_quant": True}, "use_dynamic_quant has none"),
        ({"activation_type": "float16", "weight_type": "float16"}, "a model that becomes float16 has none"),
        ({"target": "qnn", "activation_type": "uint16", "weight_type": "int8"}, "target 'qnn' runs activation_type"),
    ],
)
def test_combinations_that_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**fields)


def test_qnn_mixes_its_own_types() -> None:
    types = {"TargetLayerConfig": {"activation_type": "uint8"}}
    made = config(types, target="qnn", activation_type="uint16", weight_type="int8")
    assert made.moved.activation_type == "uint8"
