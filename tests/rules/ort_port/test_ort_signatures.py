"""Parameters, their order and defaults are those of the installed onnxruntime, so that positional calls port.

An older one than that whose API this is may lack names, and have other parameters; the order of those that both have is
the same.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any

import onnxruntime
import pytest

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
PORTED = (1, 32)
"""The onnxruntime whose API this is."""

OLDER = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < PORTED

OTHER_DEFAULTS = {
    "quant_format": "QDQ",  # of weight-only configurations: operators of onnxruntime's own are not written
}
"""Where ours differ on purpose."""

Parameters = dict[str, object]


def parameters(function: Callable[..., Any]) -> Parameters:
    """Names and defaults in order; those that take any keyword are left out."""
    kept = [p for p in inspect.signature(function).parameters.values() if p.kind != inspect.Parameter.VAR_KEYWORD]
    return {p.name: p.default.name if isinstance(p.default, Enum) else p.default for p in kept}


def drift(mine: Parameters, other: Parameters, *, older: bool = False) -> list[str]:
    """What a call that is written for the other does not mean with ours."""
    shared = [name for name in mine if name in other]
    found = [] if shared == [name for name in other if name in mine] else ["the order differs"]
    if older:
        return found
    found += [f"{name} is missing" for name in other if name not in mine]
    found += [f"{name} is not theirs" for name in mine if name not in other]
    return found + [name for name in shared if mine[name] not in (other[name], OTHER_DEFAULTS.get(name, other[name]))]


def theirs(name: str, module: str = "onnxruntime.quantization") -> Any:
    """The original, if this onnxruntime has it."""
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        assert OLDER, f"{name} is no longer there"
        pytest.skip(f"this onnxruntime has no {name}")


@pytest.mark.parametrize("name", NAMES)
def test_signatures(name: str) -> None:
    assert drift(parameters(getattr(ours, name)), parameters(theirs(name)), older=OLDER) == []


@pytest.mark.parametrize("name", NBITS)
def test_signatures_of_weights_of_few_bits(name: str) -> None:
    other = theirs(name, "onnxruntime.quantization.matmul_nbits_quantizer")
    assert drift(parameters(getattr(our_nbits, name)), parameters(other), older=OLDER) == []


@pytest.mark.parametrize("name", ["QuantType", "QuantFormat", "CalibrationMethod"])
def test_words(name: str) -> None:
    mine, other = ({member.name: member.value for member in words} for words in (getattr(ours, name), theirs(name)))
    assert mine.items() >= other.items()
    assert [getattr(ours, name).from_string(str(member)) for member in getattr(ours, name)] == [*getattr(ours, name)]


def test_drift_is_seen() -> None:
    one: Parameters = {"model": 1, "out": 2, "new": None}
    assert drift(one, one) == []
    assert drift(one, {"out": 2, "model": 1, "new": None}) == ["the order differs"]
    assert drift(one, {"model": 1, "new": None}) == ["out is not theirs"]
    assert drift(one, {**one, "newer": 0}) == ["newer is missing"]
    assert drift(one, {**one, "out": 3}) == ["out"]
    assert drift(one, {"model": 2, "gone": 3, "out": 2}, older=True) == []
    assert drift(one, {"out": 2, "model": 1}, older=True) == ["the order differs"]
