"""Presets of both generations: what they lower to, what is refused, and that changes stay with who makes them."""

from __future__ import annotations

from dataclasses import fields

import pytest

import quark_onnx
from quark_onnx import PRESETS, ConfigError, quark
from quark_onnx import QuantizationConfig as Native
from quark_onnx.core.settings.extra_options import OPTIONS
from quark_onnx.demo import MODEL
from quark_onnx.quark.lowered_config import lowered
from quark_onnx.quark.lowered_qconfig import first_api
from quark_onnx.quark.model_nodes import ModelNodes
from quark_onnx.quark.ready_qconfigs import READY


def settings(config: Native) -> dict[str, object]:
    """All that a configuration says, defaults included."""
    found = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "extra_options"}
    found |= {key: config.option(key) for key in OPTIONS if key not in ("FastFinetune", "ActivationSymmetric")}
    return {**found, "tuning": config.tuning, "activation": config.conversion or config.activation}


def ready(name: str) -> Native:
    config = getattr(quark, f"{name}_QCONFIG")
    return lowered(first_api(config, (), ModelNodes(MODEL))).config


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_of_the_first_api_is_ours(name: str) -> None:
    assert settings(lowered(quark.get_default_config(name)).config) == settings(PRESETS[name])


def test_spelled_names_are_presets_too() -> None:
    for name in ("S16S4_ASWS", "U12S8_AAWS_ADAQUANT"):
        assert settings(lowered(quark.get_default_config(name)).config) == settings(quark_onnx.get_default_config(name))


def test_every_ready_configuration_of_quark_is_there() -> None:
    tuned = {f"{base}{ending}" for base in ("XINT8", "A8W8", "A16W8") for ending in ("", "_ADAROUND", "_ADAQUANT")}
    assert set(READY) == {f"{name}_QCONFIG" for name in (*tuned, "VINT8", "BF16", "BFP16")}


@pytest.mark.parametrize(
    ("name", "types", "method", "target"),
    [
        ("XINT8", ("int8", "int8"), "MinMSE", "vitisai"),
        ("XINT8_ADAROUND", ("int8", "int8"), "MinMSE", "vitisai"),
        ("XINT8_ADAQUANT", ("int8", "int8"), "MinMSE", "vitisai"),
        ("VINT8", ("int8", "int8"), "MinMSE", "vitisai"),
        ("A8W8", ("int8", "int8"), "Percentile", "cpu"),
        ("A8W8_ADAROUND", ("int8", "int8"), "Percentile", "cpu"),
        ("A8W8_ADAQUANT", ("int8", "int8"), "Percentile", "cpu"),
        ("A16W8", ("int16", "int8"), "Percentile", "cpu"),
        ("A16W8_ADAROUND", ("int16", "int8"), "Percentile", "cpu"),
        ("A16W8_ADAQUANT", ("int16", "int8"), "Percentile", "cpu"),
        ("BF16", ("bfloat16", "bfloat16"), "MinMax", "cpu"),
    ],
)
def test_a_ready_configuration_is_that_of_the_second_api(
    name: str, types: tuple[str, str], method: str, target: str
) -> None:
    found = ready(name)
    assert (found.activation_type, found.weight_type, found.calibrate_method, found.target) == (*types, method, target)
    assert not found.include_cle
    tuning = {"ADAROUND": quark_onnx.AdaRound(), "ADAQUANT": quark_onnx.AdaQuant()}.get(name.partition("_")[2])
    assert found.tuning == tuning
    if found.conversion is None:
        assert found.activation.symmetric and found.weight.symmetric
        assert found.weight_ranging.method == ("MinMSE" if target == "vitisai" else "MinMax")
        assert (found.activation.scale == "pow2") == (target == "vitisai")


def test_the_two_generations_differ_where_quark_does() -> None:
    first, second = lowered(quark.get_default_config("A8W8")).config, ready("A8W8")
    assert (first.calibrate_method, first.include_cle) == ("MinMax", True)
    assert (second.calibrate_method, second.include_cle) == ("Percentile", False)
    assert lowered(quark.get_default_config("XINT8")).config.activation_type == "uint8"


