"""AdaQuant fits scale and bias of normalizations to what the quantized model feeds them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from onnx_text import parse_model

from quark_onnx import ModelQuantizer, Result, get_default_config


def model(norm: str, channels: int = 8) -> ModelProto:
    """x → layer → normalization → y."""
    rng = np.random.default_rng(0)
    layer = norm == "LayerNormalization"
    shape = "[N, 6]" if layer else "[N, 3, 5, 5]"
    first = "h = Gemm (x, w, b)" if layer else "h = Conv (x, w, b)"
    proto = parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float{shape} x) => (float y) {{ {first}  y = {norm} (h, gamma, beta) }}
    """)
    arrays = {
        "w": rng.normal(size=(6, channels) if layer else (channels, 3, 1, 1)),
        "b": rng.normal(size=channels),
        "gamma": rng.uniform(0.5, 2, channels),
        "beta": rng.normal(size=channels),
    }
    for name, array in arrays.items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    for node, name in zip(proto.graph.node, ("layer", "norm"), strict=True):
        node.name = name
    return proto


def tuned(norm: str, preset: str = "S8S8_AAWS_ADAQUANT", **changes: object) -> Result:
    rng = np.random.default_rng(1)
    shape = (4, 6) if norm == "LayerNormalization" else (2, 3, 5, 5)
    feeds = [{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(40)]
    config = replace(get_default_config(preset), **changes)  # type: ignore[arg-type]
    return ModelQuantizer(config).quantize_model(model(norm), None, feeds)


@pytest.mark.parametrize("norm", ["LayerNormalization", "InstanceNormalization"])
def test_scale_and_bias_move_and_held_out_samples_gain(norm: str) -> None:
    result = tuned(norm)
    record = {r.node: r for r in result.report.tuned}["norm"]
    assert record.op_type == norm
    assert record.loss_after <= record.loss_before
    assert record.accepted == (record.held_after < record.held_before)
    assert (("gamma" in result.plan.values), ("beta" in result.plan.values)) == (record.accepted, record.accepted)


def test_least_squares_finds_the_line_that_made_the_data() -> None:
    from quark_onnx.stages.finetune.normalizations import NormUnit, fit_line

    rng = np.random.default_rng(2)
    x = [rng.normal(size=(3, 7, 4)).astype(np.float32) for _ in range(5)]
    node: object = None
    unit = NormUnit(node, "x", "s", "b", 1e-5, True)  # type: ignore[arg-type]
    scale, bias = rng.normal(size=4).astype(np.float32), rng.normal(size=4).astype(np.float32)
    line = fit_line(unit, scale, bias, x, x, np.array([False, False, False, False, True]))
    # the same input on both sides: nothing to correct; float32 holds 24 bits, sums are in float64
    np.testing.assert_allclose(line.scale, scale, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(line.bias, bias, rtol=1e-5, atol=1e-6)


def test_adaround_leaves_normalizations_alone() -> None:
    result = tuned("LayerNormalization", "S8S8_AAWS_ADAROUND")
    assert not {"gamma", "beta"} & result.plan.values.keys()
    assert "norm" not in {record.node for record in result.report.tuned}
