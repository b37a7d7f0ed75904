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

Scored = tuple[dict[str, float], dict[str, float], Report]


def scored(protocol: ModuleType, output: Path, task: str, preset: str, data: bool = True, **changes: Any) -> Scored:
    """Scores as run and as written, and the report."""
    config = get_default_config(preset)
    options = {**config.extra_options, **changes.pop("options", {})}
    config, job = replace(config, extra_options=options, **changes), protocol.TASKS[task]
    reader = protocol.Reader(job.calib(200)) if data else None
    report = ModelQuantizer(Config(config)).quantize_model(job.model, output, reader).report
    return job.score(output, True), job.score(output, False), report


@pytest.mark.parametrize("method", [name for name in METHODS if name != "NonOverflow"])
def test_every_method_gives_resnet_a_working_model(method: str, protocol: ModuleType, tmp_path: Path) -> None:
    """Power-of-two scales cost more, see XINT8; Distribution clips hard by design (.80)."""
    moving = {"calibrate_method": method}
    ort, _, _ = scored(protocol, tmp_path / "m.onnx", "resnet20-cifar10", "S8S8_AAWS", per_channel=True, **moving)
    assert ort["score"] >= 0.79


def test_the_best_method_needs_no_fine_tuning(protocol: ModuleType, tmp_path: Path) -> None:
    """MobileNet per channel: min-max weights .555, weight scales by output error .58."""
    options = {"WeightCalibrateMethod": "SeqMSE"}
    ort, raw, report = scored(
        protocol, tmp_path / "m.onnx", "mobilenet-imagenet", "S8S8_AAWS", per_channel=True, options=options
    )
    assert ort["score"] >= 0.56
    assert abs(ort["score"] - raw["score"]) <= 0.01
    assert report.fused["Conv"] == (28, 28)


@pytest.mark.parametrize(
    ("preset", "task", "least"),
    [
        ("XINT8", "resnet20-cifar10", 0.80),
        ("A8W8", "resnet20-cifar10", 0.805),
        ("A16W8", "resnet20-cifar10", 0.81),
        ("XINT8", "minilm-stsb", 0.60),
        ("A8W8", "minilm-stsb", 0.76),
        ("A16W8", "minilm-stsb", 0.80),
        ("INT8_TRANSFORMER_DEFAULT", "minilm-stsb", 0.78),
        ("S16S16_MIXED_S8S8", "resnet20-cifar10", 0.81),
    ],
)
def test_presets(preset: str, task: str, least: float, protocol: ModuleType, tmp_path: Path) -> None:
    ort, raw, _ = scored(protocol, tmp_path / "m.onnx", task, preset)
    assert ort["score"] >= least
    assert abs(ort["score"] - raw["score"]) <= 0.01


@pytest.mark.parametrize(
    ("preset", "task", "least"),
    [
        ("UINT8_DYNAMIC_QUANT", "minilm-stsb", 0.81),
        ("MATMUL_NBITS", "minilm-stsb", 0.81),
        ("FP16", "mobilenet-imagenet", 0.58),
        ("BF16", "resnet20-cifar10", 0.81),
    ],
)
def test_presets_without_data(preset: str, task: str, least: float, protocol: ModuleType, tmp_path: Path) -> None:
    ort, raw, _ = scored(protocol, tmp_path / "m.onnx", task, preset, data=False)
    assert ort["score"] >= least
    assert abs(ort["score"] - raw["score"]) <= 0.01
    job = protocol.TASKS[task]
    assert (tmp_path / "m.onnx").stat().st_size <= 0.55 * job.model.stat().st_size


def test_sixteen_bit_activations_and_adaround(protocol: ModuleType, tmp_path: Path) -> None:
    ort, raw, _ = scored(protocol, tmp_path / "m.onnx", "mobilenet-imagenet", "A16W8_ADAROUND")
    assert raw["score"] >= 0.585
    assert abs(ort["score"] - raw["score"]) <= 0.01


def test_powers_of_two_stay_so_when_tuned(protocol: ModuleType, tmp_path: Path) -> None:
    job, output = protocol.TASKS["resnet20-cifar10"], tmp_path / "m.onnx"
    config = Config(get_default_config("XINT8_ADAROUND"))
    result = ModelQuantizer(config).quantize_model(job.model, output, protocol.Reader(job.calib(64)))
    scales = [q.scale for q in result.plan.qparams.values()] + [tuned.scale for tuned in result.plan.codes.values()]
    assert result.plan.codes
    assert all((np.frexp(scale)[0] == 0.5).all() for scale in scales)
    assert job.score(output, False)["score"] >= 0.80
