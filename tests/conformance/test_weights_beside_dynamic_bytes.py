"""int8 weights beside activations that are quantized at run time: what every processor computes alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, Result, get_default_config
from quark_onnx.engine.saturating_runner import without_vnni
from quark_onnx.graph import io

PRESET = get_default_config("UINT8_DYNAMIC_QUANT")
TEXT = """g (float[N, 64] x) => (float[N, 16] y) {
    [first] h = MatMul (x, w) a = Add (h, b) r = Relu (a) [second] g = Gemm <transB = 1> (r, v, c) y = Tanh (g)
}"""
LARGE = np.float32(0.9) + normal(64, 32) / 50
"""Neighbours of one sign near the end of the grid: 255 · (127 + 127) is twice what 16 bits hold."""
NUMBERS = {"w": LARGE, "b": normal(32), "v": normal(16, 32, seed=1) / 20, "c": normal(16, seed=2) / 20}
DATA = [{"x": np.float32(0.04) + normal(8, 64, seed=seed) / 500} for seed in range(24)]


def quantize(**changes: str) -> Result:
    return ModelQuantizer(replace(PRESET, **changes)).quantize_model(text_model(TEXT, **NUMBERS), None, DATA)


def saturated(result: Result) -> np.ndarray:
    with without_vnni(io.load(result.model), ["y"]) as run:
        (found,) = run(DATA[0])
    return found


def test_the_preset_saturates_nowhere() -> None:
    found = quantize()
    rows = {row.node: row for row in found.report.ledger}
    for name in ("first", "second"):
        assert rows[name].status == "integer"
        assert rows[name].certificate.verdict == "exact"
    assert found.plan.sites["w"].format.safe_pairs
    assert found.plan.sites["w"].format.axis == 1
    assert found.report.sqnr["y"] > 30
    np.testing.assert_allclose(saturated(found), found_here(found), atol=1e-5)


def found_here(result: Result) -> np.ndarray:
    import onnxruntime as ort

    session = ort.InferenceSession(result.model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], DATA[0])[0]


def test_without_safe_pairs_it_would() -> None:
    found = quantize(weight_pairs="off")
    assert {row.node: row for row in found.report.ledger}["first"].certificate.verdict != "exact"
    expected = np.tanh(np.maximum(DATA[0]["x"] @ LARGE + NUMBERS["b"], 0) @ NUMBERS["v"].T + NUMBERS["c"])
    off = [np.abs(saturated(result) - expected).mean() for result in (found, quantize())]
    assert off[0] > 5 * off[1]
