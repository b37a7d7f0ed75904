"""A preset that trains, from a float model to a quantized one that is better, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from train_cases import net

from quark_onnx import Config, ModelQuantizer, Result, get_default_config
from quark_onnx.core.errors import ConfigError
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.training.losses import Losses
from quark_onnx.core.settings.training.qat import QAT
from quark_onnx.graph import io

SAMPLES = 40
FEW = {"steps": 8, "batch_size": 16, "check_every": 4, "learning_rate": 0.02, "holdout": 0.25}


def trained(preset: str = "S4S2_AAWS_QAT", labels: np.ndarray | None = None, **changes: Any) -> Result:
    """The small net on random samples, whose rounding nothing tuned before; `changes` are settings of training."""
    config = get_default_config(preset)
    options = {**config.extra_options, "FastFinetune": None, "QAT": {**FEW, **changes}}
    config = replace(config, include_fast_ft=False, extra_options=options)
    rng = np.random.default_rng(7)
    feeds = [{"x": rng.standard_normal((1, 4, 6, 6)).astype(np.float32)} for _ in range(SAMPLES)]
    return ModelQuantizer(Config(config)).quantize_model(io.to_proto(net()), None, feeds, labels=labels)


def test_a_preset_that_trains_makes_a_better_model() -> None:
    found = trained()
    record = found.report.trained
    assert record is not None and record.accepted
    assert record.best.held < record.curve[0].held
    assert (record.steps, record.planned, record.samples + record.judges) == (8, 8, 32)  # the others prove it
    assert found.report.seconds["train"] > 0
    assert "training" not in " ".join(found.report.warnings)


def test_threads_have_no_say_in_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for count in ("1", "3"):
        monkeypatch.setenv("QUARK_ONNX_THREADS", count)
        made.append(trained(steps=4).model.SerializeToString())
    assert made[0] == made[1]


def test_labels_are_learned_and_how_many_are_right_is_told() -> None:
    labels = np.arange(SAMPLES) % 5
    curve = trained(labels=labels).report.trained.curve  # type: ignore[union-attr]
    assert all(point.metric is not None and 0 <= point.metric <= 1 for point in curve)
    assert curve[-1].loss < curve[1].loss + 1  # type: ignore[operator]


def test_training_that_finds_nothing_leaves_the_plan_and_says_so() -> None:
    plain = trained(learning_rate=1e-9, scale_learning_rate=1e-12, steps=1)
    record = plain.report.trained
    assert record is not None and not record.accepted
    told = "training found nothing better than it began with, on 8 held-out samples"
    assert any(warning.startswith(told) for warning in plain.report.warnings)


def test_scales_that_an_npu_shifts_between_stay() -> None:
    found, plain = trained("XINT8_QAT"), trained("XINT8_QAT", learning_rate=1e-9, steps=1)
    assert found.plan.qparams.keys() == plain.plan.qparams.keys()
    assert all(q.same(plain.plan.qparams[group]) for group, q in found.plan.qparams.items())
    assert any("scales stay, as the target shifts" in warning for warning in found.report.warnings)


def test_a_card_tells_of_the_training() -> None:
    html = trained()._repr_html_()
    assert "Training: loss " in html and "step 8" in html


def test_settings_come_back_from_json_and_what_is_unknown_is_refused() -> None:
    settings = QAT(epochs=3, losses=Losses(kl=0.5, features=1.0), flip=True)
    config = QuantizationConfig(extra_options={"QAT": settings})
    assert config.training == settings
    assert QuantizationConfig.from_json(config.to_json()) == config
    assert QuantizationConfig(extra_options={"QAT": {}}).training == QAT()
    assert QuantizationConfig(extra_options={"QAT": False}).training is None
    for options, message in (
        ({"epoch": 3}, "QAT: unknown setting 'epoch'; did you mean 'epochs'"),
        ({"momentum": 1.0}, "QAT momentum must be a number at least 0 and below 1"),
        ({"losses": {"kll": 1}}, "losses: unknown term 'kll'"),
        ({"losses": 3}, "QAT losses must be a dictionary"),
        ({"rounding": "soft", "weights": False}, "'soft' is about weights"),
        (dict.fromkeys(("weights", "biases", "weight_scales", "activation_ranges"), False), "QAT trains nothing"),
    ):
        with pytest.raises(ConfigError, match=message):
            QuantizationConfig(extra_options={"QAT": options})


@pytest.mark.parametrize(("bits", "rates"), [(8, (1e-3, 3e-4)), (16, (1e-3, 3e-4)), (4, (1e-2, 3e-3))])
def test_rates_follow_the_fewest_bits_unless_they_are_given(bits: int, rates: tuple[float, float]) -> None:
    assert QAT().rates(bits) == rates
    assert QAT(learning_rate=0.5).rates(bits) == (0.5, rates[1])
