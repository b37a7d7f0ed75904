"""Parameters, their order and defaults are those of the installed onnxruntime, so that positional calls port."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any

import onnxruntime.quantization as theirs
import pytest
from onnxruntime.quantization import matmul_nbits_quantizer as their_nbits

from quark_onnx import ort as ours
from quark_onnx.ort import matmul_nbits_quantizer as our_nbits

NAMES = (
    "quantize_static",
    "quantize_dynamic",
    "quantize",
    "get_qdq_config",
    "quant_pre_process",
    "StaticQuantConfig",
    "DynamicQuantConfig",
)
NBITS = (
    "MatMulNBitsQuantizer",
    "DefaultWeightOnlyQuantConfig",
    "RTNWeightOnlyQuantConfig",
    "GPTQWeightOnlyQuantConfig",
    "HQQWeightOnlyQuantConfig",
    "KQuantWeightOnlyQuantConfig",
)
OTHER_DEFAULTS = {
    "quant_format": "QDQ",  # of weight-only configurations: operators of onnxruntime's own are not written
    "input_model": inspect.Parameter.empty,  # None there, and refused
    "output_model_path": inspect.Parameter.empty,
}
"""Where ours differ on purpose."""

Parameters = dict[str, object]


def parameters(function: Callable[..., Any]) -> Parameters:
    """Names and defaults in order; those that take any keyword are left out."""
    kept = [p for p in inspect.signature(function).parameters.values() if p.kind != inspect.Parameter.VAR_KEYWORD]
    return {p.name: p.default.name if isinstance(p.default, Enum) else p.default for p in kept}


def drift(mine: Parameters, other: Parameters) -> list[str]:
    """What a call that is written for the other does not mean with ours; an older one may lack what came later."""
    shared = [name for name in mine if name in other]
    found = [f"{name} is missing" for name in other if name not in mine]
    found += [] if shared == list(other) else ["the order differs"]
    found += ["a new one is not the last"] * (list(mine)[: len(shared)] != shared)
    return found + [name for name in shared if mine[name] not in (other[name], OTHER_DEFAULTS.get(name, other[name]))]


@pytest.mark.parametrize("name", NAMES)
def test_signatures(name: str) -> None:
    assert drift(parameters(getattr(ours, name)), parameters(getattr(theirs, name))) == []


@pytest.mark.parametrize("name", NBITS)
def test_signatures_of_weights_of_few_bits(name: str) -> None:
    if not hasattr(their_nbits, name):
        pytest.skip(f"this onnxruntime has no {name}")
    assert drift(parameters(getattr(our_nbits, name)), parameters(getattr(their_nbits, name))) == []


@pytest.mark.parametrize("name", ["QuantType", "QuantFormat", "CalibrationMethod"])
def test_words(name: str) -> None:
    mine, other = ({m.name: m.value for m in getattr(api, name)} for api in (ours, theirs))
    assert mine.items() >= other.items()
    assert [getattr(ours, name).from_string(str(member)) for member in getattr(ours, name)] == [*getattr(ours, name)]


def test_drift_is_seen() -> None:
    one: Parameters = {"model": 1, "out": 2, "new": None}
    assert drift(one, one) == drift(one, {"model": 1, "out": 2}) == []
    assert drift(one, {"out": 2, "model": 1, "new": None}) == ["the order differs"]
    assert drift(one, {"model": 1, "new": None}) == ["a new one is not the last"]
    assert drift(one, {**one, "newer": 0}) == ["newer is missing", "the order differs"]
    assert drift(one, {**one, "out": 3}) == ["out"]
