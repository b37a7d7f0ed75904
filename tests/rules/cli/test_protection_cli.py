"""What the commands say of protection and of operators that stay float, and what becomes of it in a plan."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import command, done, fails
from lost_outputs import Feeds, power_spectrum, uneven_channels
from text_models import normal, text_model

from quark_onnx.core.plan import Plan

DATA = ("-d", "samples.npz")
QUANTIZE = ("quantize", "model.onnx", "-o", "out.onnx", *DATA)
LINE = "1 node float (bank): output 'y' "


def write(made: tuple[onnx.ModelProto, Feeds]) -> None:
    model, feeds = made
    onnx.save(model, "model.onnx")
    np.savez("samples.npz", x=np.concatenate([feed["x"] for feed in feeds]))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder: a model with an output that 8 bits ruin, and samples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    write(power_spectrum())


def document(*arguments: object) -> Any:
    return json.loads(done(*arguments, "--json"))


def test_quantize_has_a_line_for_each_region() -> None:
    text = done(*QUANTIZE)
    (line,) = (line for line in text.splitlines() if line.startswith("Protected"))
    assert LINE in line and " → " in line and "of the integer products and" in line and line.strip().endswith("time")
    assert "protected: with the quantizer of" in text  # the reason, in the table of float nodes
    (region,) = document(*QUANTIZE)["protected"]
    assert region.keys() == {"action", "tensors", "nodes", "reason", "output", "before", "after", "products", "time"}
    assert (region["action"], region["nodes"], region["output"]) == ("float", ["bank"], "y")
    assert region["before"] < 10 <= 20 <= region["after"] and 0 < region["products"] < 1


def test_quantize_says_nothing_where_nothing_was_done() -> None:
    assert "Protected" not in done(*QUANTIZE, "--no-protect")
    write(power_spectrum(100.0))
    assert "Protected" not in done(*QUANTIZE)
    assert document(*QUANTIZE)["protected"] == []


def test_weights_with_scales_of_their_own_are_told_and_kept_in_the_plan() -> None:
    write(uneven_channels())
    how = (*QUANTIZE, "-p", "S8S8_AAWS", "--no-cle")
    text = done(*how, "--save-plan", "with")
    assert "1 weight with a scale per channel (d): output 'y' " in text and "at no cost" in text
    done(*how, "--no-protect", "--save-plan", "without")
    lines = command("diff", "without", "with").stdout.splitlines()
    assert any(line.startswith("~ sites d: ") for line in lines)
    assert any(
        line.startswith("+ remarks d: protected: a scale per channel: with the quantizer of 'd'") for line in lines
    )


def test_analyze_names_what_was_protected() -> None:
    pytest.importorskip("matplotlib")
    text = done("analyze", "model.onnx", *DATA)
    assert LINE in text
    assert 'forbid it: `Protect` ["!bank"]' in text
    text = done("analyze", "model.onnx", *DATA, "--no-protect")
    assert "protection is off: switch it on (`Protect`)" in text and "\nProtected" not in text


# the plan


def test_a_plan_is_protected_and_shows_it() -> None:
    text = done("plan", "model.onnx", "-o", "plan", *DATA)
    assert LINE in text and "protected: with the quantizer of" in text
    report = document("plan", "model.onnx", "-o", "plan", *DATA)
    assert [region["nodes"] for region in report["protected"]] == [["bank"]]
    assert Plan.load("plan").notes["bank"].startswith("protected: with the quantizer of")
    done(*QUANTIZE, "-q")
    assert "1 node float, as the plan says" in done("apply", "model.onnx", "plan", "-o", "applied.onnx")
    assert Path("applied.onnx").read_bytes() == Path("out.onnx").read_bytes()


def test_the_difference_of_plans_shows_what_went() -> None:
    done("plan", "model.onnx", "-o", "with", *DATA, "-q")
    done("plan", "model.onnx", "-o", "without", *DATA, "--no-protect", "-q")
    lines = command("diff", "without", "with").stdout.splitlines()
    assert {"− nodes bank", "− sites h", "− sites f", "− sites x"} <= set(lines)
    assert any(line.startswith("+ notes bank: protected: with the quantizer of") for line in lines)


def test_a_resumed_plan_keeps_what_was_protected() -> None:
    done(*QUANTIZE, "--save-plan", "plan", "-q")
    whole = Path("out.onnx").read_bytes()
    text = done(*QUANTIZE, "--resume", "plan", "--save-plan", "again")
    assert "1 node float, as the plan says" in text
    assert Path("out.onnx").read_bytes() == whole
    assert done("diff", "plan", "again").strip() == "The plans decide the same."
    assert "made with Protect = True, which cannot become False" in fails(
        2, *QUANTIZE, "--resume", "plan", "--no-protect"
    )


def test_a_plan_that_was_edited_is_not_protected_again() -> None:
    """With the settings of the protected one, which allow it: a plan with all quantizers, and one with even fewer."""
    done(*QUANTIZE, "--save-plan", "plan", "-q")
    done(*QUANTIZE, "--no-protect", "--save-plan", "bare", "-q")
    bare = Path("out.onnx").read_bytes()
    for name in ("plan.json", "arrays.npz"):
        shutil.copy(Path("bare", name), Path("plan", name))
    report = document(*QUANTIZE, "--resume", "plan")
    assert (report["protected"], report["config"]["extra_options"]["Protect"]) == ([], True)
    assert Path("out.onnx").read_bytes() == bare

    plan = Plan.load("plan")
    plan.keeping({"bank": plan.nodes["bank"]}, {"head": "mine"}).save("plan-edited")
    for name in ("plan.json", "arrays.npz"):
        shutil.copy(Path("plan-edited", name), Path("plan", name))
    ledger = {row["node"]: row for row in document(*QUANTIZE, "--resume", "plan")["ledger"]}
    assert (ledger["head"]["status"], ledger["head"]["reason"]) == ("float", "mine")
    assert ledger["bank"]["status"] == "integer"


# what stays float without any data


def test_inspect_predicts_what_stays_float() -> None:
    text = done("inspect", "model.onnx")
    expected = "Stay float 2 operators without a weight (1 Mul, 1 Add): nobody behind it reads integers"
    assert expected in " ".join(text.split())
    assert "Float outputs" not in text
    found = document("inspect", "model.onnx")
    ((reason, operators),) = found["idle"].items()
    assert (reason.split(":")[0], operators) == ("nobody behind it reads integers", {"Mul": 1, "Add": 1})
    assert found["float_outputs"] == []


def test_inspect_predicts_which_layers_give_floats() -> None:
    text = """g (float[N,8] x) => (float[N,8] y) {
        [first] a = MatMul (x, w)  [exp] e = Exp (a)  [second] b = MatMul (e, w)  [third] y = MatMul (b, w)
    }"""
    onnx.save(text_model(text, w=normal(8, 8)), "model.onnx")
    told = "of 2 Gemm and MatMul, as floats are read behind them: first, third"
    assert told in done("inspect", "model.onnx")
    assert document("inspect", "model.onnx")["float_outputs"] == ["first", "third"]
    assert document("inspect", "model.onnx", "-p", "UINT8_DYNAMIC_QUANT")["float_outputs"] == []


def test_inspect_says_nothing_where_all_is_quantized() -> None:
    text = "g (float[1,3,8,8] x) => (float[1,4,8,8] y) { [a] h = Conv (x, w)  [b] s = Add (h, h)  [c] y = Conv (s, v) }"
    onnx.save(text_model(text, w=normal(4, 3, 1, 1), v=normal(4, 4, 1, 1)), "model.onnx")
    told = done("inspect", "model.onnx")
    assert "Stay float" not in told and "Float outputs" not in told
