"""`--labels`: what a preset that trains makes of them, and what is refused before any work is done."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import done, fails
from text_models import normal, run, text_model

TEXT = """g (float[N,4] x) => (float[N,3] y) {
    [p] a = Gemm (x, w, b) r = Relu (a) [q] y = Gemm (r, v, c) }"""
ARRAYS = {"w": normal(4, 8), "b": normal(8) / 2, "v": normal(8, 3, seed=1), "c": normal(3) / 2}
X = normal(80, 4)
IDS = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)
FAST = """QAT={"epochs": 8, "batch_size": 8, "learning_rate": 0.05, "losses": {"kl": 0, "cross_entropy": 1}}"""
SHORT = """QAT={"steps": 6, "learning_rate": 0.05, "losses": {"kl": 0, "cross_entropy": 1}}"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a model, samples, and labels that the model knows nothing of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    onnx.save(text_model(TEXT, **ARRAYS), "model.onnx")
    np.save("x.npy", X)
    np.save("ids.npy", IDS)
    return tmp_path


def quantize(preset: str, labels: str, *more: str) -> tuple[str, ...]:
    return ("quantize", "model.onnx", "-o", "out.onnx", "-d", "x.npy", "-p", preset, "--labels", labels, *more)


def right(model: onnx.ModelProto) -> float:
    return float((run(model, {"x": X})[0].argmax(1) == IDS).mean())


def test_a_model_learns_its_labels() -> None:
    told = json.loads(done(*quantize("S8S8_AAWS_QAT", "ids.npy", "--json", "--option", FAST)))
    curve = told["trained"]["curve"]
    assert curve[-1]["held"] < curve[0]["held"] and curve[0]["metric"] is not None
    assert right(onnx.load("out.onnx")) > right(onnx.load("model.onnx")) + 0.1


def test_a_plan_is_trained_too() -> None:
    done("plan", "model.onnx", "-o", "plan", *quantize("S8S8_AAWS_QAT", "ids.npy")[4:], "--option", SHORT)
    done("apply", "model.onnx", "plan", "-o", "planned.onnx")
    done(*quantize("S8S8_AAWS_QAT", "ids.npy", "--option", SHORT))
    assert onnx.load("planned.onnx") == onnx.load("out.onnx")


def test_training_goes_on_from_a_plan_that_was_tuned() -> None:
    """Where no step leads anywhere, what is written is what the plan says."""
    idle = '{"steps": 1, "learning_rate": 1e-30, "scale_learning_rate": 1e-30}'
    done("plan", "model.onnx", "-o", "plan", "-d", "x.npy", "-p", "S8S8_AAWS_ADAROUND")
    done(*quantize("S8S8_AAWS_QAT", "ids.npy", "--option", f"QAT={idle}"), "--resume", "plan", "-o", "resumed.onnx")
    done("quantize", "model.onnx", "-d", "x.npy", "-p", "S8S8_AAWS_ADAROUND", "--resume", "plan", "-o", "plain.onnx")
    assert onnx.load("resumed.onnx") == onnx.load("plain.onnx")


@pytest.mark.parametrize(
    ("preset", "labels", "code", "told"),
    [
        ("S8S8_AAWS", "ids.npy", 2, "labels are for training, and with this configuration nothing is trained"),
        ("S8S8_AAWS_QAT", "absent.npy", 4, "cannot read the labels absent.npy: No such file"),
        ("S8S8_AAWS_QAT", "model.onnx", 4, "the labels model.onnx are not a .npy file"),
        ("S8S8_AAWS_QAT", "few.npy", 4, "there are 79 labels, and the 80 samples need one each"),
        ("S8S8_AAWS_QAT", "large.npy", 4, "labels are no class, first 3 of sample"),
    ],
)
def test_what_is_refused(preset: str, labels: str, code: int, told: str) -> None:
    np.save("few.npy", IDS[1:])
    np.save("large.npy", IDS + 1)
    assert told in " ".join(fails(code, *quantize(preset, labels)).split())
    assert not Path("out.onnx").exists()


def test_labels_of_the_first_samples() -> None:
    """--samples N reads N of them, and some that prove: labels of the others may follow."""
    done(*quantize("S8S8_AAWS_QAT", "ids.npy", "--samples", "30", "--option", SHORT))
    assert "labels" in fails(2, *quantize("S8S8_AAWS_QAT", "ids.npy", "--option", 'QAT={"losses": {"kl": 1}}'))


def test_labels_are_not_an_output() -> None:
    fails(2, "quantize", "model.onnx", "-o", "ids.npy", "-d", "x.npy", "-p", "S8S8_AAWS_QAT", "--labels", "ids.npy")
    assert np.array_equal(np.load("ids.npy"), IDS)
