"""Range methods, presets and formats on real models: what a user who picks one by name gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from quark_onnx import Config, ModelQuantizer, Report, get_default_config
from quark_onnx.core.ranging import METHODS

pytestmark = [pytest.mark.assets, pytest.mark.slow]


def quantized(
    protocol: ModuleType, output: Path, task: str, preset: str, data: bool = True, **changes: Any
) -> tuple[Report, float]:
    """The report, and the score as onnxruntime runs the model."""
    config = get_default_config(preset)
    options = {**config.extra_options, **changes.pop("options", {})}
    config, job = replace(config, extra_options=options, **changes), protocol.TASKS[task]
    reader = protocol.Reader(job.calib(200)) if data else None
    report = ModelQuantizer(Config(config)).quantize_model(job.model, output, reader).report
    return report, job.score(output, True)["score"]


def written(protocol: ModuleType, output: Path, task: str) -> float:
    """The score of the arithmetic as it is written."""
    return float(protocol.TASKS[task].score(output, False)["score"])


@pytest.mark.parametrize("method", [name for name in METHODS if name != "NonOverflow"])
def test_every_method_gives_resnet_a_working_model(method: str, protocol: ModuleType, tmp_path: Path) -> None:
    """Power-of-two scales cost more, see XINT8; Distribution clips hard by design."""
    changes = {"per_channel": True, "calibrate_method": method}
    _, score = quantized(protocol, tmp_path / "m.onnx", "resnet20-cifar10", "S8S8_AAWS", **changes)
    assert score >= 0.79


def test_the_best_method_needs_no_fine_tuning(protocol: ModuleType, tmp_path: Path) -> None:
    """MobileNet per channel: min-max weights .555, weight scales by output error .58."""
    changes = {"per_channel": True, "options": {"WeightCalibrateMethod": "SeqMSE"}}
    report, score = quantized(protocol, tmp_path / "m.onnx", "mobilenet-imagenet", "S8S8_AAWS", **changes)
    assert score >= 0.56
    assert abs(score - written(protocol, tmp_path / "m.onnx", "mobilenet-imagenet")) <= 0.01
    assert report.fused["Conv"] == (28, 28)


@pytest.mark.parametrize(
    ("preset", "least"),
    [("XINT8", 0.80), ("A8W8", 0.805), ("A16W8", 0.81), ("S16S16_MIXED_S8S8", 0.81), ("XINT8_ADAROUND", 0.81)],
)
def test_presets_on_resnet(preset: str, least: float, protocol: ModuleType, tmp_path: Path) -> None:
    _, score = quantized(protocol, tmp_path / "m.onnx", "resnet20-cifar10", preset)
    assert score >= least
    assert abs(score - written(protocol, tmp_path / "m.onnx", "resnet20-cifar10")) <= 0.01


@pytest.mark.parametrize(
    ("preset", "least"), [("A16W8", 11), ("A8W8", 4), ("UINT8_DYNAMIC_QUANT", 13), ("MATMUL_NBITS", 8)]
)
def test_presets_on_minilm(preset: str, least: float, protocol: ModuleType, tmp_path: Path) -> None:
    """SQNR of the embedding, as run, in place of the score, which takes half a minute; README has the scores."""
    job = protocol.TASKS["minilm-stsb"]
    quantizer = ModelQuantizer(Config(get_default_config(preset)))
    report = quantizer.quantize_model(job.model, tmp_path / "m.onnx", protocol.Reader(job.calib(16))).report
    assert report.sqnr["embedding"] >= least
    assert report.fused["MatMul"] == ((0, 48) if preset == "A16W8" else (48, 48) if preset == "A8W8" else (36, 48))


@pytest.mark.parametrize(
    ("preset", "task", "least"), [("FP16", "mobilenet-imagenet", 0.58), ("BF16", "resnet20-cifar10", 0.81)]
)
def test_conversions_need_no_data(preset: str, task: str, least: float, protocol: ModuleType, tmp_path: Path) -> None:
    _, score = quantized(protocol, tmp_path / "m.onnx", task, preset, data=False)
    assert score >= least
    assert (tmp_path / "m.onnx").stat().st_size <= 0.55 * protocol.TASKS[task].model.stat().st_size


def test_sixteen_bit_activations_and_adaround(protocol: ModuleType, tmp_path: Path) -> None:
    _, score = quantized(protocol, tmp_path / "m.onnx", "mobilenet-imagenet", "A16W8_ADAROUND")
    raw = written(protocol, tmp_path / "m.onnx", "mobilenet-imagenet")
    assert raw >= 0.585
    assert abs(score - raw) <= 0.01


def test_powers_of_two_stay_so_when_tuned(protocol: ModuleType, tmp_path: Path) -> None:
    job, output = protocol.TASKS["resnet20-cifar10"], tmp_path / "m.onnx"
    config = Config(get_default_config("XINT8_ADAROUND"))
    result = ModelQuantizer(config).quantize_model(job.model, output, protocol.Reader(job.calib(64)))
    scales = [q.scale for q in result.plan.qparams.values()] + [tuned.scale for tuned in result.plan.codes.values()]
    assert result.plan.codes
    assert all((np.frexp(scale)[0] == 0.5).all() for scale in scales)
    assert job.score(output, False)["score"] >= 0.80
