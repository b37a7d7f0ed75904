"""Arrays of size 0 are samples without values: past keys of a first decoding step, frames without boxes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import done
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.core.settings.fast_finetune import AdaRound
from quark_onnx.quantsim import (
    QuantizationSimModel,
    QuantParams,
    apply_seq_mse,
    correct_bias,
    equalize_model,
    fine_tune,
    make_psnr_eval_fn,
    protect,
)

Feeds = list[dict[str, np.ndarray]]

NOTHING = "no value of it was seen in calibration"

DECODER = """g (float[1,s,16] x, float[1,p,16] past) => (float[1,t,16] y, float[1,t,16] present) {
    k = MatMul (x, w) present = Concat <axis = 1> (past, k) y = MatMul (present, v) }"""
BOXES = """g (float[1,3,8,8] image, float[n,4] boxes) => (float[n,4] y, float[1,4] scene) {
    f = Conv (image, c) r = Relu (f) p = GlobalAveragePool (r) scene = Flatten (p)
    h = MatMul (boxes, b1) a = Relu (h) z = MatMul (a, b2) y = Add (z, scene) }"""


def decoder() -> onnx.ModelProto:
    return text_model(DECODER, w=normal(16, 16) / 4, v=normal(16, 16, seed=1) / 4)


def boxes() -> onnx.ModelProto:
    return text_model(BOXES, c=normal(4, 3, 3, 3) / 5, b1=normal(4, 16), b2=normal(16, 4) / 4)


def steps(lengths: list[int], tokens: int = 8) -> Feeds:
    return [
        {"x": normal(1, tokens, 16, seed=i), "past": normal(1, n, 16, seed=i + 100)} for i, n in enumerate(lengths, 1)
    ]


def frames(counts: list[int]) -> Feeds:
    return [{"image": normal(1, 3, 8, 8, seed=i), "boxes": normal(n, 4, seed=i)} for i, n in enumerate(counts)]


CASES: dict[str, tuple[Callable[[], onnx.ModelProto], Feeds]] = {
    "first steps only": (decoder, steps([0] * 8)),
    "first steps and others": (decoder, steps([0, 1, 2] * 8)),
    "some without tokens": (decoder, [*steps([3] * 4, tokens=0), *steps([3] * 4)]),
    "frames without boxes": (boxes, frames([0, 1, 2] * 8)),
    "no boxes at all": (boxes, frames([0] * 24)),
}
PRESETS = (
    "INT8_PROTECTED", "S8S8_AAWS", "XINT8", "A16W8", "FP16", "UINT8_DYNAMIC_QUANT", "INT8_TRANSFORMER_DEFAULT",
    "S8S8_AAWS_ADAQUANT", "S16S16_MIXED_S8S8",
)  # fmt: skip


def quantize(case: str, preset: str) -> Any:
    make, data = CASES[case]
    config = get_default_config(preset)
    if config.include_fast_ft:
        options = {**config.extra_options["FastFinetune"], "NumIterations": 5}
        config = replace(config, extra_options={**config.extra_options, "FastFinetune": options})
    return ModelQuantizer(config).quantize_model(make(), None, data)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("case", CASES)
def test_every_preset_takes_them(case: str, preset: str) -> None:
    result = quantize(case, preset)
    told = [text for text in result.report.warnings if "nothing that could be measured" in text]
    assert bool(told) is (case == "no boxes at all"), "what was not measured is told, and nothing else"
    assert ("y" in result.report.sqnr) is not bool(told)


@pytest.mark.parametrize("preset", ["INT8_PROTECTED", "S8S8_AAWS", "XINT8"])
def test_what_was_never_seen_stays_float(preset: str) -> None:
    never = quantize("no boxes at all", preset)
    assert NOTHING in never.report.float_nodes["MatMul_h"]
    assert not {"boxes", "h", "a", "z"} & never.plan.sites.keys()
    assert "Conv_f" in never.plan.nodes
    sometimes = quantize("frames without boxes", preset)
    assert {"MatMul_h", "MatMul_z", "Conv_f"} <= sometimes.plan.nodes.keys()


def test_they_change_nothing_of_what_others_teach() -> None:
    """Ranges of fifteen samples are those of the same, with samples without values among them."""
    full = steps([3] * 8)
    empty = [{"x": np.zeros((1, 0, 16), np.float32), "past": np.zeros((1, 0, 16), np.float32)}] * 3
    plans = [
        ModelQuantizer(get_default_config("S8S8_AAWS")).quantize_model(decoder(), None, data).plan
        for data in (full, [*empty, *full[:4], *empty, *full[4:]])
    ]
    assert plans[0].qparams.keys() == plans[1].qparams.keys()
    assert all(q.same(plans[1].qparams[group]) for group, q in plans[0].qparams.items())


WAYS: dict[str, Callable[[onnx.ModelProto, Feeds], Any]] = {
    "fine_tune": lambda model, data: fine_tune(ready(model, data), data, AdaRound(num_iterations=5)),
    "seq_mse": lambda model, data: apply_seq_mse(ready(model, data), data, num_candidates=2),
    "protect": lambda model, data: protect(ready(model, data), data),
    "equalize": lambda model, data: equalize_model(model, data),
    "correct_bias": lambda model, data: correct_bias(model, QuantParams(), 6, data, 6),
}


def ready(model: onnx.ModelProto, data: Feeds) -> QuantizationSimModel:
    sim = QuantizationSimModel(model, threads=1)
    sim.compute_encodings(data)
    return sim


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_simulations_take_them(case: str, way: str) -> None:
    make, data = CASES[case]
    WAYS[way](make(), data)


def test_a_simulation_says_what_was_never_seen(caplog: pytest.LogCaptureFixture) -> None:
    make, data = CASES["no boxes at all"]
    with caplog.at_level(logging.WARNING):
        sim = ready(make(), data)
    assert f"'boxes' stays float: 'boxes': {NOTHING}" in caplog.text
    assert not sim.quantizer("boxes").enabled
    assert sim.quantizer("image").enabled


def test_a_score_needs_an_output_with_values() -> None:
    make, data = CASES["frames without boxes"]
    score = make_psnr_eval_fn(make(), data)
    assert score(ready(make(), data).session) > 15


def test_commands_take_them(tmp_path: Path) -> None:
    model, out, data = tmp_path / "m.onnx", tmp_path / "q.onnx", tmp_path / "data"
    make, feeds = CASES["frames without boxes"]
    onnx.save(make(), model)
    data.mkdir()
    for i, feed in enumerate(feeds):
        np.savez(data / f"{i:02}.npz", **feed)
    done("quantize", model, "-o", out, "--data", data)
    assert "y" in done("compare", model, out, "--data", data)
    assert "y" in done("analyze", model, out, "--data", data)
