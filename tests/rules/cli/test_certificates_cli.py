"""What the commands say of other processors: of a model that is made, and of quantized ones of any tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import done, fails
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from openvino_installed import needs_openvino
from text_models import text_model

from quark_onnx.engine.runtimes import known
from quark_onnx.engine.runtimes.runtime import Missing

TEXT = """g (float[N, 3, 6, 6] x) => (float[N, 8, 6, 6] y) {
    [stem] a = Conv <pads = [1, 1, 1, 1]> (x, w) [deep] b = Conv <pads = [1, 1, 1, 1], group = 8> (a, d)
    [head] y = Conv (b, v) }"""
SHORT = "2 of 3 integer nodes exact on every processor, 1 may saturate on x64 without VNNI (stem)"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose first layer has equal weights, and the last one two signs in turn; as onnxruntime's own quantizer
    writes it, and as we do for old processors.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    signs = np.where(np.arange(8) % 2, 1, -1).astype(np.float32).reshape(1, 8, 1, 1)
    weights = {"w": np.ones((8, 3, 3, 3), np.float32), "d": np.ones((8, 1, 3, 3), np.float32)}
    onnx.save(text_model(TEXT, **weights, v=np.tile(signs, (8, 1, 1, 1))), "model.onnx")
    np.save("samples.npy", np.random.default_rng(0).standard_normal((4, 3, 6, 6)).astype(np.float32))
    signed = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static("model.onnx", "int8.onnx", Reader(), **signed)
    done("quantize", "model.onnx", "-o", "avx2.onnx", *MADE, "-q", "--target", "cpu-avx2")
    return tmp_path


class Reader(CalibrationDataReader):
    """The samples, one at a time."""

    def __init__(self) -> None:
        self.left = list(np.load("samples.npy"))

    def get_next(self) -> Any:
        return {"x": self.left.pop()[None]} if self.left else None


DATA = ("--data", "samples.npy")
MADE = (*DATA, "--preset", "S8S8_AAWS", "--no-cle")


def document(*arguments: str) -> Any:
    return json.loads(done(*arguments, "--json"))


def verdicts(certificates: dict[str, Any]) -> list[str]:
    return [entry["verdict"] for entry in certificates.values()]


def test_quantize_tells() -> None:
    avx2 = ("quantize", "model.onnx", "-o", "new.onnx", *MADE, "--target", "cpu-avx2")
    assert "3 of 3 integer nodes exact on every processor" in done(*avx2)
    rows = {row["node"]: row["certificate"] for row in document(*avx2)["ledger"]}
    assert rows["stem"] == {
        "verdict": "exact",
        "reason": "every pair of weights is small enough",
        "pairs": 208,
        "unsafe_pairs": 0,
        "rows": 16,  # half of them are there to fill the depthwise layer behind it
        "unsafe_rows": 0,
    }
    assert verdicts(rows) == ["exact", "exact", "exact"]


def test_inspect_of_a_quantized_model() -> None:
    text = done("inspect", "int8.onnx")
    lines = [line.split() for line in text.splitlines()]
    assert SHORT in text and "x  float32 [?, 3, 6, 6]" in text
    assert [line[0] for line in lines if line and line[0] in ("stem", "deep", "head")] == ["stem"]
    lines = [line.split()[:2] for line in done("inspect", "int8.onnx", "--nodes").splitlines()]
    assert [line for line in lines if line and line[0] in ("deep", "head")] == [["deep", "exact"], ["head", "exact"]]
    text = done("inspect", "avx2.onnx")
    assert "3 of 3 integer nodes exact on every processor" in text and "Why" not in text
    found = document("inspect", "int8.onnx")
    assert verdicts(found["certificates"]) == ["may saturate", "exact", "exact"] and found["weights"] > 0


def test_inspect_of_a_quantized_model_has_no_use_for_a_configuration() -> None:
    assert "is quantized already" in fails(2, "inspect", "int8.onnx", "--exclude", "stem")


@needs_openvino
def test_openvino_is_asked_for_its_target() -> None:
    text = done("inspect", "int8.onnx", "--target", "openvino")
    assert "Asked" in text and "OpenVINO 20" in text and "onnxruntime" not in text
    assert document("inspect", "int8.onnx", "--target", "openvino")["runtime"].startswith("OpenVINO 20")
    assert document("inspect", "int8.onnx")["runtime"].startswith("onnxruntime 1.")


def test_where_nothing_runs_a_target_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known.RUNTIMES, "openvino", lambda: Missing("openvino", "OpenVINO", "no package"))
    for target, told in (
        ("openvino", "OpenVINO is not installed (no package)"),
        ("tensorrt", "nothing here runs TensorRT"),
    ):
        text = " ".join(done("inspect", "int8.onnx", "--target", target).split())
        assert f"not known: {told}" in text
        assert document("inspect", "int8.onnx", "--target", target)["runtime"] == ""
    assert "did you mean 'openvino'" in fails(2, "inspect", "int8.onnx", "--target", "openvin")


def test_inspect_of_quantizers_alone() -> None:
    text = """g (float[2] x) => (float[2] y) <float s = {0.1}, uint8 z = {0}>
        { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }"""
    onnx.save(text_model(text), "pair.onnx")
    assert "no node runs on an integer kernel" in done("inspect", "pair.onnx")


def test_compare_tells() -> None:
    assert SHORT in done("compare", "model.onnx", "int8.onnx", *DATA)
    assert verdicts(document("compare", "model.onnx", "int8.onnx", *DATA)["certificates"])[0] == "may saturate"
    found = document("compare", "model.onnx", "int8.onnx", *DATA)
    assert found["written"]["y"]["values"] == found["outputs"]["y"]["values"] > 0 and "departure" in found
    assert "As written" in done("compare", "model.onnx", "int8.onnx", *DATA)
    assert "Processors" not in done("compare", "model.onnx", "model.onnx", *DATA)


def test_analyze_tells_and_advises() -> None:
    pytest.importorskip("matplotlib")
    text = done("analyze", "model.onnx", "int8.onnx", *DATA)
    assert f"Processors: {SHORT}." in text and "act: 1 layer may saturate on x64 without VNNI (stem)" in text
    report = document("analyze", "model.onnx", "int8.onnx", *DATA)["report"]
    assert verdicts(report["certificates"]) == ["may saturate", "exact", "exact"]
    assert "may_saturate" in [advice["rule"] for advice in report["advice"]]
    made = document("analyze", "model.onnx", *MADE, "--target", "cpu-avx2")["report"]
    assert verdicts(made["certificates"]) == ["exact"] * 3
    assert "may_saturate" not in [advice["rule"] for advice in made["advice"]]
