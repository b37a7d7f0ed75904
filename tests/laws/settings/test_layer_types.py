"""The option LayerTypes: what a layer is asked to be, in the configuration that it is placed with."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quark_onnx import ConfigError, QuantizationConfig
from quark_onnx.core.number_formats import TYPES, Format

law = settings(deadline=None, max_examples=50)


def config(asked: Any, extra: dict[str, Any] | None = None, **fields: Any) -> QuantizationConfig:
    return QuantizationConfig(**fields, extra_options={**(extra or {}), "LayerTypes": {"head": asked}})


@law
@given(
    st.sampled_from(sorted(TYPES)),
    st.none() | st.booleans(),
    st.none() | st.booleans(),
    st.none() | st.integers(2, 999),
    st.booleans(),
)
def test_what_is_left_out_is_as_the_configuration_has_it(
    weight: str, symmetric: bool | None, per_channel: bool | None, block: int | None, whole: bool
) -> None:
    told = {"weight_type": weight, "symmetric": symmetric, "per_channel": per_channel, "BlockSize": block}
    asked = {key: value for key, value in told.items() if value is not None}
    # as the whole model has it where all of it is asked to be so
    options = {"WeightSymmetric": symmetric, "BlockSize": block, "WeightsOnly": True}
    same = QuantizationConfig(weight_type=weight, per_channel=whole, extra_options=options)
    own = config({**asked, "activation_type": "float"}, per_channel=whole).layers["head"]
    assert own.weight == same.weight
    assert own.per_channel == (whole if per_channel is None else per_channel)
    assert (own.option("BlockSize"), own.observes, own.bias_bits) == (block, False, None)


def test_a_layer_keeps_the_options_about_formats() -> None:
    extra = {"ActivationSymmetric": True, "WeightSymmetric": False, "UsePowerOf2Scale": True, "BlockSize": 16}
    own = config({"weight_type": "int4"}, extra).layers["head"]
    assert own.weight == Format(4, True, False, scale="pow2", strict=False)
    assert (own.activation.symmetric, own.option("BlockSize")) == (True, 16)
    other = config({"weight_type": "int4", "symmetric": True, "BlockSize": None}, extra).layers["head"]
    assert (other.weight.symmetric, other.option("BlockSize")) == (True, None)


def test_seven_bits_are_for_eight() -> None:
    own = config({"weight_type": "uint4"}, reduce_range=True).layers["head"]
    assert own.weight.bits == 4
    assert config({"weight_type": "uint8"}, reduce_range=True, activation_type="uint8").layers["head"].weight.bits == 7


def test_types_under_any_name_are_kept_by_theirs() -> None:
    found = config({"weight_type": "QUInt4", "activation_type": "S16"})
    assert found.extra_options["LayerTypes"] == {"head": {"weight_type": "uint4", "activation_type": "int16"}}
    assert QuantizationConfig.from_json(found.to_json()) == found


REFUSED: dict[str, tuple[Any, str, dict[str, Any]]] = {  # what is asked, the error, and fields that it is asked beside
    "key": (
        {"weigth_type": "int4"},
        r"LayerTypes\['head'\]: unknown key 'weigth_type'; did you mean 'weight_type'",
        {},
    ),
    "type": ({"weight_type": "int99"}, r"LayerTypes\['head'\]\['weight_type'\]: unknown type 'int99'", {}),
    "float weight": ({"weight_type": "float16"}, "a layer takes integer types, not 'float16'", {}),
    "float activations": ({"activation_type": "float16"}, "a layer takes integer types, not 'float16'", {}),
    "flag": ({"symmetric": "yes"}, r"LayerTypes\['head'\]\['symmetric'\] must be True or False", {}),
    "block": ({"BlockSize": 1}, "must be a whole number from 2", {}),
    "nothing": ({}, r"LayerTypes\['head'\] must be a dictionary of activation_type", {}),
    "no dictionary": ("int8", r"LayerTypes\['head'\] must be a dictionary", {}),
    "no such kernel": ({"weight_type": "uint8"}, "no kernel for int8 activations with uint8 weights", {}),
    "target's weights": ({"weight_type": "int16"}, "'tensorrt' runs weight_type int8 or int4", {"target": "tensorrt"}),
    "target's activations": (
        {"activation_type": "uint8"},
        "'tensorrt' runs activation_type int8, not 'uint8'",
        {"target": "tensorrt"},
    ),
    "target's symmetry": ({"symmetric": False}, "'tensorrt' needs symmetric weights", {"target": "tensorrt"}),
    "target's channels": ({"per_channel": True}, "'vitisai' runs one scale per weight", {"target": "vitisai"}),
    "target's blocks": ({"BlockSize": 16}, "and target 'vitisai' does not run that", {"target": "vitisai"}),
    "run time": (
        {"activation_type": "int16"},
        "needs ranges from calibration",
        {"activation_type": "uint8", "use_dynamic_quant": True},
    ),
    "mixed precision": (
        {"weight_type": "int16"},
        "LayerTypes says of layers what include_auto_mp is to find out",
        {"activation_type": "int16", "include_auto_mp": True},
    ),
}


@pytest.mark.parametrize(("asked", "message", "fields"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(asked: Any, message: str, fields: dict[str, Any]) -> None:
    QuantizationConfig(**fields)
    with pytest.raises(ConfigError, match=message):
        config(asked, **fields)


def test_the_message_names_the_entry() -> None:
    with pytest.raises(ConfigError, match=r"LayerTypes\['head'\]: onnxruntime has no kernel for int8"):
        config({"weight_type": "uint8"})
    config({"weight_type": "uint8", "activation_type": "uint8"})
    config({"weight_type": "uint8", "activation_type": "float"})
    config({"weight_type": "uint8"}, {"WeightsOnly": True})


def test_activations_of_a_layer_where_none_have_ranges() -> None:
    with pytest.raises(ConfigError, match="activation_type 'int8' needs ranges"):
        config({"activation_type": "int8"}, {"WeightsOnly": True})
    assert not config({"activation_type": "float"}, use_dynamic_quant=True).layers["head"].use_dynamic_quant
