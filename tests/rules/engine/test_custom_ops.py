"""Libraries of custom operators: every session that a model, or what is made of it, runs in has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from command_line import done, fails
from text_models import normal, text_model

from quark_onnx import ConfigError, ModelError, ModelQuantizer, QuantizationConfig, get_default_config
from quark_onnx.quantsim import QuantizationSimModel

FEEDS = [{"x": normal(2, 8, seed=i)} for i in range(4)]


def model() -> onnx.ModelProto:
    text = "g (float[2, 8] x) => (float[2, 8] y) { a = MatMul (x, w) b = Relu (a) y = MatMul (b, w) }"
    return text_model(text, w=normal(8, 8) / 3)


class Options(ort.SessionOptions):
    """Session options that load nothing, and count: sessions, and libraries that each was asked to load."""

    asked: ClassVar[list[list[str]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.asked.append([])

    def register_custom_ops_library(self, path: str) -> None:
        self.asked[-1].append(path)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is taken for a library."""
    monkeypatch.setattr(ort, "SessionOptions", Options)
    monkeypatch.setattr(Options, "asked", [])
    path = tmp_path / "ops.so"
    path.touch()
    return path


def with_libraries(*paths: Path, preset: str = "S8S8_AAWS") -> QuantizationConfig:
    config = get_default_config(preset)
    return replace(config, extra_options={**config.extra_options, "UserCustomOpLibPath": [str(path) for path in paths]})


@pytest.mark.parametrize("preset", ["S8S8_AAWS", "A16W8", "INT8_PROTECTED", "S8S8_AAWS_ADAROUND"])
def test_every_session_has_them(preset: str, library: Path) -> None:
    """That of a raised opset too, and those of pieces that are tuned. The file that is left behind names none."""
    quantizer = ModelQuantizer(with_libraries(library, preset=preset))
    quantizer.quantize_model(model(), None, FEEDS)
    Options.asked.clear()  # of what onnxruntime was asked once about its own operators
    result = quantizer.quantize_model(model(), None, FEEDS)
    assert Options.asked
    assert all(asked == [str(library)] for asked in Options.asked)
    assert str(library) not in str(result.model)


def test_the_pieces_that_stand_for_other_processors_have_them(library: Path) -> None:
    """What kernels compute that add pairs of products in 16 bits: the rest of the model runs piece by piece."""
    proto = model()
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((8, 8), np.float32), "w"))
    feeds = [{"x": np.abs(feed["x"]) + 1} for feed in FEEDS]
    quantizer = ModelQuantizer(replace(with_libraries(library), weight_pairs="off"))
    quantizer.quantize_model(proto, None, feeds)
    Options.asked.clear()  # of what onnxruntime was asked once about its own operators
    assert quantizer.quantize_model(proto, None, feeds).report.without_vnni
    assert all(asked == [str(library)] for asked in Options.asked)


def test_no_library(library: Path) -> None:
    ModelQuantizer(with_libraries()).quantize_model(model(), None, FEEDS)
    assert not any(Options.asked)


def test_a_simulation_has_them(library: Path) -> None:
    sim = QuantizationSimModel(model(), user_onnx_libs=[str(library)])
    sim.compute_encodings(FEEDS)
    sim.session.run(None, FEEDS[0])
    assert Options.asked
    assert all(Options.asked)


def test_a_library_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no library of custom operators .*nothing\.so"):
        ModelQuantizer(with_libraries(tmp_path / "nothing.so")).quantize_model(model(), None, FEEDS)
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(ModelError, match=r"text\.so.*must be a shared library, built for this machine"):
        ModelQuantizer(with_libraries(tmp_path / "text.so")).quantize_model(model(), None, FEEDS)


def test_commands_have_the_flag(library: Path, tmp_path: Path) -> None:
    float_model, samples, output = tmp_path / "model.onnx", tmp_path / "x.npz", tmp_path / "int8.onnx"
    onnx.save(model(), float_model)
    np.savez(samples, x=np.concatenate([feed["x"] for feed in FEEDS]))
    flags = ("--custom-ops", library)
    for command in (
        ("quantize", float_model, "-o", output, "-d", samples, *flags),
        ("inspect", float_model, *flags),
        ("inspect", output, *flags),
        ("compare", float_model, output, "-d", samples, *flags),
    ):
        Options.asked.clear()
        done(*command)
        assert any(asked == [str(library)] for asked in Options.asked) or command[0] == "inspect"
    plan = tmp_path / "plan"
    done("plan", float_model, "-o", plan, "-d", samples, *flags)
    for command in (
        ("apply", float_model, plan, "-o", output),
        ("quantize", float_model, "-o", output, "-d", samples, "--resume", plan),
        ("analyze", float_model, output, "-d", samples, "--plan", plan),
    ):
        Options.asked.clear()
        assert f"custom operators of {library}, which is code" in fails(5, *command)
        assert not any(Options.asked), "a plan loads no library by itself"
        done(*command, *flags)
        assert any(Options.asked)
    assert "is quantized already" in fails(2, "inspect", output, *flags, "--exclude", "a")
