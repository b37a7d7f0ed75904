"""Range methods, presets and formats on real models: what a user who picks one by name gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from real_tasks import assert_runs_as_written, sentences, top_1

from quark_onnx import Config, ModelQuantizer, Result, get_default_config
from quark_onnx.core.settings.range_methods import METHODS

pytestmark = [pytest.mark.assets, pytest.mark.slow]


def quantized(
    protocol: ModuleType, output: Path, task: str, preset: str, data: bool = True, **changes: Any
) -> tuple[Result, dict[str, float]]:
    """The result, and the scores as onnxruntime runs the model."""
    config = get_default_config(preset)
    options = {**config.extra_options, **changes.pop("options", {})}
    config, job = replace(config, extra_options=options, **changes), protocol.TASKS[task]
    reader = protocol.Reader(job.calib(200)) if data else None
    result = ModelQuantizer(Config(config)).quantize_model(job.model, output, reader)
    return result, job.score(output, True)


ELSEWHERE = {"NonOverflow": "XINT8", "Percentile": "S8S8_AAWS of test_tasks.py", "tf": "MinMax, which it equals"}


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ELSEWHERE])
def test_every_method_gives_resnet_a_working_model(method: str, protocol: ModuleType, tmp_path: Path) -> None:
    """But for those that other tests try. Distribution clips hard by design."""
    config = replace(get_default_config("S8S8_AAWS"), per_channel=True, calibrate_method=method)
    task, output = "resnet20-cifar10", tmp_path / "m.onnx"
    job = protocol.TASKS[task]
    ModelQuantizer(config).quantize_model(job.model, output, job.calib(64))
    assert top_1(protocol, task, output) >= top_1(protocol, task, job.model) - 0.024


def test_the_best_method_needs_no_fine_tuning(protocol: ModuleType, tmp_path: Path) -> None:
    """MobileNet per channel: min-max weights .555, weight scales by output error .58."""
    changes = {"per_channel": True, "options": {"WeightCalibrateMethod": "SeqMSE"}}
    result, scores = quantized(protocol, tmp_path / "m.onnx", "mobilenet-imagenet", "S8S8_AAWS", **changes)
    assert scores["score"] >= 0.56
    assert_runs_as_written(protocol, "mobilenet-imagenet", tmp_path / "m.onnx")
    assert result.report.fused["Conv"] == (28, 28)


@pytest.mark.parametrize(
    ("preset", "least"),
    [("A8W8", 0.805), ("S16S16_MIXED_S8S8", 0.81), ("XINT8_ADAROUND", 0.81)],
)
def test_presets_on_resnet(preset: str, least: float, protocol: ModuleType, tmp_path: Path) -> None:
    """Scales of XINT8 are powers of two, and stay so when they are tuned."""
    tuned = preset.endswith("_ADAROUND")
    result, scores = quantized(protocol, tmp_path / "m.onnx", "resnet20-cifar10", preset)
    assert scores["score"] >= least
    assert_runs_as_written(protocol, "resnet20-cifar10", tmp_path / "m.onnx")
    assert bool(result.plan.codes) == tuned
    scales = [found.scale for found in (*result.plan.qparams.values(), *result.plan.codes.values())]
    assert all((np.frexp(scale)[0] == 0.5).all() for scale in scales) == preset.startswith("XINT8")


@pytest.mark.parametrize(
    ("preset", "least"), [("A16W8", 11), ("A8W8", 4), ("UINT8_DYNAMIC_QUANT", 13), ("MATMUL_NBITS", 8)]
)
def test_presets_on_minilm(preset: str, least: float, protocol: ModuleType, tmp_path: Path) -> None:
    """SQNR of the embedding, as run, in place of the score, which takes half a minute; docs/figures.md has the scores.

    From onnxruntime 1.32 on, products of 16-bit inputs run on MatMulNBits, too.
    """
    job = protocol.TASKS["minilm-stsb"]
    quantizer = ModelQuantizer(Config(get_default_config(preset)))
    report = quantizer.quantize_model(job.model, tmp_path / "m.onnx", sentences(protocol, 16)).report
    assert report.sqnr["embedding"] >= least
    integer, products = report.fused["MatMul"]
    assert products == 48
    assert integer in {"A16W8": (0, 36), "A8W8": (48,)}.get(preset, (36,))


def test_gptq_on_blocks_of_minilm(protocol: ModuleType, tmp_path: Path) -> None:
    """One of six blocks on 30 sentences without padding: 24.7 dB and 22.0 without; docs/figures.md has all on 200."""
    job = protocol.TASKS["minilm-stsb"]
    feeds = sentences(protocol, 30)
    found = {}
    for preset in ("MATMUL_NBITS", "MATMUL_NBITS_GPTQ"):
        config = replace(get_default_config(preset), nodes_to_quantize=("*layer.0/*",))
        found[preset] = ModelQuantizer(config).quantize_model(job.model, None, feeds).report
    plain, better = found.values()
    assert better.fused["MatMul"] == plain.fused["MatMul"] == (6, 48)
    assert [record.choice for record in better.tuned] == ["tuned"] * 6
    assert better.sqnr["embedding"] > plain.sqnr["embedding"] + 2


@pytest.mark.parametrize(
    ("preset", "task", "least"), [("FP16", "mobilenet-imagenet", 0.58), ("BF16", "resnet20-cifar10", 0.81)]
)
def test_conversions_need_no_data(preset: str, task: str, least: float, protocol: ModuleType, tmp_path: Path) -> None:
    _, scores = quantized(protocol, tmp_path / "m.onnx", task, preset, data=False)
    assert scores["score"] >= least
    assert (tmp_path / "m.onnx").stat().st_size <= 0.55 * protocol.TASKS[task].model.stat().st_size


def test_sixteen_bit_activations_and_adaround(protocol: ModuleType, tmp_path: Path) -> None:
    """Of 200 samples 184 teach and 16 judge: 21.4 dB and .584 (with 200 that teach 21.7 dB and .588).

    800 images scatter by .011, so that noise is what tells: a third of a decibel is left to other processors.
    """
    _, scores = quantized(protocol, tmp_path / "m.onnx", "mobilenet-imagenet", "A16W8_ADAROUND")
    assert scores["sqnr_db"] >= 21
    assert scores["score"] >= 0.585 - 0.011
    assert_runs_as_written(protocol, "mobilenet-imagenet", tmp_path / "m.onnx")
