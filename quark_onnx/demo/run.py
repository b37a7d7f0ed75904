"""What the demo does: quantize the digit classifier three times and measure the four models."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quark_onnx.clock import Progress
from quark_onnx.core.settings.presets import DEFAULT, get_default_config
from quark_onnx.demo import MODEL, digits
from quark_onnx.engine.runner import Runner
from quark_onnx.graph import io
from quark_onnx.numerics.metrics import Sqnr
from quark_onnx.pipeline import ModelQuantizer
from quark_onnx.result import Report

PRESETS = {"INT8 per channel": DEFAULT, "INT8 per tensor": "S8S8_AAWS", "INT8 + AdaRound": "S8S8_AAWS_ADAROUND"}
"""The quantized models; the first is written."""
SAMPLES = 200
"""Training images to calibrate on."""
ROUNDS = 1000
"""Timed runs of each model; the models take turns, so that whatever else the machine does slows all of them."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Measured:
    """One model: right answers on the test images, output SQNR in dB against the float model (None for that one
    itself), file size, median milliseconds for one image on one thread, and (nodes on integers, all nodes).
    """

    right: int
    sqnr: float | None
    bytes: int
    milliseconds: float
    fused: tuple[int, int] | None


@dataclass(frozen=True)
class Demo:
    """All figures of the demo; `output` is the per-channel model that was written."""

    output: str
    samples: int
    images: int
    models: Mapping[str, Measured]


def run(output: Path, progress: Progress) -> Demo:
    """Quantize as by default, one weight scale per channel, written to `output`, and with one per tensor; measure all.

    The last is fine-tuned on the same images.

    Raises:
        DataError: scikit-learn is not installed.
        ConfigError: `output` cannot be written.
    """
    train_x, _, test_x, test_y = digits()
    feeds = [{"input": image[None]} for image in train_x[:SAMPLES]]
    with tempfile.TemporaryDirectory(prefix="quark_onnx-") as folder:
        files = {"float": MODEL, **{name: Path(folder) / f"{preset}.onnx" for name, preset in PRESETS.items()}}
        files[next(iter(PRESETS))] = output
        reports: dict[str, Report] = {}
        for name, preset in PRESETS.items():
            quantizer = ModelQuantizer(get_default_config(preset), progress)
            reports[name] = quantizer.quantize_model(MODEL, files[name], feeds).report
        runners = {name: Runner(io.load(file), threads=1) for name, file in files.items()}
        sizes = {name: file.stat().st_size for name, file in files.items()}
    times = _latency(runners, test_x, progress)
    logits = {name: runner({"input": test_x})[0] for name, runner in runners.items()}
    models = {
        name: Measured(
            right=int((logits[name].argmax(1) == test_y).sum()),
            sqnr=_sqnr(logits["float"], logits[name]) if name in reports else None,
            bytes=sizes[name],
            milliseconds=times[name],
            fused=_fused(reports[name]) if name in reports else None,
        )
        for name in files
    }
    return Demo(str(output), len(feeds), len(test_x), models)


def _latency(runners: Mapping[str, Runner], images: Array, progress: Progress) -> dict[str, float]:
    """Median milliseconds of each model for one image; the models take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(ROUNDS):
        feed = {"input": images[turn % len(images), None]}
        for name, runner in runners.items():
            start = time.perf_counter()
            runner(feed)
            seconds[name].append(time.perf_counter() - start)
        progress("latency", turn + 1, ROUNDS)
    return {name: round(float(np.median(taken)) * 1000, 4) for name, taken in seconds.items()}


def _sqnr(expected: Array, actual: Array) -> float:
    ratio = Sqnr()
    ratio.add(expected, actual)
    return ratio.db


def _fused(report: Report) -> tuple[int, int]:
    return sum(row.status != "float" for row in report.ledger), len(report.ledger)
