"""Weights alone, and activations quantized at run time: models that need no calibration data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from newer_onnxruntime import needs_version
from quantized_models import feeds, run, settings
from text_models import normal, text_model
from typer.testing import CliRunner

from quark_onnx import ModelQuantizer, QuantizationConfig, get_default_config
from quark_onnx.cli import app
from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.graph import io

TEXT = """g (float[2, 3, 40] x) => (float[2, 3, 6] y) {
    [n] h = MatMul (x, w) [a] g = Add (h, b) [r] f = Relu (g) [m] y = MatMul (f, v)
}"""
ALONE = {"WeightsOnly": True, "weight_type": "int4", "BlockSize": 16, "include_cle": False}
DYNAMIC = {"use_dynamic_quant": True, "include_cle": False}
both = pytest.mark.parametrize("kind", [ALONE, DYNAMIC], ids=["weights alone", "at run time"])


def source(opset: int = 17) -> onnx.ModelProto:
    return text_model(TEXT, opset, w=normal(40, 36), b=normal(36), v=normal(36, 6))


def quantize(kind: dict[str, Any], data: Any = None, **more: Any) -> Any:
    return ModelQuantizer(settings(**kind, **more)).quantize_model(source(), None, data)


@both
def test_no_reader_is_needed_and_one_changes_no_scale(kind: dict[str, Any]) -> None:
    model = io.load(source())
    data = feeds(model)
    bare, told = quantize(kind), quantize(kind, data)
    assert bare.model == told.model
    assert (bare.report.samples, bare.report.sqnr, bare.report.warnings) == (0, {}, ())
    assert told.report.sqnr["y"] > 15
    assert "calibrate" not in bare.report.seconds or bare.report.seconds["calibrate"] < 0.5
    (x,), (y,) = (run(m, data[0]) for m in (model, io.load(bare.model)))
    assert 0 < np.abs(x - y).max() < 0.5 * np.abs(x).max()


@pytest.mark.parametrize("dims", ["2", "2, 3"])
def test_matmul_nbits_takes_every_product(dims: str) -> None:
    """Preparing makes a Gemm of a MatMul of two axes and its Add."""
    needs_version("1.25", "MatMulNBits with a bias")
    text = f"g (float[{dims}, 64] x) => (float[{dims}, 32] y) {{ a = MatMul (x, w) y = Add (a, b) }}"
    model = text_model(text, w=normal(64, 32), b=normal(32))
    report = ModelQuantizer(get_default_config("MATMUL_NBITS")).quantize_model(model).report
    assert [row.kernel for row in report.ledger if row.status == "integer"] == ["MatMulNBits"]


def test_ranges_of_activations_need_data() -> None:
    with pytest.raises(DataError):
        quantize({})


@both
def test_tuning_needs_data_too(kind: dict[str, Any]) -> None:
    kind = {**kind, "include_fast_ft": True, "FastFinetune": {"NumIterations": 20}, "BlockSize": None}
    with pytest.raises(DataError):
        quantize(kind)
    told = quantize(kind, feeds(io.load(source()), 12))
    assert [record.node for record in told.report.tuned] == ["n", "m"]


@both
def test_evening_out_channels_needs_data_and_is_left_out_with_a_warning(kind: dict[str, Any]) -> None:
    kind = {**kind, "include_cle": True}
    (warning,) = quantize(kind).report.warnings
    assert "channels were not evened out" in warning
    assert quantize(kind, feeds(io.load(source()))).report.warnings == ()
    assert quantize({**kind, "per_channel": True}).report.warnings == ()


@both
def test_a_saved_plan_makes_the_same_model(kind: dict[str, Any], tmp_path: Path) -> None:
    first = quantize(kind)
    folder = first.plan.save(tmp_path / "plan")
    again = ModelQuantizer(settings(**kind)).quantize_model(source(), None, resume=folder)
    assert again.model == first.model


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"WeightsOnly": True}, "exclude each other"),
        ({"activation_type": "int16"}, "asymmetric uint8"),
        ({"ActivationSymmetric": True}, "asymmetric uint8"),
    ],
)
def test_what_cannot_be_quantized_at_run_time_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        quantize(DYNAMIC, **fields)


def test_the_command_line_needs_no_data_either(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(source(), path)
    arguments = ["quantize", str(path), "-o", str(tmp_path / "out.onnx"), "--no-cle"]
    plain = CliRunner().invoke(app, arguments)
    assert (plain.exit_code, "no calibration data" in plain.stderr) == (4, True)
    alone = CliRunner().invoke(app, [*arguments, "--option", "WeightsOnly=true"])
    assert alone.exit_code == 0, alone.output
    assert (tmp_path / "out.onnx").is_file()
    method = CliRunner().invoke(app, [*arguments, "--preset", "MATMUL_NBITS", "--method", "Entropy"])
    assert (method.exit_code, "--method chooses ranges of activations" in method.stderr) == (2, True)


def test_both_are_fields_of_the_configuration() -> None:
    assert not QuantizationConfig(use_dynamic_quant=True).needs_data
    assert not settings(WeightsOnly=True).needs_data
    assert QuantizationConfig().needs_data
    assert QuantizationConfig(use_dynamic_quant=True, include_fast_ft=True).needs_data
