"""Positions of padding teach nothing and are not judged, from the feeds of a user to the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from padded_encoders import MEAN, bare, encoder, sentences
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.core.plan_diff import diff
from quark_onnx.core.settings.fast_finetune import AdaQuant
from quark_onnx.quantsim import QuantizationSimModel
from quark_onnx.quantsim.fine_tuning import fine_tune
from quark_onnx.result import Result


def run(model: Any, feeds: Any, preset: str = "S8S8_AAWS", cache: Path | None = None, **options: Any) -> Result:
    config = get_default_config(preset)
    config = replace(config, extra_options={**config.extra_options, **options})
    return ModelQuantizer(config).quantize_model(model, None, feeds, calibration_cache=cache)


@pytest.mark.parametrize("preset", ["S8S8_AAWS", "S8S8_AAWS_ADAROUND"])
def test_a_plan_is_that_of_samples_without_padding(preset: str) -> None:
    options = {"BiasCorrection": True} if preset == "S8S8_AAWS" else {}
    padded, cut = (run(encoder(), feeds, preset, **options) for feeds in (sentences(), bare(sentences())))
    assert padded.plan.sites
    assert diff(padded.plan, cut.plan) == []
    assert padded.model == cut.model
    assert padded.report.positions.startswith("3")
    assert "the rest is padding, as 'mask' says; samples were cut" in padded.report.positions
    assert cut.report.positions == ""
    assert padded.report.outputs["y"].values == cut.report.outputs["y"].values
    assert padded.report.sqnr["y"] == pytest.approx(cut.report.sqnr["y"], abs=0.5)
    assert padded.layer_sqnr() == cut.layer_sqnr()


@pytest.mark.parametrize("kind", ["float", "int64"])
def test_sequences_are_judged_as_a_whole(kind: str) -> None:
    """Also behind a mask of 0 and 1 that is a float, which is no mask to be added."""
    text = f"""g (float[B,T,8] x, {kind}[B,T] mask) => (float[B,T,8] y, seq(float[B,T,8]) z) {{
        m = Cast <to = 1> (mask) n = Sub (one, m) h = Mul (n, low) u = Unsqueeze (h, axis) q = MatMul (x, w)
        t = Transpose <perm = [0,2,1]> (x) s = MatMul (q, t) a = Add (s, u) p = Softmax <axis = -1> (a)
        y = MatMul (p, q) z = SequenceConstruct (y) }}"""
    numbers = {"one": np.float32(1), "low": np.float32(-1e4), "axis": np.array([1]), "w": normal(8, 8) / 3}
    kept = [np.arange(6)[None] < 3 + i % 3 for i in range(24)]
    feeds = [
        {"x": normal(1, 6, 8, seed=i), "mask": one.astype(kind if kind == "int64" else "float32")}
        for i, one in enumerate(kept)
    ]
    report = run(text_model(text, **numbers), feeds).report
    assert report.positions.startswith("67%")
    assert report.outputs["z"].values == 6 * report.judged * 8 > report.outputs["y"].values


@pytest.mark.parametrize("sizes", [(), (4, 16)], ids=["feeds are cut", "tensors are cut"])
def test_a_sample_that_only_fills_a_batch_up_is_not_judged(sizes: tuple[int, ...]) -> None:
    feeds = sentences(batch=4)
    for feed in feeds:
        feed["ids"][3] = feed["mask"][3] = 0
    report = run(encoder(*sizes), feeds).report
    assert report.outputs["pooled"].values == 2 * 3 * 12
    assert report.sqnr["pooled"] > 30  # dB; 17 with the samples that nothing is known of


def test_without_a_mask_that_hides_scores_all_positions_count() -> None:
    assert run(encoder(padding="none"), sentences()).report.positions == ""
    assert run(encoder(), sentences(), SampleMask=False).report.positions == ""
    full = [feed | {"mask": np.ones_like(feed["mask"])} for feed in sentences()]
    assert run(encoder(), full).report.positions == ""


def test_where_padding_has_a_say_all_positions_count_and_the_report_tells() -> None:
    found = run(encoder(pool=MEAN), sentences()).report
    assert found.positions == "all, also those that 'mask' says do not count: output 'pooled' depends on them"
    assert found.outputs["y"].values == 12 * 16 * 12


def test_with_a_fixed_length_padding_is_left_out_of_tensors() -> None:
    options = {"BiasCorrection": True, "Protect": False}
    fixed, cut = run(encoder(1, 16), sentences(), **options), run(encoder(), bare(sentences()), **options)
    assert "left out of" in fixed.report.positions
    assert fixed.plan.qparams.keys() == cut.plan.qparams.keys()
    for name, q in cut.plan.qparams.items():
        assert np.allclose(fixed.plan.qparams[name].scale, q.scale, rtol=1e-4), name
    for name, value in cut.plan.values.items():
        assert np.allclose(fixed.plan.values[name], value, atol=1e-2 * np.abs(value).max()), name
    ignorant = run(encoder(1, 16), sentences(), SampleMask=False, **options)
    assert any(not np.allclose(ignorant.plan.qparams[n].scale, q.scale, rtol=1e-2) for n, q in cut.plan.qparams.items())
    assert fixed.report.outputs["y"].values < ignorant.report.outputs["y"].values


ROWS = "g (float[B,T,8] x) => (float[B,T,8] y) { h = MatMul (x, w) b = Add (h, c) r = Relu (b) y = MatMul (r, v) }"


def rows(count: int = 12, key: str = "keep") -> list[dict[str, np.ndarray]]:
    """Positions that count hold small numbers, others large ones."""
    feeds = []
    for i in range(count):
        keep = np.arange(10)[None] < 3 + i % 4
        x = normal(1, 10, 8, seed=i)
        feeds.append({"x": np.where(keep[..., None], x, 50 * x), key: keep.astype(np.float32)})
    return feeds


@pytest.mark.parametrize("dims", ["B,T", "1,10"])
def test_a_mask_of_the_users_that_is_no_input(dims: str) -> None:
    model = text_model(ROWS.replace("B,T", dims), w=normal(8, 8), c=normal(8), v=normal(8, 8, seed=1))
    found = run(model, rows(), SampleMask="keep", SmoothQuant=False)
    largest = max(np.abs(feed["x"][feed["keep"] > 0]).max() for feed in rows())
    q = found.plan.qparams["x"]
    assert float(q.scale) * 255 < 2.1 * largest
    assert found.report.sqnr["y"] > 30
    assert all(feed.keys() == {"x"} for feed in found.evidence.feeds)
    whole = run(model, [{"x": feed["x"]} for feed in rows()], SmoothQuant=False)
    assert float(whole.plan.qparams["x"].scale) > 10 * float(q.scale)


def test_a_simulation_is_tuned_without_padding() -> None:
    sims = [QuantizationSimModel(encoder(), default_param_bw=4) for _ in range(2)]
    for sim, feeds in zip(sims, (sentences(), bare(sentences())), strict=True):
        sim.compute_encodings(sentences())
        assert fine_tune(sim, feeds, AdaQuant(num_iterations=20))
    assert diff(sims[0].plan, sims[1].plan) == []


def test_a_mask_that_there_is_not_is_refused() -> None:
    with pytest.raises(DataError, match="the name 'masks', which SampleMask says; did you mean 'mask'"):
        run(encoder(), sentences(), SampleMask="masks")
    beside = run(encoder(), [feed | {"keep": feed["mask"]} for feed in sentences()])
    assert any("inputs is not read: 'keep'" in warning for warning in beside.report.warnings)
    with pytest.raises(ConfigError, match="SampleMask"):
        run(encoder(), None, SampleMask="mask", UseRandomData=True)


def test_a_cache_is_that_of_a_mask(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "seen.npz"
    first = run(encoder(1, 16), sentences(), cache=cache)
    again = run(encoder(1, 16), sentences(), cache=cache)
    assert diff(first.plan, again.plan) == []
    assert "will be overwritten" not in caplog.text
    run(encoder(1, 16), sentences(), cache=cache, SampleMask=False)
    assert "another kind of statistics" in caplog.text
