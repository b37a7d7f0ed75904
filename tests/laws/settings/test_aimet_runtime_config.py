"""Runtime configurations: what is read, what each malformed file is told, and how sections override one another."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations import LEAST

import quark_onnx
from quark_onnx import ConfigError
from quark_onnx.core.settings.aimet_runtime_config import (
    AIMET_ONLY,
    PARAM_TYPES,
    PASSES,
    SHIPPED,
    Kernel,
    OpRule,
    ParamRule,
    Precision,
    RuntimeConfig,
    load_runtime_config,
)


def changed(*path: str | int, value: Any) -> dict[str, Any]:
    """The least document with one entry set, and the objects on the way to it made."""
    document = copy.deepcopy(LEAST)
    at: Any = document
    for key in path[:-1]:
        at = at.setdefault(key, {}) if isinstance(at, dict) else at[key]
    at[path[-1]] = value
    return document


def test_the_least_document_quantizes_nothing() -> None:
    assert load_runtime_config(LEAST) == RuntimeConfig()


def test_everything_that_can_be_said_is_read() -> None:
    kernels = [{"activation": {"bitwidth": 16, "dtype": "float"}, "param": {"bitwidth": 4, "dtype": "int"}}]
    document = {
        "defaults": {
            "ops": {"is_output_quantized": "True", "is_symmetric": "False"},
            "params": {"is_quantized": "True", "is_symmetric": "True"},
            "strict_symmetric": "True",
            "unsigned_symmetric": "True",
            "per_channel_quantization": "True",
            "supported_kernels": kernels,
            "hw_version": "V73",
        },
        "params": {"bias": {"is_quantized": "False"}},
        "op_type": {
            "Relu": {"encoding_constraints": {"min": 0}},
            "Conv": {
                "is_input_quantized": "True",
                "is_output_quantized": "False",
                "is_symmetric": "True",
                "per_channel_quantization": "False",
                "params": {"weight": {"is_symmetric": "False"}},
                "supported_kernels": [{"activation": {"bitwidth": 8, "dtype": "int"}}],
                "encoding_constraints": {"min": -1.5, "max": 2},
            },
        },
        "supergroups": [{"op_list": ["Conv", "Relu"]}],
        "supergroup_pass_list": list(PASSES),
        "model_input": {"is_input_quantized": "True"},
        "model_output": {"is_output_quantized": "True"},
    }
    config = load_runtime_config(document)
    conv = OpRule(
        inputs=True,
        outputs=False,
        symmetric=True,
        params={"weight": ParamRule(None, False)},
        per_channel=False,
        constraint=(-1.5, 2.0),
        kernels=(Kernel(Precision(8)),),
    )
    assert config == RuntimeConfig(
        outputs=True,
        symmetric=False,
        param=ParamRule(True, True),
        strict=True,
        unsigned=True,
        per_channel=True,
        kernels=(Kernel(Precision(16, True), Precision(4)),),
        hw_version="V73",
        params={"bias": ParamRule(False, None)},
        op_types={"Relu": OpRule(constraint=(0.0, None)), "Conv": conv},
        supergroups=(("Conv", "Relu"),),
        passes=PASSES,
        model_input=True,
        model_output=True,
    )
    assert (config.per_channel_of("Conv"), config.per_channel_of("Gemm")) == (False, True)


MALFORMED: dict[str, tuple[dict[str, Any] | str, str]] = {
    "not json": ("{", "is not JSON"),
    "a list": ("[]", "the document must be an object"),
    "key twice": ('{"params": {}, "params": {}}', "the key 'params' twice"),
    "no section": ({k: v for k, v in LEAST.items() if k != "supergroups"}, "has no 'supergroups'"),
    "unknown section": (changed("model_inputs", value={}), "unknown key 'model_inputs'; did you mean 'model_input'"),
    "unknown key": (
        changed("op_type", "Conv", "params", "weight", "is_quantised", value="True"),
        "op_type.Conv.params.weight has an unknown key 'is_quantised'; did you mean 'is_quantized'",
    ),
    "unknown parameter": (changed("params", "wieght", value={}), "params has an unknown key 'wieght'.*'weight'"),
    "boolean": (
        changed("params", "bias", "is_quantized", value=False),
        'params.bias.is_quantized must be the string "True" or "False", not false',
    ),
    "lower case": (changed("defaults", "strict_symmetric", value="true"), "defaults.strict_symmetric must be"),
    "no ops": (changed("defaults", value={"params": {}}), "defaults has no 'ops'"),
    "outputs off": (changed("defaults", "ops", "is_output_quantized", value="False"), 'can only be "True".*op_type'),
    "inputs by default": (
        changed("defaults", "ops", "is_input_quantized", value="True"),
        "defaults.ops.is_input_quantized is no default.*model_input",
    ),
    "input off": (changed("op_type", "Add", "is_input_quantized", value="False"), "op_type.Add.is_input_quantized"),
    "model input off": (changed("model_input", "is_input_quantized", value="False"), "model_input.is_input_quantized"),
    "model output off": (changed("model_output", "is_output_quantized", value="False"), "leave the key out"),
    "input key of output": (changed("model_output", "is_input_quantized", value="True"), "model_output has an unknown"),
    "short group": (
        changed("supergroups", value=[{"op_list": ["Conv"]}]),
        r"supergroups\[0\].op_list needs at least 2",
    ),
    "group without list": (changed("supergroups", value=[{}]), r"supergroups\[0\] has no 'op_list'"),
    "group of numbers": (changed("supergroups", value=[{"op_list": ["A", 1]}]), r"op_list\[1\] must be a string"),
    "groups no list": (changed("supergroups", value={}), "supergroups must be a list"),
    "unknown pass": (
        changed("supergroup_pass_list", value=["MatMulAdd"]),
        r"supergroup_pass_list\[0\] is 'MatMulAdd'.*'MatmulAdd'",
    ),
    "huge": (changed("op_type", "Relu", "encoding_constraints", value={"min": 0, "max": 10**400}), "a finite number"),
    "open below": (changed("op_type", "Relu", "encoding_constraints", value={"max": 1.0}), "has no 'min'"),
    "no range": (changed("op_type", "Relu", "encoding_constraints", value={"min": 1, "max": 1}), "is no range"),
    "not finite": (
        '{"defaults": {"ops": {}, "params": {}}, "params": {}, "op_type": {"Relu": {"encoding_constraints": '
        '{"min": NaN}}}, "supergroups": [], "model_input": {}, "model_output": {}}',
        "op_type.Relu.encoding_constraints.min must be a finite number",
    ),
    "bits": (
        changed("defaults", "supported_kernels", value=[{"activation": {"bitwidth": 7, "dtype": "int"}, "param": {}}]),
        r"supported_kernels\[0\].activation.bitwidth must be one of 4, 8, 16, 32",
    ),
    "float bits": (
        changed("op_type", "Add", "supported_kernels", value=[{"activation": {"bitwidth": 8, "dtype": "float"}}]),
        "must be one of 16, 32 for dtype 'float'",
    ),
    "half a kernel": (
        changed("defaults", "supported_kernels", value=[{"activation": {"bitwidth": 8, "dtype": "int"}}]),
        "has no 'param'",
    ),
    "no kernel": (changed("defaults", "supported_kernels", value=[]), "supported_kernels needs at least 1"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_told_the_place(case: str, tmp_path: Path) -> None:
    document, message = MALFORMED[case]
    path = tmp_path / "config.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(ConfigError, match=message) as caught:
        load_runtime_config(path)
    assert "config.json" in str(caught.value)
    if isinstance(document, dict):
        with pytest.raises(ConfigError, match=message):
            load_runtime_config(document)


ENTRIES: list[tuple[tuple[str | int, ...], Any]] = [
    (("params", "bias", "is_quantized"), "True"),
    (("op_type", "Conv", "is_symmetric"), "False"),
    (("op_type", "Conv", "encoding_constraints", "min"), 0.5),
    (("supergroups", 0, "op_list"), ["A", "B"]),
    (("model_input", "is_input_quantized"), "True"),
]
junk = st.none() | st.booleans() | st.integers() | st.lists(st.none()) | st.dictionaries(st.text(), st.none())


@pytest.mark.parametrize("entry", ENTRIES)
@given(wrong=junk)
@settings(max_examples=30, deadline=None)
def test_a_value_of_another_kind_is_refused_by_its_path(entry: tuple[tuple[str | int, ...], Any], wrong: Any) -> None:
    path, right = entry
    if isinstance(right, float) and isinstance(wrong, int) and not isinstance(wrong, bool):
        return
    document = copy.deepcopy(LEAST)
    document["supergroups"] = [{}]
    at: Any = document
    for key in path[:-1]:
        at = at[key] if isinstance(key, int) or isinstance(at, list) else at.setdefault(key, {})
    if path[0] != "supergroups":
        document["supergroups"] = []
    at[path[-1]] = right
    load_runtime_config(document)
    at[path[-1]] = wrong
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
    with pytest.raises(ConfigError) as caught:
        load_runtime_config(document)
    assert where in str(caught.value)


@pytest.mark.parametrize("name", [None, *SHIPPED])
def test_our_own_files_are_in_the_package(name: str | None) -> None:
    config = load_runtime_config(name)
    assert config.outputs and config.model_input and config.params == {"bias": ParamRule(quantized=False)}
    assert config.per_channel_of("Conv") is (name != "default_per_tensor")
    assert not config.per_channel_of("LayerNormalization")
    folder = Path(quark_onnx.__file__).parent / "quantsim"
    assert {path.name for path in folder.glob("*.json")} == set(SHIPPED.values())


@pytest.mark.parametrize("name", AIMET_ONLY)
def test_a_configuration_of_aimet_is_named_with_its_file(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name.replace('_', '_quantsim_config_')}.json"):
        load_runtime_config(name)


def test_a_path_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_runtime_config("nowhere/config.json")
    with pytest.raises(ConfigError, match="did you mean 'default'"):
        load_runtime_config("defalt")


@pytest.mark.parametrize("source", [3, b"default", ["default"]])
def test_what_is_no_source(source: Any) -> None:
    with pytest.raises(ConfigError, match="config_file must be a path, a name or a dictionary"):
        load_runtime_config(source)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigError, match="is not JSON"):
        load_runtime_config(tmp_path / "config.json")


def test_it_stays_as_it_was_read() -> None:
    config = load_runtime_config()
    refused: list[Callable[[], Any]] = [
        lambda: config.params.update(weight=ParamRule()),  # type: ignore[attr-defined]
        lambda: setattr(config, "strict", True),
        lambda: config.op_types["Conv"].params.clear(),  # type: ignore[attr-defined]
    ]
    for change in refused:
        with pytest.raises((TypeError, AttributeError)):
            change()
    assert set(PARAM_TYPES) >= config.params.keys()
