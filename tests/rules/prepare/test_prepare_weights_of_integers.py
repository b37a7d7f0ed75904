"""Weights behind DequantizeLinear, QuantizeLinear and Split are weights, and nothing grows by that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from text_models import assert_same, normal, ops, prepared, run, text_model

from quark_onnx import ModelQuantizer, Result, get_default_config
from quark_onnx.quantsim import QuantizationSimModel

HEAD = "g (float[4, 16] x) => (float[4, 24] y)"
CODES = np.random.default_rng(0).integers(-127, 128, (16, 24)).astype(np.int8)
ROW, COLUMN = (np.random.default_rng(1).random(size).astype(np.float32) / 50 + 0.001 for size in (16, 24))
FEEDS = [{"x": normal(4, 16, seed=i)} for i in range(4)]
PRESET = replace(get_default_config("S8S8_AAWS"), include_cle=False)

DEQUANTIZED: dict[str, tuple[str, dict[str, Any]]] = {
    "per tensor": ("w = DequantizeLinear (q, s)", {"q": CODES, "s": np.float32(0.01)}),
    "per column": ("w = DequantizeLinear <axis = 1> (q, s, z)", {"q": CODES, "s": COLUMN, "z": np.ones(24, np.int8)}),
    "per row": ("w = DequantizeLinear <axis = -2> (q, s)", {"q": CODES, "s": ROW}),
    "uint8": (
        "w = DequantizeLinear (q, s, z)",
        {"q": CODES.view(np.uint8), "s": np.float32(0.01), "z": np.uint8(128)},
    ),
    "in blocks": (
        "w = DequantizeLinear <axis = 0, block_size = 8> (q, s)",
        {"q": CODES, "s": np.stack([COLUMN, COLUMN / 2])},
    ),
    "rounded in the model": (
        "q = QuantizeLinear (f, s, z) w = DequantizeLinear (q, s, z)",
        {"f": CODES.astype(np.float32) / 99, "s": np.float32(0.01), "z": np.int8(3)},
    ),
    "transposed": (
        "t = DequantizeLinear <axis = 0> (q, s) w = Transpose <perm = [1, 0]> (t)",
        {"q": np.ascontiguousarray(CODES.T), "s": COLUMN},
    ),
}


def model(nodes: str, constants: dict[str, Any], behind: str = "[m] y = MatMul (x, w)") -> onnx.ModelProto:
    return text_model(f"{HEAD} {{ {nodes} {behind} }}", 21, 10, **constants)


def quantized(proto: onnx.ModelProto, **changes: Any) -> Result:
    return ModelQuantizer(replace(PRESET, **changes)).quantize_model(proto, None, FEEDS)


@pytest.mark.parametrize("name", DEQUANTIZED)
def test_a_weight_behind_a_dequantizer(name: str) -> None:
    """It is a constant, to the bit what onnxruntime makes of it, and the layer runs on integers."""
    proto = model(*DEQUANTIZED[name])
    result = prepared(proto, opset=21)
    assert ops(result) == {"MatMul": 1}
    assert_same(proto, result, FEEDS[0], terms=0)
    assert quantized(proto).report.fused["MatMul"] == (1, 1)


def test_a_weight_of_a_model_whose_opset_is_raised() -> None:
    proto = text_model(f"{HEAD} {{ w = DequantizeLinear (q, s) y = MatMul (x, w) }}", q=CODES, s=np.float32(0.01))
    assert ops(prepared(proto, opset=21)) == {"MatMul": 1}


@pytest.mark.parametrize("name", sorted(DEQUANTIZED.keys() - {"transposed", "rounded in the model"}))
def test_a_weight_that_nobody_quantizes_is_stored_as_it_was(name: str) -> None:
    proto = model(*DEQUANTIZED[name])
    found = quantized(proto, nodes_to_exclude=("m",)).model
    assert [node.op_type for node in found.graph.node] == ["DequantizeLinear", "MatMul"]
    assert found.ByteSize() < proto.ByteSize() + 96  # names
    np.testing.assert_array_equal(run(proto, FEEDS[0]), run(found, FEEDS[0]))


def test_a_weight_with_other_numbers_is_not_what_it_was() -> None:
    """Equalization scales it: the integers that the file had would be wrong."""
    nodes = "w = DequantizeLinear <axis = 1> (q, s) [m] h = MatMul (x, w) r = Relu (h) [n] y = MatMul (r, v)"
    proto = text_model(
        f"{HEAD} {{ {nodes} }}",
        21,
        10,
        q=CODES,
        s=COLUMN * np.float32(9) ** np.arange(-20, 4, dtype=np.float32),
        v=normal(24, 24),
    )
    found = quantized(proto, include_cle=True, nodes_to_exclude=("m",))
    assert found.plan.factors
    assert found.report.sqnr["y"] > 30


def test_a_dequantizer_of_what_is_computed_stays() -> None:
    text = (
        """g (int8[16, 24] q, float[4, 16] x) => (float[4, 24] y) { w = DequantizeLinear (q, s) y = MatMul (x, w) }"""
    )
    assert ops(prepared(text_model(text, 21, 10, s=np.float32(0.01)))) == {"DequantizeLinear": 1, "MatMul": 1}


def test_codes_of_4_bits_stay() -> None:
    """As integers of 8 bits they would take twice the space."""
    proto = model("w = DequantizeLinear (q, s)", {"s": np.float32(0.01)})
    proto.graph.initializer.append(onnx.helper.make_tensor("q", onnx.TensorProto.INT4, (16, 24), np.clip(CODES, -8, 7)))
    assert ops(prepared(proto, opset=21))["DequantizeLinear"] == 1


SPLIT = "[m] a = MatMul (x, u) [n] b = MatMul (x, v) y = Add (a, b)"
SPLITS = {
    "sizes given": ("u, v = Split <axis = 1> (w, sizes)", {"w": normal(16, 48), "sizes": np.array([24, 24])}),
    "sizes told": ("u, v = Split <axis = 1, num_outputs = 2> (w)", {"w": normal(16, 48)}),
    "of integers": (
        "w = DequantizeLinear <axis = 1> (q, s) u, v = Split <axis = -1, num_outputs = 2> (w)",
        {"q": np.tile(CODES, 2), "s": np.tile(COLUMN, 2)},
    ),
    "across its scales": (
        "w = DequantizeLinear <axis = 1> (q, s) u, v = Split <axis = 0, num_outputs = 2> (w)",
        {"q": np.tile(CODES, (2, 1)), "s": COLUMN},
    ),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_weight_behind_a_split(name: str) -> None:
    proto = model(*SPLITS[name], SPLIT)
    result = prepared(proto, opset=21)
    assert ops(result) == {"MatMul": 2, "Add": 1}
    assert_same(proto, result, FEEDS[0], terms=0)
    assert quantized(proto).report.fused["MatMul"] == (2, 2)
    left = quantized(proto, nodes_to_exclude=("m", "n"))
    assert left.model.ByteSize() < proto.ByteSize() + 512


def test_a_split_of_what_others_read_stays() -> None:
    """Its parts would be stored beside the whole."""
    behind = "a = MatMul (x, u) b = MatMul (x, v) c = MatMul (x, w) d, e = Split <axis = 1, num_outputs = 2> (c)"
    proto = model(*SPLITS["sizes told"], f"{behind} f = Add (a, b) h = Add (d, e) y = Add (f, h)")
    assert ops(prepared(proto, opset=21))["Split"] == 2


def test_a_split_of_what_is_computed_stays() -> None:
    text = "g (float[4, 16] x) => (float[4, 8] y, float[4, 8] z) { y, z = Split <axis = 1, num_outputs = 2> (x) }"
    assert ops(prepared(text_model(text, 18))) == {"Split": 1}


def test_a_simulation_sees_the_weight() -> None:
    sim = QuantizationSimModel(model(*DEQUANTIZED["per column"]))
    assert sim.qc_quantize_op_dict.keys() == {"x", "w", "y"}
