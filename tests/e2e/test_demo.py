"""`quark-onnx demo`: the figures it prints are true, and it does what the README promises."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

from quark_onnx.cli import app
from quark_onnx.demo import MODEL, digits

FLOAT, CHANNEL, TENSOR = "float", "INT8 per channel", "INT8 per tensor"


def demo(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["demo", *arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "digits.onnx"


@pytest.fixture(scope="module")
def report(written: Path) -> Any:
    result = demo("--json", "--output", str(written))
    assert result.exit_code == 0
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_accuracy_is_that_of_the_written_model(report: Any, written: Path) -> None:
    _, _, images, labels = digits()
    for name, file in ((FLOAT, MODEL), (CHANNEL, written)):
        (logits,) = ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"input": images})
        assert report["models"][name]["right"] == (logits.argmax(1) == labels).sum()
        assert report["models"][name]["bytes"] == file.stat().st_size
    assert (report["output"], report["samples"], report["images"]) == (str(written), 200, len(labels))


def test_int8_keeps_the_accuracy(report: Any) -> None:
    """Per channel at most 2 of 599 answers are lost; per tensor shows what the dead channels cost, so it is worse."""
    models = report["models"]
    assert models[CHANNEL]["right"] >= models[FLOAT]["right"] - 2
    assert min(models[CHANNEL]["sqnr"], models[TENSOR]["sqnr"]) > 30
    assert models[FLOAT]["sqnr"] is None


def test_int8_is_small_and_fused(report: Any, written: Path) -> None:
    models = report["models"]
    assert models[CHANNEL]["bytes"] < models[FLOAT]["bytes"] / 2.5
    assert models[CHANNEL]["fused"] == models[TENSOR]["fused"] == [21, 21]
    assert models[FLOAT]["fused"] is None
    assert all(entry["milliseconds"] > 0 for entry in models.values())
    onnx.checker.check_model(str(written), full_check=True)


def test_the_default_output_is_named_and_lines_fit_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    result = demo()
    assert result.exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["digits_int8.onnx"]
    for expected in ("98.", "/599", "dB", "kB", "µs", "21 of 21", "digits_int8.onnx"):
        assert expected in result.stdout
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("INT8 per channel" in line for line in lines) == 1
    assert demo("--quiet").output == ""


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    result = demo()
    assert result.exit_code == 4
    assert result.stdout == ""
    assert result.stderr.startswith("error: the demo data come with scikit-learn")
    assert "pip install 'quark-onnx[demo]'" in result.stderr
