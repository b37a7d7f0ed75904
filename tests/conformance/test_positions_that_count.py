"""Positions of padding teach nothing and are not judged, from the feeds of a user to the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from padded_encoders import FIRST, MEAN, bare, encoder, sentences
from text_models import normal, text_model

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.core.errors import ConfigError, DataError
from quark_onnx.core.plan_diff import differences
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
    assert differences(padded.plan, cut.plan) == []
    assert padded.model == cut.model
    assert padded.report.positions.startswith("3")
    assert "the rest is padding, as 'mask' says; samples were cut" in padded.report.positions
    assert cut.report.positions == ""
    assert padded.report.outputs["y"].values == cut.report.outputs["y"].values
    assert padded.report.sqnr["y"] == pytest.approx(cut.report.sqnr["y"], abs=0.5)
