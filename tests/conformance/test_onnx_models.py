"""Every model that the onnx package comes with is quantized and valid, or float with reasons, or one of our errors."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_cases import Case, Feed, cases, dense, groups, operators, session
from text_models import normal

from quark_onnx import ModelError, ModelQuantizer, QuantizationConfig, QuarkError, Result, get_default_config
from quark_onnx.core.operators import CPU

QUANTIZED = 138
"""At least so many of them are quantized; measured: 145 of 2033, with onnx 1.23 and onnxruntime 1.32. Most are one
operator without a weight between inputs and outputs, which integers buy nothing, LayerNormalization among them
(docs/decisions/004)."""

PRESET = get_default_config("S8S8_AAWS")
PER_CHANNEL = replace(get_default_config("A8W8"), activation_type="uint8", per_channel=True)

outcomes: dict[str, str] = {}
tried: dict[frozenset[str], str] = {}
complete: set[str] = set()


@pytest.mark.parametrize("group", groups())
def test_every_model(group: str) -> None:
    """With a preset; and, per channel, the first of all with the same operators, where one of them can be quantized."""
    for case in cases(group):
        kinds = operators(case)
        first = group != "light" and not kinds.isdisjoint(CPU) and tried.setdefault(kinds, case.id) == case.id
        try:
            outcomes[case.id] = outcome(case, PRESET, repeats=1 if group == "light" else 2)
            if first:
                outcome(case, PER_CHANNEL, repeats=2)
        except Exception as error:
            raise AssertionError(case.id) from error
    complete.add(group)


def test_a_dense_block() -> None:
    case = Case("node", "dense", proto=dense(), inputs=(normal(1, 4, 8, 8),))
    for config in (PRESET, PER_CHANNEL):
        assert outcome(case, config, repeats=2) == "quantized"


def test_enough_are_quantized(record_testsuite_property: Any) -> None:
    """The suite must not turn green by turning into errors."""
    if complete != {*groups()}:
        pytest.skip("not all models were run")
    counts = Counter(outcomes.values())
    for name, count in counts.items():
        record_testsuite_property(name, count)
    assert counts["quantized"] >= QUANTIZED, counts


def outcome(case: Case, config: QuantizationConfig, repeats: int) -> str:
    """What became of the model: quantized, float or error. Asserts all that must hold for it."""
    model = case.model()
    feeds = case.feeds(model)
    before = model.SerializeToString(deterministic=True)
    try:
        result = ModelQuantizer(config).quantize_model(model, None, feeds * repeats)
    except QuarkError as error:
        check_error(error, model)
        return "error"
    finally:
        assert model.SerializeToString(deterministic=True) == before
    check_result(result, model, feeds[0])
    return "quantized" if result.plan.nodes else "float"


def check_error(error: QuarkError, model: onnx.ModelProto) -> None:
    """It speaks to the user, and it blames onnxruntime only for what onnxruntime does."""
    text = str(error)
    assert len(text) > 20
    assert not any(part in text for part in ("[ONNXRuntimeError]", "/onnxruntime_src/", "Traceback", "\n"))
    if isinstance(error, ModelError) and text.startswith("onnxruntime"):
        assert session(model) is None, text


def check_result(result: Result, model: onnx.ModelProto, feed: Feed) -> None:
    """It is valid, it has the interface of the float model, and what stayed float has a reason."""
    onnx.checker.check_model(result.model)
    defaults = {tensor.name for tensor in model.graph.initializer}
    given = [opened(value) for value in model.graph.input if value.name not in defaults]
    assert list(result.model.graph.input) == given
    assert [value.name for value in result.model.graph.output] == [value.name for value in model.graph.output]
    assert all(result.report.float_nodes.values())
    assert all(row.node in result.plan.nodes or result.plan.notes[row.node] for row in result.report.ledger)
    quantizers = any(node.op_type == "QuantizeLinear" for node in result.model.graph.node)
    assert quantizers == any(site.role == "activation" for site in result.plan.sites.values())
    quantized = session(result.model)
    assert quantized is not None
    expected = reference(model, feed)
    if expected is not None:
        compare(expected, quantized.run(None, feed), exact=not result.plan.nodes)


def opened(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """The input with dimensions of 0 left open: older exporters mean that by it, and here it is to be empty."""
    twin = onnx.ValueInfoProto()
    twin.CopyFrom(value)
    for dim in twin.type.tensor_type.shape.dim:
        if dim.HasField("dim_value") and dim.dim_value == 0:
            dim.ClearField("dim_value")
    return twin


def reference(model: onnx.ModelProto, feed: Feed) -> list[Any] | None:
    """The outputs of the float model; None where onnxruntime cannot compute them."""
    float_session = session(model)
    try:
        return None if float_session is None else float_session.run(None, feed)
    except Exception:  # types that cannot cross into Python, and operators that refuse their own test
        return None


def compare(expected: list[Any], got: list[Any], *, exact: bool) -> None:
    """Same shapes and types, finite where the float model is; a float model gives the same numbers."""
    for x, y in zip(expected, got, strict=True):
        if isinstance(x, np.ndarray):
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            if x.dtype.kind == "f":
                assert np.isfinite(y[np.isfinite(x)]).all()
            if x.dtype.kind in "fiub" and exact:
                np.testing.assert_allclose(y, x, rtol=1e-3, atol=1e-4)
