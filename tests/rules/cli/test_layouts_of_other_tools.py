"""Quantized models as other tools write them, in `compare` and `analyze`: where weights are, and what stands before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import done
from openvino_installed import needs_openvino
from text_models import normal, text_model

pytest.importorskip("matplotlib")

W, V, X = normal(8, 6), normal(6, 4, seed=1), normal(6, 8, seed=2)
FLOAT = (
    "g (float[N, 8] x) => (float[N, 4] z) { [first] y = MatMul (x, w) [act] r = Relu (y) [second] z = MatMul (r, v) }"
)
READ = """g (float[N, 8] x) => (float[N, 4] z) {
    xq = QuantizeLinear (x, sx, ox)  xd = DequantizeLinear (xq, sx, ox)
    %s
    [first] y = MatMul (xd, wd)  [act] r = Relu (y)
    rq = QuantizeLinear (r, sr, or)  rd = DequantizeLinear (rq, sr, or)
    vd = DequantizeLinear <axis = 1> (vq, sv, ov)
    [second] z = MatMul (rd, vd) }"""
WAYS = {
    "integers": "wd = DequantizeLinear <axis = 1> (wq, sw, ow)",
    "quantized in the model": "q = QuantizeLinear <axis = 1> (w, sw, ow)  wd = DequantizeLinear <axis = 1> (q, sw, ow)",
    "turned before": "t = Transpose (u)  q = QuantizeLinear <axis = 1> (t, sw, ow)  "
    "wd = DequantizeLinear <axis = 1> (q, sw, ow)",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    np.save("x.npy", X)


def codes(weight: np.ndarray, coarse: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """int8, and a scale per column."""
    scale = (coarse * abs(weight).max(0) / 127).astype(np.float32)
    return np.clip(np.rint(weight / scale), -127, 127).astype(np.int8), scale


def numbers(coarse: float = 1.0) -> dict[str, Any]:
    """What the quantized model reads, whichever way it is written."""
    (wq, sw), (vq, sv) = codes(W, coarse), codes(V)
    zeros = {"ow": np.zeros(6, np.int8), "ov": np.zeros(4, np.int8), "ox": np.int8(0), "or": np.uint8(0)}
    scales = {"sw": sw, "sv": sv, "sx": np.float32(0.03), "sr": np.float32(0.04)}
    return {"w": W, "u": W.T.copy(), "wq": wq, "vq": vq, **scales, **zeros}


def written(text: str, file: str, known: dict[str, Any], constant_nodes: bool = False) -> None:
    """A file with what the text reads of the known numbers, as initializers or as Constant nodes."""
    model = text_model(text)
    made = {name for node in model.graph.node for name in node.output} | {value.name for value in model.graph.input}
    read = {name for node in model.graph.node for name in node.input} - made
    for name in sorted(read):
        tensor = onnx.numpy_helper.from_array(np.asarray(known[name]), name)
        if constant_nodes:
            model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [name], name=f"c_{name}", value=tensor))
        else:
            model.graph.initializer.append(tensor)
    onnx.save(model, file)


def layers(*files: str) -> list[dict[str, Any]]:
    found = json.loads(done("analyze", *files, "--data", "x.npy", "--json"))["report"]["layers"]["layers"]
    return [{**layer, "output": None, "share": None} for layer in found]


def ratio(x: np.ndarray, y: np.ndarray) -> float:
    return float(10 * np.log10(np.square(x).sum() / np.square(x - y).sum()))


@pytest.mark.parametrize("constant_nodes", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_same_layers_wherever_weights_are(way: str, constant_nodes: bool) -> None:
    written(FLOAT, "plain.onnx", {"w": W, "v": V})
    written(READ % WAYS["integers"], "known.onnx", numbers())
    written(FLOAT, "float.onnx", {"w": W, "v": V}, constant_nodes)
    written(READ % WAYS[way], "int8.onnx", numbers(), constant_nodes)
    found = layers("float.onnx", "int8.onnx")
    assert found == layers("plain.onnx", "known.onnx")
    assert [(layer["tensor"], layer["node"]) for layer in found] == [("x", ""), ("r", "first"), ("z", "second")]
    q, scale = codes(W)
    assert found[1]["weight"] == pytest.approx(ratio(W, q * scale), abs=1e-3)
    compared = json.loads(done("compare", "float.onnx", "int8.onnx", "--data", "x.npy", "--layers", "--json"))
    assert compared["layers"].keys() == {"x", "r"}  # a weight is no layer


@needs_openvino
def test_openvino_runs_a_model_whose_weights_are_quantized_in_it() -> None:
    written(FLOAT, "float.onnx", {"w": W, "v": V}, constant_nodes=True)
    written(READ % WAYS["turned before"], "int8.onnx", numbers(), constant_nodes=True)
    compared = json.loads(
        done("compare", "float.onnx", "int8.onnx", "--data", "x.npy", "--target", "openvino", "--json")
    )
    assert compared["runtime"].startswith("OpenVINO")
    run, as_written = (compared[kind]["z"]["sqnr"] for kind in ("outputs", "written"))
    assert run == pytest.approx(as_written, abs=0.5) and run > 35


def test_a_weight_that_the_float_model_computes_is_no_layer_either() -> None:
    written(
        FLOAT.replace("[first] y = MatMul (x, w)", "t = Transpose (u) [first] y = MatMul (x, t)"),
        "float.onnx",
        numbers() | {"v": V},
    )
    written(READ % WAYS["turned before"], "int8.onnx", numbers())
    assert [layer["tensor"] for layer in layers("float.onnx", "int8.onnx")] == ["x", "r", "z"]


def test_other_weights_are_other_layers() -> None:
    written(FLOAT, "float.onnx", {"w": W, "v": V})
    for file, coarse in (("fine.onnx", 1.0), ("coarse.onnx", 8.0)):
        written(READ % WAYS["quantized in the model"], file, numbers(coarse), constant_nodes=True)
    fine, rough = (layers("float.onnx", file)[1] for file in ("fine.onnx", "coarse.onnx"))
    assert fine["weight"] > rough["weight"] + 6 and fine["isolated"] > rough["isolated"] + 3


SMOOTHED = """g (float[N, 8] x) => (float[N, 4] z) {
    [smooth] m = %s (x, f)  mq = QuantizeLinear (m, sx, ox)  md = DequantizeLinear (mq, sx, ox)
    wd = DequantizeLinear <axis = %s> (wq, sw, ow)  [first] y = %s (md, wd)
    [act] r = Relu (y)  [other] n = Mul (r, h)  nq = QuantizeLinear (n, sr, or)  nd = DequantizeLinear (nq, sr, or)
    vd = DequantizeLinear <axis = 1> (vq, sv, ov)  [second] z = MatMul (nd, vd) }"""
GEMM = "Gemm <transB = 1>"


def factors() -> np.ndarray:
    return np.geomspace(0.25, 4, 8).astype(np.float32)


@pytest.mark.parametrize(("by", "op"), [("Mul", "MatMul"), ("Div", "MatMul"), ("Mul", GEMM), ("Div", GEMM)])
def test_a_layer_behind_a_factor_that_the_float_model_has_not(by: str, op: str) -> None:
    """SmoothQuant in nodes of its own: each layer is measured alone, and weights in the numbers of the float model."""
    given = factors() if by == "Mul" else 1 / factors()
    (wq, sw), h = codes(W / factors()[:, None]), np.full(6, 2, np.float32)
    vq, sv = codes(V / 2)
    turned = op == GEMM
    known = numbers() | {"f": given, "h": h, "sw": sw, "vq": vq, "sv": sv, "wq": wq.T.copy() if turned else wq}
    known |= {"sx": np.float32(0.1), "sr": np.float32(0.08)}
    written(FLOAT.replace("MatMul (x", f"{op} (x"), "float.onnx", {"w": W.T.copy() if turned else W, "v": V})
    written(SMOOTHED % (by, 0 if turned else 1, op), "int8.onnx", known)
    first, second = layers("float.onnx", "int8.onnx")
    assert (first["tensor"], first["node"], second["tensor"], second["node"]) == ("y", "first", "z", "second")
    assert first["weight"] == pytest.approx(ratio(W, factors()[:, None] * (wq * sw)), abs=1e-3)
    assert second["weight"] == pytest.approx(ratio(V, 2 * (vq * sv)), abs=1e-3)
    assert first["isolated"] == pytest.approx(first["accumulated"], abs=1e-3)
    assert second["isolated"] > second["accumulated"]  # the first is not in it


def test_a_factor_of_the_model_itself_is_no_part_of_the_weight() -> None:
    own = FLOAT.replace("[first] y = MatMul (x", "[smooth] m = Mul (x, f) [first] y = MatMul (m")
    wq, sw = codes(W)
    known = numbers() | {"f": factors(), "h": np.ones(6, np.float32), "wq": wq, "sw": sw, "sx": np.float32(0.1)}
    written(own, "float.onnx", {"w": W, "v": V, "f": factors()})
    written(SMOOTHED % ("Mul", 1, "MatMul"), "int8.onnx", known)
    found = {layer["node"]: layer for layer in layers("float.onnx", "int8.onnx")}
    assert found["first"]["weight"] == pytest.approx(ratio(W, wq * sw), abs=1e-3)
