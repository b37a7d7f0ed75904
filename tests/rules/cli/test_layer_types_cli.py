"""LayerTypes on the command line: given, listed, kept in a plan, and what inspect predicts of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import done, fails
from text_models import normal, text_model

TEXT = """g (float[N,8] x) => (float[N,8] y) {
    [first] a = MatMul (x, w)  [exp] e = Exp (a)  [second] b = MatMul (e, v)  [third] y = MatMul (b, u)
}"""
OPTION = ("--option", 'LayerTypes={"third": {"activation_type": "float", "weight_type": "uint4"}}')
OTHER = ("--option", 'LayerTypes={"third": {"weight_type": "int4"}}')
QUANTIZE = ("quantize", "model.onnx", "-o", "out.onnx", "-d", "samples.npz")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(text_model(TEXT, w=normal(8, 8), v=normal(8, 8, seed=1), u=normal(8, 8, seed=2)), "model.onnx")
    np.savez("samples.npz", x=normal(16, 8, seed=3))


def document(*arguments: object) -> Any:
    return json.loads(done(*arguments, "--json"))


def test_a_plan_is_made_resumed_and_applied_with_it() -> None:
    report = document(*QUANTIZE, *OPTION, "--save-plan", "plan")
    assert report["config"]["extra_options"]["LayerTypes"]["third"]["weight_type"] == "uint4"
    whole = Path("out.onnx").read_bytes()
    done("apply", "model.onnx", "plan", "-o", "applied.onnx")
    assert Path("applied.onnx").read_bytes() == whole
    done(*QUANTIZE, "--resume", "plan")
    assert Path("out.onnx").read_bytes() == whole
    assert "made with LayerTypes = " in fails(2, *QUANTIZE, "--resume", "plan", *OTHER)


def test_inspect_predicts_it() -> None:
    assert document("inspect", "model.onnx")["float_outputs"] == ["first", "third"]
    assert document("inspect", "model.onnx", *OPTION)["float_outputs"] == ["first", "second"]
    assert document("inspect", "model.onnx", *OTHER)["float_outputs"] == ["first", "third"]


def test_a_wrong_name_is_told() -> None:
    told = fails(2, *QUANTIZE, "--option", 'LayerTypes={"thrid": {"weight_type": "int4"}}')
    assert "LayerTypes: 'thrid' matches no node of the model; did you mean 'third'?" in " ".join(told.split())
