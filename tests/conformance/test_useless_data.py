"""Data that never change warn on every way in that reads samples: with the report if there is one, else in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import command
from simulations import CONVS, model, ready, simulation

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.core.settings.fast_finetune import AdaRound
from quark_onnx.quantsim import (
    AutoQuant,
    QuantParams,
    apply_seq_mse,
    correct_bias,
    equalize_model,
    fine_tune,
    make_psnr_eval_fn,
)

Feeds = list[dict[str, np.ndarray]]

ZEROS: Feeds = [{"x": np.zeros((1, 4, 8, 8), np.float32)}] * 6
SAYS = "input 'x' is 0.0 everywhere in all 6 samples"
CLIPPED = CONVS.replace(
    "r = Relu(c)", "l = Constant<value_float=0.0>() u = Constant<value_float=6.0>() r = Clip(c,l,u)"
)
"""Extremes in front of clips are asked of the data."""

SHORT = AdaRound(num_iterations=5)

PRESETS = ("S8S8_AAWS", "XINT8", "A16W8", "FP16", "S8S8_AAWS_ADAROUND")
WAYS: dict[str, Callable[[Feeds], Any]] = {
    "compute_encodings": lambda data: simulation().compute_encodings(data),
    "callback": lambda data: simulation().compute_encodings(lambda s: [s.run(None, feed) for feed in data]),
    "seq_mse": lambda data: apply_seq_mse(ready(), data, num_candidates=2),
    "fine_tune": lambda data: fine_tune(ready(), data, SHORT),
    "equalize": lambda data: equalize_model(model(CLIPPED), data),
    "correct_bias": lambda data: correct_bias(model(), QuantParams(), 6, data, 6),
    "auto_quant": lambda data: AutoQuant(model(), data[0], data, lambda session: 1.0),
    "psnr": lambda data: make_psnr_eval_fn(model(), data),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_reports_warn(preset: str) -> None:
    config = get_default_config(preset)
    report = ModelQuantizer(config).quantize_model(model(), None, ZEROS).report
    assert [warning.partition(":")[0] for warning in report.warnings] == [SAYS]


@pytest.mark.parametrize("way", WAYS)
def test_simulations_log(way: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        WAYS[way](ZEROS)
    assert sum(SAYS in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("way", WAYS)
def test_useful_data_do_not(way: str, caplog: pytest.LogCaptureFixture) -> None:
    data = [{"x": np.random.default_rng(i).standard_normal((1, 4, 8, 8), np.float32)} for i in range(6)]
    with caplog.at_level(logging.WARNING):
        WAYS[way](data)
    assert not any("input 'x'" in record.getMessage() for record in caplog.records)


def test_commands_warn(tmp_path: Path) -> None:
    file, data, out = tmp_path / "m.onnx", tmp_path / "d.npz", tmp_path / "q.onnx"
    onnx.save(model(), file)
    np.savez(data, x=np.concatenate([feed["x"] for feed in ZEROS]))
    for arguments in (
        ("plan", file, "-o", tmp_path / "plan", "--data", data),
        ("quantize", file, "-o", out, "--data", data),
        ("compare", file, out, "--data", data),
        ("analyze", file, out, "--data", data),
    ):
        result = command(*arguments)
        assert result.exit_code == 0, result.output
        assert SAYS in " ".join(result.stderr.split()), arguments
