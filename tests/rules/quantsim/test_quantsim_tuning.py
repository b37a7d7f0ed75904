"""Fine-tuning of a simulation: what it changes, what it keeps, and that files carry the result."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulations import FEEDS, encodings, model, output, ready
from text_models import run as run_model

from quark_onnx import AdaQuant, AdaRound, ConfigError
from quark_onnx.core.settings.fast_finetune import RangeLearning
from quark_onnx.graph import io
from quark_onnx.quantsim import QuantizationSimModel, fine_tune, load_encodings_to_sim

LEARNS = "training_range_learning_with_tf_init"
FAST = {"num_iterations": 60}
METHODS = [AdaRound(**FAST), AdaQuant(**FAST), RangeLearning(**FAST)]


def error(sim: QuantizationSimModel) -> float:
    """Mean squared difference to the float model before tuning, over all samples."""
    wanted = [run_model(model(), feed)[0] for feed in FEEDS]
    return float(np.mean([(output(sim, feed) - y) ** 2 for feed, y in zip(FEEDS, wanted, strict=True)]))


@pytest.mark.parametrize("options", METHODS, ids=lambda options: type(options).__name__)
def test_every_method_gets_nearer_to_the_float_model(options: Any) -> None:
    sim = ready(default_param_bw=3)
    before = error(sim)
    records = fine_tune(sim, FEEDS, options)
    trained = [record.node for record in records if record.accepted]
    assert trained
    assert error(sim) < before
    for node in trained:
        assert any(quantizer.is_encoding_frozen() for quantizer in sim.get_op_quantizers(node)[2].values())


@pytest.mark.parametrize(("scheme", "learned"), [(LEARNS, True), ("post_training_tf", False)])
def test_ranges_of_activations_are_learned_by_the_schemes_that_say_so(scheme: str, learned: bool) -> None:
    """Negative twin: the same with a scheme that does not learn."""
    sim = ready(default_param_bw=4, default_output_bw=4, quant_scheme=scheme)
    before = encodings(sim)
    fine_tune(sim, FEEDS)
    after = encodings(sim)
    changed = {t for t in ("x", "r") if before[t] != after[t]}
    assert bool(changed) == learned
    assert all(sim.quantizer(tensor).is_encoding_frozen() for tensor in changed)
    assert before["y"] == after["y"]


def test_the_exported_files_hold_the_result(tmp_path: Path) -> None:
    sim = ready(default_param_bw=4)
    fine_tune(sim, FEEDS, AdaRound(**FAST))
    sim.export(tmp_path, "tuned")
    again = QuantizationSimModel(tmp_path / "tuned.onnx", default_param_bw=4, threads=1)
    assert load_encodings_to_sim(again, tmp_path / "tuned.encodings") == []
    np.testing.assert_array_equal(output(again), output(sim))
    for tensor in ("w", "v"):
        np.testing.assert_array_equal(again.plan.codes[tensor].codes, sim.plan.codes[tensor].codes)


def test_what_was_tuned_outlives_another_calibration() -> None:
    sim = ready(default_param_bw=4)
    fine_tune(sim, FEEDS, AdaRound(**FAST))
    before = encodings(sim)
    sim.quantizer("y").use_symmetric_encodings = True
    sim.compute_encodings(FEEDS)
    assert encodings(sim)["w"] == before["w"]
    assert encodings(sim)["y"] != before["y"]


def test_a_time_limit_leaves_layers_as_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = count(0.0, 10.0)
    monkeypatch.setattr("quark_onnx.engine.tuning_pace.perf_counter", lambda: next(seconds))
    whole, part = ready(default_param_bw=4), ready(default_param_bw=4)
    names = [record.node for record in fine_tune(whole, FEEDS, AdaRound(**FAST))]
    assert not caplog.messages
    assert [record.node for record in fine_tune(part, FEEDS, AdaRound(**FAST, time_limit=15))] == names[:1]
    assert f"no time is left after 1 of 2 layers, {names[1]!r} would take about" in caplog.text
    assert [sim.quantizer("w").is_encoding_frozen() for sim in (whole, part)] == [True, True]
    assert [sim.quantizer("v").is_encoding_frozen() for sim in (whole, part)] == [True, False]


def test_options_of_no_method_are_refused_and_nothing_changes() -> None:
    sim = ready()
    before, weights = encodings(sim), io.fingerprint(sim.float_model)
    with pytest.raises(ConfigError, match="an AdaRound, an AdaQuant or a RangeLearning"):
        fine_tune(sim, FEEDS, "adaround")  # type: ignore[arg-type]
    assert (encodings(sim), io.fingerprint(sim.float_model)) == (before, weights)
