"""Models that are quantized already, in whole or in part: the user hears which nodes, and the rest is quantized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from command_line import command
from text_models import normal, text_model

from quark_onnx import ModelError, ModelQuantizer, Result, get_default_config
from quark_onnx.graph import ModelProto, io
from quark_onnx.graph.integer_nodes import told_of_integers

FEEDS = [{"x": normal(4, 16, seed=i)} for i in range(4)]
DYNAMIC = """[q] c, s, z = DynamicQuantizeLinear (x) [p] i = MatMulInteger (c, w8, z) f = Cast <to = 1> (i)
    t = Mul (s, ws) h = Mul (f, t)"""
FLOAT = "[m] h = MatMul (x, w)"
REST = "r = Sigmoid (h) [n] y = MatMul (r, w)"
WEIGHTS = {
    "w8": np.clip(normal(16, 16) * 40, -127, 127).astype(np.int8),
    "ws": np.float32(1 / 160),
    "w": normal(16, 16) / 4,
}


def model(*nodes: str, microsoft: bool = False, **more: np.ndarray) -> ModelProto:
    made = text_model(f"g (float[4, 16] x) => (float[4, 16] y) {{ {' '.join(nodes)} }}", 17, **WEIGHTS, **more)
    if microsoft:
        made.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return made


def quantized(proto: ModelProto) -> Result:
    return ModelQuantizer(get_default_config("S8S8_AAWS")).quantize_model(proto, None, FEEDS)


PARTLY = {
    "DynamicQuantizeLinear": (model(DYNAMIC, REST), "1 DynamicQuantizeLinear, 1 MatMulInteger (the first is 'q')"),
    "MatMulIntegerToFloat": (
        model(
            "c, s, z = DynamicQuantizeLinear (x) h = com.microsoft.MatMulIntegerToFloat (c, w8, s, ws, z)",
            REST,
            microsoft=True,
        ),
        "1 MatMulIntegerToFloat",
    ),
    "DynamicQuantizeMatMul": (
        model("h = com.microsoft.DynamicQuantizeMatMul (x, w8, ws)", REST, microsoft=True),
        "1 DynamicQuantizeMatMul (the first is 'h')",
    ),
    "MatMulNBits": (
        model(
            "h = com.microsoft.MatMulNBits <K = 16, N = 16, bits = 4, block_size = 16> (x, b4, s4)",
            REST,
            microsoft=True,
            b4=np.random.default_rng(0).integers(0, 256, (16, 1, 8)).astype(np.uint8),
            s4=np.full(16, 0.05, np.float32),
        ),
        "1 MatMulNBits",
    ),
}


@pytest.mark.parametrize("name", PARTLY)
def test_a_part_that_works_on_integers_stays(name: str) -> None:
    """The rest runs on integers, too, and the proof is about the model as it came."""
    proto, said = PARTLY[name]
    result = quantized(proto)
    (warning,) = [text for text in result.report.warnings if "quantized in part already" in text]
    assert said in warning
    assert result.plan.nodes.keys() >= {"n"}
    before, after = (ort.InferenceSession(m.SerializeToString()).run(None, FEEDS[0])[0] for m in (proto, result.model))
    noise = float(np.square(before - after).sum())
    assert 10 * np.log10(float(np.square(before).sum()) / noise) > 30
    assert result.report.sqnr["y"] > 30
    kept = proto.graph.node[0].op_type
    assert [node.op_type for node in result.model.graph.node].count(kept) == 1


def test_a_model_of_which_nothing_is_left() -> None:
    result = quantized(model(DYNAMIC, "y = Relu (h)"))
    assert "leave no layer to quantize; pass the float model" in result.report.warnings[0]
    assert result.plan.nodes == {}
    assert result.report.float_nodes["p"] == "works on integers already: it is left as it is"


@pytest.mark.parametrize(
    "nodes",
    [(FLOAT, REST), ("w2 = DequantizeLinear (w8, ws) h = MatMul (x, w2)", REST)],
    ids=["float", "weights as integers"],
)
def test_nothing_is_said_of_a_float_model(nodes: tuple[str, ...]) -> None:
    proto = model(*nodes)
    assert told_of_integers(io.load(proto)) == ()
    assert not any("already" in text for text in quantized(proto).report.warnings)


def test_activations_with_quantizers_are_refused() -> None:
    proto = model("[a] c = QuantizeLinear (x, ws) d = DequantizeLinear (c, ws) h = MatMul (d, w)", REST)
    with pytest.raises(
        ModelError, match=r"quantized already: it holds 1 QuantizeLinear, 1 .*the first is 'a'\); pass the"
    ):
        quantized(proto)


def test_the_command_says_so(tmp_path: Path) -> None:
    onnx.save(model(DYNAMIC, REST), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=np.concatenate([feed["x"] for feed in FEEDS]))
    for which in ("quantize", "plan"):
        done = command(which, tmp_path / "m.onnx", "-o", tmp_path / which, "-d", tmp_path / "x.npz")
        assert done.exit_code == 0
        assert "quantized in part already" in done.stderr
