"""A Relu or Clip right behind a product that returns floats: onnxruntime multiplies integers all the same."""

from __future__ import annotations

import numpy as np
import pytest
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, Result, get_default_config

CLAMPS = {"Relu": "Relu (h)", "Clip": "Clip (h, low, high)", "from below": "Clip (h, low)"}
NUMBERS = {"w": normal(32, 64), "v": normal(64, 8, seed=1), "low": np.float32(-1), "high": np.float32(3)}
DATA = [{"x": normal(2, 4, 32, seed=seed)} for seed in range(8)]


def quantize(preset: str, body: str, outputs: str = "float[2,4,64] y") -> Result:
    model = text_model(f"g (float[2,4,32] x) => ({outputs}) {{ {body} }}", **NUMBERS)
    return ModelQuantizer(get_default_config(preset)).quantize_model(model, None, DATA)


def kinds(result: Result) -> list[str]:
    return [node.op_type for node in result.model.graph.node if node.op_type in ("Max", "Relu", "Clip")]


@pytest.mark.parametrize("clamp", CLAMPS)
@pytest.mark.parametrize("preset", ["S8S8_AAWS", "UINT8_DYNAMIC_QUANT", "MATMUL_NBITS"])
def test_a_product_in_front_of_a_float_clamp_runs_on_integers(preset: str, clamp: str) -> None:
    found = quantize(preset, f"[product] h = MatMul (x, w) [clamp] c = {CLAMPS[clamp]} y = Tanh (c)")
    rows = {row.node: row.status for row in found.report.ledger}
    assert rows["product"] == "integer"
    assert kinds(found)[0] == "Max"
    assert found.report.sqnr["y"] > (12 if preset == "MATMUL_NBITS" else 30)


@pytest.mark.parametrize(
    ("preset", "body", "outputs"),
    [
        ("MATMUL_NBITS", "h = MatMul (x, w) y = Relu (h)", "float[2,4,64] y"),
        ("S8S8_AAWS", "h = MatMul (x, w) c = Relu (h) y = MatMul (c, v)", "float[2,4,8] y"),
        ("S8S8_AAWS", "t = Tanh (x) c = Relu (t) y = MatMul (c, w)", "float[2,4,64] y"),
    ],
    ids=["the model ends", "a quantizer behind", "no product"],
)
def test_other_clamps_stay(preset: str, body: str, outputs: str) -> None:
    assert kinds(quantize(preset, body, outputs)) == ["Relu"]
