"""Presets: what a name says is what it holds (research/quark.md §2)."""

from __future__ import annotations

import dataclasses

import pytest

from quark_onnx import PRESETS, ConfigError, get_default_config
from quark_onnx.core.finetune import AdaQuant, AdaRound
from quark_onnx.core.formats import Format

S8, U8 = Format(8, True), Format(8, False)
S8_SYMMETRIC, U8_SYMMETRIC = Format(8, True, True), Format(8, False, True)

TABLE = {  # activation, weight, method, percentile, AlignConcat
    "S8S8_AAWS": (S8, S8_SYMMETRIC, "Percentile", 99.9999, False),
    "U8S8_AAWS": (U8, S8_SYMMETRIC, "Percentile", 99.999, False),
    "U8U8_AAWA": (U8, U8, "Percentile", 99.999, False),
    "A8W8": (S8_SYMMETRIC, S8_SYMMETRIC, "MinMax", 99.999, True),
    "INT8_CNN_DEFAULT": (U8, S8_SYMMETRIC, "MinMax", 99.999, False),
}


def test_the_table_has_every_preset() -> None:
    assert PRESETS.keys() == {name + suffix for name in TABLE for suffix in ("", "_ADAROUND", "_ADAQUANT")}


@pytest.mark.parametrize("name", TABLE)
def test_tuned_variants_differ_in_nothing_else(name: str) -> None:
    plain, rounded, quant = (get_default_config(name + suffix) for suffix in ("", "_ADAROUND", "_ADAQUANT"))
    assert (plain.finetune, rounded.finetune, quant.finetune) == (None, AdaRound(), AdaQuant())
    for variant in (rounded, quant):
        options = {key: value for key, value in variant.extra_options.items() if key != "FastFinetune"}
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
    assert config.option("ForceQuantizeNoInputCheck")


SPELLED = [name for name in TABLE if "_A" in name and len(name) == 9]


@pytest.mark.parametrize("name", SPELLED)
def test_a_spelled_name_can_be_read_back(name: str) -> None:
    config = get_default_config(name)
    symmetry = ("S" if format.symmetric else "A" for format in (config.activation, config.weight))
    types = "".join(format.dtype[0].replace("i", "s").upper() + "8" for format in (config.activation, config.weight))
    assert "{}_A{}W{}".format(types, *symmetry) == name


def test_three_names_are_spelled() -> None:
    assert SPELLED == ["S8S8_AAWS", "U8S8_AAWS", "U8U8_AAWA"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("S8S8_AWAS", "S8S8_AAWS"),
        ("a8w8", "A8W8"),
        ("INT8_CNN", "INT8_CNN_DEFAULT"),
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
