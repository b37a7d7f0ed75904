"""What proves a model has taught it nothing: not its ranges, its weights, its types; and every report says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import done
from simulations import model

from quark_onnx import ModelQuantizer, get_default_config
from quark_onnx.core.settings.config import QuantizationConfig
from quark_onnx.core.settings.fast_finetune import AdaRound
from quark_onnx.report.build import Measure, report_of
from quark_onnx.report.pages import write_report

LOUD = 1000.0
"""Far beyond what all others reach: a range that was learned of it would show."""

NOTHING = Measure(layers=False, latency=False, memory=False)

Feeds = list[dict[str, np.ndarray]]


def drawn(count: int) -> Feeds:
    return [{"x": np.random.default_rng(i).standard_normal((1, 4, 8, 8), np.float32)} for i in range(count)]


def tuned(**options: Any) -> QuantizationConfig:
    base = get_default_config("S8S8_AAWS")
    tuning = AdaRound(num_iterations=5, **options)
    return replace(base, include_fast_ft=True, extra_options={**base.extra_options, "FastFinetune": tuning})


CONFIGS = {
    "int8": get_default_config("S8S8_AAWS"),
    "equalized": get_default_config("XINT8"),
    "tuned": tuned(),
    "selective": tuned(selective_update=True),
    "mixed": get_default_config("S16S16_MIXED_S8S8"),
    "float16": get_default_config("FP16"),
    "averaged": replace(
        get_default_config("A8W8"), calibrate_method="MinMax", extra_options={"CalibMovingAverage": True}
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_nothing_is_learned_of_the_probes(name: str) -> None:
    """The plan is the same whatever they hold."""
    data, config = drawn(20), CONFIGS[name]
    first = ModelQuantizer(config).quantize_model(model(), None, data)
    loud = [{"x": LOUD * feed["x"]} if i in (2, 7, 12, 17) else feed for i, feed in enumerate(data)]
    second = ModelQuantizer(config).quantize_model(model(), None, loud)
    assert first.model.SerializeToString() == second.model.SerializeToString()
    report = second.report
    assert (report.samples, report.probes, report.judged) == (16, "held out", 4)
    assert [float(np.abs(feed["x"]).max()) > 100 for feed in second.evidence.feeds] == [True] * 4
    if name != "float16":
        assert second.report.sqnr["y"] < first.report.sqnr["y"]


def test_of_few_samples_the_same_prove() -> None:
    report = ModelQuantizer(CONFIGS["int8"]).quantize_model(model(), None, drawn(19)).report
    assert (report.samples, report.probes, report.judged) == (19, "calibration", 16)
    report = ModelQuantizer(get_default_config("UINT8_DYNAMIC_QUANT")).quantize_model(model(), None).report
    assert (report.samples, report.probes, report.judged) == (0, "", 0)


def test_a_limit_is_kept_where_there_are_more_samples() -> None:
    """The user gets the calibration that was asked for, and a proof on others."""
    config = replace(CONFIGS["int8"], extra_options={"CalibDataSize": 24})
    some = ModelQuantizer(config).quantize_model(model(), None, drawn(60))
    assert (some.report.samples, some.report.probes, some.report.judged) == (24, "held out", 16)
    once = ModelQuantizer(config).quantize_model(model(), None, iter(drawn(60)))
    assert (once.report.samples, once.report.judged) == (20, 4)


def test_plan_resume_cache_and_apply(tmp_path: Path) -> None:
    """All of them hold out the same samples; what a plan to go on from has seen is not known."""
    config, file, cache = CONFIGS["int8"], tmp_path / "m.onnx", tmp_path / "c.npz"
    onnx.save(model(), file)
    data = drawn(30)
    first = ModelQuantizer(config).quantize_model(file, None, data, calibration_cache=cache)
    written = cache.read_bytes()
    again = ModelQuantizer(config).quantize_model(file, None, data, calibration_cache=cache)
    assert cache.read_bytes() == written
    resumed = ModelQuantizer(config).quantize_model(file, None, data, resume=first.plan)
    assert first.report.sqnr == again.report.sqnr == resumed.report.sqnr
    assert (again.report.probes, resumed.report.probes) == ("held out", "held out of this run")
    few = ModelQuantizer(config).quantize_model(file, None, data[:8], resume=first.plan)
    assert few.report.probes == "calibration"
    np.savez(tmp_path / "d.npz", x=np.concatenate([feed["x"] for feed in data]))
    done("plan", file, "-o", tmp_path / "plan", "--data", tmp_path / "d.npz", "--preset", "S8S8_AAWS")
    done("apply", file, tmp_path / "plan", "-o", tmp_path / "o.onnx")
    assert (tmp_path / "o.onnx").read_bytes() == first.model.SerializeToString()


def test_texts_and_pages_say_it(tmp_path: Path) -> None:
    file, out = tmp_path / "m.onnx", tmp_path / "o.onnx"
    onnx.save(model(), file)
    for count, text, page in ((20, "4 others", "16 samples, judged on 4 others"), (8, "the same samples", "8 samples")):
        np.savez(tmp_path / "d.npz", x=np.concatenate([feed["x"] for feed in drawn(count)]))
        flags = ("quantize", file, "-o", out, "--data", tmp_path / "d.npz", "--preset", "S8S8_AAWS")
        assert f"Judged on {text} Run in onnxruntime 1." in " ".join(done(*flags).split())
        found = json.loads(done(*flags, "--json"))
        assert (found["probes"], found["judged"]) == (("held out", 4) if count == 20 else ("calibration", 8))
        result = ModelQuantizer(CONFIGS["int8"]).quantize_model(file, None, drawn(count))
        report = report_of(result, CONFIGS["int8"], file, "m", measure=NOTHING)
        write_report(report, tmp_path / "page.html")
        assert page in (tmp_path / "page.html").read_text("utf-8")
        [few] = [advice for advice in report.advice if advice.rule == "few_samples"]
        assert ("which the figures here are of" in few.text) == (count == 8)
