"""Presets: what a name says is what it holds (research/quark.md §2)."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark_onnx import PRESETS, Config, ConfigError, get_default_config
from quark_onnx.core.number_formats import Format
from quark_onnx.core.settings.fast_finetune import GPTQ, AdaQuant, AdaRound
from quark_onnx.core.settings.presets import DEFAULT, beginning
from quark_onnx.core.settings.protection import Protection
from quark_onnx.core.settings.targets import TARGETS
from quark_onnx.core.settings.training.qat import QAT

S8, U8 = Format(8, True), Format(8, False)
U16, S16_SYMMETRIC = Format(16, False), Format(16, True, True)
S8_SYMMETRIC = Format(8, True, True)
S8_POW2 = Format(8, True, True, scale="pow2", strict=False)
FINE, USUAL = 99.9999, 99.999

TABLE = {  # activation, weight, method, percentile, AlignConcat
    "S8S8_AAWS": (S8, S8_SYMMETRIC, "Percentile", FINE, None),
    "U8S8_AAWS": (U8, S8_SYMMETRIC, "Percentile", USUAL, None),
    "U8U8_AAWA": (U8, U8, "Percentile", USUAL, None),
    "S16S8_ASWS": (S16_SYMMETRIC, S8_SYMMETRIC, "Percentile", USUAL, None),
    "U16S8_AAWS": (U16, S8_SYMMETRIC, "Percentile", USUAL, None),
    "A8W8": (S8_SYMMETRIC, S8_SYMMETRIC, "MinMax", USUAL, True),
    "A16W8": (S16_SYMMETRIC, S8_SYMMETRIC, "MinMax", USUAL, True),
    "XINT8": (dataclasses.replace(S8_POW2, signed=False), S8_POW2, "MinMSE", USUAL, None),
    "VINT8": (S8_POW2, S8_POW2, "MinMSE", USUAL, None),
    "INT8_CNN_DEFAULT": (U8, S8_SYMMETRIC, "MinMax", USUAL, None),
    "INT16_CNN_DEFAULT": (U16, S16_SYMMETRIC, "MinMax", USUAL, None),
    "INT8_TRANSFORMER_DEFAULT": (U8, S8_SYMMETRIC, "MinMax", USUAL, None),
    "INT16_TRANSFORMER_DEFAULT": (U16, S16_SYMMETRIC, "MinMax", USUAL, None),
}
TUNED = {  # what else a preset of its own is
    "INT8_CNN_ACCURATE": (U8, S8_SYMMETRIC, ()),
    "INT16_CNN_ACCURATE": (U16, S16_SYMMETRIC, ()),
    "INT8_TRANSFORMER_ACCURATE": (U8, S8_SYMMETRIC, ("MatMul", "Gemm")),
    "INT16_TRANSFORMER_ACCURATE": (U16, S16_SYMMETRIC, ("MatMul", "Gemm")),
}
OTHERS = {"S16S16_MIXED_S8S8", "UINT8_DYNAMIC_QUANT", "MATMUL_NBITS_HQQ", "FP16", "BF16"}
SUFFIXES = {"": None, "_ADAROUND": AdaRound(), "_ADAQUANT": AdaQuant(), "_GPTQ": GPTQ(), "_QAT": AdaRound()}


def test_the_table_has_every_preset() -> None:
    families = {name + suffix for name in (DEFAULT, *TABLE, "MATMUL_NBITS") for suffix in SUFFIXES}
    assert PRESETS.keys() == families | TUNED.keys() | OTHERS


def test_the_default_is_the_first_preset_and_what_a_bare_call_takes() -> None:
    assert next(iter(PRESETS)) == DEFAULT == "INT8_PROTECTED"
    assert Config() == Config(get_default_config()) == Config(PRESETS[DEFAULT])


def test_the_default_is_s8s8_aaws_and_all_that_needs_no_search() -> None:
    default, quark = get_default_config(), get_default_config("S8S8_AAWS")
    assert (default.per_channel, default.weight_pairs, default.finetune) == (True, "auto", None)
    assert (default.protection, default.option("BiasCorrection")) == (Protection(), "auto")
    options = {key: value for key, value in default.extra_options.items() if key not in ("BiasCorrection", "Protect")}
    assert dataclasses.replace(default, per_channel=False, extra_options=options) == quark


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("target", TARGETS)
def test_the_default_fits_itself_to_the_target(target: str, suffix: str) -> None:
    name, config = beginning(DEFAULT + suffix, {"target": target})
    row = TARGETS[target]
    assert (name, config.target, config.per_channel) == (DEFAULT + suffix, target, row.per_channel)
    assert config.activation_type in (row.activation_types or ("int8",))
    assert (config.activation.symmetric, config.activation.scale) == (row.symmetric, "pow2" if row.pow2 else "float")
    assert config.option("BiasCorrection") == (False if suffix else "auto")
    assert (config.finetune is None) == (not suffix)


def test_where_changes_begin() -> None:
    """Without a name at the default, or the conversion that both types ask for; a name is taken at its word."""
    assert beginning(None, {}) == (DEFAULT, get_default_config())
    assert beginning(None, {"target": "qnn"})[0] == DEFAULT
    half = {"activation_type": "float16", "weight_type": "float16"}
    assert beginning(None, half) == ("FP16", get_default_config("FP16"))
    assert beginning(None, {"weight_type": "float16"})[0] == DEFAULT
    assert beginning("S8S8_AAWS", half | {"target": "qnn"}) == ("S8S8_AAWS", get_default_config("S8S8_AAWS"))
    assert beginning(None, {"target": "qnm"}) == (DEFAULT, get_default_config())  # refused where it is set
    with pytest.raises(ConfigError, match="unknown preset 'INT8_PROTECT'; did you mean 'INT8_PROTECTED'"):
        beginning("INT8_PROTECT", {"target": "qnn"})
    with pytest.raises(ConfigError, match="unknown preset 'INT8_PROTECTED_ADA"):
        beginning("INT8_PROTECTED_ADA", {"target": "qnn"})


@pytest.mark.parametrize("name", TUNED)
def test_accurate_presets_are_fine_tuned(name: str) -> None:
    config = get_default_config(name)
    activation, weight, op_types = TUNED[name]
    assert (config.activation, config.weight, config.op_types_to_quantize) == (activation, weight, op_types)
    assert (config.calibrate_method, config.option("Percentile")) == ("Percentile", FINE)
    assert config.finetune == AdaRound()


def test_presets_of_their_own_kind() -> None:
    mixed, dynamic, nbits, half, brain = (
        get_default_config(n) for n in ("S16S16_MIXED_S8S8", "UINT8_DYNAMIC_QUANT", "MATMUL_NBITS", "FP16", "BF16")
    )
    assert mixed.include_auto_mp
    assert (mixed.activation.bits, mixed.weight.bits) == (16, 16)
    assert dynamic.use_dynamic_quant
    assert (dynamic.activation, dynamic.weight, dynamic.bias_bits) == (U8, S8_SYMMETRIC, None)
    assert dynamic.per_channel
    assert (nbits.weight, nbits.bias_bits) == (Format(4, True, True), None)
    assert (nbits.option("WeightsOnly"), nbits.option("BlockSize")) == (True, 128)
    assert nbits.op_types_to_quantize == ("MatMul", "Gemm", "Gather")
    assert (half.conversion, brain.conversion) == ("float16", "bfloat16")


def test_transformers_use_a_moving_average() -> None:
    config = get_default_config("INT8_TRANSFORMER_DEFAULT")
    assert config.option("CalibMovingAverage")
    assert config.option("MatMulConstBOnly")
    assert config.op_types_to_quantize == ("MatMul", "Gemm")
    assert not get_default_config("INT8_CNN_DEFAULT").option("CalibMovingAverage")


@pytest.mark.parametrize("name", [*TABLE, "MATMUL_NBITS"])
def test_tuned_variants_differ_in_nothing_else(name: str) -> None:
    plain, *variants = found = [get_default_config(name + suffix) for suffix in SUFFIXES]
    assert [config.finetune for config in found] == list(SUFFIXES.values())
    assert [config.training for config in found] == [QAT() if suffix == "_QAT" else None for suffix in SUFFIXES]
    for variant in variants:
        options = {key: value for key, value in variant.extra_options.items() if key not in ("FastFinetune", "QAT")}
        assert dataclasses.replace(variant, include_fast_ft=False, extra_options=options) == plain


@pytest.mark.parametrize("name", TABLE)
def test_contents(name: str) -> None:
    config = get_default_config(name)
    options = tuple(config.option(key) for key in ("Percentile", "AlignConcat"))
    assert (config.activation, config.weight, config.calibrate_method, *options) == TABLE[name]
    assert config.quant_format == "QDQ"
    assert config.optimize_model
    assert config.include_cle
    assert not config.per_channel
    assert config.target == ("vitisai" if name in ("XINT8", "VINT8") else "cpu")
    assert config.option("ForceQuantizeNoInputCheck")


types = st.tuples(st.sampled_from("SU"), st.sampled_from([2, 4, 6, 8, 12, 16])).map("{0[0]}{0[1]}".format)
symmetry = st.sampled_from("SA")


@given(types, types, symmetry, symmetry)
def test_every_name_of_the_grammar_is_a_preset(a: str, w: str, act: str, weight: str) -> None:
    """The configuration is what the name says; the one pair without a kernel is refused."""
    name = f"{a}{w}_A{act}W{weight}"
    if (a, w) == ("S8", "U8"):
        with pytest.raises(ConfigError, match="no kernel"):
            get_default_config(name)
        return
    config = get_default_config(name)
    for spelled, format, letter in ((a, config.activation, act), (w, config.weight, weight)):
        assert f"{'S' if format.signed else 'U'}{format.bits}" == spelled
        assert format.symmetric == (letter == "S")
    assert get_default_config(name + "_ADAQUANT").finetune == AdaQuant()


@pytest.mark.parametrize(
    "name",
    ["BFP16", "MX4", "MX6", "MX9", "MXINT8", "MXFP8E5M2", "MX9_INT8", "BF16_MIXED_BFP16_ADAQUANT", "BF16_MXINT8"],
)
def test_block_float_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigError, match=f"preset '{name}' is not offered: .*ONNX has no such type"):
        get_default_config(name)


@pytest.mark.parametrize("name", ["FP16_ADAROUND", "BF16_ADAQUANT", "UINT8_DYNAMIC_QUANT_GPTQ"])
def test_what_cannot_be_tuned_says_so(name: str) -> None:
    base, _, ending = name.rpartition("_")
    with pytest.raises(ConfigError, match=f"'{base}' does not come with _{ending}"):
        get_default_config(name)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("S8S8_AWAS", "S8S8_AAWS"),
        ("a8w8", "A8W8"),
        ("INT8_CNN_DEFAULTS", "INT8_CNN_DEFAULT"),
        ("XINT9", "XINT8"),
        ("A8W8_ADARUOND", "A8W8_ADAROUND"),
    ],
)
def test_an_unknown_name_is_an_error_that_names_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown preset '{wrong}'; did you mean '{right}'"):
        get_default_config(wrong)


def test_a_preset_cannot_be_changed_for_everybody() -> None:
    config = get_default_config("A8W8")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.per_channel = True  # type: ignore[misc]
    with pytest.raises(TypeError, match="read-only"):
        config.extra_options["AlignConcat"] = False  # type: ignore[index]
    assert get_default_config("A8W8").option("AlignConcat") is True
