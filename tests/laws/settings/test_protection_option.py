"""The option Protect: off, on, or on with names that are asked for and forbidden."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quark_onnx import ConfigError, QuantizationConfig, get_default_config
from quark_onnx.core.settings.protection import Protection

NAMES = ("stem", "head/box", "head/score", "tail")


def of(value: Any) -> Protection:
    return QuantizationConfig(extra_options={"Protect": value}).protection


def test_values() -> None:
    assert QuantizationConfig().protection == of(None) == of(True) == of([]) == Protection()
    assert of(False) == Protection(on=False)
    assert (
        of(["head/*", "!^tail", "stem"])
        == of(("head/*", "stem", "!^tail"))
        == Protection(True, ("head/*", "stem"), ("^tail",))
    )


names = st.text("abc/*^", min_size=1, max_size=6)


@given(st.lists(names, unique=True), st.lists(names, unique=True))
def test_a_configuration_comes_back_from_json(asked: list[str], forbidden: list[str]) -> None:
    value = [*asked, *(f"!{name}" for name in forbidden if name not in asked)]
    config = replace(get_default_config(), extra_options={"Protect": value})
    assert QuantizationConfig.from_json(config.to_json()) == config
    assert config.protection == Protection(True, tuple(asked), tuple(n for n in forbidden if n not in asked))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("head/*", "Protect does not take 'head/\\*': .* a list of names"),
        (1, "Protect does not take 1"),
        ({"stem": True}, "Protect does not take"),
        ([3], "Protect must hold names, not 3"),
        ([""], "Protect must hold names, not ''"),
        (["!"], "Protect must hold names, not '!'"),
        (["stem", "!stem"], "asks for 'stem' and forbids it; remove one of the two"),
    ],
)
def test_what_it_does_not_take(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        of(value)


def test_names_of_a_model() -> None:
    assert Protection().named(NAMES) == (frozenset(), frozenset())
    asked, forbidden = of(["head/*", "^tail$", "!head/score"]).named(NAMES)
    assert (asked, forbidden) == ({"head/box", "tail"}, {"head/score"})  # what is forbidden counts more


@pytest.mark.parametrize("entry", ["haed/box", "!haed/box"])
def test_a_name_that_is_not_there_is_told_with_the_nearest(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"Protect: 'haed/box' matches no node or tensor .* did you mean 'head/box'"):
        of([entry]).named(NAMES)
    with pytest.raises(ConfigError, match=r"'\^\(' is not a regular expression"):
        of(["^("]).named(NAMES)


def test_names_are_refused_where_types_are_chosen_otherwise() -> None:
    """The twin: on targets that protection does not look at, names that are asked for stay float all the same."""
    wide = {"activation_type": "int16", "weight_type": "int16"}
    with pytest.raises(ConfigError, match=r"Protect is not for mixed precision.*nodes_to_exclude"):
        QuantizationConfig(**wide, include_auto_mp=True, extra_options={"Protect": ["stem"]})
    assert QuantizationConfig(**wide, include_auto_mp=True, extra_options={"Protect": True}).include_auto_mp
    for fields in (wide, {"target": "vitisai"}, {"target": "qnn", "activation_type": "uint8"}):
        assert QuantizationConfig(**fields, extra_options={"Protect": ["stem"]}).protection.asked == ("stem",)