def test_block_floating_point_is_refused_when_it_is_used() -> None:
    with pytest.raises(ConfigError, match=r"BFP16 is not supported: .* nearest is bfloat16"):
        ready("BFP16")
    with pytest.raises(ConfigError, match=r"MX9.* is not offered"):
        quark.get_default_config("MX9")


def test_names_that_there_are_not() -> None:
    with pytest.raises(ConfigError, match="did you mean 'XINT8'"):
        quark.get_default_config("XINT")
    with pytest.raises(ImportError, match="A8W8_QCONFG"):
        from quark_onnx.quark import A8W8_QCONFG  # noqa: F401
    with pytest.raises(ImportError, match=r"no get_library_path: models hold standard operators"):
        from quark_onnx.quark import get_library_path  # noqa: F401


def test_a_change_of_a_preset_stays_with_who_made_it() -> None:
    changed = quark.get_default_config("S8S8_AAWS_ADAROUND")
    changed.extra_options["FastFinetune"]["NumIterations"] = 7
    changed.extra_options["Percentile"] = 99.0
    changed.nodes_to_exclude.append("n")
    fresh = quark.get_default_config("S8S8_AAWS_ADAROUND")
    assert fresh.extra_options["FastFinetune"]["NumIterations"] is None
    assert (fresh.extra_options["Percentile"], fresh.nodes_to_exclude) == (99.9999, [])
    assert lowered(changed).config.tuning == quark_onnx.AdaRound(num_iterations=7)
    assert quark_onnx.get_default_config("S8S8_AAWS_ADAROUND").option("Percentile") == 99.9999


def test_a_change_of_a_ready_configuration_stays_with_who_made_it() -> None:
    from quark_onnx.quark import A8W8_ADAROUND_QCONFIG as mine

    mine.extra_options["AlignConcat"] = False
    mine.global_config.weight.set_symmetric(False)
    mine.algo_config[0].num_iterations = 5
    from quark_onnx.quark import A8W8_ADAROUND_QCONFIG as other

    assert other.extra_options["AlignConcat"] is True
    assert other.global_config.weight.symmetric is True
    assert other.algo_config[0].num_iterations is None
    assert quark.QConfig.get_default_config("XINT8") is not quark.QConfig.get_default_config("XINT8")


@pytest.mark.parametrize("name", ["S8S8_AAWS_ADAROUND", "XINT8_ADAQUANT", "A8W8_GPTQ"])
def test_fine_tuning_of_a_preset_can_be_switched_off(name: str) -> None:
    config = quark.get_default_config(name)
    config.include_fast_ft = False
    assert settings(lowered(config).config) == settings(PRESETS[name.rpartition("_")[0]])
    config.extra_options["FastFinetune"]["DataSize"] = 10
    with pytest.raises(ConfigError, match="nothing asks for it"):
        lowered(config)


@pytest.mark.parametrize("key", ["NumIterations", "BatchSize", "LearningRate", "DataSize"])
def test_what_a_user_sets_of_fine_tuning_counts(key: str) -> None:
    config = quark.get_default_config("A8W8_ADAQUANT")
    assert config.extra_options["FastFinetune"][key] is None
    config.extra_options["FastFinetune"][key] = 2
    assert lowered(config).config.tuning != lowered(quark.get_default_config("A8W8_ADAQUANT")).config.tuning


@pytest.mark.parametrize("algorithm", ["DEFAULT", "GPTQ", "HQQ"])
def test_weights_of_few_bits(algorithm: str) -> None:
    config = quark.get_default_config("MATMUL_NBITS")
    config.extra_options["MatMulNBitsParams"]["Algorithm"] = algorithm
    preset = "MATMUL_NBITS" + ("" if algorithm == "DEFAULT" else f"_{algorithm}")
    assert settings(lowered(config).config) == settings(PRESETS[preset])
    config.extra_options["MatMulNBitsParams"] |= {"GroupSize": 32, "Bits": 8, "Symmetric": False}
    found = lowered(config).config
    assert (found.option("BlockSize"), found.weight_type, found.weight.symmetric) == (32, "int8", False)
